"""How matplotlib renders charts: the same bytes each time, in the colours of the page.

On a page a chart is an `<svg>` element whose colours are names of the style sheet, so that light
and dark are one chart: plot inside `chart_style()` with the colours of `PAGE`. For files, plot
inside `chart_style(PAPER)` with the colours of `PAPER`.

    with chart_style():
        figure = Figure(figsize=(6.4, 2.4), layout="constrained")
        figure.subplots().plot(x, y, color=PAGE["s1"])
        svg = inline_svg(figure, "Loss")
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from calotype.storage.files import write_file

# The first block of the style sheet holds the light colours.
_LIGHT = re.findall(
    r"--(\w+): (#[0-9a-f]{6})",
    files("calotype.pages").joinpath("style.css").read_text("utf-8").split("}")[0],
)
PAPER: Mapping[str, str] = MappingProxyType(dict(_LIGHT))
"""Light colours by their names in the style sheet, for charts in files."""
PAGE: Mapping[str, str] = MappingProxyType(
    {name: f"#0000{place:02x}" for place, (name, _) in enumerate(_LIGHT, 1)}
)
"""Marks that `inline_svg` replaces by the style sheet's names, for charts on a page."""
SERIES = ("s1", "s2", "s3", "s4", "s5", "s6")
"""Names of colours for series, told apart by colour-blind people; give each a marker, too."""
_LABEL = 60  # characters of a text on a chart


@contextmanager
def chart_style(colours: Mapping[str, str] = PAGE, *, name: str = "calotype") -> Iterator[None]:
    """Matplotlib's settings for a chart.

    Args:
        colours: `PAGE` or `PAPER`.
        name: differs for each chart of a page that has markers: their names in the SVG follow.
    """
    soft = colours["soft"]
    style = {
        "svg.fonttype": "none",  # texts stay texts
        "svg.hashsalt": name.encode("ascii", "backslashreplace").decode(),
        "text.parse_math": False,  # a dollar sign in a prompt is a dollar sign
        "path.simplify_threshold": 1.0,  # to about a thousand points, however long a log is
        "font.size": 8,
        "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it: texts are measured alike
        "text.color": colours["ink"],
        "axes.labelcolor": soft,
        "axes.titlecolor": colours["ink"],
        "xtick.labelcolor": soft,
        "ytick.labelcolor": soft,
        "xtick.color": soft,
        "ytick.color": soft,
        "axes.edgecolor": soft,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "grid.color": colours["line"],
        "legend.frameon": False,
        "lines.solid_capstyle": "round",
    }
    with rc_context(style), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has others
        yield


def label_text(text: str, most: int = _LABEL) -> str:
    """A name or prompt as one short line of a chart, without what cannot be printed."""
    line = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text[: 4 * most])
    line = " ".join(line.split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1] + "…"


def svg_text(figure: Figure) -> str:
    """The figure as SVG without a date; within `chart_style`."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return stream.getvalue()


def inline_svg(figure: Figure, label: str) -> Markup:
    """The figure as an `<svg>` element of a page; within `chart_style()`.

    Args:
        figure: with the colours of `PAGE`.
        label: what it shows, for those who do not see it.
    """
    head = Markup('<svg role="img" aria-label="{}"').format(label)
    return Markup(page_svg(svg_text(figure)).replace("<svg", head, 1))


def page_svg(svg: str) -> str:
    """An SVG with the page's colours and nothing that other charts of the page have, too."""
    svg = svg[svg.index("<svg") :]
    named = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))  # markers and clip paths
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in named else "", svg)
    svg = re.sub(r' (xmlns|xmlns:xlink|version)="[^"]*"', "", svg)
    # A hundredth of a point is fine enough for paths.
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    for name, colour in PAGE.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def write_chart(figure: Figure, path: Path) -> None:
    """Write a chart as `.svg` or `.png`, replaced in one step; within `chart_style(PAPER)`."""
    if path.suffix == ".svg":
        write_file(path, svg_text(figure).encode("utf-8", errors="replace"))
        return
    stream = io.BytesIO()
    figure.savefig(
        stream, format="png", dpi=200, facecolor=PAPER["card"], metadata={"Software": None}
    )
    write_file(path, stream.getvalue())
