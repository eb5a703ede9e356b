"""Comparison of runs on the same clips, with bootstrap intervals and against a control."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from stabn.data.ground_truth import ClipTruth
from stabn.evaluation.calibration import calibration
from stabn.evaluation.intervals import Interval, bootstrap_interval, mean_class_interval, paired_interval
from stabn.evaluation.localisation import average_precision, decisive_frames
from stabn.evaluation.predict import Predictions

GROUPS = ("edited classes", "other classes", "all")
FORMER_GROUPS = ("formerly wrong", "formerly right")
"""Clips that the first run got wrong and right: the share that is right now was mended, or was kept."""
FRAME_AP = "frame average precision"
MEAN_CLASS = "mean class accuracy"
SIGNIFICANT = 0.05
"""McNemar's p has to be below this, too, before one run is called better than another."""


def frame_precisions(predictions: Predictions, truth: Mapping[str, ClipTruth]) -> np.ndarray:
    """Average precision per clip with which temporal attention ranks the decisive frames (scores of 1.0) first.

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
        if clip_id in truth and truth[clip_id].has_timing:
            decisive = decisive_frames(clip_id, truth[clip_id], predictions.frame_indices[row])
            if 0 < decisive.sum() < len(decisive):
                values[row] = average_precision(predictions.temporal[row], decisive)
    return values


def mcnemar_test(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """McNemar's exact two-sided test of whether two networks are right equally often on the same clips.

    Only clips that one network alone gets right count; if both are equally good, each of these falls to either side
    with probability 1/2.

    Args:
        ours: (N,) bool, right or not.
        theirs: (N,) bool, for the same clips.

    Returns:
        {"only_ours": clips, "only_theirs": clips, "p": 0..1}; p is 1 where the networks never differ.
    """
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    differing = only_ours + only_theirs
    p = float(binomtest(only_ours, differing).pvalue) if differing else 1.0
    return {"only_ours": only_ours, "only_theirs": only_theirs, "p": p}


def compare_predictions(
    runs: Sequence[tuple[str, Predictions]],
    class_names: Sequence[str],
    edited_classes: Sequence[str],
    *,
    control: str | None = None,
    truth: Mapping[str, ClipTruth] | None = None,
) -> dict[str, Any]:
    """Accuracy of each run in each group of clips, and paired differences between runs, with 95 % bootstrap intervals.

    The first run is the starting point: "formerly wrong" and "formerly right" are the clips that it got wrong and
    right, and the others' mended and newly wrong clips are counted against it. The intervals resample validation
    clips; they do not cover the chance of training (`stabn.evaluation.seeds.compare_over_seeds` does).

    Args:
        runs: at least one (name, predictions), all for the same clips in the same order.
        class_names: K names.
        edited_classes: names of the classes that have edits.
        control: name of the run that the last one is judged against; None for the first one.
        truth: what is known about clips, by their id, for the frame average precision.

    Returns:
        {"groups": ["edited classes", "other classes", "all"], "edited_classes", "methods", "against": the control's
        name, "differences", "difference", "verdict": one sentence}.

        A method is {"name", per group and for "formerly wrong" and "formerly right" {"top1", "low", "high", "count"},
        "mended", "newly_wrong": clips, "calibration_error": {"error", "low", "high"}, "frame_average_precision": a
        number, "frame_average_precision_interval": {"low", "high", "count"}}. A group without clips is None, and so are
        the former groups of the run that defines them. "mean_class_accuracy" is {"mean", "low", "high", "classes"}, the
        mean of top-1 over the classes that have clips, and their number.

        "differences" has an entry for each run against the control, and against the first: {"of", "against", per group,
        "formerly wrong", "formerly right", "mean class accuracy" and "frame average precision" {"points", "low",
        "high"} of the paired difference or None, "mcnemar": as in `mcnemar_test`, ours being "of"}. "difference" is the
        last one's against the control, without the former groups and the precision.

    Raises:
        ValueError: runs with other clips.
        UserError: truth for fewer frames than a clip has.
    """
    start = runs[0]
    start_name, first = start
    for name, predictions in runs[1:]:
        if predictions.clip_ids != first.clip_ids:
            raise ValueError(f"{name}: got predictions for other clips than {start_name}, expected the same clips")
    against = next(run for run in runs if run[0] == (control or start_name))
    is_edited = np.isin(first.labels, [class_names.index(name) for name in edited_classes])
    groups = {"edited classes": is_edited, "other classes": ~is_edited, "all": np.ones_like(is_edited)}
    former = {"formerly wrong": ~first.correct, "formerly right": first.correct}
    precisions = {} if truth is None else {id(run): frame_precisions(run[1], truth) for run in runs}

    def method(run: tuple[str, Predictions]) -> dict[str, Any]:
        name, predictions = run
        right = predictions.correct
        error = calibration(predictions.probabilities, predictions.labels)
        return {
            "name": name,
            **{group: _share(right[mask]) for group, mask in groups.items()},
            **{group: None if run is start else _share(right[mask]) for group, mask in former.items()},
            "mean_class_accuracy": _rounded(mean_class_interval(right, first.labels), "mean")
            | {"classes": len(np.unique(first.labels))},
            "mended": int((right & ~first.correct).sum()),
            "newly_wrong": int((~right & first.correct).sum()),
            "calibration_error": {key: error[key] for key in ("error", "low", "high")},
            **_mean_precision(precisions.get(id(run))),
        }

    def difference(of: tuple[str, Predictions], to: tuple[str, Predictions]) -> dict[str, Any]:
        ours, theirs = of[1].correct, to[1].correct
        # The first run's answers define the former groups, so a difference to it there would say nothing.
        masks = groups if of is start or to is start else groups | former
        changes = {name: _change(ours[mask], theirs[mask]) for name, mask in masks.items()}
        gain = ours.astype(np.float64) - theirs
        changes[MEAN_CLASS] = _rounded(mean_class_interval(gain, first.labels), "points")
        if precisions:
            both = ~np.isnan(precisions[id(of)] + precisions[id(to)])
            changes[FRAME_AP] = _change(precisions[id(of)][both], precisions[id(to)][both])
        return {
            "of": of[0],
            "against": to[0],
            **{name: changes.get(name) for name in (*GROUPS, *FORMER_GROUPS, MEAN_CLASS, FRAME_AP)},
            "mcnemar": mcnemar_test(ours, theirs),
        }

    last = difference(runs[-1], against)
    return {
        "groups": list(GROUPS),
        "edited_classes": list(edited_classes),
        "methods": [method(run) for run in runs],
        "against": against[0],
        "differences": [
            difference(of, to)
            for of in runs
            for to in ((against,) if against is start else (against, start))
            if of is not to
        ],
        "difference": {key: last[key] for key in ("of", "against", *GROUPS, MEAN_CLASS, "mcnemar")},
        "verdict": verdict(last),
    }


def verdict(difference: Mapping[str, Any]) -> str:
    """The conclusion that a paired difference over all clips allows, in one sentence.

    One network is called better or worse than the other where the interval excludes zero, and for single runs also
    McNemar's p is below `SIGNIFICANT`.

    Args:
        difference: an entry of "differences" of `compare_predictions` or of `compare_over_seeds`.
    """
    change, of, against = difference["all"], difference["of"], difference["against"]
    over_seeds = "values" in change
    mean, low, high = (round(100 * change[key], 1) + 0.0 for key in ("mean" if over_seeds else "points", "low", "high"))
    interval = "95 % interval of the mean" if over_seeds else "95 % interval"
    figures = f"{mean:+.1f} points of top-1 over all clips, {interval} {low:+.1f} to {high:+.1f}"
    significant, subject, scope = True, "This run", "In this run"
    if over_seeds:
        seeds = sum(value is not None for value in change["values"])
        subject, scope = f"{seeds} seeds", f"Over {seeds} seeds"
    else:
        # Where a few clips all differ to one side, every resample says the same: the interval knows nothing of chance.
        p = difference["mcnemar"]["p"]
        significant = p < SIGNIFICANT
        if not significant and (low > 0 or high < 0):
            figures += f", but too few clips differ (p {p:.2g})"
    if significant and change["low"] > 0:
        return f"{scope}, {of} is better than {against}: {figures}."
    if significant and change["high"] < 0:
        return f"{scope}, {of} is worse than {against}: {figures}."
    return f"{subject} cannot tell {of} from {against}: {figures}."


def _rounded(interval: Interval, name: str) -> dict[str, float]:
    value = interval.as_json()
    return {name: value["mean"], "low": value["low"], "high": value["high"]}


def _share(right: np.ndarray) -> dict[str, Any] | None:
    if not len(right):
        return None
    return {**_rounded(bootstrap_interval(right), "top1"), "count": len(right)}


def _change(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float] | None:
    return _rounded(paired_interval(ours, theirs), "points") if len(ours) else None


def _mean_precision(values: np.ndarray | None) -> dict[str, Any]:
    measured = np.empty(0) if values is None else values[~np.isnan(values)]
    if not len(measured):
        return {"frame_average_precision": None, "frame_average_precision_interval": None}
    mean = _rounded(bootstrap_interval(measured), "mean")
    return {
        "frame_average_precision": mean.pop("mean"),
        "frame_average_precision_interval": mean | {"count": len(measured)},
    }
