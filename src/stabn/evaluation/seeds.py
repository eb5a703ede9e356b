"""Methods judged over seeds: each trained several times, so that the chance of training is in the interval."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabn.evaluation.comparison import FORMER_GROUPS, FRAME_AP, GROUPS, verdict_sentence
from stabn.evaluation.intervals import LEVEL, Interval

MEASURES = (*GROUPS, *FORMER_GROUPS, "calibration error", FRAME_AP)


def student_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with P(-t <= T <= t) = level for Student's T, to the precision of a float.

    By the finite series for whole degrees of freedom in theta = atan(t / sqrt(freedom)) (Abramowitz and Stegun 26.7.3
    and 26.7.4), bisected over theta.

    Args:
        freedom: degrees of freedom, from 1.
        level: above 0 and below 1.

    Raises:
        ValueError: an argument out of range.
    """
    if freedom < 1 or not 0 < level < 1:
        raise ValueError(f"freedom, level: got {freedom} and {level}, expected at least 1, and between 0 and 1")
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _inside(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(middle)


def _inside(theta: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(theta))."""
    cosine, odd = math.cos(theta), freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    return (theta + math.sin(theta) * total) * 2 / math.pi if odd else math.sin(theta) * total


def seed_interval(values: Sequence[float] | np.ndarray, *, level: float = LEVEL) -> Interval:
    """The mean over seeds, with Student's t interval of that mean.

    Args:
        values: (n,) one number per seed, n from 2; for a paired difference, the differences.
        level: of the interval.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) < 2:
        raise ValueError(f"values: got shape {numbers.shape}, expected (n,) with n from 2; one seed has no interval")
    if not np.isfinite(numbers).all():
        raise ValueError("values: got NaN or infinity, expected finite numbers; leave out seeds without a value")
    half = student_quantile(len(numbers) - 1, level) * numbers.std(ddof=1) / math.sqrt(len(numbers))
    return Interval(float(numbers.mean()), float(numbers.mean() - half), float(numbers.mean() + half))


def compare_over_seeds(
    methods: Sequence[str], repetitions: Sequence[Mapping[str, Any]], *, control: str | None = None
) -> dict[str, Any]:
    """What several comparisons of the same methods say together.

    Each repetition has the edited classes of its own last run, and its formerly wrong clips are those of its own first
    run. Differences are taken within a repetition.

    Args:
        methods: names, in the order of each repetition's runs.
        repetitions: at least two results of `stabn.evaluation.comparison.compare_predictions`, one per seed.
        control: the method against which the last one is judged; None for the first.

    Returns:
        {"groups", "seeds": their number, "methods": [{"name", "runs", per measure {"mean", "low", "high", "values"}}],
        "against": the control's name, "differences": [{"of", "against", per measure likewise}], "difference": the last
        method's against the control, "verdict": one sentence}. Measures are those of `MEASURES`; "values" holds a
        number per repetition, None where it has none. Where fewer than two repetitions have one, a measure is None.

    Raises:
        ValueError: one repetition, repetitions of other methods, a name twice, or no method `control` before the last.
    """
    if len(repetitions) < 2:
        raise ValueError(f"repetitions: got {len(repetitions)}, expected at least two")
    if len(set(methods)) != len(methods):
        raise ValueError(f"methods: got {list(methods)}, expected each name once")
    for repetition in repetitions:
        if len(repetition["methods"]) != len(methods):
            raise ValueError(f"repetitions: got {len(repetition['methods'])} runs, expected one of each {methods}")
    against = methods.index(control) if control in methods else 0 if control is None else len(methods)
    if against >= len(methods) - 1:
        raise ValueError(f"control: got {control!r}, expected one of {list(methods[:-1])}, before the last")
    entries = [[repetition["methods"][i] for repetition in repetitions] for i in range(len(methods))]
    measured = [{name: [_value(entry, name) for entry in of_method] for name in MEASURES} for of_method in entries]
    pairs = [(i, j) for i in range(len(methods)) for j in dict.fromkeys((against, 0)) if i != j]
    differences = [
        {
            "of": methods[i],
            "against": methods[j],
            **{
                # The first method's own answers made these two groups: against itself nothing is left to find.
                name: None if name in FORMER_GROUPS and j == 0 else _change(measured[i][name], measured[j][name])
                for name in MEASURES
            },
        }
        for i, j in pairs
    ]
    difference = next(d for d in differences if (d["of"], d["against"]) == (methods[-1], methods[against]))
    return {
        "groups": list(GROUPS),
        "seeds": len(repetitions),
        "methods": [
            {
                "name": name,
                "runs": [entry["name"] for entry in of_method],
                **{measure: _summary(values) for measure, values in found.items()},
            }
            for name, of_method, found in zip(methods, entries, measured, strict=True)
        ],
        "against": methods[against],
        "differences": differences,
        "difference": difference,
        "verdict": seeds_verdict(difference),
    }


def seeds_verdict(difference: Mapping[str, Any]) -> str:
    """What paired differences over all clips, an entry of "differences", allow to say, and no more."""
    change = difference["all"]
    seeds = sum(value is not None for value in change["values"])
    mean, low, high = (round(100 * change[key], 1) + 0.0 for key in ("mean", "low", "high"))
    figures = f"{mean:+.1f} points of top-1 over all clips, 95 % interval of the mean {low:+.1f} to {high:+.1f}"
    return verdict_sentence(difference, figures, within=f"Over {seeds} seeds", who=f"{seeds} seeds")


def _value(entry: Mapping[str, Any], measure: str) -> float | None:
    """One number of one run."""
    if measure == "calibration error":
        return entry["calibration_error"]["error"]
    if measure == FRAME_AP:
        return entry["frame_average_precision"]
    return None if entry[measure] is None else entry[measure]["top1"]


def _summary(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    return {**seed_interval(known).as_json(), "values": list(values)} if len(known) > 1 else None


def _change(ours: Sequence[float | None], theirs: Sequence[float | None]) -> dict[str, Any] | None:
    pairs = zip(ours, theirs, strict=True)
    return _summary([None if a is None or b is None else round(a - b, 6) for a, b in pairs])
