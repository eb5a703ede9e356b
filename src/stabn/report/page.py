"""A report as one HTML file that opens offline: everything it shows is inside it, and it asks nobody for anything."""

import base64
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from stabn.errors import UserError
from stabn.files import write_text
from stabn.report.charts.calibration import ROWS, classes_svg, reliability_svg
from stabn.report.charts.confusion import confusion_svg
from stabn.report.charts.curves import curve_svg
from stabn.report.charts.forest import contrast_svg, forest_svg, located_svg
from stabn.report.charts.perturbation import removal_svg
from stabn.report.comparison_content import Evidence, ExplanationSection
from stabn.report.content import VIDEO_TYPES, Cell, Comparison, Confusion, Curve, Example, Report, Row

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
        "finetuning.html.jinja",
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
        template: a file in templates/.
        values: `title`, `intro`, `contents` (headings of the sections, whose ids they are in small letters), and what
            the template itself asks for.
    """
    environment = Environment(
        loader=FunctionLoader(
            lambda name: resources.files("stabn.report").joinpath("templates", name).read_text(encoding="utf-8")
        ),
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


def write_evidence(path: Path | str, evidence: Evidence) -> None:
    """Write the page, atomically; its own policy forbids every request."""
    contents = {
        "Comparison": evidence.comparison,
        "Differences": evidence.contrasts,
        "Calibration": evidence.reliabilities,
        "Classes": evidence.classes,
        "Explanations": evidence.looks,
        "Confusions": evidence.confusions,
        "Caveats": evidence.caveats,
        "Settings": evidence.facts,
    }
    write_page(
        path,
        "comparison.html.jinja",
        title=evidence.title,
        intro=evidence.intro,
        contents=[name for name, part in contents.items() if part],
        evidence=evidence,
        forest=forest_svg(evidence.comparison),
        former=forest_svg(evidence.former) if evidence.former else None,
        contrasts=[(contrast, contrast_svg(contrast)) for contrast in evidence.contrasts],
        reliability=reliability_svg(evidence.reliabilities) if evidence.reliabilities else None,
        classes=classes_svg(evidence.classes) if evidence.classes else None,
        named=ROWS,
        looks=_drawn(evidence.looks) if evidence.looks else None,
        confusions=[(confusion, confusion_svg(confusion)) for confusion in evidence.confusions],
    )


def _drawn(looks: ExplanationSection) -> dict[str, Any]:
    """The drawings of a page's part on explanations; of a network's removals the first is shown, others on demand."""
    return {
        "clips": looks.clips,
        "drops": contrast_svg(looks.drops) if looks.drops else None,
        "removals": [
            (name, [(r.baseline, removal_svg(r)) for r in looks.removals if r.name == name])
            for name in dict.fromkeys(removal.name for removal in looks.removals)
        ],
        "ahead": [(contrast, contrast_svg(contrast)) for contrast in looks.ahead],
        "located": [(located, located_svg(located)) for located in looks.located],
    }
