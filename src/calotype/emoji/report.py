"""The words of a model card around its figures. Nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from calotype.emoji.editing_results import editing_tables
from calotype.emoji.measure import Measurements
from calotype.emoji.naming import Naming
from calotype.emoji.provenance import (
    data_section,
    learning_curves,
    limits_section,
    training_section,
)
from calotype.emoji.suite import GroupResult
from calotype.emoji.suite_section import evaluation_section, sweep_section
from calotype.evaluation.about import NOT_AVAILABLE, About, table
from calotype.evaluation.retrieval import NEAREST, THUMBNAIL_SIDE
from calotype.evaluation.superresolution import Comparison

PROMPT_GROUPS = {
    "trained_pair": "trained pairs",
    "unseen_pair": "unseen pairs",
    "background": "trained pairs on a colour",
    "bare_name": "bare names",
}
_TARGETS = {"trained_pair": (48, 48), "unseen_pair": (48, 40), "background": (16, 15)}
_GROUP_TARGETS = {"trained pairs": (48, 48), "unseen pairs": (48, 40)}


def model_card(about: About, found: Measurements) -> str:
    """The README.md of a cascade folder."""
    parts = [
        _head(about),
        stages_section(about),
        _failures(found),
        _images(about),
        "## How well it samples\n",
        _prompts(found),
        _naming(found.naming),
        _random_captions(found.groups),
        "" if found.evaluation is None else evaluation_section(found.evaluation),
        "" if found.sweep is None else sweep_section(found.sweep, about.charts),
        "## Enlargement\n",
        _enlargement(about, found),
        "" if found.editing is None else "## Editing\n\n" + editing_tables(found.editing),
        "## Training\n",
        training_section(about, found.runs),
        learning_curves(found.runs),
        data_section(about, found),
        limits_section(about, found),
        f"Figures measured with calotype {about.version} on {about.machine}.\n",
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def _head(about: About) -> str:
    sides = " → ".join(f"{stage.config.resolution}²" for stage in about.stages)
    if about.stages[0].config.draft is not None:
        sides = f"draft → {sides}"
    return f"""---
license: apache-2.0
language: [en]
library_name: calotype
pipeline_tag: text-to-image
---
# {about.name}

A cascade of pixel-space diffusion models ({sides}, text encoder `{about.text_encoder}`) for
emoji-like images from English captions. All figures here were measured by
`calotype evaluate --card` on these weights, sampled with their default settings.
"""


def stages_section(about: About) -> str:
    """The stages: how large they are and how they sample; the draft, if there is one."""
    rows = []
    for stage in about.stages:
        config, sampling = stage.config, stage.config.sampling
        how = f"{sampling.steps} steps {sampling.sampler}, guidance {sampling.guidance_weight:g}"
        if sampling.start == "draft":
            how += f", from the draft at sigma/alpha {sampling.first_sigma:.2g}"
        if config.lowres_resolution is not None:
            how += f", aug_level {sampling.aug_level:g}"
        size = f"{stage.parameters / 1e6:.1f} M"
        predicts = config.parametrization + (" of the residual" if config.residual else "")
        sha256 = f"`{stage.sha256[:16]}…`" if stage.sha256 else NOT_AVAILABLE
        rows.append([f"{config.resolution}²", size, predicts, how, sha256])
    head = ["stage", "parameters", "predicts", "samples with", "weights' SHA-256"]
    return "\n".join([table(head, rows), *_draft(about), ""])


def _draft(about: About) -> list[str]:
    """How the base works, where it has a draft."""
    config = about.stages[0].config
    if config.draft is None:
        return []
    text = (
        f"The base begins with a draft: an image of {config.draft.resolution}² that a regression "
        f"makes of the caption, from {config.draft.rank} coefficients of a fixed basis of images "
        "with their transparency, and a colour for the ground. Layout and colours are right in it "
        "and details are blurred. The base is conditioned on the draft as a super-resolution "
        "stage is on its low-resolution image"
    )
    if config.sampling.start == "draft":
        text += ", and sampling starts from it, with noise added"
    return ["", text + ". An addition for small models; Imagen has none."]


def _images(about: About) -> str:
    if not about.sheets:
        return ""
    lines = [
        "## Sample sheets\n\nReal image left, sample right; seed 1, nothing sampled again. "
        "Failures come first, their captions in red: the concept is not among the "
        f"{NEAREST} nearest real images."
    ]
    for title, file in about.sheets.items():
        lines.append(f"### {title[0].upper()}{title[1:]}\n\n![{title}]({file})")
    return "\n\n".join(lines) + "\n"


def _failures(found: Measurements) -> str:
    """What was not found at the last resolution, before anything that was."""
    resolution = _resolutions(found)[-1]
    lines = ["## What it gets wrong", ""]
    for group, title in PROMPT_GROUPS.items():
        prompts = found.sampled.of(group)
        failed = [p for p in prompts if p.ranks[resolution] >= NEAREST]
        if prompts:
            names = "; ".join(f"{p.prompt.prompt} ({p.ranks[resolution]})" for p in failed)
            count = f"{len(failed)} of {len(prompts)} {title}"
            lines += [f"- {count} at {resolution}²{': ' + names if names else ''}."]
    lines += ["", "In brackets: how many real images of other concepts are nearer. See also the"]
    lines += ["[limits](#limits).", ""]
    return "\n".join(lines)


def _prompts(found: Measurements) -> str:
    resolutions = _resolutions(found)
    rows = []
    for group, title in PROMPT_GROUPS.items():
        count = len(found.sampled.of(group))
        figures = [f"{found.sampled.found(group, r)} of {count}" for r in resolutions]
        rows.append([title, *figures, _target(_TARGETS, group, count)])
    source = "come with the package" if found.suite.installed else "are chosen from this data"
    text = f"""A sample counts as right when its own concept is among the {NEAREST} real images
of its style that are nearest to it (pixels at {THUMBNAIL_SIDE}²): of the style's training images,
or, for what was held out, of all its images. A bare name is to come in
the one style that captions may leave out. The prompts {source}, chosen by hash and not by eye.

"""
    text += table(["prompts", *(f"at {r}²" for r in resolutions), "at least wanted"], rows)
    return text + "\n"


def _naming(found: Sequence[Naming]) -> str:
    """Blind naming: a row a group and resolution, of this model's samples and of real images."""
    if not found:
        return ""
    rows = []
    for resolution, group in sorted({(n.key.resolution, n.key.group) for n in found}):
        cells = [PROMPT_GROUPS.get(group, group), f"{resolution}²"]
        for real in (False, True):
            own = [n for n in found if (n.key.group, n.key.resolution) == (group, resolution)]
            own = [n for n in own if (n.key.model == "real") == real]
            count = f"{sum(n.named for n in own)} of {sum(n.images for n in own)}"
            cells.append(count if own else NOT_AVAILABLE)
        rows.append(cells)
    head = ["captions", "at", "its samples", "real images"]
    text = """Blind naming: readers who know no caption write what they see; right is what holds the
name or a synonym of a list made before (`python -m calotype.emoji.naming`).

"""
    return text + table(head, rows) + "\n"


def _target(targets: Mapping[str, tuple[int, int]], group: str, count: int) -> str:
    """What a group of this size is to reach; "none" where nothing is asked."""
    size, target = targets.get(group, (count, 0))
    return f"{math.ceil(target * count / size)} of {count}" if target else "none"


def _random_captions(groups: Sequence[GroupResult]) -> str:
    text = "Captions chosen by hash, sampled by the base alone, seeds 0, 1, …:\n\n"
    text += _groups_table(groups) + "\n"
    for group in groups:
        names = "; ".join(f"{f.prompt} ({f.rank})" for f in group.findings if not f.found)
        text += f"\nNot found, {group.name} (how many others are nearer): {names or 'none'}.\n"
    return text


def _groups_table(groups: Sequence[GroupResult]) -> str:
    head = ["captions", "found", "at least wanted", "by chance"]
    rows = []
    for group in groups:
        count = len(group.findings)
        target = _target(_GROUP_TARGETS, group.name, count)
        found = f"{group.found} of {count}"
        rows.append([group.name, found, target, f"{group.chance:.1f}", f"{group.error:.4f}"])
    return table([*head, "mean squared error to the real image"], rows)


def _enlargement(about: About, found: Measurements) -> str:
    if len(about.stages) == 1:
        return "This cascade has no super-resolution stage.\n"
    lines = ["Held-out real images, shrunk and enlarged again, aug_level 0, PSNR in dB:", ""]
    rows = [row for compared in found.comparisons for row in _comparison_rows(compared)]
    head = ["stage", "images", "steps", "PSNR", "over bicubic", "better on", "seconds each"]
    lines.append(table(head, rows) if rows else f"PSNR: {NOT_AVAILABLE}, no held-out images.")
    if found.sampled.contrasts:
        head = ["stage", "what it got, bicubically enlarged", "what it sampled", "real images"]
        contrasts = [
            [f"{side}²", f"{c.bicubic:.3f}", f"{c.sampled:.3f}", f"{c.real:.3f}"]
            for side, c in found.sampled.contrasts.items()
        ]
        lines += [
            "\nSharpness of this cascade's own samples (mean of the steepest 1 % of brightness "
            "steps, 0 to 2):\n",
            table(head, contrasts),
        ]
    return "\n".join(lines) + "\n"


def _comparison_rows(compared: Comparison) -> list[list[object]]:
    stage = [f"{compared.resolution}²", compared.images]
    rows = [[*stage, "bicubic", f"{compared.bicubic:.2f}", "", "", ""]]
    for result in compared.results:
        gain, better = f"{result.psnr - compared.bicubic:+.2f}", f"{result.better:.0%}"
        values = [f"{result.psnr:.2f}", gain, better, f"{result.seconds:.2f}"]
        rows.append([*stage, result.steps, *values])
    return rows


def _resolutions(found: Measurements) -> list[int]:
    return sorted(found.sampled.prompts[0].ranks)
