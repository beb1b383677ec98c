"""The histograms of a verified data set, as one SVG or as text."""

from __future__ import annotations

import io

from calotype.data.verify import DataReport, PartReport
from calotype.errors import MissingExtra

_BAR = "█"


def statistics_svg(report: DataReport) -> str:
    """One SVG: a row of histograms for each part.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("data", "matplotlib") from error
    columns = max(1, *(len(part.histograms) for part in report.parts.values()))
    size = (4 * columns, 2.4 * len(report.parts))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(report.parts), columns, squeeze=False)
    for axes, (name, part) in zip(grid, report.parts.items(), strict=True):
        for place in axes[len(part.histograms) :]:
            place.set_axis_off()
        for place, (title, histogram) in zip(axes, part.histograms.items(), strict=False):
            place.set_title(f"{name}: {title}" if name else title, fontsize=9)
            if histogram.counts:
                place.stairs(histogram.counts, histogram.edges, fill=True)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()


def statistics_text(report: DataReport, *, width: int = 40) -> str:
    """The same for a terminal."""
    lines: list[str] = []
    for name, part in report.parts.items():
        if name:
            lines.append(f"== {name}")
        lines.append(_summary(part))
        for title, histogram in part.histograms.items():
            lines.append(f"\n{title}")
            top = max(histogram.counts, default=1)
            for edge, count in zip(histogram.edges, histogram.counts, strict=False):
                bar = _BAR * max(int(count > 0), round(width * count / top))
                lines.append(f"{edge:10,.6g} {bar} {count:,}")
    return "\n".join(lines)


def _summary(part: PartReport) -> str:
    counts = part.counts
    return (
        f"{part.examples:,} examples, {part.usable:,} usable, {counts['broken']:,} broken "
        f"({part.broken_share:.1%}), {counts['duplicates']:,} duplicates, "
        f"{counts['empty_captions']:,} without a caption, {counts['bad_metadata']:,} faults of "
        f"metadata, {counts['ignored']:,} files and folders passed over"
    )
