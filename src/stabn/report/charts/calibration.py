"""What lies behind an accuracy: whether confidence can be believed, and which classes gained and lost."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from stabn.report.charts.svg import CHARACTER, STRONG, WIDTH, box, distinct, dot, opening, path, square, text
from stabn.report.comparison_content import ClassShares, Reliability

ROWS = 40
"""Classes that a drawing names; of more, those that changed most."""


def reliability_svg(networks: Sequence[Reliability]) -> Markup:
    """One panel per network: the share of right answers over the confidence, beside the diagonal where both agree.

    A dot is as large as its bin has clips; the line from it to the diagonal is what confidence promised too much
    (below) or too little (above).
    """
    side, across, left, head, foot = 196, 4, 40, 48, 48
    cell, height = WIDTH / across, head + side + foot
    bands = math.ceil(len(networks) / across)
    names = distinct([network.name for network in networks], int((cell - left) / STRONG))
    width = WIDTH if bands > 1 else cell * len(networks)
    parts = [opening(width, width, bands * height, "reliability diagrams: share of right answers by confidence")]
    for number, (network, name) in enumerate(zip(networks, names, strict=True)):
        x0, top = (number % across) * cell + left, (number // across) * height + head
        base = top + side
        parts.append(text(x0, top - 28, name, "start", "strong"))
        parts.append(text(x0, top - 11, f"calibration error {network.error}", "start", "small"))
        for share in (0, 0.25, 0.5, 0.75, 1):
            at, y = x0 + share * side, base - share * side
            parts.append(path("rule", f"M{at:.1f} {top}V{base}M{x0:.1f} {y:.1f}h{side}"))
            if share in (0, 0.5, 1):
                parts.append(text(at, base + 16, f"{100 * share:.0f}", "middle", "small"))
                parts.append(text(x0 - 6, y + 4, f"{100 * share:.0f}", "end", "small"))
        parts.append(text(x0 + side / 2, base + 34, "confidence, %", "middle", "small"))
        parts.append(path("reference", f"M{x0:.1f} {base}L{x0 + side:.1f} {top}"))
        clips = sum(b.count for b in network.bins)
        for b in network.bins:
            x, y, diagonal = x0 + b.confidence * side, base - b.accuracy * side, base - b.confidence * side
            said = f"confidence {100 * b.confidence:.0f} %: {100 * b.accuracy:.0f} % right of {b.count} clips"
            parts.append(path("gap", f"M{x:.1f} {diagonal:.1f}V{y:.1f}"))
            parts.append(dot("point", x, y, 2 + 8 * math.sqrt(b.count / clips), said))
    return Markup("".join(parts) + "</svg>")


def classes_svg(classes: ClassShares) -> Markup:
    """One row per class, those that gained most on top: the first network's share hollow, the last one's filled.

    The line between them is a gain or a loss. The control, where there is one, is a hollow square; the other networks
    are small grey dots.
    """
    rows = classes.most_changed(ROWS)
    short = distinct([classes.names[k] for k in rows], 46)
    names, change, line, head = 50 + STRONG * max(map(len, short)), 66, 24, 44
    left, right = names + 16, WIDTH - change
    bottom = head + line * len(rows)
    parts = [opening(WIDTH, WIDTH, bottom + 24, "top-1 accuracy per class, before and after")]
    parts += _legend(classes, left)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        at = left + tick * (right - left)
        parts.append(path("rule", f"M{at:.1f} {head}V{bottom}"))
        parts.append(text(at, bottom + 18, f"{100 * tick:.0f}", "middle", "small"))
    parts.append(text(WIDTH, head - 8, "points", "end", "small"))
    parts.append(text(names, head - 8, "clips", "end", "small"))
    for i, (k, name) in enumerate(zip(rows, short, strict=True)):
        y = head + line * (i + 0.5)
        kind = "strong" if classes.names[k] in classes.edited else ""
        parts.append(text(names - 42, y + 4, name, "end", kind, whole=classes.names[k]))
        parts.append(text(names, y + 4, str(classes.counts[k]), "end", "small"))
        gain = classes.change(k)
        parts.append(text(WIDTH, y + 4, f"{100 * gain:+.1f}" if round(100 * gain, 1) else "0.0", "end"))
        places = [
            (network, left + share * (right - left), f"{network}: {100 * share:.1f} % of {classes.names[k]}")
            for network, shares in classes.networks
            if (share := shares[k]) is not None
        ]
        (_, first, said_first), (_, last, said_last) = places[0], places[-1]
        if gain:
            parts.append(path("gain" if gain > 0 else "loss", f"M{first:.1f} {y}H{last:.1f}"))
        for network, at, said in places[1:-1]:
            parts.append(
                square("control", at, y, 11, said) if network == classes.control else dot("other", at, y, 3, said)
            )
        parts.append(dot("first", first, y, 6, said_first))
        parts.append(dot("point", last, y, 4, said_last))
    return Markup("".join(parts) + "</svg>")


def _legend(classes: ClassShares, left: float) -> list[str]:
    """The marks and what they stand for, above the rows."""
    first, last = classes.networks[0][0], classes.networks[-1][0]
    others = len(classes.networks) - 2 - (classes.control is not None)
    entries = [("first", first)]
    if classes.control is not None and classes.control not in (first, last):
        told = "" if classes.control.endswith("control") else " (control)"
        entries.append(("control", classes.control + told))
    entries += [("point", last)]
    entries += [("other", "others")] if others > 0 else []
    labels = distinct([label for _, label in entries], 26)
    parts, x = [], left
    for (kind, _), label in zip(entries, labels, strict=True):
        parts.append(
            square(kind, x + 5, 14, 9) if kind == "control" else dot(kind, x + 5, 14, 3 if kind == "other" else 5)
        )
        parts.append(text(x + 16, 18, label))
        x += 16 + CHARACTER * len(label) + 20
    return parts


__all__ = ["ROWS", "box", "classes_svg", "reliability_svg"]
