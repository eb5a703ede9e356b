"""A report as one HTML file that opens offline: everything it shows is inside it, and it asks nobody for anything."""

import base64
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from stabn.errors import UserError
from stabn.explain.contents import VIDEO_TYPES, Cell, Comparison, Confusion, Curve, Example, Report, Row
from stabn.explain.figures import confusion_svg, curve_svg
from stabn.explain.forest import forest_svg
from stabn.files import write_text

__all__ = ["Cell", "Comparison", "Confusion", "Curve", "Example", "Report", "Row", "write_page", "write_report"]


def write_report(path: Path | str, report: Report) -> None:
    """Write the report as one HTML file, atomically.

    Videos become part of the file, so it grows by 4/3 of their size. The page's own policy forbids every request.

    Raises:
        UserError: the video of an example cannot be read.
    """
    contents = {
        "Comparison": report.comparison,
        "Examples": report.examples,
        "Confusions": report.confusions,
        "Training": report.curves,
        "Caveats": report.caveats,
        "Settings": report.facts,
    }
    write_page(
        path,
        "report.html.jinja",
        title=report.title,
        intro=report.intro,
        contents=[name for name, part in contents.items() if part],
        report=report,
        curves=[(curve, curve_svg(curve)) for curve in report.curves],
        forest=forest_svg(report.comparison) if report.comparison else None,
        confusions=[(confusion, confusion_svg(confusion)) for confusion in report.confusions],
        examples=[(example, _data_uri(example.video)) for example in report.examples],
    )


def write_page(path: Path | str, template: str, **values: Any) -> None:
    """Fill a template that extends page.html.jinja, atomically.

    Args:
        path: of the HTML file.
        template: a file beside this one.
        values: `title`, `intro`, `contents` (headings of the sections, whose ids they are in small letters), and what
            the template itself asks for.
    """
    environment = Environment(
        loader=FunctionLoader(lambda name: resources.files("stabn.explain").joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "points": _points}
    write_text(path, environment.get_template(template).render(**values) + "\n")


def _percent(fraction: int | float) -> str:
    return f"{100 * fraction:.1f}"


def _points(fraction: int | float) -> str:
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", "−")


def _data_uri(video: Path) -> str:
    try:
        content = video.read_bytes()
    except OSError as error:
        raise UserError(f"{video}: cannot be read ({error.strerror}); write the example's film first") from None
    return f"data:{VIDEO_TYPES[video.suffix.lower()]};base64,{base64.b64encode(content).decode('ascii')}"
