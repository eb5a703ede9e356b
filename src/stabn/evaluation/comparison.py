"""Did the correction help? Runs side by side on the same clips, with intervals and against a control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import binary_average_precision

from stabn.errors import UserError
from stabn.evaluation.predict import Predictions
from stabn.tables import print_table

GROUPS = ("edited classes", "other classes", "all")
RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Contestant:
    """One run's answers in a comparison.

    Attributes:
        name: such as "before", "fine-tuned", "control".
        predictions: for the same clips as the others, in the same order.
    """

    name: str
    predictions: Predictions


def frame_average_precision(predictions: Predictions, truth: dict[str, tuple[float, ...]]) -> float | None:
    """How well temporal attention ranks a clip's decisive frames (relevance 1.0) above all others.

    Returns:
        Average precision in 0..1, averaged over the clips that have decisive and other frames; None without attention
        or without such a clip.

    Raises:
        UserError: truth for fewer frames than a clip has.
    """
    if predictions.temporal is None or predictions.frame_indices is None:
        return None
    values = []
    for row, clip_id in enumerate(predictions.clip_ids):
        if clip_id not in truth:
            continue
        last = int(predictions.frame_indices[row].max())
        if len(truth[clip_id]) <= last:
            raise UserError(
                f"clip {clip_id}: truth has {len(truth[clip_id])} frames, but the network saw frame {last}; "
                "give the truth of these videos"
            )
        relevance = np.array([truth[clip_id][index] for index in predictions.frame_indices[row]])
        decisive = torch.from_numpy((relevance >= 1).astype(np.int64))
        if 0 < decisive.sum() < len(decisive):
            values.append(float(binary_average_precision(torch.from_numpy(predictions.temporal[row]), decisive)))
    return float(np.mean(values)) if values else None


def compare(
    contestants: Sequence[Contestant],
    class_names: Sequence[str],
    edited_classes: Sequence[str],
    *,
    control: str | None = None,
    truth: dict[str, tuple[float, ...]] | None = None,
) -> dict[str, Any]:
    """Top-1 of each contestant on edited classes, other classes and all, with 95 % bootstrap intervals.

    The first contestant is the starting point: the others' mended and newly wrong clips are counted against it. The
    intervals resample validation clips; they do not cover the chance of training, for which runs with several seeds
    are needed.

    Args:
        contestants: at least one; all answered the same clips.
        class_names: K names.
        edited_classes: names of the classes that have edits.
        control: name of the contestant against which the last one's difference is judged; None for the first one.
        truth: relevance per frame by clip id, for the frame average precision.

    Returns:
        {"groups", "edited_classes", "methods": [{"name", "edited classes" | "other classes" | "all": {"top1", "low",
        "high", "count"} or None where no clip is, "mended", "newly_wrong", "frame_average_precision"}], "difference":
        {"of", "against", per group {"points", "low", "high"}}, "verdict": one sentence}.

    Raises:
        ValueError: contestants of different clips, or no contestant `control`.
    """
    first = contestants[0].predictions
    for other in contestants[1:]:
        if other.predictions.clip_ids != first.clip_ids:
            raise ValueError(f"{other.name}: got answers for other clips than {contestants[0].name}, expected the same")
    against = next((c for c in contestants if c.name == (control or contestants[0].name)), None)
    if against is None:
        raise ValueError(f"control: got {control!r}, expected one of {[c.name for c in contestants]}")
    is_edited = np.isin(first.labels, [class_names.index(name) for name in edited_classes])
    rows = {"edited classes": is_edited, "other classes": ~is_edited, "all": np.ones_like(is_edited)}
    # The same resamples for everybody, so that differences are paired.
    picks = {name: _picks(mask) for name, mask in rows.items()}
    methods = []
    for contestant in contestants:
        right = contestant.predictions.correct
        entry: dict[str, Any] = {"name": contestant.name}
        for name in GROUPS:
            entry[name] = _share(right, rows[name], picks[name])
        entry["mended"] = int((right & ~first.correct).sum())
        entry["newly_wrong"] = int((~right & first.correct).sum())
        precision = None if truth is None else frame_average_precision(contestant.predictions, truth)
        entry["frame_average_precision"] = None if precision is None else round(precision, 6)
        methods.append(entry)
    last = contestants[-1]
    change = last.predictions.correct.astype(float) - against.predictions.correct.astype(float)
    difference: dict[str, Any] = {"of": last.name, "against": against.name}
    for name in GROUPS:
        share = _share(change, rows[name], picks[name])
        difference[name] = share and {"points": share["top1"], "low": share["low"], "high": share["high"]}
    return {
        "groups": list(GROUPS),
        "edited_classes": list(edited_classes),
        "methods": methods,
        "difference": difference,
        "verdict": _verdict(difference),
    }


def print_comparison(found: Mapping[str, Any]) -> None:
    """A comparison as a table and its verdict."""
    rows = []
    for method in found["methods"]:
        cells = [method[group] for group in found["groups"]]
        shares = ["-" if c is None else f"{c['top1']:.1%} ({c['low']:.1%} to {c['high']:.1%})" for c in cells]
        precision = method["frame_average_precision"]
        rows.append(
            (
                method["name"],
                *shares,
                method["mended"],
                method["newly_wrong"],
                "-" if precision is None else f"{precision:.3f}",
            )
        )
    print_table(("top-1", *found["groups"], "mended", "newly wrong", "frame AP"), rows)
    print(found["verdict"])


def _picks(mask: np.ndarray) -> np.ndarray:
    """(RESAMPLES, n) positions drawn with replacement among the n rows of the mask."""
    rows = np.flatnonzero(mask)
    return np.random.default_rng(0).choice(rows, (RESAMPLES, len(rows))) if len(rows) else np.empty((0, 0), int)


def _share(values: np.ndarray, mask: np.ndarray, picks: np.ndarray) -> dict[str, Any] | None:
    if not mask.any():
        return None
    low, high = np.quantile(values[picks].mean(1), (0.025, 0.975))
    return {
        "top1": round(float(values[mask].mean()), 6),
        "low": round(float(low), 6),
        "high": round(float(high), 6),
        "count": int(mask.sum()),
    }


def _verdict(difference: dict[str, Any]) -> str:
    """What the paired difference over all clips allows to say, and no more."""
    change = difference["all"]
    points, low, high = (100 * change[key] for key in ("points", "low", "high"))
    figures = f"{points:+.1f} points of top-1 over all clips, 95 % interval {low:+.1f} to {high:+.1f}"
    of, against = difference["of"], difference["against"]
    if low > 0:
        return f"In this run, {of} is better than {against}: {figures}."
    if high < 0:
        return f"In this run, {of} is worse than {against}: {figures}."
    return f"This run cannot tell {of} from {against}: {figures}."
