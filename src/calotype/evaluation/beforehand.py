"""What is refused before anything is sampled: small sets, weights and programs that are not there.

Sampling may take days; what can be known before is not found out after it.
"""

from __future__ import annotations

from calotype.data.looks import imagehash
from calotype.errors import UsageError
from calotype.evaluation.features.extractor import CaptionExtractor
from calotype.evaluation.metrics.lpips import load_lpips
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.reference import check_images
from calotype.evaluation.scorers import check_program
from calotype.storage.files import make_folder

LEAST_SAMPLES = 2
LEAST_COMPARED = 4
"""Samples: recall asks for the third-nearest other one of each."""
LEAST_REAL = 6
"""Real images: density and coverage ask for the fifth-nearest other one."""
LEAST_TRAINING = 2


def check_count(count: int, options: MeasureOptions) -> None:
    """Refuse a set of so few samples that it cannot be measured.

    Raises:
        UsageError: there are too few.
    """
    least = LEAST_SAMPLES if options.reference is None else LEAST_COMPARED
    if count < least:
        what = "" if options.reference is None else " to be compared with real images"
        raise UsageError(
            f"got a set of {count}; expected at least {least} samples{what}: take more prompts, or "
            "more images of each with -n"
        )


def check_measurable(options: MeasureOptions) -> None:
    """Load what features are made with, and look for images and programs.

    Raises:
        UsageError: something is not there, or is not what is needed.
        CalotypeError: weights are damaged, or the folder of features cannot be made.
    """
    if options.reference is not None:
        check_images(options.reference, least=LEAST_REAL, side=options.side, which=options.which)
    if options.training is not None:
        check_images(options.training, least=LEAST_TRAINING, side=options.side)
        imagehash()
    if options.alexnet is not None:
        load_lpips(options.alexnet)
    for scorer in options.scorers:
        check_program(scorer)
    make_folder(options.root)
    for spec in options.extractors:
        spec.load()
    for _, spec in options.clips:
        clip = spec.load()
        if not isinstance(clip, CaptionExtractor):
            raise UsageError(f"got {clip.name} to score captions with; expected a CLIP")
