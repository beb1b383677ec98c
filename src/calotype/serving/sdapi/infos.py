"""The `info` of an answer: a text of JSON with everything that clients of theirs look for in it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from calotype import __version__
from calotype.cascade.provenance import parameters_text
from calotype.serving.front.jobs import Job, JobImage
from calotype.serving.sdapi.fields import Call
from calotype.serving.sdapi.meaning import Meaning


def info_text(call: Call, meant: Meaning, job: Job, images: Sequence[JobImage]) -> str:
    """The text; its lists have an entry for each image that there is.

    Prompt, steps and scale are as the client has said them. `infotexts` are what the files say of
    themselves: the numbers that the model was run with.
    """
    seeds = [image.seed for image in images]
    first = images[0] if images else None
    width, height = job.plan["size"] if first is None else (first.width, first.height)
    prompt, negative = call.prompt or meant.request.prompt, call.negative_prompt or ""
    info: dict[str, Any] = {
        "prompt": prompt,
        "all_prompts": [prompt] * len(images),
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * len(images),
        "seed": seeds[0] if seeds else job.images[0].seed,
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1] * len(images),
        "subseed_strength": 0,
        "width": width,
        "height": height,
        "sampler_name": meant.sampler,
        "cfg_scale": meant.cfg_scale,
        "steps": meant.steps,
        "batch_size": call.batch_size or 1,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": meant.model,
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": meant.request.strength,
        "extra_generation_params": meant.notes,
        "index_of_first_image": 0,
        "infotexts": [parameters_text(image.recipe or {}) for image in images],
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(job.created)),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"calotype {__version__}",
    }
    return json.dumps(info)
