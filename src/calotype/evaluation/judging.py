"""Whether samples show what was asked for: by a CLIP, by other programs, by a suite's own rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from calotype.evaluation.features.extractor import CaptionExtractor, ExtractorSpec
from calotype.evaluation.features.store import caption_features
from calotype.evaluation.metrics.alignment import Captions, caption_ranks, clip_scores
from calotype.evaluation.metrics.intervals import clustered_fraction
from calotype.evaluation.metrics.rows import Features
from calotype.evaluation.results import CHECKED, NO_JUDGE, number_of
from calotype.evaluation.rows import Found, Rows, add_mean, as_floats
from calotype.evaluation.samples import Manifest, SampleSet
from calotype.evaluation.suites.suite import Prompt, Suite
from calotype.vision.clip import find_clip, read_clip_file

CLIP_SCORE, R_PRECISION = "CLIP score", "R-precision"
Check = Callable[[Tensor, Prompt], bool | None]
"""Whether a sample, uint8 (3, H, W), shows what its prompt asks for; None = people have to say."""


def add_alignment(
    found: Found,
    images: Features,
    rows: Rows,
    captions: Mapping[str, Tensor],
    *,
    facts: dict[str, Any],
    whose: str = "",
) -> None:
    """CLIP score and R-precision.

    Args:
        found: what is added to.
        images: embeddings of the samples, (N, E).
        rows: of the samples.
        captions: embeddings, (E,), of every caption of the suite.
        facts: what both numbers say of themselves: features, side, notes.
        whose: begins the numbers' names, e.g. "judge's ".
    """
    own = [sample.caption for sample in rows.samples]
    scores = clip_scores(images, torch.stack([captions[caption] for caption in own]))
    add_mean(found, rows, f"{whose}{CLIP_SCORE}", scores, **facts)
    if len(captions) > 1:
        among = Captions(tuple(captions), torch.stack(list(captions.values())))
        ranks = caption_ranks(images, own, among)
        facts["notes"] = (*facts["notes"], f"among {ranks.others} other captions")
        add_mean(found, rows, f"{whose}{R_PRECISION}", ranks.first.double(), fraction=True, **facts)


def caption_embeddings(
    suite: Suite, extractor: CaptionExtractor, **options: Any
) -> dict[str, Tensor]:
    """The embedding of every caption of a suite; `options` are those of `caption_features`."""
    texts = list(dict.fromkeys(suite.captions))
    embeddings = torch.cat(list(caption_features(texts, extractor, **options)))
    return dict(zip(texts, embeddings, strict=True))


def marks_of_judge(manifest: Manifest, spec: ExtractorSpec) -> tuple[str, ...]:
    """Marks where the same CLIP chose or guided the images: its score is no judge of them."""
    recipe = manifest.recipe or {}
    best, guides = recipe.get("best_of"), recipe.get("guides")
    if not isinstance(best, Mapping) and not isinstance(guides, list):
        return ()
    weights, marks = read_clip_file(find_clip(spec.weights)).sha256, []
    if isinstance(best, Mapping) and best.get("clip_sha256") == weights:
        marks.append(f"{NO_JUDGE}: it chose each image among {best.get('count')}")
    for guide in guides if isinstance(guides, list) else ():
        if isinstance(guide, Mapping) and guide.get("sha256") == weights:
            marks.append(f"{NO_JUDGE}: it guided the images, with scale {guide.get('scale')}")
    return tuple(marks)


def add_checks(
    found: Found, samples: SampleSet, rows: Rows, checks: Mapping[str, Check]
) -> dict[str, str]:
    """What the suite's own rules say of each sample, by category.

    Args:
        found: what is added to.
        samples: the set.
        rows: of it.
        checks: by category.

    Returns:
        Categories that are left to people, and why.
    """
    prompts = {prompt.id: prompt for prompt in samples.suite.prompts}
    said: list[float | None] = []
    for number, sample in enumerate(rows.samples):
        check = checks.get(sample.category or "")
        answer = None
        if check is not None:
            answer = check(samples.pixels([number])[0], prompts[sample.prompt])
        said.append(None if answer is None else float(answer))
    found.add_scores(CHECKED, as_floats(said))
    left = {}
    for category, members in rows.by_category():
        judged = [row for row in members if said[row] is not None]
        if not judged:
            left[category] = "no check of it is sure enough: people have to say"
            continue
        hits = torch.tensor([said[row] == 1 for row in judged])
        notes = (f"{len(members) - len(judged)} not judged",) * (len(judged) < len(members))
        estimate = clustered_fraction(hits, rows.prompts_of(judged))
        facts: dict[str, Any] = {"higher_is_better": True, "group": category, "notes": notes}
        found.numbers.append(number_of(estimate, CHECKED, **facts))
    return left
