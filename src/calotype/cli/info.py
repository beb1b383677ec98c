"""`calotype info`: what a recipe, a cascade, an image or this machine is."""

from __future__ import annotations

import difflib
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from calotype import __version__
from calotype.cli.options import Json
from calotype.cli.visible import visible
from calotype.errors import CalotypeError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from calotype.config.classifier import ClassifierConfig, ClassifierTraining
    from calotype.config.clip import ClipConfig, ClipTraining
    from calotype.config.diffusion import DiffusionTraining
    from calotype.config.stage import StageConfig

_EXTRAS = {
    "data": ("pyarrow", "pyvips", "imagehash", "matplotlib"),
    "train": ("pyarrow", "tensorboard", "jinja2", "matplotlib"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "interop": ("transformers",),
    "ray": ("ray", "pyarrow"),
    "evaluate": ("pyarrow", "torchmetrics", "scipy", "matplotlib", "jinja2"),
    "rate": ("starlette", "uvicorn", "jinja2", "choix", "krippendorff", "statsmodels"),
    "serve": ("fastapi", "uvicorn", "pydantic", "greenlet", "structlog", "prometheus_client"),
    "serve-ray": ("ray", "fastapi"),
    "c2pa": ("c2pa", "cryptography"),
    "otel": ("opentelemetry",),
}


def info(
    name_or_path: Annotated[
        str | None,
        Argument(help="A recipe, 'default', a cascade folder, run or image; none: this machine."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe a recipe, a cascade, an image or this machine."""
    facts = _machine() if name_or_path is None else _describe(name_or_path)
    card = facts.pop("card", None)
    if as_json:
        print(json.dumps(facts))
        return
    _print_facts(facts, "")
    if card is not None:
        print()
        for line in card.split("\n"):
            print(visible(line.rstrip("\r")))


def _describe(name: str) -> dict[str, Any]:
    from calotype.training.recipes import load_recipe, recipe_names

    path = Path(name)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):
        is_file = is_folder = False
    if is_file and path.name in ("cascade.json", "stage.json"):
        return _cascade(str(path.parent))
    if name in recipe_names() or (is_file and path.suffix.lower() == ".json"):
        recipe = load_recipe(name)
        return {
            "kind": "recipe",
            "name": recipe.name,
            "note": recipe.note,
            "text_encoder": getattr(recipe.stages[0], "text_encoder", "none"),
            "stages": [_trained(config) for config in recipe.stages],
        }
    if is_file:
        from calotype.cascade.png import read_recipe

        return read_recipe(path)
    if is_folder:
        from calotype.vision.classifier import classifier_in
        from calotype.vision.clip import clip_in

        classifier, clip = classifier_in(path), clip_in(path)
        if classifier is not None:
            return _classifier_folder(classifier)
        return _cascade(name) if clip is None else _clip_folder(clip)
    if name == "default":
        return _cascade(name)
    close = difflib.get_close_matches(name[:200], (*recipe_names(), "default"), 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(
        f"got {name!r:.200}; expected an image, a cascade folder, a run, 'default' or one of the "
        f"recipes {', '.join(recipe_names())}{hint}"
    )


def _clip_folder(folder: Path) -> dict[str, Any]:
    from calotype.vision.clip import CARD_FILE, read_clip_file

    file = read_clip_file(folder)
    facts = {"kind": "clip", "name": file.name, "text_encoder": file.text_encoder}
    return {**facts, "sha256": file.sha256, **_clip(file.clip), **_card(folder / CARD_FILE)}


def _classifier_folder(folder: Path) -> dict[str, Any]:
    from calotype.vision.classifier import read_classifier_file

    file = read_classifier_file(folder)
    facts = {"kind": "classifier", "name": file.name, "sha256": file.sha256}
    return {**facts, **_classifier(file.classifier)}


def _cascade(name: str) -> dict[str, Any]:
    from calotype.cascade.find import open_cascade

    opened = open_cascade(name)
    config, file = opened.config, opened.file
    return {
        "kind": "cascade",
        "name": config.name,
        "text_encoder": file.encoder_id,
        **({"classes": list(config.classes)} if config.classes else {}),
        "stages": [
            {**_stage(stage), "sha256": entry.sha256}
            for stage, entry in zip(config.stages, file.stages, strict=True)
        ],
        **_card(opened.path / "README.md"),
    }


def _card(file: Path) -> dict[str, str]:
    return {"card": file.read_text("utf-8", "replace")} if file.is_file() else {}


def _trained(config: DiffusionTraining | ClipTraining | ClassifierTraining) -> dict[str, Any]:
    if config.kind == "classifier":
        return _classifier(config.classifier)
    return _clip(config.clip) if config.kind == "clip" else _stage(config.stage)


def _classifier(config: ClassifierConfig) -> dict[str, Any]:
    from calotype.config.typed_json import to_dict
    from calotype.networks.classifier import Classifier

    return {"parameters": _parameters(lambda: Classifier(config)), **to_dict(config)}


def _clip(config: ClipConfig) -> dict[str, Any]:
    from calotype.config.typed_json import to_dict
    from calotype.networks.clip import Clip

    return {"parameters": _parameters(lambda: Clip(config)), **to_dict(config)}


def _stage(config: StageConfig) -> dict[str, Any]:
    from calotype.cascade.stage import Stage
    from calotype.config.typed_json import to_dict

    plain = to_dict(config)
    return {
        "resolution": config.resolution,
        "lowres_resolution": config.lowres_resolution,
        "parameters": _parameters(lambda: Stage(config)),
        "parametrization": config.parametrization,
        "schedule": plain["schedule"],
        "network": config.network.kind,
        "draft": None if config.draft is None else to_dict(config.draft),
        "sampling": plain["sampling"],
    }


def _parameters(make: Callable[[], nn.Module]) -> int:
    """How many a module has, counted without making them."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())


def _machine() -> dict[str, Any]:
    import torch

    from calotype.cascade.find import find_cascade
    from calotype.runtime import (
        DTYPES,
        bfloat16_features,
        bfloat16_gain,
        choose_runtime,
        cpu_model,
        usable_threads,
    )
    from calotype.tasks.cost import known_peak_flops

    runtime = choose_runtime()
    torch.set_num_threads(runtime.threads)  # the peak depends on them
    peak = known_peak_flops(runtime.device, DTYPES[runtime.dtype])
    features = bfloat16_features()
    threads = usable_threads()
    try:
        default = str(find_cascade("default").name)
    except CalotypeError:
        default = "not installed"
    return {
        "kind": "machine",
        "calotype": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "bfloat16": features,
        "bfloat16_gain": round(bfloat16_gain(threads), 2) if any(features.values()) else None,
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "mps": torch.backends.mps.is_available(),
        "chosen": runtime.to_dict(),
        "peak_gflops": None if peak is None else round(peak / 1e9, 1),  # as the first run measured
        "embedded_weights": default,
        "extras": {name: _missing(packages) for name, packages in _EXTRAS.items()},
    }


def _missing(packages: Sequence[str]) -> str:
    lacking = [package for package in packages if find_spec(package) is None]
    return f"lacks {', '.join(lacking)}" if lacking else "installed"


def _print_facts(facts: dict[str, Any], indent: str) -> None:
    for key, value in facts.items():
        name = f"{indent}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            print(f"{name}:")
            _print_facts(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                print(f"{name}:")
                _print_facts(item, f"{indent}  ")
        elif isinstance(value, int) and not isinstance(value, bool) and key == "parameters":
            print(f"{name}: {value:,}")
        else:
            print(f"{name}: {visible(str(value))}")
    sys.stdout.flush()
