"""Draw the histograms of a verified data set, as one SVG or as text."""

from __future__ import annotations

from html import escape

from calotype.data.verify import DataReport, Histogram, PartReport

_WIDTH, _HEIGHT, _MARGIN = 360, 150, 24
_BAR = "█"


def statistics_svg(report: DataReport) -> str:
    """One SVG: a row of histograms for each part."""
    rows = []
    columns = 1
    for number, (name, part) in enumerate(report.parts.items()):
        columns = max(columns, len(part.histograms))
        for place, (title, histogram) in enumerate(part.histograms.items()):
            x, y = place * (_WIDTH + _MARGIN), number * (_HEIGHT + 3 * _MARGIN)
            label = f"{name}: {title}" if name else title
            rows.append(f'<g transform="translate({x},{y})">{_plot(label, histogram)}</g>')
    width = columns * (_WIDTH + _MARGIN)
    height = len(report.parts) * (_HEIGHT + 3 * _MARGIN)
    style = "text{font:12px sans-serif;fill:#333}rect{fill:#4a7bb5}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -10 {width} {height}" '
        f'width="{width}" height="{height}"><style>{style}</style>{"".join(rows)}</svg>\n'
    )


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


def _plot(title: str, histogram: Histogram) -> str:
    parts = [f'<text x="0" y="12">{escape(title)}</text>']
    top = max(histogram.counts, default=0)
    step = _WIDTH / max(1, len(histogram.counts))
    floor = _HEIGHT + _MARGIN
    for number, count in enumerate(histogram.counts):
        tall = _HEIGHT * count / top
        parts.append(
            f'<rect x="{number * step:.1f}" y="{floor - tall:.1f}" '
            f'width="{max(1.0, step - 1):.1f}" height="{tall:.1f}"><title>{count:,}</title></rect>'
        )
    if histogram.edges:
        low, high = histogram.edges[0], histogram.edges[-1]
        parts.append(f'<text x="0" y="{floor + 14}">{low:,.6g}</text>')
        parts.append(
            f'<text x="{_WIDTH}" y="{floor + 14}" text-anchor="end">{high:,.6g} '
            f"(highest bar {top:,})</text>"
        )
    return "".join(parts)
