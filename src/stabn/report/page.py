"""Writing a page as one HTML file that opens offline: everything it shows is inside it, and it requests nothing."""

import base64
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined

from stabn.errors import UserError
from stabn.files import write_text
from stabn.report.charts.class_chart import MOST_CLASSES, classes_svg
from stabn.report.charts.confusion import confusion_svg
from stabn.report.charts.forest import forest_svg
from stabn.report.charts.perturbation_chart import perturbation_svg
from stabn.report.charts.reliability_chart import reliability_svg
from stabn.report.charts.training_curves import curve_svg
from stabn.report.content import Page


def write_page(path: Path | str, page: Page) -> None:
    """Write a page as one HTML file, atomically.

    Videos become part of the file, which grows by 4/3 of their size. The page's content security policy forbids every
    request.

    Raises:
        UserError: the video of an example cannot be read.
    """
    sections = {
        "Comparison": page.comparison,
        "Differences": page.differences,
        "Calibration": page.reliabilities,
        "Classes": page.classes,
        "Explanations": page.explanations,
        "Examples": page.examples,
        "Confusions": page.confusions,
        "Training": page.curves,
        "Caveats": page.caveats,
        "Settings": page.facts,
    }
    templates = resources.files("stabn.report").joinpath("templates")
    environment = Environment(
        loader=FunctionLoader(lambda name: templates.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "points": _points,
        "data_uri": _data_uri,
        "forest": forest_svg,
        "reliability_diagrams": reliability_svg,
        "class_chart": classes_svg,
        "perturbation_curves": perturbation_svg,
        "confusion_matrix": confusion_svg,
        "training_curves": curve_svg,
    }
    template = environment.get_template("page.html.jinja")
    names = [name for name, part in sections.items() if part]
    write_text(path, template.render(page=page, sections=names, most_classes=MOST_CLASSES) + "\n")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _points(fraction: float) -> str:
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", "−")


def _data_uri(video: Path) -> str:
    try:
        content = video.read_bytes()
    except OSError as error:
        raise UserError(f"{video}: cannot be read ({error.strerror}); write the example's film first") from None
    return f"data:video/mp4;base64,{base64.b64encode(content).decode('ascii')}"
