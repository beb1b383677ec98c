"""What a data set turns out to be, in one line, before anything is made of it.

Training on images without their captions, or on other images than were meant, ends well and is
found out a week later: what was passed over is told first, and captions that are mostly lost stop
the run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from calotype.data.source import ExampleSource, SourceReport, evenly_spaced
from calotype.errors import UsageError

LOOKED_AT = 4096
"""Examples whose captions are read for it, evenly spaced: all of a small set."""

MOST_LOST = 0.5
"""Above this share of images without a caption, where some have one or were to have one, something
went wrong with the captions. A set without any is trained on as it is."""


@dataclass(frozen=True)
class Account:
    """What was found of a source.

    Args:
        images: all of them.
        looked_at: those whose captions were read.
        without_caption: of those.
        faulty_captions: of those; captions that are no text, mended or left out.
        report: of the source, as it was opened.
    """

    images: int
    looked_at: int
    without_caption: int
    faulty_captions: int
    report: SourceReport

    @property
    def mostly_lost(self) -> bool:
        """Whether there were to be captions, and most images have none."""
        meant = (
            self.without_caption < self.looked_at
            or self.faulty_captions > 0
            or bool(self.report.bad_metadata)
            or "unused caption" in self.report.ignored
        )
        return meant and self.without_caption > MOST_LOST * self.looked_at

    def __str__(self) -> str:
        parts = [counted(self.images, "image")]
        for count, what in (
            (self.without_caption, "without a caption"),
            (self.faulty_captions, "with a faulty caption"),
        ):
            if count and self.looked_at == self.images:
                parts.append(f"{count:,} {what}")
            elif count:
                parts.append(f"about {count / self.looked_at:.2g} of them {what}")
        return ", ".join([*parts, *findings(self.report)])


def take_account(source: ExampleSource) -> Account:
    """Look at a source, and at the whole of it if it is a part of one."""
    whole: ExampleSource = getattr(source, "source", source)
    some = evenly_spaced(whole, LOOKED_AT)
    with whole.report.apart() as found:
        without = sum(not any(c.text for c in some.captions(i)) for i in range(len(some)))
    faulty = len(found.replaced_captions | whole.report.replaced_captions)
    return Account(len(whole), len(some), without, faulty, whole.report)


def check_account(account: Account) -> None:
    """Refuse data whose captions are mostly lost.

    Raises:
        UsageError: they are.
    """
    if account.mostly_lost:
        raise UsageError(
            f"got data with most captions missing ({account}); expected captions of at least half "
            "of the images, or of none: see `calotype data verify`, or add --missing-captions to "
            "train on the others as unconditional"
        )


def findings(report: SourceReport) -> list[str]:
    """What a source found when it was opened and did not use, with the first few names."""
    found = []
    if bad := report.bad_metadata:
        place, reason = next(iter(bad.items()))
        found.append(f"{counted(len(bad), 'fault')} of metadata ({place} {reason})")
    return found + [
        f"{counted(things.count, kind)} ignored ({things})"
        for kind, things in report.ignored.items()
    ]


def tell_findings(report: SourceReport) -> None:
    """Say what of the data is not used, before the work, if there is any."""
    if found := findings(report):
        print(f"calotype: data: {', '.join(found)}", file=sys.stderr, flush=True)


def counted(count: int, kind: str) -> str:
    """A number of things, for people."""
    return f"{count:,} {kind}{'' if count == 1 else 's'}"
