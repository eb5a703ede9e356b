"""How the answer follows its explanations, as small multiples: one panel per explanation and scope."""

from markupsafe import Markup

from stabn.report.charts.svg import WIDTH, opening, path, text
from stabn.report.comparison_content import PerturbationCurvePair, PerturbationPanels

_LEFT, _HEAD, _SIDE, _FOOT = 108, 46, 92, 40
_TOPS = (0.1, 0.2, 0.5, 1.0)  # where a drawing may end upwards


def removal_svg(removal: PerturbationPanels) -> Markup:
    """Columns are explanations and rows what is removed; probability upwards, the share removed or kept to the right.

    Insertion is a solid line and deletion a dashed one. The more room between them, the better the explanation has
    ranked what the network's answer rests on.
    """
    cell = min((WIDTH - _LEFT) / len(removal.methods), 170)
    panel, height = cell - 26, _SIDE + _FOOT
    width = _LEFT + cell * len(removal.methods)
    label = f"{removal.name}, {removal.baseline}: insertion and deletion curves"
    most = max(value for row in removal.traces for trace in row for value in (*trace.deletion, *trace.insertion))
    top_value = next(value for value in _TOPS if most <= value)
    parts = [opening(width, width, _HEAD + height * len(removal.scopes), label)]
    for i, method in enumerate(removal.methods):
        parts.append(text(_LEFT + i * cell, _HEAD - 14, method, "start", "heading", most=int((cell - 4) / 8)))
    parts.append(path("insertion", f"M{_LEFT} 11h26") + text(_LEFT + 32, 15, "insertion", "start", "small"))
    parts.append(path("deletion", f"M{_LEFT + 110} 11h26") + text(_LEFT + 142, 15, "deletion", "start", "small"))
    for row, (scope, traces) in enumerate(zip(removal.scopes, removal.traces, strict=True)):
        top = _HEAD + row * height
        base = top + _SIDE
        parts.append(text(0, top + _SIDE / 2 + 4, scope, "start", "strong", most=10))
        for share in (0, 0.5, 1):
            parts.append(text(_LEFT - 8, base - share * _SIDE + 4, f"{100 * share * top_value:.0f}", "end", "small"))
        for column, trace in enumerate(traces):
            parts.append(_panel(trace, _LEFT + column * cell, top, panel, top_value, removal.methods[column]))
    return Markup("".join(parts) + "</svg>")


def _panel(trace: PerturbationCurvePair, left: float, top: float, width: float, most: float, method: str) -> str:
    base = top + _SIDE
    grid = "".join(f"M{left:.1f} {base - share * _SIDE:.1f}h{width:.1f}" for share in (0, 0.5, 1))
    parts = [path("rule", grid)]
    for kind, curve, area in (
        ("deletion", trace.deletion, trace.deletion_area),
        ("insertion", trace.insertion, trace.insertion_area),
    ):
        step = width / (len(curve) - 1)
        points = " ".join(f"{left + i * step:.1f} {base - value / most * _SIDE:.1f}" for i, value in enumerate(curve))
        parts.append(path(kind, f"M{points}", f"{method}, {kind}: area {area:.3f}"))
    parts.append(text(left, base + 14, "0", "start", "small") + text(left + width, base + 14, "100", "end", "small"))
    said = f"ins {trace.insertion_area:.2f}, del {trace.deletion_area:.2f}"
    return "".join(parts) + text(left + width / 2, base + 28, said, "middle", "small")
