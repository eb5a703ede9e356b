"""Reliability diagrams: accuracy over confidence."""

import math
from collections.abc import Sequence

import matplotlib
from markupsafe import Markup

from stabn.report.charts import svg
from stabn.report.content import Reliability

_ACROSS = 4


@matplotlib.rc_context(svg.STYLE)
def reliability_svg(networks: Sequence[Reliability]) -> Markup:
    """One panel per network: the share of right answers over the confidence, beside the diagonal where both agree.

    The area of a dot is the number of clips in its bin; the line from it to the diagonal is overconfidence (below) or
    underconfidence (above).
    """
    across = min(_ACROSS, len(networks))
    bands = math.ceil(len(networks) / across)
    figure = svg.new_figure(svg.WIDTH * across / _ACROSS, 292 * bands)
    space = svg.margins(figure, 40, 29, 50, 46, wspace=69 / 196, hspace=96 / 196)
    panels = figure.subplots(bands, across, squeeze=False, gridspec_kw=space).ravel()
    for axes in panels[len(networks) :]:
        axes.remove()
    names = svg.shorten([network.name for network in networks], 26)
    for axes, network, name in zip(panels, networks, names, strict=False):
        svg.tooltip(axes.set_title(name, pad=20), network.name)
        axes.text(0, 104, f"calibration error {network.error}", color=svg.MUTED, fontsize=9)
        axes.set(xlim=(0, 100), ylim=(0, 100), xticks=(0, 50, 100), yticks=(0, 50, 100), xlabel="confidence, %")
        axes.set_xticks((25, 75), minor=True)
        axes.set_yticks((25, 75), minor=True)
        svg.grid_only(axes)
        axes.grid(which="minor")
        axes.tick_params(which="minor", length=0)
        axes.plot((0, 100), (0, 100), color=svg.MUTED, linestyle=svg.DOTTED, linewidth=1.1)
        bins = [b for b in network.bins if b["count"]]
        clips = sum(b["count"] for b in bins)
        for b in bins:
            x, y = 100 * b["confidence"], 100 * b["accuracy"]
            axes.plot((x, x), (x, y), color=svg.MISTAKE, linewidth=1.9, clip_on=False)
            size = 3 + 12 * math.sqrt(b["count"] / clips)
            (dot,) = axes.plot(
                [x], [y], marker="o", markersize=size, color=svg.ACCENT, markeredgewidth=0, clip_on=False
            )
            svg.tooltip(dot, f"confidence {x:.0f} %: {y:.0f} % right of {b['count']} clips")
    return svg.to_svg(figure, "reliability diagrams: share of right answers by confidence")
