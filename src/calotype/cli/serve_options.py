"""Options of `calotype serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

Host = Annotated[str, Option(help="Address to listen at; others than this machine's need keys.")]
Port = Annotated[int, Option(help="Port; 0 takes a free one.")]
OpenPage = Annotated[bool, Option("--open", help="Open the page in a browser.")]
Model = Annotated[
    list[str] | None,
    Option(
        help="NAME=FOLDER[+LORA.safetensors:0.8], a cascade and the name clients call it by; "
        "the first is the default. Repeat it. The embedded one as 'default' if not given."
    ),
]
Data = Annotated[
    Path | None,
    Option(help="Folder for images and keys; in the user's data folder if not given."),
]
Keep = Annotated[str, Option(help="Images kept on disk: page, all or none.")]
KeepBytes = Annotated[
    str | None, Option(help="Most of them, as 20G; the oldest that are no favourites go.")
]
MaxBatch = Annotated[int | None, Option(help="Images of one network call at most.")]
Memory = Annotated[
    str | None, Option(help="That loaded models may take, as 8G; the least used go.")
]
IdleUnload = Annotated[
    float | None, Option(help="Seconds after which a model that nobody uses goes.")
]
Drain = Annotated[float, Option(help="Seconds that running work has after SIGTERM.")]
StepTimeout = Annotated[
    float, Option(help="Seconds without a sign of a working engine until it is restarted.")
]
Deadline = Annotated[float, Option(help="Seconds that a job may run.")]
NewKey = Annotated[
    str | None, Option(metavar="NAME", help="Print a new key of that name, this once, and end.")
]
DeleteKey = Annotated[str | None, Option(metavar="NAME", help="Forget that key, and end.")]
ListKeys = Annotated[bool, Option("--list-keys", help="Print the names of the keys, and end.")]
CorsOrigin = Annotated[
    list[str] | None, Option(help="Site whose pages may use the APIs. Repeat it.")
]
AllowedHost = Annotated[list[str] | None, Option(help="Further name of this server. Repeat it.")]
PublicUrl = Annotated[
    str | None, Option(help="By which clients reach it, as https://images.example.org.")
]
Cfg = Annotated[str, Option(help="How cfg_scale of AUTOMATIC1111's API is read: linear or exact.")]
Metadata = Annotated[
    bool, Option("--metadata/--no-metadata", help="Write into images how they were made.")
]
C2paCert = Annotated[Path | None, Option(help="Certificates to sign images with.")]
C2paKey = Annotated[Path | None, Option(help="Their private key.")]
LogPrompts = Annotated[bool, Option("--log-prompts", help="Log captions, too.")]
Ray = Annotated[
    str | None,
    Option(
        help="Compute on Ray (calotype[serve-ray]): a cluster's host:port, 'local' for one here, "
        "or nothing for the Ray that runs.",
        metavar="[ADDRESS]",
    ),
]
Replicas = Annotated[
    str | None, Option(help="With --ray: least and most engines, as 1:4; one if not given.")
]
GpusPerReplica = Annotated[
    float | None,
    Option(help="With --ray: GPUs of each engine, a fraction lets engines share one, e.g. 0.5."),
]
