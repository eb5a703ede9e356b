"""Did the correction help? Runs side by side on the same clips, with intervals and against a control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stabn.data.ground_truth import ClipTruth
from stabn.errors import UserError
from stabn.evaluation.calibration import calibration
from stabn.evaluation.intervals import Interval, bootstrap_interval, paired_interval
from stabn.evaluation.localisation import average_precision
from stabn.evaluation.predict import Predictions

GROUPS = ("edited classes", "other classes", "all")
FORMER_GROUPS = ("formerly wrong", "formerly right")
"""Clips by the first contestant's answer: the share right now is what was mended, and what was not broken."""
FRAME_AP = "frame average precision"
SIGNIFICANT = 0.05
"""McNemar's p has to be below this, too, before one run is called better than another."""


@dataclass(frozen=True, eq=False)
class NamedPredictions:
    """One run's answers in a comparison.

    Attributes:
        name: such as "before", "fine-tuned", "control".
        predictions: for the same clips as the others, in the same order.
    """

    name: str
    predictions: Predictions


def frame_precisions(predictions: Predictions, truth: Mapping[str, ClipTruth]) -> np.ndarray:
    """How well temporal attention ranks each clip's decisive frames (scores of 1.0) above all others.

    Args:
        predictions: of N clips.
        truth: by clip id.

    Returns:
        (N,) float64, average precision in 0..1; NaN where there is no attention or no truth, or where all or none of
        the frames are decisive.

    Raises:
        UserError: truth for fewer frames than a clip has.
    """
    values = np.full(len(predictions.clip_ids), np.nan)
    if predictions.temporal is None or predictions.frame_indices is None:
        return values
    for row, clip_id in enumerate(predictions.clip_ids):
        if clip_id not in truth or not truth[clip_id].says_when:
            continue
        try:
            scores = truth[clip_id].scores(predictions.frame_indices[row])
        except ValueError as error:
            raise UserError(f"clip {clip_id}: {error}; give the truth of these videos") from None
        decisive = scores >= 1
        if 0 < decisive.sum() < len(decisive):
            values[row] = average_precision(predictions.temporal[row], decisive)
    return values


def frame_average_precision(predictions: Predictions, truth: Mapping[str, ClipTruth]) -> float | None:
    """The mean of `frame_precisions` over the clips that have one; None without such a clip."""
    values = frame_precisions(predictions, truth)
    return None if np.isnan(values).all() else float(np.nanmean(values))


def mcnemar_test(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """McNemar's exact test of whether two networks are right equally often on the same clips.

    Only clips that one network alone gets right count; if both are equally good, each of these falls to either side
    like a coin. Two-sided, and exact: the binomial distribution is summed in whole numbers.

    Args:
        ours: (N,) bool, right or not.
        theirs: (N,) bool, of the same clips.

    Returns:
        {"only_ours": clips, "only_theirs": clips, "p": 0..1}; p is 1 where the networks never differ.
    """
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    differing = only_ours + only_theirs
    term = total = 1  # of the first min + 1 binomial coefficients
    for k in range(min(only_ours, only_theirs)):
        term = term * (differing - k) // (k + 1)
        total += term
    return {"only_ours": only_ours, "only_theirs": only_theirs, "p": min(1.0, 2 * total / 2**differing)}


def compare_predictions(
    contestants: Sequence[NamedPredictions],
    class_names: Sequence[str],
    edited_classes: Sequence[str],
    *,
    control: str | None = None,
    truth: Mapping[str, ClipTruth] | None = None,
) -> dict[str, Any]:
    """How often each contestant is right, group by group, and what it gained and lost, with 95 % bootstrap intervals.

    The first contestant is the starting point: "formerly wrong" and "formerly right" are the clips that it got wrong
    and right, and the others' mended and newly wrong clips are counted against it. The intervals resample validation
    clips; they do not cover the chance of training, for which runs with several seeds are needed (`over_seeds`).

    Args:
        contestants: at least one; all answered the same clips.
        class_names: K names.
        edited_classes: names of the classes that have edits.
        control: name of the contestant against which the last one's difference is judged; None for the first one.
        truth: what is known about clips, by their id, for the frame average precision.

    Returns:
        {"groups": ["edited classes", "other classes", "all"], "edited_classes", "methods", "against": the control's
        name, "differences", "difference", "verdict": one sentence}.

        A method is {"name", per group and for "formerly wrong" and "formerly right" {"top1", "low", "high", "count"},
        "mended", "newly_wrong": clips, "calibration_error": {"error", "low", "high"}, "frame_average_precision": a
        number, "frame_average_precision_interval": {"low", "high", "count"}}. Where no clip is, and for the groups that
        are made of its own answers, it has None.

        "differences" has an entry for each contestant against the control, and against the first: {"of", "against",
        per group, "formerly wrong", "formerly right" and "frame average precision" {"points", "low", "high"} of the
        paired difference or None, "mcnemar": as in `mcnemar_test`, ours being "of"}. "difference" is the last one's against
        the control, with the groups alone.

    Raises:
        ValueError: contestants of different clips, or no contestant `control`.
        UserError: truth for fewer frames than a clip has.
    """
    first = contestants[0].predictions
    for other in contestants[1:]:
        if other.predictions.clip_ids != first.clip_ids:
            raise ValueError(f"{other.name}: got answers for other clips than {contestants[0].name}, expected the same")
    against = next((c for c in contestants if c.name == (control or contestants[0].name)), None)
    if against is None:
        raise ValueError(f"control: got {control!r}, expected one of {[c.name for c in contestants]}")
    is_edited = np.isin(first.labels, [class_names.index(name) for name in edited_classes])
    masks = {"edited classes": is_edited, "other classes": ~is_edited, "all": np.ones_like(is_edited)}
    former = {"formerly wrong": ~first.correct, "formerly right": first.correct}
    precisions = {} if truth is None else {id(c): frame_precisions(c.predictions, truth) for c in contestants}

    def difference(of: NamedPredictions, than: NamedPredictions) -> dict[str, Any]:
        ours, theirs = of.predictions.correct, than.predictions.correct
        # The first one's answers made the former groups: a difference to itself there would say nothing.
        groups = masks if contestants[0] in (of, than) else masks | former
        known = {name: _change(ours[groups[name]], theirs[groups[name]]) for name in groups}
        return {
            "of": of.name,
            "against": than.name,
            **{name: known.get(name) for name in (*GROUPS, *FORMER_GROUPS)},
            FRAME_AP: _change(*_both(precisions[id(of)], precisions[id(than)])) if precisions else None,
            "mcnemar": mcnemar_test(ours, theirs),
        }

    methods = []
    for contestant in contestants:
        right = contestant.predictions.correct
        error = calibration(contestant.predictions.probabilities, contestant.predictions.labels)
        methods.append(
            {
                "name": contestant.name,
                **{name: _share(right[mask]) for name, mask in masks.items()},
                **{
                    name: None if contestant is contestants[0] else _share(right[former[name]])
                    for name in FORMER_GROUPS
                },
                "mended": int((right & ~first.correct).sum()),
                "newly_wrong": int((~right & first.correct).sum()),
                "calibration_error": {key: error[key] for key in ("error", "low", "high")},
                **_precision(precisions.get(id(contestant))),
            }
        )
    last = difference(contestants[-1], against)
    return {
        "groups": list(GROUPS),
        "edited_classes": list(edited_classes),
        "methods": methods,
        "against": against.name,
        "differences": [
            difference(of, than)
            for of in contestants
            for than in ((against,) if against is contestants[0] else (against, contestants[0]))
            if of is not than
        ],
        "difference": {key: last[key] for key in ("of", "against", *GROUPS, "mcnemar")},
        "verdict": run_verdict(last),
    }


def run_verdict(difference: Mapping[str, Any]) -> str:
    """What a paired difference over all clips, an entry of "differences", allows to say, and no more."""
    change = difference["all"]
    points, low, high = (round(100 * change[key], 1) + 0.0 for key in ("points", "low", "high"))
    figures = f"{points:+.1f} points of top-1 over all clips, 95 % interval {low:+.1f} to {high:+.1f}"
    # Of a few clips that differ all to one side every resample says the same: the interval knows nothing of chance.
    p = difference["mcnemar"]["p"]
    if p >= SIGNIFICANT and (low > 0 or high < 0):
        figures += f", but too few clips differ (p {p:.2g})"
    return verdict_sentence(difference, figures, within="In this run", who="This run", decided=p < SIGNIFICANT)


def verdict_sentence(
    difference: Mapping[str, Any], figures: str, *, within: str, who: str, decided: bool = True
) -> str:
    """A verdict in words: better or worse where the interval over all clips excludes zero, and else neither."""
    change, of, against = difference["all"], difference["of"], difference["against"]
    if decided and change["low"] > 0:
        return f"{within}, {of} is better than {against}: {figures}."
    if decided and change["high"] < 0:
        return f"{within}, {of} is worse than {against}: {figures}."
    return f"{who} cannot tell {of} from {against}: {figures}."


def _rounded(interval: Interval, name: str) -> dict[str, float]:
    value = interval.as_json()
    return {name: value["mean"], "low": value["low"], "high": value["high"]}


def _share(right: np.ndarray) -> dict[str, Any] | None:
    if not len(right):
        return None
    return {**_rounded(bootstrap_interval(right), "top1"), "count": len(right)}


def _change(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float] | None:
    return _rounded(paired_interval(ours, theirs), "points") if len(ours) else None


def _both(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The clips for which both have a value."""
    known = ~(np.isnan(ours) | np.isnan(theirs))
    return ours[known], theirs[known]


def _precision(values: np.ndarray | None) -> dict[str, Any]:
    known = np.empty(0) if values is None else values[~np.isnan(values)]
    if not len(known):
        return {"frame_average_precision": None, "frame_average_precision_interval": None}
    found = bootstrap_interval(known).as_json()
    return {
        "frame_average_precision": found["mean"],
        "frame_average_precision_interval": {"low": found["low"], "high": found["high"], "count": len(known)},
    }
