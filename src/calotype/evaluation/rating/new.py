"""Making a study: sets of samples become blind images and a plan of trials, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from calotype import __version__
from calotype.errors import UsageError
from calotype.evaluation.rating.blind import BlindImages
from calotype.evaluation.rating.sides import Gallery, Source
from calotype.evaluation.rating.sources import common_prompts, opened_sources, side_of
from calotype.evaluation.rating.study import FILE, Study, study_bytes
from calotype.evaluation.rating.trials import make_trials
from calotype.evaluation.rating.wanted import CONSENT, Wanted, check_wanted
from calotype.storage.files import new_folder


def create_study(folder: Path, wanted: Wanted) -> Study:
    """Make the folder of a study.

    Raises:
        UsageError: the sets do not fit together or the protocol, or the folder is in use.
        CalotypeError: it cannot be written.
    """
    protocol = check_wanted(wanted)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty; expected a new folder for the study")
    with opened_sources(wanted) as sources, new_folder(folder) as temporary:
        prompts = common_prompts(sources, wanted)
        images = BlindImages(temporary)
        count = protocol.images if wanted.images is None else wanted.images
        side = side_of(sources, wanted.size)
        galleries = {
            source.name: Gallery(source, images, side=side, count=count) for source in sources
        }
        trials = make_trials(protocol, prompts, galleries, wanted.seed)
        raters = protocol.raters if wanted.raters is None else wanted.raters
        study = Study(
            protocol=protocol.name,
            title=wanted.title,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            calotype=__version__,
            seed=wanted.seed,
            raters=raters,
            per_rater=wanted.per_rater,
            images_per_side=count,
            side_pixels=side,
            condition=_condition(sources),
            stopping_rule=f"ends by itself once {raters} raters who pass their control trials "
            "have answered each trial; ended by hand before, it names no winner",
            consent=CONSENT if wanted.consent is None else wanted.consent,
            sets=tuple(gallery.facts for gallery in galleries.values()),
            trials=tuple(trials),
            images=tuple(images.images),
        )
        (temporary / FILE).write_bytes(study_bytes(study))
    return study


def _condition(sources: Sequence[Source]) -> str:
    """Re-ranking and transforms in words, for the report."""
    ranked = [
        f"{source.name} (best of {source.best_of.count} by {source.best_of.scorer})"
        for source in sources
        if source.best_of is not None
    ]
    changed = [f"{source.name} ({source.transform})" for source in sources if source.transform]
    words = f"re-ranked: {', '.join(ranked)}" if ranked else "no re-ranking"
    return words + (f"; transformed: {', '.join(changed)}" if changed else "")
