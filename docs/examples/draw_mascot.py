"""Draw the worked example's images: a teapot robot, which is in no emoji set, six times.

    python docs/examples/draw_mascot.py FOLDER

Every image is an SVG composed here of a few shapes in flat colours, rendered at 1024 pixels on
transparency, with its caption in a text file beside it. Needs the extra `data`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SIDE = 1024
THING = "teapot robot"
STYLE = "flat twemoji style"

_BLUE, _SHADE, _STEEL, _GLASS = "#55ACEE", "#3B88C3", "#99AAB5", "#292F33"
_YELLOW, _RED, _TEA, _STEAM = "#FFCC4D", "#DD2E44", "#C1694F", "#CCD6DD"


def _ring(path: str, colour: str, width: float) -> str:
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" '
        'stroke-linecap="round" stroke-linejoin="round"/>'
    )


_POT = f"""
{_ring("M26 15 C35 11 35 27 26 25", _SHADE, 2.6)}
<path d="M12 17 C6 18 8 10 1.5 10.5 L3 14.5 C4.5 21 6 26 12 27 Z" fill="{_SHADE}"/>
<rect x="10.5" y="29" width="5" height="6" rx="2.5" fill="{_GLASS}"/>
<rect x="20.5" y="29" width="5" height="6" rx="2.5" fill="{_GLASS}"/>
<ellipse cx="18" cy="21" rx="11" ry="11" fill="{_BLUE}"/>
<path d="M8.6 26.7 A11 11 0 0 0 27.4 26.7 Z" fill="{_SHADE}"/>
<rect x="10.4" y="14.2" width="15.2" height="11.6" rx="4.2" fill="{_GLASS}"/>
<path d="M11 11.8 C12 7.2 24 7.2 25 11.8 Z" fill="{_STEEL}"/>
<rect x="17.2" y="4" width="1.6" height="5" fill="{_STEEL}"/>
<circle cx="18" cy="3.2" r="2.4" fill="{_RED}"/>
"""
_SMILE = _ring("M15.6 22.4 Q18 24.4 20.4 22.4", _YELLOW, 1.2)
_OPEN_EYES = "".join(f'<circle cx="{x}" cy="18.8" r="2.1" fill="{_YELLOW}"/>' for x in (14.6, 21.4))
_CLOSED_EYES = "".join(_ring(f"M{x} 19 q1.8 1.8 3.6 0", _YELLOW, 1.2) for x in (12.8, 19.6))
_HEART_EYES = "".join(
    f'<path d="M{x} 21.6 c-4.6 -3 -2.6 -6 0 -4.2 c2.6 -1.8 4.6 1.2 0 4.2 z" fill="{_RED}"/>'
    for x in (14.6, 21.4)
)
_STEAM_OF_SPOUT = _ring("M2.4 8.4 q-1.6 -1.8 0 -3.4 q1.6 -1.6 0 -3.4", _STEAM, 1.5) + _ring(
    "M5.8 8.4 q-1.6 -1.8 0 -3.4 q1.6 -1.6 0 -3.4", _STEAM, 1.5
)
_SNORE = _ring("M27.4 3.6 h4.2 l-4.2 5 h4.2", _SHADE, 1.4) + _ring(
    "M32 1 h2.6 l-2.6 3 h2.6", _SHADE, 1.0
)
_TEA_POURED = _ring("M3.4 20 Q1.9 26 2.1 34", _TEA, 2.0)


@dataclass(frozen=True)
class Pose:
    """One image.

    Args:
        caption: what it shows; the style is added.
        face: SVG on the robot's screen.
        turn: of the robot, an SVG transform.
        beside: SVG that does not turn with it.
    """

    caption: str
    face: str
    turn: str = ""
    beside: str = ""

    @property
    def svg(self) -> str:
        """The drawing."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 36 36" width="{SIDE}" '
            f'height="{SIDE}">{self.beside}<g transform="{self.turn}">{_POT}{self.face}</g></svg>'
        )


POSES = (
    Pose(THING, _OPEN_EYES + _SMILE),
    Pose(f"{THING} facing right", _OPEN_EYES + _SMILE, turn="translate(36 0) scale(-1 1)"),
    Pose(f"steaming {THING}", _OPEN_EYES + _SMILE, beside=_STEAM_OF_SPOUT),
    Pose(
        f"sleeping {THING}",
        _CLOSED_EYES + _SMILE,
        turn="translate(1 6) scale(0.84)",
        beside=_SNORE,
    ),
    Pose(f"{THING} in love", _HEART_EYES + _SMILE),
    Pose(
        f"{THING} pouring tea",
        _OPEN_EYES + _SMILE,
        turn="translate(2.4 2.2) rotate(-24 18 18) scale(0.9)",
        beside=_TEA_POURED,
    ),
)


def draw(pose: Pose, path: Path) -> None:
    """Write an image as PNG, with 8 bits a channel and transparency, and its caption beside it."""
    import pyvips

    image = pyvips.Image.svgload_buffer(pose.svg.encode())
    image.pngsave(str(path), compression=9, palette=True, Q=100, dither=0, keep="none")
    path.with_suffix(".txt").write_text(f"{pose.caption}, {STYLE}\n", encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Draw all of them into a folder."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for pose in POSES:
        draw(pose, folder / f"{pose.caption.replace(' ', '-')}.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
