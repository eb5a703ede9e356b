"""Top-1, top-5 and mean class accuracy, accuracy per class, calibration and the confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from stabn.data.class_balance import baseline_notes, count_classes, majority, missing_class_notes, single_clip_notes
from stabn.errors import join_names
from stabn.evaluation.calibration import calibration
from stabn.evaluation.intervals import Interval, bootstrap_interval, mean_class_interval
from stabn.evaluation.predict import Predictions


def accuracy(
    predictions: Predictions, class_names: Sequence[str], *, split: str, training: np.ndarray | None = None
) -> dict[str, Any]:
    """The figures of an evaluation as JSON values.

    Args:
        predictions: of at least one clip.
        class_names: K names.
        split: that was measured, for the notes.
        training: (K,) clips of each class that the network was trained on, for the notes; None if unknown.

    Returns:
        {"num_clips": N,
         "skipped": [{"clip_id", "path", "reason"}, ...], the clips that could not be read and count nowhere,
         "perception": {"top1", "top5", "mean_class_accuracy"}, "attention_branch": the same or None,
         "intervals": the same with {"low", "high"} for each number,
         "majority": as in `stabn.data.class_balance.majority`, "notes": sentences on missing classes and baselines,
         "calibration": {"perception": as in `calibration`, "attention_branch": likewise or None},
         "classes": [{"name", "count", "top1", "low", "high"}, ...], the last three None for a class without clips,
         "confusion": K rows of K counts, rows are true classes,
         "predictions": [{"clip_id", "label", "predicted", "probability", "correct"}, ...]}.
        Shares are in 0..1, low and high the ends of their 95 % bootstrap interval over clips; with fewer than five
        classes top5 counts them all. mean_class_accuracy is the mean of top1 over the classes that have clips.
    """
    predicted, correct = predictions.predicted, predictions.correct
    confusion = confusion_matrix(predictions, len(class_names))
    counts = count_classes(predictions.labels, len(class_names))
    branches = {"perception": predictions.probabilities, "attention_branch": predictions.attention_probabilities}
    figures = {
        name: scores if scores is None else _figures(scores, predictions.labels) for name, scores in branches.items()
    }
    rounded = {
        name: None if of is None else {key: _rounded(value.mean) for key, value in of.items()}
        for name, of in figures.items()
    }
    perception = rounded["perception"]
    assert perception is not None
    top1, mean_class = perception["top1"], perception["mean_class_accuracy"]
    by_split = ({} if training is None else {"train": training}) | {split: counts}
    return {
        "num_clips": len(correct),
        "skipped": predictions.skipped_as_json,
        **rounded,
        "intervals": {name: of and {key: _ends(value) for key, value in of.items()} for name, of in figures.items()},
        "majority": majority(counts, class_names),
        "notes": [
            *missing_class_notes(by_split, class_names),
            *single_clip_notes(by_split, class_names),
            *baseline_notes(split, top1, mean_class, counts, class_names),
        ],
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


def _figures(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Interval]:
    """How often the true class is the most probable one, among the first five, and the first averaged over classes."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]  # of equal ones the first, as argmax does
    first = best[:, 0] == labels
    return {
        "top1": bootstrap_interval(first),
        "top5": bootstrap_interval((best == labels[:, None]).any(1)),
        "mean_class_accuracy": mean_class_interval(first, labels),
    }


def _rounded(value: float | np.floating) -> float:
    return round(float(value), 6)


def _ends(interval: Interval) -> dict[str, float]:
    value = interval.as_json()
    return {"low": value["low"], "high": value["high"]}


def _share(correct: np.ndarray) -> dict[str, float | None]:
    if not len(correct):
        return {"top1": None, "low": None, "high": None}
    return {"top1": _rounded(correct.mean()), **_ends(bootstrap_interval(correct))}
