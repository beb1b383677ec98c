"""Guides that a request names: a classifier with a class, a CLIP; and what images note of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from calotype.cascade.guide import Pull, check_form, check_pull
from calotype.config.ranges import Range, Settings
from calotype.config.typed_json import from_dict, to_dict
from calotype.errors import UsageError
from calotype.generation.request import MOST_SCALE
from calotype.vision.classifier import find_classifier, load_classifier, read_classifier_file
from calotype.vision.clip import EMBEDDED_GUIDE, find_clip, load_clip, read_clip_file
from calotype.vision.guides import ClassifierGuide, ClipGuide, check_knows_noise, random_class

if TYPE_CHECKING:
    import torch

    from calotype.config.sampling import SamplingConfig
    from calotype.config.stage import StageConfig
    from calotype.generation.request import Request


@dataclass(frozen=True, kw_only=True)
class GuideNote(Settings):
    """A guide as the recipes of images note it.

    Args:
        kind: what it is.
        path: as it was named; "" = the embedded one.
        name: what it calls itself.
        sha256: of its weights.
        scale: how strongly it pulls; 0 = not at all.
        form: what it moves: the score, or the mean of ancestral steps.
    """

    kind: Literal["classifier", "clip"]
    path: str = ""
    name: str = ""
    sha256: str = ""
    scale: Annotated[float, Range(0.0, MOST_SCALE)] = 1.0
    form: Literal["score", "mean"] = "score"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the {'CLIP' if self.kind == 'clip' else 'classifier'} {self.name}"


@dataclass(frozen=True)
class GuideJob:
    """A guide, settled; it can be sent to other processes.

    Args:
        note: what images note of it.
        folder: where its files are.
        resolution: side of the images that it looks at.
        classes: that a classifier knows.
    """

    note: GuideNote
    folder: Path
    resolution: int
    classes: tuple[str, ...] = ()

    def load(self, device: str, dtype: torch.dtype, wanted: str | None) -> Pull:
        """Read its weights.

        Args:
            device: where it computes.
            dtype: other than float32: its calls are autocast.
            wanted: the class that a classifier pulls towards; None = an image's seed chooses one.

        Raises:
            CalotypeError: files are missing or damaged.
        """
        guide: ClassifierGuide | ClipGuide
        if self.note.kind == "clip":
            clip = load_clip(self.folder)
            clip.network.to(device)
            guide = ClipGuide(clip, dtype=dtype)
        else:
            classifier = load_classifier(self.folder).to(device)
            guide = ClassifierGuide(classifier, wanted, dtype=dtype)
        return Pull(guide, self.note.scale, self.note.form)


def settle_guides(
    request: Request, base: StageConfig, sampling: SamplingConfig
) -> tuple[GuideJob, ...]:
    """The guides of a request; what it leaves open is as in the image that is sampled again.

    Args:
        request: what is asked for.
        base: the stage that they pull.
        sampling: how it samples.

    Raises:
        UsageError: one does not fit the base or the sampler, or is not what the image was made by.
        CalotypeError: files are missing or damaged.
    """
    noted, asked = _noted(request.like), request.guides
    guides = []
    if asked.classifier is not None or "classifier" in noted:
        note = noted.get("classifier", GuideNote(kind="classifier"))
        given = {"path": asked.classifier, "scale": asked.classifier_scale, "form": asked.form}
        guides.append(_settled(note, given))
    elif asked.classifier_scale is not None:
        raise UsageError("got --classifier-scale with no classifier; expected --classifier RUN")
    clip_asked = asked.clip_scale is not None or "clip" in noted
    if clip_asked and asked.clip_scale != 0:  # which may rank, then, and need not know noise
        note = noted.get("clip", GuideNote(kind="clip"))
        given = {"path": request.clip, "scale": asked.clip_scale, "form": asked.form}
        guides.append(_settled(note, given))
    elif request.clip is not None and not clip_asked and request.best_of is None:
        raise UsageError(
            "got --clip with nothing to rank or guide; expected --best-of N or --clip-guidance S "
            "beside it"
        )
    if asked.form is not None and not guides and not clip_asked:
        raise UsageError(
            "got --guidance-form with nothing that guides; expected --classifier RUN or "
            "--clip-guidance S beside it"
        )
    pulling = tuple(guide for guide in guides if guide.note.scale > 0)
    for guide in pulling:
        check_pull(guide.note.title, guide.resolution, base)
        check_form(guide.note.form, sampling)
    return pulling


def _settled(note: GuideNote, asked: Mapping[str, Any]) -> GuideJob:
    """The guide that was noted, but for what is asked for."""
    again = note.sha256 if asked["path"] is None else ""
    given = {name: value for name, value in asked.items() if value is not None}
    note = from_dict({**to_dict(note), **given}, GuideNote)
    if note.kind == "clip":
        folder = find_clip(note.path or EMBEDDED_GUIDE)
        clip = read_clip_file(folder)
        check_knows_noise(clip)
        resolution, name, sha256 = clip.clip.image.resolution, clip.name, clip.sha256
        classes: tuple[str, ...] = ()
    else:
        folder = find_classifier(note.path)
        file = read_classifier_file(folder)
        resolution, name, sha256 = file.classifier.resolution, file.name, file.sha256
        classes = file.classifier.classes
    if again not in ("", sha256):
        option = "--clip" if note.kind == "clip" else "--classifier"
        raise UsageError(
            f"the image was guided by weights {again:.12}, but {note.path or 'the embedded CLIP'} "
            f"has {sha256:.12} now; name what guided it: {option} RUN"
        )
    return GuideJob(replace(note, name=name, sha256=sha256), folder, resolution, classes)


def _noted(recipe: Mapping[str, Any] | None) -> dict[str, GuideNote]:
    """The guides that a recipe notes, by kind.

    Raises:
        ConfigError: the recipe is damaged.
    """
    found = None if recipe is None else recipe.get("guides")
    notes = [from_dict(one, GuideNote) for one in found] if isinstance(found, list) else []
    return {note.kind: note for note in notes}


def chosen_class(guides: Sequence[GuideJob], seed: int) -> str | None:
    """The class that a classifier pulls an image of the seed towards if none is named."""
    choices = (guide.classes for guide in guides if guide.classes)
    return next((random_class(names, seed) for names in choices), None)
