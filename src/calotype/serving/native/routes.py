"""All routes of the native API."""

from __future__ import annotations

from fastapi import APIRouter

from calotype.serving.front.errors import FAILURES
from calotype.serving.native import about, images, jobs, recipes

router = APIRouter(responses=FAILURES)
for part in (jobs.router, images.router, recipes.router, about.router):
    router.include_router(part)
