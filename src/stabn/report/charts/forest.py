"""Accuracies and differences with their intervals, one row per network and one panel per group of clips."""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from stabn.report.charts.svg import CHARACTER, STRONG, WIDTH, distinct, dot, opening, path, square, text
from stabn.report.comparison_content import LocalisationChart
from stabn.report.content import Comparison, Contrast

Mark = tuple[float, float, float]
"""(low, middle, high)."""

_NAMES, _GAP, _LINE, _HEAD, _FOOT = 286, 44, 30, 30, 28
_ACROSS = 3  # panels beside each other; more would leave too little room for their ticks
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def forest_svg(comparison: Comparison) -> Markup:
    """Each row's top-1 as a mark, its 95 % interval as a line.

    A point of accuracy is equally wide in all panels, but each panel starts where its own values do. The control is a
    hollow square and the others are dots; a dotted line runs through the first row's value.
    """
    columns = [
        [(cell.low, cell.top1, cell.high) for cell in (row.cells[j] for row in comparison.rows)]
        for j in range(len(comparison.columns))
    ]
    names = [
        row.name + (" (control)" if row.control and not row.name.endswith("control") else "") for row in comparison.rows
    ]
    return _panels(
        names,
        [row.control for row in comparison.rows],
        comparison.columns,
        columns,
        lines=[cells[0][1] for cells in columns],
        bounds=(0.0, 1.0),
        number="{:.0f}".format,
        label="top-1 accuracy with 95 % intervals",
    )


def located_svg(located: LocalisationChart) -> Markup:
    """Each explanation's figures as marks with their 95 % intervals; a dotted line at chance."""
    columns = [
        [(cell.low, cell.top1, cell.high) for cell in (row.cells[j] for row in located.rows)]
        for j in range(len(located.columns))
    ]
    return _panels(
        [row.name for row in located.rows],
        [False] * len(located.rows),
        located.columns,
        columns,
        lines=located.chance,
        bounds=(0.0, 1.0),
        number="{:.0f}".format,
        label=f"{located.name}: explanations against the truth, with 95 % intervals",
    )


def contrast_svg(contrast: Contrast) -> Markup:
    """Each row's difference as a mark, its 95 % interval as a line; a dotted line at no difference."""
    columns = [
        [None if change is None else (change.low, change.points, change.high) for change in changes]
        for changes in zip(*(row.changes for row in contrast.rows), strict=True)
    ]
    return _panels(
        [row.name for row in contrast.rows],
        [False] * len(contrast.rows),
        contrast.columns,
        columns,
        lines=[0.0] * len(columns),
        bounds=(-1.0, 1.0),
        number=lambda value: f"{value:+.0f}" if round(value) else "0",
        label=f"differences to {contrast.against} with 95 % intervals",
    )


def _scale(
    columns: Sequence[Sequence[Mark | None]], lines: Sequence[float], bounds: tuple[float, float]
) -> tuple[float, int, list[int]]:
    """What a tick is worth, how many steps each panel has, and at which tick each begins.

    All panels are as wide as the widest needs; what the others do not need is on both sides of theirs.
    """
    least, most = bounds
    lows = [min([line, *(mark[0] for mark in marks if mark)]) for line, marks in zip(lines, columns, strict=True)]
    highs = [max([line, *(mark[2] for mark in marks if mark)]) for line, marks in zip(lines, columns, strict=True)]
    spans = [(max(least, low), min(most, high)) for low, high in zip(lows, highs, strict=True)]
    widest = max(high - low for low, high in spans)
    step = next((s for s in _STEPS if widest / s <= 8), _STEPS[-1])
    ends = [(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)) for low, high in spans]
    steps = min(max(1, *(last - first for first, last in ends)), round((most - least) / step))
    starts = [first - (steps - (last - first)) // 2 for first, last in ends]
    return step, steps, [max(round(least / step), min(start, round(most / step) - steps)) for start in starts]


def _panels(
    names: Sequence[str],
    hollow: Sequence[bool],
    titles: Sequence[str],
    columns: Sequence[Sequence[Mark | None]],
    *,
    lines: Sequence[float],
    bounds: tuple[float, float],
    number: Callable[[float], str],
    label: str,
) -> Markup:
    across = min(_ACROSS, len(columns))
    panel = (WIDTH - _NAMES - 12) / across - _GAP
    step, steps, starts = _scale(columns, lines, bounds)
    every = math.ceil(steps * 30 / panel)  # so many ticks share one number
    height = _HEAD + _LINE * len(names) + _FOOT
    bands = math.ceil(len(columns) / across)
    parts = [opening(WIDTH, WIDTH, bands * height, label)]
    for band in range(bands):
        for i, name in enumerate(distinct(names, int(_NAMES / CHARACTER))):
            parts.append(text(_NAMES, band * height + _HEAD + _LINE * (i + 0.5) + 4, name, "end", whole=names[i]))
    for j, (title, marks, start) in enumerate(zip(titles, columns, starts, strict=True)):
        top, left = (j // across) * height, _NAMES + _GAP + (j % across) * (panel + _GAP)
        bottom = top + height - _FOOT

        def place(value: float, left: float = left, start: int = start) -> float:
            return left + min(max((value / step - start) / steps, 0), 1) * panel

        parts.append(text(left, top + 16, title, "start", "strong", most=int(panel / STRONG)))
        for k in range(steps + 1):
            at = left + k / steps * panel
            parts.append(path("rule", f"M{at:.1f} {top + 26}V{bottom}"))
            if (start + k) % every == 0:
                parts.append(text(at, bottom + 18, number(100 * (start + k) * step), "middle", "small"))
        parts.append(path("reference", f"M{place(lines[j]):.1f} {top + 26}V{bottom}"))
        for i, mark in enumerate(marks):
            if mark is None:
                continue
            y = top + _HEAD + _LINE * (i + 0.5)
            a, middle, b = map(place, mark)
            said = f"{names[i]}, {title}: " + "{1} ({0} to {2})".format(*(f"{100 * value:.1f}" for value in mark))
            parts.append(path("interval", f"M{a:.1f} {y}H{b:.1f}M{a:.1f} {y - 4}v8M{b:.1f} {y - 4}v8"))
            parts.append(square("control", middle, y, 9, said) if hollow[i] else dot("point", middle, y, 5, said))
    return Markup("".join(parts) + "</svg>")
