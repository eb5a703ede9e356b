"""Whether the networks of a comparison look where and when they say: measured, and as parts of the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from stabn.evaluation.seeds import seed_interval
from stabn.report.comparison_content import (
    ExplanationSection,
    LocalisationChart,
    PerturbationCurvePair,
    PerturbationPanels,
)
from stabn.report.content import Cell, Contrast, ContrastRow, Difference, Row

_REPLACED = ("inverse-spatial", "uniform-spatial", "shuffled-spatial",
             "inverse-temporal", "uniform-temporal", "shuffled-temporal")  # fmt: skip
_MEASURES = {
    ("temporal", "average_precision"): "frame AP",
    ("temporal", "pointing"): "frame pointing",
    ("temporal", "iou"): "frame IoU",
    ("spatial", "pointing"): "box pointing",
    ("spatial", "energy"): "energy in box",
}

Found = Sequence[Mapping[str, Any]]
"""What was found of one method's runs, one per seed."""


def explanation_section(looked: Found, names: Sequence[str]) -> ExplanationSection:
    """What `look` found, for the page; over seeds the means of all runs of a method.

    Args:
        looked: what `look` gave, the methods in the same order in every repetition.
        names: what the page calls them.
    """
    of = [(name, looked[i :: len(names)]) for i, name in enumerate(names)]
    with_attention = [(name, found) for name, found in of if found[0]["attention_replaced"] is not None]
    baselines = looked[0]["baselines"]
    return ExplanationSection(
        clips=len(looked[0]["perturbed"]),
        drops=_drops(with_attention) if with_attention else None,
        removals=tuple(_removal(name, found, baseline) for name, found in of for baseline in baselines),
        ahead=tuple(_ahead(name, found, baselines[0]) for name, found in with_attention if baselines),
        located=tuple(part for name, found in of if (part := _located(name, found)) is not None),
    )


def _interval(values: Sequence[Mapping[str, float]], scale: float = 1.0) -> tuple[float, float, float]:
    """(mean, low, high): the one run's own, or over seeds those of the mean."""
    if len(values) == 1:
        return values[0]["mean"] * scale, values[0]["low"] * scale, values[0]["high"] * scale
    found = seed_interval([value["mean"] * scale for value in values])
    return found.mean, found.low, found.high


def _change(values: Sequence[Mapping[str, float]], scale: float = 1.0) -> Difference:
    middle, low, high = _interval(values, scale)
    return Difference(middle, max(-1.0, min(low, middle)), min(1.0, max(high, middle)))


def _drops(of: Sequence[tuple[str, Found]]) -> Contrast:
    names = [name for name in _REPLACED if all(name in f["attention_replaced"] for _, found in of for f in found)]
    rows = tuple(
        ContrastRow(
            name, tuple(_change([f["attention_replaced"][kind]["drop"] for f in found], 0.01) for kind in names)
        )
        for name, found in of
    )
    return Contrast("the network's own attention", tuple(names), rows)


def _removal(name: str, found: Found, baseline: str) -> PerturbationPanels:
    methods = tuple(found[0]["methods"])
    scopes = tuple(scope for scope in ("frames", "regions", "both") if scope in found[0]["methods"][methods[0]])

    def trace(scope: str, method: str) -> PerturbationCurvePair:
        measured = [f["methods"][method][scope][baseline] for f in found]
        curves, areas = [], []
        for direction in ("deletion", "insertion"):
            points = zip(*(m[direction]["curve"] for m in measured), strict=True)
            curves.append(tuple(sum(values) / len(found) for values in points))
            areas.append(sum(m[direction]["auc"] for m in measured) / len(found))
        return PerturbationCurvePair(curves[0], curves[1], areas[0], areas[1])

    return PerturbationPanels(
        name, baseline, methods, scopes, tuple(tuple(trace(s, m) for m in methods) for s in scopes)
    )


def _ahead(name: str, found: Found, baseline: str) -> Contrast:
    """Positive where the attention is the better one."""
    others = found[0]["differences"]["attention"]
    known = all("temporal" in value.get("truth", {}) for f in found for value in f["differences"]["attention"].values())
    columns = (f"frames, insertion ({baseline})", f"frames, deletion ({baseline})", *(["frame AP"] if known else []))
    rows = []
    for other in others:
        values = [f["differences"]["attention"][other] for f in found]
        changes = [
            _change([value["frames"][baseline]["insertion"] for value in values]),
            _change([_turned(value["frames"][baseline]["deletion"]) for value in values]),
        ]
        if known:
            changes.append(_change([value["truth"]["temporal"]["average_precision"] for value in values]))
        rows.append(ContrastRow(other, tuple(changes)))
    return Contrast(f"the other explanations of {name}", columns, tuple(rows))


def _turned(value: Mapping[str, float]) -> dict[str, float]:
    return {"mean": -value["mean"], "low": -value["high"], "high": -value["low"]}


def _located(name: str, found: Found) -> LocalisationChart | None:
    methods = list(found[0]["methods"])
    truths = {method: [f["methods"][method]["truth"] for f in found] for method in methods}
    if any(value is None for values in truths.values() for value in values):
        return None
    known = [key for key in _MEASURES if all(v[key[0]] is not None for values in truths.values() for v in values)]

    def cell(method: str, side: str, measure: str) -> Cell:
        middle, low, high = _interval([value[side][measure] for value in truths[method]])
        clips = len(truths[method][0][side]["clips"])
        return Cell(middle, max(0.0, min(low, middle)), min(1.0, max(high, middle)), clips)

    rows = tuple(Row(method, "", tuple(cell(method, *key) for key in known)) for method in methods)
    chances = tuple(
        sum(value[side][measure]["chance"] for value in truths[methods[0]]) / len(found) for side, measure in known
    )
    columns = tuple(_MEASURES[key] for key in known)
    return LocalisationChart(name, columns, rows, chances) if known else None
