"""Top-1 and top-5 accuracy, overall and per class, calibration and the confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from stabn.errors import join_names
from stabn.evaluation.calibration import calibration
from stabn.evaluation.intervals import bootstrap_interval
from stabn.evaluation.predict import Predictions


def accuracy(predictions: Predictions, class_names: Sequence[str]) -> dict[str, Any]:
    """The figures of an evaluation as JSON values.

    Returns:
        {"num_clips": N,
         "skipped": [{"clip_id", "path", "reason"}, ...], the clips that could not be read and count nowhere,
         "perception": {"top1", "top5"}, "attention_branch": the same or None,
         "intervals": {"perception": {"top1": {"low", "high"}, "top5": likewise}, "attention_branch": likewise or None},
         "calibration": {"perception": as in `calibration`, "attention_branch": likewise or None},
         "classes": [{"name", "count", "top1", "low", "high"}, ...], the last three None for a class without clips,
         "confusion": K rows of K counts, rows are true classes,
         "predictions": [{"clip_id", "label", "predicted", "probability", "correct"}, ...]}.
        Shares are in 0..1, low and high the ends of their 95 % bootstrap interval over clips; with fewer than five
        classes top5 counts them all.
    """
    predicted, correct = predictions.predicted, predictions.correct
    confusion = confusion_matrix(predictions, len(class_names))
    branches = {"perception": predictions.probabilities, "attention_branch": predictions.attention_probabilities}
    hits = {name: None if scores is None else _hits(scores, predictions.labels) for name, scores in branches.items()}
    return {
        "num_clips": len(correct),
        "skipped": predictions.skipped_as_json,
        **{name: of and {key: _rounded(value.mean()) for key, value in of.items()} for name, of in hits.items()},
        "intervals": {name: of and {key: _ends(value) for key, value in of.items()} for name, of in hits.items()},
        "calibration": {
            name: None if scores is None else calibration(scores, predictions.labels)
            for name, scores in branches.items()
        },
        "classes": [
            {"name": name, "count": int(confusion[k].sum()), **_share(correct[predictions.labels == k])}
            for k, name in enumerate(class_names)
        ],
        "confusion": confusion.tolist(),
        "predictions": [
            {
                "clip_id": clip_id,
                "label": class_names[predictions.labels[row]],
                "predicted": class_names[predicted[row]],
                "probability": _rounded(predictions.probabilities[row].max()),
                "correct": bool(correct[row]),
            }
            for row, clip_id in enumerate(predictions.clip_ids)
        ],
    }


def skipped_note(skipped: Sequence[Mapping[str, str]], measured: int) -> str:
    """A sentence on the clips that could not be read, as `accuracy` lists them, and how many were measured."""
    first = join_names([clip["path"] for clip in skipped], 3)
    return f"Measured on {measured} of {measured + len(skipped)} clips: {len(skipped)} could not be read ({first})."


def confusion_matrix(predictions: Predictions, classes: int) -> np.ndarray:
    """(classes, classes) int64: `[i, j]` clips of class i were predicted as class j."""
    predicted, labels = torch.from_numpy(predictions.predicted), torch.from_numpy(predictions.labels)
    return multiclass_confusion_matrix(predicted, labels, classes).numpy()


def _hits(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """(N,) bool each: whether the true class is the most probable one, and whether it is among the first five."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]  # of equal ones the first, as argmax does
    return {"top1": best[:, 0] == labels, "top5": (best == labels[:, None]).any(1)}


def _rounded(value: np.floating) -> float:
    return round(float(value), 6)


def _ends(values: np.ndarray) -> dict[str, float]:
    interval = bootstrap_interval(values).as_json()
    return {"low": interval["low"], "high": interval["high"]}


def _share(correct: np.ndarray) -> dict[str, float | None]:
    if not len(correct):
        return {"top1": None, "low": None, "high": None}
    return {"top1": _rounded(correct.mean()), **_ends(correct)}
