"""Loss and accuracy of a training run by epoch."""

import math

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from stabn.report.charts import svg
from stabn.report.content import Curve

_SERIES = {"train": (svg.MUTED, (0, (4, 2)), "s"), "validation": (svg.ACCENT, "-", "o")}

_METRICS = {
    "loss": ("Loss", 1),
    "top1": ("Top-1 accuracy (%)", 100),
    "mean_class_accuracy": ("Mean class accuracy (%)", 100),
}
"""Metric -> title and factor; an old run has no mean class accuracy, and its panel stays empty."""


@matplotlib.rc_context(svg.STYLE)
def curve_svg(curve: Curve) -> Markup:
    """Loss and accuracies per epoch, side by side; validation is a solid line with dots, training a dashed one."""
    figure = svg.new_figure(1056, 269)
    panels = figure.subplots(1, len(_METRICS), gridspec_kw=svg.margins(figure, 40, 110, 30, 44, wspace=0.62))
    for axes, (metric, (title, scale)) in zip(panels, _METRICS.items(), strict=True):
        axes.set_title(title, fontweight="normal")
        _draw_metric(axes, curve, metric, scale)
    return svg.to_svg(figure, f"{curve.name}: loss, top-1 accuracy and mean class accuracy per epoch")


def _draw_metric(axes: Axes, curve: Curve, metric: str, scale: int) -> None:
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("epoch")
    epochs = [entry["epoch"] for entry in curve.epochs]
    ends = []
    for name, (ink, dash, marker) in _SERIES.items():
        values = [entry.get(f"{name}_{metric}") for entry in curve.epochs]
        heights = [math.nan if value is None else value * scale for value in values]
        if all(math.isnan(height) for height in heights):
            continue
        marker = marker if len(epochs) <= 40 else "None"
        axes.plot(epochs, heights, color=ink, linestyle=dash, linewidth=1.6, marker=marker, markersize=3.2)
        ends.append(([height for height in heights if not math.isnan(height)][-1], name, ink))
    axes.set_visible(bool(ends))
    axes.set_ylim(bottom=0)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    # names stand at the lines' ends, so that no legend must be matched by colour; close ends are moved apart
    low, high = axes.get_ylim()
    ends.sort()
    places = [height for height, *_ in ends]
    if len(places) == 2 and places[1] - places[0] < 0.11 * (high - low):
        middle = max(sum(places) / 2, low + 0.08 * (high - low))
        places = [middle - 0.055 * (high - low), middle + 0.055 * (high - low)]
    for (height, name, ink), place in zip(ends, places, strict=True):
        label = f"{name} {height:.1f}" if scale == 100 else f"{name} {height:.2f}"
        axes.text(1.015, place, label, transform=axes.get_yaxis_transform(), color=ink, va="center", fontsize=9)
