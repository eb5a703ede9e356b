"""The pieces that a page's drawings are made of: SVG text whose colours and fonts are the page's, light or dark."""

from collections.abc import Sequence

from markupsafe import escape

WIDTH = 1060
"""Of a drawing that fills the page, in its own units; the page shows a unit as a pixel where it has room."""
CHARACTER = 7.4
"""Wide enough for a character of a drawing's ordinary text (13 px) in every font that the page may get."""
STRONG = 8.2
"""The same of its headings."""


def opening(shown: int | float, width: int | float, height: int | float, label: str) -> str:
    """The tag that a drawing begins with; `label` is what it says to whoever does not see it."""
    wide = ' class="wide"' if shown > 1000 else ""  # a tablet scrolls it rather than shrinking its text
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" style="width:{shown:.0f}px"'
    return f'<svg{wide} {size} role="img" aria-label="{escape(label)}">'


def text(
    x: int | float,
    y: int | float,
    words: str,
    anchor: str = "start",
    kind: str = "",
    *,
    most: int = 60,
    whole: str | None = None,
) -> str:
    """One line; of a long one the beginning, and the whole when pointed at. `whole` is what `words` stand for."""
    style = f' class="{kind}"' if kind else ""
    short, whole = shortened([words], most)[0], words if whole is None else whole
    told = f"{escape(short)}{_title(whole if short != whole else '')}"
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{told}</text>'


def path(kind: str, data: str, title: str = "") -> str:
    """A line or an area in one of the page's styles."""
    return f'<path class="{kind}" d="{data}">{_title(title)}</path>' if title else f'<path class="{kind}" d="{data}"/>'


def dot(kind: str, x: float, y: float, radius: float, title: str = "") -> str:
    """A round mark."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{_title(title)}</circle>'


def box(kind: str, x: float, y: float, width: float, height: float, title: str = "") -> str:
    """A rectangle."""
    where = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {where}>{_title(title)}</rect>'


def square(kind: str, x: float, y: float, side: float, title: str = "") -> str:
    """A square mark around a point."""
    return box(kind, x - side / 2, y - side / 2, side, side, title)


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Names of at most so many characters, the last of them an ellipsis where something is left out."""
    return [name if len(name) <= most else name[: most - 1].rstrip() + "…" for name in names]


def distinct(names: Sequence[str], most: int) -> list[str]:
    """Shortened names that stay apart: those that begin alike show how they end."""
    short = shortened(names, most)
    if len(set(short)) == len(set(names)):
        return short
    tail = most // 2
    return [n if len(n) <= most else n[: most - tail - 1].rstrip() + "…" + n[-tail:].lstrip() for n in names]


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""
