"""Deletion and insertion curves as small multiples: one panel per explanation and scope."""

import matplotlib
from markupsafe import Markup

from stabn.report.charts import svg
from stabn.report.content import CurveGrid

_TOPS = (0.1, 0.2, 0.5, 1.0)  # ends of the probability axis


@matplotlib.rc_context(svg.STYLE)
def perturbation_svg(grid: CurveGrid) -> Markup:
    """Columns are explanations and rows scopes; probability in percent over the share removed or kept.

    Insertion is a solid line and deletion a dashed one. The more room between them, the better the explanation ranks
    what the network's prediction rests on.
    """
    highest = max(max(*pair.deletion, *pair.insertion) for row in grid.curves for pair in row)
    top = 100 * next(value for value in _TOPS if highest <= value)
    cell = min((svg.WIDTH - 108) / len(grid.methods), 170)
    figure = svg.new_figure(108 + cell * len(grid.methods), 46 + 132 * len(grid.scopes))
    space = svg.margins(figure, 108, 26, 46, 40, wspace=26 / (cell - 26), hspace=40 / 92)
    shape = (len(grid.scopes), len(grid.methods))
    panels = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False, gridspec_kw=space)
    for row, scope, pairs in zip(panels, grid.scopes, grid.curves, strict=True):
        row[0].text(-108 / (cell - 26), 0.5, scope, transform=row[0].transAxes, va="center", fontweight="bold")
        for axes, method, pair in zip(row, grid.methods, pairs, strict=True):
            axes.set(xlim=(0, 100), ylim=(0, top), xticks=(0, 100), yticks=(0, top / 2, top))
            svg.grid_only(axes, "y")
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(f"ins {pair.insertion_area:.2f}, del {pair.deletion_area:.2f}", labelpad=0)
            shares = [100 * i / (len(pair.deletion) - 1) for i in range(len(pair.deletion))]
            for kind, curve, area, colour, dash in (
                ("deletion", pair.deletion, pair.deletion_area, svg.MISTAKE, (0, (3.3, 2))),
                ("insertion", pair.insertion, pair.insertion_area, svg.ACCENT, "-"),
            ):
                heights = [100 * value for value in curve]
                line = axes.plot(
                    shares, heights, label=kind, color=colour, linestyle=dash, linewidth=1.5, clip_on=False
                )
                svg.tooltip(line[0], f"{method}, {kind}: area {area:.3f}")
    for axes, method in zip(panels[0], grid.methods, strict=True):
        svg.tooltip(axes.set_title(svg.shorten([method], int((cell - 4) / 8))[0], fontsize=9), method)
    lines = panels[0][0].lines[::-1]
    figure.legend(handles=lines, loc="upper left", ncols=2, bbox_to_anchor=(0.09, 1.02), labelcolor=svg.MUTED)
    return svg.to_svg(figure, f"{grid.name}, {grid.baseline}: insertion and deletion curves")
