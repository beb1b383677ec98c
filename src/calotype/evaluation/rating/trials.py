"""The trials of a study: every comparison that is asked, and the controls among them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from calotype.evaluation.rating.design import control_count
from calotype.evaluation.rating.protocols import FIRST, NO, SAME, Protocol
from calotype.evaluation.rating.sides import Gallery
from calotype.evaluation.rating.study import Control, Side, Trial

ALL = "all"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Asked:
    """A prompt of a study."""

    id: str
    caption: str
    category: str | None


def make_trials(
    protocol: Protocol, prompts: Sequence[Asked], galleries: Mapping[str, Gallery], seed: int
) -> list[Trial]:
    """The trials that count, then the control trials of each pool."""
    reference = next((name for name in galleries if galleries[name].facts.is_reference), None)
    pairs = pairs_of(protocol, list(galleries), reference)
    trials = [
        _trial(
            f"t{place * len(pairs) + number + 1:05d}",
            prompt,
            protocol,
            tuple(galleries[name].show(prompt.id) for name in names),
        )
        for place, prompt in enumerate(prompts)
        for number, names in enumerate(pairs)
    ]
    shown = list(galleries) if reference is None else [reference]
    controls = _Controls(protocol, prompts, [galleries[name] for name in shown])
    for pool in dict.fromkeys(trial.pool for trial in trials):
        asked = [prompt for prompt in prompts if _pool(protocol, prompt) == pool]
        count = control_count(len(asked) * len(pairs))
        trials += controls.make(asked, count, Random(f"{seed}:{pool}"))
    return trials


def pairs_of(
    protocol: Protocol, sets: Sequence[str], reference: str | None
) -> Sequence[tuple[str, ...]]:
    """Which sets stand in one trial: every pair, each against the reference, or each alone."""
    if not protocol.is_pair:
        return [(name,) for name in sets]
    if reference is not None:
        return [(name, reference) for name in sets if name != reference]
    return list(combinations(sets, 2))


class _Controls:
    """Makes trials whose right answer is known, of one set each, so that no set is judged."""

    def __init__(
        self, protocol: Protocol, prompts: Sequence[Asked], galleries: Sequence[Gallery]
    ) -> None:
        self._protocol = protocol
        self._prompts = prompts
        self._galleries = galleries
        self._made = 0

    def make(self, asked: Sequence[Asked], count: int, random: Random) -> list[Trial]:
        """The controls of a pool; kinds take turns where the protocol has two."""
        choices = [(prompt, gallery) for prompt in asked for gallery in self._galleries]
        random.shuffle(choices)
        found = []
        for number in range(count):
            prompt, gallery = choices[number % len(choices)]
            has_caption, has_ruined = self._protocol.control, self._protocol.ruined
            trial = None
            if has_caption and not (has_ruined and number % 2 == 0):
                trial = self._other_caption(prompt, gallery, random)
            if trial is None and has_ruined:
                trial = self._ruined_copy(prompt, gallery, random)
            if trial is not None:
                found.append(trial)
        return found

    def _ruined_copy(self, prompt: Asked, gallery: Gallery, random: Random) -> Trial:
        assert self._protocol.ruined is not None
        copy = gallery.show_ruined(prompt.id, random.randrange(2**31))
        control = Control(self._protocol.ruined, "ruined", (FIRST,))
        return self._trial(prompt, (gallery.show(prompt.id), copy), control)

    def _other_caption(self, prompt: Asked, gallery: Gallery, random: Random) -> Trial | None:
        """A trial in which a side shows what the caption does not say; None = there is no other.

        Indifference passes in a pair: neither side of a weak model may show what it says.
        """
        other = _unlike(prompt, self._prompts, random)
        if other is None:
            return None
        assert self._protocol.control is not None
        right = gallery.show(prompt.id)
        if self._protocol.is_pair:
            control = Control(self._protocol.control, "caption", (FIRST, SAME))
            return self._trial(prompt, (right, gallery.show(other.id)), control)
        control = Control(self._protocol.control, "caption", (NO,))
        return self._trial(prompt, (right,), control, caption=other.caption)

    def _trial(
        self,
        prompt: Asked,
        sides: tuple[Side, ...],
        control: Control,
        *,
        caption: str | None = None,
    ) -> Trial:
        self._made += 1
        name = f"c{self._made:05d}"
        return _trial(name, prompt, self._protocol, sides, control=control, caption=caption)


def _unlike(prompt: Asked, prompts: Sequence[Asked], random: Random) -> Asked | None:
    """A prompt of another caption, sharing as few words as any; None = all have the same."""
    words = set(_WORD.findall(prompt.caption.lower()))
    others = [other for other in prompts if other.caption.strip() != prompt.caption.strip()]
    random.shuffle(others)
    return min(
        others,
        key=lambda other: (
            len(words & set(_WORD.findall(other.caption.lower()))),
            other.category == prompt.category,
        ),
        default=None,
    )


def _pool(protocol: Protocol, prompt: Asked) -> str:
    """The pool of a prompt's trials: its category where raters are given one."""
    return prompt.category or ALL if protocol.by_category else ALL


def _trial(
    name: str,
    prompt: Asked,
    protocol: Protocol,
    sides: tuple[Side, ...],
    *,
    control: Control | None = None,
    caption: str | None = None,
) -> Trial:
    return Trial(
        id=name,
        prompt=prompt.id,
        caption=prompt.caption if caption is None else caption,
        category=prompt.category,
        pool=_pool(protocol, prompt),
        sides=sides,
        control=control,
    )
