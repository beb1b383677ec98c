"""Runs commands in forked processes and lets one of their file operations fail.

A line of standard input is a request {"words", "root", "watched", "fatal", "kind", "output"}, and a
line of standard output its answer {"code", "operations"}. Operations on paths that begin with
`watched` are counted; the one with the number `fatal` fails as `kind` says: "kill", or the name of
an errno. A full disk stays full.
"""

import json
import os
import sys
from pathlib import Path

import pyarrow.parquet  # noqa: F401 - watched
import torch
from file_faults import Faults

import calotype.interop.imagen_pytorch
import calotype.tasks.chosen_ema
import calotype.training.run
from calotype.cli import run


def convert(out: str) -> int:
    """The writer of `calotype convert` for imagen-pytorch, whose reader starts a process."""
    torch.manual_seed(len(out))
    unet = calotype.interop.imagen_pytorch.Unet(dim=8, dim_mults=(1,), cond_on_text=False)
    calotype.interop.imagen_pytorch.save(unet, out)
    return 0


def child(request: dict) -> None:
    """One command, to its end."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(request["root"])
    faults = Faults(request["watched"], request["fatal"], request["kind"])
    faults.install()
    words = request["words"]
    if words[0] == "convert-imagen":
        code = run_plain(words[1])
    else:
        code = run(words)
    sys.stdout.flush()
    sys.stderr.flush()
    faults.busy = True
    Path(request["output"] + ".count").write_text(str(faults.count))
    os._exit(code)


def run_plain(out: str) -> int:
    """`convert` with errors told as the command line tells them."""
    from calotype.cli import _explain, _fail

    try:
        return convert(out)
    except Exception as error:
        return _fail(*_explain(error))


def main() -> None:
    """Serve until standard input ends."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        number = os.fork()
        if number == 0:
            try:
                child(request)
            finally:
                os._exit(99)
        _, status = os.waitpid(number, 0)
        count = Path(request["output"] + ".count")
        operations = int(count.read_text()) if count.is_file() else 0
        count.unlink(missing_ok=True)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "operations": operations}))
        sys.stdout.flush()


main()
