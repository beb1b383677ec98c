"""What clients ask before they show anything: models, samplers, options, and what we lack."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from calotype.serving.front.context import owner_of
from calotype.serving.sdapi.desk import desk_of, served
from calotype.serving.sdapi.ignored import header_of
from calotype.serving.sdapi.meaning import CHECKPOINT
from calotype.serving.sdapi.samplers import told_samplers
from calotype.serving.sdapi.shapes import ERRORS

router = APIRouter(prefix="/sdapi/v1", responses=ERRORS)
OWN_UPSCALER = "calotype"
"""The upscaler that is the model."""
PLAIN_UPSCALERS = ("None", "Lanczos", "Nearest")
_LACKED: dict[str, Any] = {
    "latent-upscale-modes": [],
    "sd-vae": [],
    "loras": [],
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "prompt-styles": [],
    "embeddings": {"loaded": {}, "skipped": {}},
    "scripts": {"txt2img": [], "img2img": []},
    "script-info": [],
}
_FLAGS = {"api": True, "listen": False, "share": False, "nowebui": False, "lowvram": False}
_OPTIONS = {
    "sd_checkpoint_hash": "",
    "sd_vae": "Automatic",
    "samples_format": "png",
    "samples_save": False,
    "grid_save": False,
    "enable_pnginfo": True,
    "live_previews_enable": True,
    "live_previews_image_format": "png",
    "CLIP_stop_at_last_layers": 1,
    "eta_noise_seed_delta": 0,
}


class Options(BaseModel):
    """Options that are to change; of all of them one does something here."""

    model_config = ConfigDict(extra="allow", frozen=True)
    sd_model_checkpoint: str | None = None


def _always(answer: Any) -> Callable[[], Any]:
    async def route() -> Any:
        return answer

    return route


for _name, _answer in {**_LACKED, "cmd-flags": _FLAGS}.items():
    router.add_api_route(f"/{_name}", _always(_answer), methods=["GET"], name=_name)
for _name in ("refresh-checkpoints", "refresh-vae", "refresh-loras", "refresh-embeddings"):
    router.add_api_route(f"/{_name}", _always(None), methods=["POST"], name=_name)


@router.get("/options")
async def options(request: Request) -> dict[str, Any]:
    """Options; the whole answer may be sent back."""
    return {CHECKPOINT: served(request).model(None)["name"], **_OPTIONS}


@router.post("/options", response_model=None)
async def set_options(request: Request, changed: Options) -> Response:
    """Choose the model that this client's requests mean from now on."""
    if changed.sd_model_checkpoint:
        model = served(request).model(changed.sd_model_checkpoint)
        desk_of(request).choose(owner_of(request), model["name"])
    others = changed.model_extra or {}
    without = [name for name in others if others[name] != _OPTIONS.get(name, object())]
    return JSONResponse(None, headers=header_of(without))


@router.get("/sd-models")
async def sd_models(request: Request) -> list[dict[str, Any]]:
    """The models that are served, the default first."""
    unknown = dict.fromkeys(("hash", "sha256", "config"))
    names = [model["name"] for model in served(request).models]
    return [{"title": one, "model_name": one, "filename": one, **unknown} for one in names]


@router.get("/samplers")
async def samplers(request: Request) -> list[dict[str, Any]]:
    """The samplers of the client's model, its own first."""
    return told_samplers(served(request).model(None)["samplers"])


@router.get("/schedulers")
async def schedulers() -> list[dict[str, Any]]:
    """A model samples at the levels that it was made for."""
    told = {"name": "automatic", "label": "Automatic", "aliases": None}
    return [{**told, "default_rho": -1, "need_inner_model": False}]


@router.get("/upscalers")
async def upscalers() -> list[dict[str, Any]]:
    """Plain ones, and the model."""
    unknown = dict.fromkeys(("model_name", "model_path", "model_url"))
    return [{"name": one, **unknown, "scale": 4} for one in (*PLAIN_UPSCALERS, OWN_UPSCALER)]


@router.get("/memory")
async def memory() -> dict[str, Any]:
    """Memory of the machine, in bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    ram = {"free": free, "used": total - free, "total": total}
    return {"ram": ram, "cuda": {"error": "not known"}}
