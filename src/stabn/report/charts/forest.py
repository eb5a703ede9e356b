"""Forest plot: estimates with their intervals, one row per network and one panel per column of a table."""

import math

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from stabn.report.charts import svg
from stabn.report.content import EstimateTable

_ACROSS = 3  # panels beside each other; more would leave too little room for their ticks


@matplotlib.rc_context(svg.STYLE)
def forest_svg(table: EstimateTable) -> Markup:
    """Each estimate as a mark in percent, its interval as a line, and the column's reference as a dotted line.

    A point is equally wide in all panels, but each panel starts where its own values do. The control is a hollow
    square and the others are dots.
    """
    across = min(_ACROSS, len(table.columns))
    bands = math.ceil(len(table.columns) / across)
    rows = len(table.rows)
    figure = svg.new_figure(svg.WIDTH, bands * (30 * rows + 58))
    space = svg.margins(figure, 296, 14, 26, 28, wspace=0.2, hspace=58 / (30 * rows))
    panels = figure.subplots(bands, across, squeeze=False, gridspec_kw=space).ravel()
    limits = _limits(table)
    names = [
        row.name + (" (control)" if row.control and not row.name.endswith("control") else "") for row in table.rows
    ]
    for number, axes in enumerate(panels):
        if number >= len(table.columns):
            axes.remove()
            continue
        _draw_panel(axes, table, number, names)
        axes.set_xlim(*limits[number])
        axes.set_yticks(range(rows), svg.shorten(names, 38) if number % across == 0 else [""] * rows)
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            label.set(color=svg.INK, fontsize=9.75)
            svg.tooltip(label, name)
    kind = "differences to" if table.is_difference else "estimates:"
    return svg.to_svg(figure, f"{kind} {table.title}, with 95 % intervals")


def _draw_panel(axes: Axes, table: EstimateTable, number: int, names: list[str]) -> None:
    column = table.columns[number]
    title = axes.set_title(svg.shorten([column], 30)[0])
    svg.tooltip(title, column)
    svg.grid_only(axes, "x")
    axes.tick_params(axis="y", pad=12)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    sign = "+" if table.is_difference else ""
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:{sign if value else ''}.3g}".replace("-", "−"))
    axes.axvline(100 * table.reference[number], color=svg.MUTED, linestyle=svg.DOTTED, linewidth=1.1, clip_on=False)
    for i, row in enumerate(table.rows):
        cell = row.cells[number]
        if cell is None:
            continue
        low, value, high = (100 * end for end in (cell.low, cell.value, cell.high))
        axes.plot([low, high], [i, i], color=svg.ACCENT, linewidth=1.5, marker="|", markersize=6, clip_on=False)
        shape, colour = ("s", svg.MISTAKE) if row.control else ("o", svg.ACCENT)
        fill = svg.HOLLOW if row.control else {}
        (mark,) = axes.plot([value], [i], marker=shape, color=colour, markersize=7, clip_on=False, **fill)
        svg.tooltip(mark, f"{names[i]}, {column}: {value:.1f} ({low:.1f} to {high:.1f})")


def _limits(table: EstimateTable) -> list[tuple[float, float]]:
    """Ends of each panel's axis in percent, all equally far apart and within the possible values."""
    least = -100.0 if table.is_difference else 0.0
    values = [
        [reference, *(end for row in table.rows if (cell := row.cells[j]) for end in (cell.low, cell.high))]
        for j, reference in enumerate(table.reference)
    ]
    ends = [(100 * min(column), 100 * max(column)) for column in values]
    span = min(max(2.0, *(1.06 * (high - low) for low, high in ends)), 100 - least)
    starts = [float(np.clip((low + high - span) / 2, least, 100 - span)) for low, high in ends]
    return [(start, start + span) for start in starts]
