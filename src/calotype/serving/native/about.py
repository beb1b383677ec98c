"""What the server can do, and how it is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from calotype import __version__
from calotype.emoji.captions import BACKGROUND_COLOURS, STYLES
from calotype.serving import job
from calotype.serving.front.context import hub_of, owner_of
from calotype.serving.front.decoding import MOST_PIXELS
from calotype.serving.front.engine import Engine
from calotype.serving.front.hub import Hub
from calotype.serving.front.uploads import MOST_BYTES
from calotype.serving.native.shapes import ROOT

router = APIRouter(prefix=ROOT)


@router.get("/capabilities")
async def capabilities(request: Request) -> dict[str, Any]:
    """Models with their stages and settings, what captions may say, and limits of a request."""
    hub = hub_of(request)
    models = models_of(hub)
    embedded = not hub.settings.models  # the model whose captions are known
    return {
        "models": models,
        "sizes": _sizes(models[0]) if models else [],
        "samplers": list(dict.fromkeys(name for one in models for name in one["samplers"])),
        "styles": list(STYLES) if embedded else [],
        "backgrounds": [
            {"name": name, "rgb": list(rgb)} for name, rgb in BACKGROUND_COLOURS.items() if embedded
        ],
        "formats": ["png", "jpeg", "webp"],
        "limits": {
            "prompt": job.MOST_PROMPT,
            "n": job.MOST_IMAGES,
            "steps": job.MOST_STEPS,
            "side": [job.LEAST_SIDE, job.MOST_SIDE],
            "seed_text": str(job.MOST_SEED),
            "random_seed": job.MOST_RANDOM_SEED,
            "upload_bytes": MOST_BYTES,
            "upload_pixels": MOST_PIXELS,
            "waiting": hub.settings.most_waiting,
            "waiting_of_client": hub.settings.most_of_client,
        },
        "keys": owner_of(request).key_name is not None,
    }


@router.get("/status")
async def status(request: Request) -> dict[str, Any]:
    """Engines, queue and store."""
    hub = hub_of(request)
    engines = [_engine(one) for one in hub.work.engines]
    return {
        "version": __version__,
        "engine": engines[0] if engines else None,
        "engines": engines,
        "queue": {
            "waiting": hub.work.waiting,
            "active": hub.work.active,
            "capacity": hub.settings.most_waiting,
        },
        "draining": hub.is_draining,
        "kept": hub.settings.keep,
        "keeping": hub.settings.keep != "none" and _store(hub) == "open",
        "store": _store(hub),
    }


def _store(hub: Hub) -> str:
    """How it is: open, failing, unopened (its disk was full at the start), or none."""
    if hub.store is not None:
        return "open" if hub.store.is_keeping else "failing"
    return "none" if hub.settings.data is None else "unopened"


def models_of(hub: Hub) -> list[dict[str, Any]]:
    """The models as an engine told them; none before the first is ready."""
    return next((one.about["models"] for one in hub.work.engines if one.about), [])


def _engine(engine: Engine) -> dict[str, Any]:
    facts = {"name": engine.name, "pid": engine.pid, "state": engine.state}
    about = {name: engine.about.get(name) for name in ("device", "dtype")}
    return {**facts, "restarts": engine.restarts, **about}


def _sizes(model: dict[str, Any]) -> list[int]:
    """What its stages make, and halves of that that no smaller stage makes."""
    found: list[int] = []
    for stage in model["stages"]:
        side = stage["resolution"]
        halved = found and side // 2 > found[-1] and side // 2 >= job.LEAST_SIDE
        found += [side // 2, side] if halved else [side]
    return found
