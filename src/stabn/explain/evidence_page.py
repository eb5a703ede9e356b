"""Runs side by side as one HTML file that opens offline, like a report."""

from pathlib import Path
from typing import Any

from stabn.explain.answers import ROWS, classes_svg, reliability_svg
from stabn.explain.evidence import Evidence, Looks
from stabn.explain.figures import confusion_svg
from stabn.explain.forest import contrast_svg, forest_svg, located_svg
from stabn.explain.removal import removal_svg
from stabn.explain.report import write_page


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
        "evidence.html.jinja",
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


def _drawn(looks: Looks) -> dict[str, Any]:
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
