"""Confusion matrix, written as SVG directly: of 174 classes matplotlib would draw 30,000 cells or one pixel image.

Only cells with clips are drawn, and each says what it is when pointed at.
"""

import math

import numpy as np
from markupsafe import Markup, escape

from stabn.report.charts import svg
from stabn.report.content import Confusion

_COUNTS_TO = 20  # classes up to which there is room for counts
_NAMES_TO = 60  # and for names


def confusion_svg(confusion: Confusion) -> Markup:
    """True classes are rows and predicted classes columns; the depth of a cell is its share of the row.

    Right predictions (the diagonal) and mistakes have two colours. Rows carry number and name, columns the number, so
    that long names stay readable. Counts are printed for up to 20 classes and names for up to 60.
    """
    counts, names = confusion.counts, confusion.class_names
    classes = len(names)
    side = 30 if classes <= _COUNTS_TO else 14 if classes <= _NAMES_TO else max(3, 840 // classes)
    size = 12 if classes <= _COUNTS_TO else 10
    labels = svg.shorten(names, 54)
    left = 36 + round(0.56 * size * max(map(len, labels))) if classes <= _NAMES_TO else 8
    top = 24 if classes <= _NAMES_TO else 8
    extent = side * classes
    width, height = left + extent + 2, top + extent + 2
    parts = [svg.opening(width, width, height, f"{confusion.name}: confusion matrix")]
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
