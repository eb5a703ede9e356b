"""The section of a page on explanations, from the faithfulness measured for every run of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from stabn.evaluation.intervals import seed_interval
from stabn.evaluation.localisation import MEASURES
from stabn.evaluation.perturbation import DIRECTIONS, SCOPES
from stabn.report.content import CurveGrid, CurvePair, Estimate, EstimateTable, Explanations, Row

_REPLACED = ("inverse-spatial", "uniform-spatial", "shuffled-spatial",
             "inverse-temporal", "uniform-temporal", "shuffled-temporal")  # fmt: skip

Runs = Sequence[Mapping[str, Any]]
"""Faithfulness of one method's runs, one per seed."""


def explanation_section(measured: Runs, names: Sequence[str]) -> Explanations:
    """The section on explanations; over seeds with the means of all runs of a method.

    Args:
        measured: what `stabn.evaluation.compare_runs.runs_faithfulness` gave, the methods in the same order in every
            repetition.
        names: of the methods on the page.
    """
    methods = [(name, measured[i :: len(names)]) for i, name in enumerate(names)]
    with_attention = [(name, runs) for name, runs in methods if runs[0]["attention_replaced"] is not None]
    baselines = measured[0]["baselines"]
    return Explanations(
        clips=len(measured[0]["perturbed"]),
        drops=_drops(with_attention) if with_attention else None,
        curves=tuple(_curves(name, runs, baseline) for name, runs in methods for baseline in baselines),
        against_others=tuple(_against_others(name, runs, baselines[0]) for name, runs in with_attention if baselines),
        localisation=tuple(table for name, runs in methods if (table := _localisation(name, runs)) is not None),
    )


def _estimate(values: Sequence[Mapping[str, float]], scale: float = 1.0, count: int | None = None) -> Estimate:
    """The one run's own estimate, or over seeds the mean with its interval; `scale` may be negative."""
    if len(values) == 1:
        mean, (low, high) = scale * values[0]["mean"], sorted(scale * values[0][end] for end in ("low", "high"))
    else:
        interval = seed_interval([value["mean"] * scale for value in values])
        mean, low, high = interval.mean, interval.low, interval.high
    return Estimate.clamped(mean, low, high, count)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _drops(methods: Sequence[tuple[str, Runs]]) -> EstimateTable:
    kinds = [
        kind for kind in _REPLACED if all(kind in run["attention_replaced"] for _, runs in methods for run in runs)
    ]
    rows = tuple(
        Row(name, tuple(_estimate([run["attention_replaced"][kind]["drop"] for run in runs], 0.01) for kind in kinds))
        for name, runs in methods
    )
    return EstimateTable("the network's own attention", tuple(kinds), rows)


def _curves(name: str, runs: Runs, baseline: str) -> CurveGrid:
    methods = tuple(runs[0]["methods"])
    scopes = tuple(scope for scope in SCOPES if scope in runs[0]["methods"][methods[0]])

    def pair(scope: str, method: str) -> CurvePair:
        measures = [run["methods"][method][scope][baseline] for run in runs]
        curves = {d: zip(*(measure[d]["curve"] for measure in measures), strict=True) for d in DIRECTIONS}
        means = {d: tuple(_mean(values) for values in points) for d, points in curves.items()}
        areas = {d: _mean([measure[d]["auc"] for measure in measures]) for d in DIRECTIONS}
        return CurvePair(means["deletion"], means["insertion"], areas["deletion"], areas["insertion"])

    return CurveGrid(name, baseline, methods, scopes, tuple(tuple(pair(s, m) for m in methods) for s in scopes))


def _against_others(name: str, runs: Runs, baseline: str) -> EstimateTable:
    """Differences between the attention and each other explanation; positive where the attention is better."""
    differences = [run["differences"]["attention"] for run in runs]
    has_truth = all("temporal" in value.get("truth", {}) for run in differences for value in run.values())
    rows = []
    for other in differences[0]:
        frames = [run[other]["frames"][baseline] for run in differences]
        cells = [
            _estimate([value["insertion"] for value in frames]),
            _estimate([value["deletion"] for value in frames], -1),
        ]
        if has_truth:
            cells.append(_estimate([run[other]["truth"]["temporal"]["average_precision"] for run in differences]))
        rows.append(Row(other, tuple(cells)))
    columns = (f"frames, insertion ({baseline})", f"frames, deletion ({baseline})", *["frame AP"] * has_truth)
    return EstimateTable(f"the other explanations of {name}", columns, tuple(rows))


def _localisation(name: str, runs: Runs) -> EstimateTable | None:
    truths = {method: [run["methods"][method]["truth"] for run in runs] for method in runs[0]["methods"]}
    every = [truth for of_method in truths.values() for truth in of_method]
    if any(truth is None for truth in every):
        return None
    measures = [key for key in MEASURES if all(truth[key[0]] is not None for truth in every)]
    if not measures:
        return None
    rows = tuple(
        Row(
            method,
            tuple(
                _estimate([truth[side][measure] for truth in of_method], count=len(of_method[0][side]["clips"]))
                for side, measure in measures
            ),
        )
        for method, of_method in truths.items()
    )
    first = next(iter(truths.values()))
    chance = tuple(_mean([truth[side][measure]["chance"] for truth in first]) for side, measure in measures)
    return EstimateTable(name, tuple(MEASURES[key] for key in measures), rows, chance)
