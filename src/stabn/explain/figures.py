"""A report's drawings as inline SVG that takes its colours and fonts from the page, light or dark."""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from stabn.explain.contents import Comparison, Confusion, Curve

# matplotlib knows only fixed colours: it draws with these, and the SVG text then gets the page's variables
_INK, _LINE, _TRAIN, _VALIDATION = "#010203", "#020304", "#030405", "#040506"
_VARIABLES = {_INK: "currentColor", _LINE: "var(--line)", _TRAIN: "var(--muted)", _VALIDATION: "var(--accent)"}
_STYLE: Any = {  # matplotlib's stubs want the literal type of every known key
    "svg.fonttype": "none",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_COUNTS_TO = 20  # classes up to which a confusion matrix has room for its counts
_NAMES_TO = 60


def curve_svg(curve: Curve) -> Markup:
    """Loss and top-1 per epoch, side by side; validation is a solid line with dots, training a dashed one."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": curve.name}):  # ids differ between figures, not runs
        figure = Figure(figsize=(11, 2.8), layout=ConstrainedLayoutEngine(wspace=0.05))
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        for axes, metric, scale, title in zip(
            figure.subplots(1, 2), ("loss", "top1"), (1, 100), ("Loss", "Top-1 accuracy (%)"), strict=True
        ):
            _draw_metric(axes, curve, metric, scale)
            axes.set_title(title, loc="left", fontsize=10, color=_INK)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), f"{curve.name}: loss and top-1 accuracy per epoch")


def _draw_metric(axes: Axes, curve: Curve, metric: str, scale: int) -> None:
    axes.patch.set_alpha(0)
    axes.grid(axis="y", color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("epoch")
    epochs = [entry["epoch"] for entry in curve.epochs]
    dots = len(epochs) <= 40
    ends = []
    for name, ink, dash, mark in (("train", _TRAIN, (0, (4, 2)), "s"), ("validation", _VALIDATION, "-", "o")):
        values = [entry.get(f"{name}_{metric}") for entry in curve.epochs]
        heights = [math.nan if value is None else value * scale for value in values]
        if all(math.isnan(height) for height in heights):
            continue
        marker = mark if dots else "None"
        axes.plot(epochs, heights, color=ink, linestyle=dash, linewidth=1.6, marker=marker, markersize=3.2)
        last = max(i for i, height in enumerate(heights) if not math.isnan(height))
        ends.append((heights[last], epochs[last], name, ink))
    axes.set_ylim(bottom=0)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    # names stand at the lines' ends, so that no legend must be matched by colour; close ends are moved apart
    low, high = axes.get_ylim()
    places = [height for height, *_ in sorted(ends)]
    if len(places) == 2 and places[1] - places[0] < 0.11 * (high - low):
        middle = max(sum(places) / 2, low + 0.08 * (high - low))
        places = [middle - 0.055 * (high - low), middle + 0.055 * (high - low)]
    for (height, _, name, ink), place in zip(sorted(ends), places, strict=True):
        label = f"{name} {height:.1f}" if metric == "top1" else f"{name} {height:.2f}"
        axes.text(1.015, place, label, transform=axes.get_yaxis_transform(), color=ink, va="center", fontsize=9)


def _inline(svg: str, label: str) -> Markup:
    """Matplotlib's SVG file as an element of a page: no namespaces, addresses or unused ids, and 1/100 px precision."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\sid="[\w.]+_\d+"', "", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)  # matplotlib 3.9
    svg = re.sub(r"font-family: [^;\"]+; ?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"\n\s*", "\n", svg)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()  # type: ignore[union-attr]
    opening = _opening(float(width) * 96 / 72, float(width), float(height), label)
    return Markup(opening + svg[svg.index(">") + 1 :])


def _opening(shown: int | float, width: int | float, height: int | float, label: str) -> str:
    wide = ' class="wide"' if shown > 1000 else ""  # a tablet scrolls it rather than shrinking its text
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" style="width:{shown:.0f}px"'
    return f'<svg{wide} {size} role="img" aria-label="{escape(label)}">'


def forest_svg(comparison: Comparison) -> Markup:
    """One panel per column: each row's top-1 as a mark, its 95 % interval as a line.

    A point of accuracy is equally wide in all panels, but each panel starts where its own values do. The control is a
    hollow square and the others are dots; a dotted line runs through the first row's value.
    """
    columns = [[row.cells[j] for row in comparison.rows] for j in range(len(comparison.columns))]
    spans = [(min(c.low for c in cells), max(c.high for c in cells)) for cells in columns]
    step = 0.05 if max(high - low for low, high in spans) <= 0.3 else 0.1
    starts = [math.floor(low / step + 1e-9) for low, _ in spans]
    steps = max(1, *(math.ceil(high / step - 1e-9) - start for start, (_, high) in zip(starts, spans, strict=True)))
    starts = [max(0, min(start, round(1 / step) - steps)) for start in starts]
    names, width, gap, line = 286, 1060, 34, 30
    panel = (width - names - 12) / len(columns) - gap
    bottom = 30 + line * len(comparison.rows)
    every = math.ceil(steps * 26 / panel)  # so many ticks share one number
    parts = [_opening(width, width, bottom + 28, "top-1 accuracy with 95 % intervals")]
    for i, row in enumerate(comparison.rows):
        name = _shortened([row.name], 28 if row.control else 38)[0] + (" (control)" if row.control else "")
        parts.append(_label(names, 30 + line * (i + 0.5) + 4, name, "end"))
    for j, (cells, start) in enumerate(zip(columns, starts, strict=True)):
        left = names + gap + j * (panel + gap)
        parts.append(_label(left, 16, comparison.columns[j], "start", "strong", most=int(panel / 7)))
        for k in range(steps + 1):
            at = left + k / steps * panel
            parts.append(f'<path class="rule" d="M{at:.1f} 26V{bottom}"/>')
            if k % every == 0:
                parts.append(_label(at, bottom + 18, f"{100 * (start + k) * step:.0f}", "middle", "small"))
        for i, (row, cell) in enumerate(zip(comparison.rows, cells, strict=True)):
            y = 30 + line * (i + 0.5)
            a, b, middle = (left + (v / step - start) / steps * panel for v in (cell.low, cell.high, cell.top1))
            if i == 0:
                parts.append(f'<path class="reference" d="M{middle:.1f} 26V{bottom}"/>')
            parts.append(f'<path class="interval" d="M{a:.1f} {y}H{b:.1f}M{a:.1f} {y - 4}v8M{b:.1f} {y - 4}v8"/>')
            if row.control:
                parts.append(f'<rect class="control" x="{middle - 4.5:.1f}" y="{y - 4.5}" width="9" height="9"/>')
            else:
                parts.append(f'<circle class="point" cx="{middle:.1f}" cy="{y}" r="5"/>')
    return Markup("".join(parts) + "</svg>")


def confusion_svg(confusion: Confusion) -> Markup:
    """True classes downwards, answers to the right; the depth of a cell is its share of the row.

    Right answers (the diagonal) and mistakes have two colours. Rows carry number and name, columns the number, so that
    long names stay readable. Counts are printed for up to 20 classes and names for up to 60; beyond, cells name
    themselves when pointed at.
    """
    counts, names = confusion.counts, confusion.class_names
    classes = len(names)
    side = 30 if classes <= _COUNTS_TO else 14 if classes <= _NAMES_TO else max(3, 840 // classes)
    size = 12 if classes <= _COUNTS_TO else 10
    labels = _shortened(names, 54)
    left = 36 + round(0.56 * size * max(map(len, labels))) if classes <= _NAMES_TO else 8
    top = 24 if classes <= _NAMES_TO else 8
    extent = side * classes
    width, height = left + extent + 2, top + extent + 2
    parts = [_opening(width, width, height, f"{confusion.name}: confusion matrix")]
    parts.append(f'<rect class="field" x="{left}" y="{top}" width="{extent}" height="{extent}"/>')
    for i in range(classes if classes <= _NAMES_TO else 0):
        y, style = top + side * (i + 0.5) + size * 0.36, f' style="font-size:{size}px"'
        title = f"<title>{escape(names[i])}</title>"
        for at, text in ((left - 30, escape(labels[i])), (left - 8, i + 1)):
            parts.append(f'<text x="{at}" y="{y:.1f}" text-anchor="end"{style}>{text}{title}</text>')
        x = left + side * (i + 0.5)
        parts.append(f'<text x="{x:.1f}" y="{top - 8}" text-anchor="middle"{style}>{i + 1}{title}</text>')
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for i, j in np.argwhere(counts).tolist():
        x, y, share = left + side * j, top + side * i, float(shares[i, j])
        kind = "right" if i == j else "wrong"
        inner = side - (1 if side > 4 else 0)
        said = f"{names[i]}: {counts[i, j]} of {counts[i].sum()} called {names[j]}"
        # the square root keeps a few mistakes of many visible
        parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{inner}" height="{inner}" '
            f'fill-opacity="{math.sqrt(share):.2f}"><title>{escape(said)}</title></rect>'
        )
        if classes <= _COUNTS_TO:
            ink = ' class="on"' if share > 0.55 else ""
            parts.append(
                f'<text{ink} x="{x + side / 2 - 0.5}" y="{y + side / 2 + 4}" text-anchor="middle" '
                f'style="font-size:12px">{counts[i, j]}</text>'
            )
    return Markup("".join(parts) + "</svg>")


def _shortened(names: Sequence[str], most: int) -> list[str]:
    return [name if len(name) <= most else name[: most - 1].rstrip() + "…" for name in names]


def _label(x: int | float, y: int | float, text: str, anchor: str, kind: str = "", *, most: int = 60) -> str:
    style = f' class="{kind}"' if kind else ""
    short = escape(_shortened([text], most)[0])
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{short}</text>'
