"""All routes of the native API."""

from __future__ import annotations

from fastapi import APIRouter

from calotype.serving.native import about, images, jobs, recipes
from calotype.serving.native.shapes import ROOT

router = APIRouter(prefix=ROOT)
for part in (jobs.router, images.router, recipes.router, about.router):
    router.include_router(part)
