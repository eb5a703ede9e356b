"""Accuracy per class, before and after."""

from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.lines import Line2D

from stabn.report.charts import svg
from stabn.report.content import ClassShares

MOST_CLASSES = 40
"""Number of classes that the chart names; of more, those that changed most."""

_MARKS: dict[str, dict[str, Any]] = {
    "first": {"marker": "o", "markersize": 8.5, "color": svg.MUTED, **svg.HOLLOW},
    "control": {"marker": "s", "markersize": 8, "color": svg.MISTAKE, **svg.HOLLOW},
    "other": {"marker": "o", "markersize": 4, "color": svg.MUTED},
    "last": {"marker": "o", "markersize": 6, "color": svg.ACCENT},
}


@matplotlib.rc_context(svg.STYLE)
def classes_svg(classes: ClassShares) -> Markup:
    """One row per class, largest gain on top: the first network's accuracy hollow, the last one's filled.

    The line between them is solid for a gain and dashed for a loss. The control, where there is one, is a hollow
    square; the other networks are small grey dots. Names of edited classes are bold.
    """
    rows = classes.most_changed(MOST_CLASSES)
    names = svg.shorten([classes.names[k] for k in rows], 46)
    figure = svg.new_figure(svg.WIDTH, 24 * len(rows) + 68)
    left = 58 + 8.2 * max(map(len, names))
    axes = figure.subplots(gridspec_kw=svg.margins(figure, left + 16, 70, 44, 24))
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5), xticks=(0, 25, 50, 75, 100), yticks=())
    svg.grid_only(axes, "x")
    beside = axes.get_yaxis_transform()
    pixel = 1 / (svg.WIDTH - left - 86)
    small: dict[str, Any] = {"transform": beside, "fontsize": 9, "color": svg.MUTED, "ha": "right"}
    axes.text(-16 * pixel, -0.75, "clips", **small)
    axes.text(1 + 70 * pixel, -0.75, "points", **small)
    for y, (k, name) in enumerate(zip(rows, names, strict=True)):
        weight = "bold" if classes.names[k] in classes.edited else "normal"
        label = axes.text(-58 * pixel, y, name, transform=beside, ha="right", va="center", fontweight=weight)
        svg.tooltip(label, classes.names[k])
        axes.text(-16 * pixel, y, str(classes.counts[k]), va="center", **small)
        gain = round(100 * classes.change(k), 1)
        text = f"{gain:+.1f}" if gain else "0.0"
        axes.text(1 + 70 * pixel, y, text, transform=beside, ha="right", va="center", color=svg.INK)
        values = [(network, 100 * share) for network, of in classes.networks if (share := of[k]) is not None]
        if gain:
            ends, colour = (values[0][1], values[-1][1]), svg.ACCENT if gain > 0 else svg.MISTAKE
            dash: Any = "-" if gain > 0 else (0, (1.7, 1))
            axes.plot(ends, (y, y), color=colour, linestyle=dash, linewidth=2.25, clip_on=False)
        for network, value in (*values[1:-1], values[0], values[-1]):  # the first and the last lie above the others
            (mark,) = axes.plot([value], [y], linestyle="none", clip_on=False, **_MARKS[_kind(classes, network)])
            svg.tooltip(mark, f"{network}: {value:.1f} % of {classes.names[k]}")
    networks = {_kind(classes, network): network for network, _ in classes.networks}
    shown = {kind: networks[kind] for kind in ("first", "control", "last", "other") if kind in networks}
    if "control" in shown and not shown["control"].endswith("control"):
        shown["control"] += " (control)"
    if "other" in shown:
        shown["other"] = "others"
    handles = [Line2D([], [], linestyle="none", **_MARKS[kind]) for kind in shown]
    axes.legend(handles, svg.shorten([*shown.values()], 26), loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=4)
    return svg.to_svg(figure, "top-1 accuracy per class, before and after")


def _kind(classes: ClassShares, network: str) -> str:
    """The kind of a network's mark."""
    if network in (classes.networks[0][0], classes.networks[-1][0]):
        return "first" if network == classes.networks[0][0] else "last"
    return "control" if network == classes.control else "other"
