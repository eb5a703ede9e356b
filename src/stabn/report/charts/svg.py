"""What the charts share: matplotlib figures that become SVG elements in the page's colours and fonts, light or dark."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH = 1060
"""Width in pixels of a chart that fills the page."""

# matplotlib knows fixed colours only: it draws with these, which the SVG then replaces by the page's variables.
INK, MUTED, LINE, ACCENT, MISTAKE, SURFACE = "#010203", "#020304", "#030405", "#040506", "#050607", "#060708"
_VARIABLES = {INK: "currentColor", MUTED: "var(--muted)", LINE: "var(--line)", ACCENT: "var(--accent)",
              MISTAKE: "var(--mistake)", SURFACE: "var(--surface)"}  # fmt: skip
DOTTED: Any = (0, (1.3, 2.6))  # matplotlib's stubs know named line styles only
HOLLOW: Any = {"markerfacecolor": SURFACE, "markeredgewidth": 1.9}
_TOOLTIP = "tooltip:"

STYLE: Any = {  # matplotlib's stubs want the literal type of every known key
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.75,  # 13 px
    "axes.titlesize": 9.75,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "legend.fontsize": 9.0,
    "text.color": INK,
    "axes.titlecolor": INK,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.75,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in pixels, with transparent background."""
    figure = Figure(figsize=(width / 96, height / 96))
    FigureCanvasSVG(figure)
    return figure


def margins(figure: Figure, left: float, right: float, top: float, bottom: float, **spaces: float) -> dict[str, float]:
    """Margins in pixels as the arguments that `Figure.subplots(gridspec_kw=...)` wants."""
    width, height = figure.get_size_inches() * 96
    edges = {"left": left / width, "right": 1 - right / width, "top": 1 - top / height, "bottom": bottom / height}
    return edges | spaces


def grid_only(axes: Axes, axis: Any = "both") -> None:
    """Draw grid lines and no frame or tick marks."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis=axis)


def tooltip(artist: Artist, words: str) -> None:
    """Show words when somebody points at an artist."""
    artist.set_gid(_TOOLTIP + words)


def to_svg(figure: Figure, label: str) -> Markup:
    """A figure as an SVG element of a page.

    Args:
        figure: drawn under `STYLE`.
        label: alternative text, different for every figure of a page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label}):  # ids differ between figures and are the same every time
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # no metadata, no style that would hold for the whole page, no comments, namespaces or unused ids
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(rf'<g id="{_TOOLTIP}([^"]*)">', r"<g><title>\1</title>", svg)
    svg = re.sub(r'\sid="[\w.]+_\d+"', "", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub(r"font: ((?:bold |\d+ )?)([\d.]+px) [^;\"]+", r"font-weight: \1; font-size: \2", svg)
    svg = re.sub(r"font-family: [^;\"]+; ?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"\n\s*", "\n", svg)
    width, height = figure.get_size_inches()
    return Markup(opening(96 * width, 72 * width, 72 * height, label) + svg[svg.index(">") + 1 :])


def opening(shown: float, width: float, height: float, label: str) -> str:
    """The start tag of a chart that is `shown` pixels wide; `label` is its alternative text."""
    wide = ' class="wide"' if shown > 1000 else ""  # on a tablet it scrolls rather than shrinking its text
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" style="width:{shown:.0f}px"'
    return f'<svg{wide} {size} role="img" aria-label="{escape(label)}">'


def shorten(names: Sequence[str], most: int) -> list[str]:
    """Names of at most `most` characters with an ellipsis; names that begin alike keep their ends, too."""
    short = [name if len(name) <= most else name[: most - 1].rstrip() + "…" for name in names]
    if len(set(short)) == len(set(names)):
        return short
    tail = most // 2
    return [n if len(n) <= most else n[: most - tail - 1].rstrip() + "…" + n[-tail:].lstrip() for n in names]
