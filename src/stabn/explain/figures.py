"""How a training went, and what a network took for what, as inline SVG in the page's colours and fonts."""

import io
import math
import re
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from stabn.explain.contents import Confusion, Curve
from stabn.explain.svg import distinct, opening

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
    begun = opening(float(width) * 96 / 72, float(width), float(height), label)
    return Markup(begun + svg[svg.index(">") + 1 :])


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
    labels = distinct(names, 54)
    left = 36 + round(0.56 * size * max(map(len, labels))) if classes <= _NAMES_TO else 8
    top = 24 if classes <= _NAMES_TO else 8
    extent = side * classes
    width, height = left + extent + 2, top + extent + 2
    parts = [opening(width, width, height, f"{confusion.name}: confusion matrix")]
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
