"""How a training went, and what a network took for what, as inline SVG in the page's colours and fonts."""

import io
import math
import re
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from stabn.report.charts.svg import opening
from stabn.report.content import Curve

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
