"""How often a network is right: overall, per class, and what it confuses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from stabn.evaluation.predict import Predictions


def accuracy(predictions: Predictions, class_names: Sequence[str]) -> dict[str, Any]:
    """The figures of an evaluation, ready for JSON.

    Returns:
        {"num_clips": N,
         "perception": {"top1", "top5"}, "attention_branch": the same or None,
         "classes": [{"name", "count", "top1"}, ...], top1 None for a class without clips,
         "confusion": K rows of K counts, rows are true classes,
         "predictions": [{"clip_id", "label", "predicted", "probability", "correct"}, ...]}.
        Shares are in 0..1; with fewer than five classes top5 counts them all.
    """
    labels = torch.from_numpy(predictions.labels)
    count = len(class_names)
    predicted = predictions.predicted
    confusion = multiclass_confusion_matrix(torch.from_numpy(predicted), labels, count)
    totals = confusion.sum(1)
    return {
        "num_clips": len(labels),
        "perception": _top(predictions.probabilities, labels),
        "attention_branch": None
        if predictions.attention_probabilities is None
        else _top(predictions.attention_probabilities, labels),
        "classes": [
            {
                "name": name,
                "count": int(totals[k]),
                "top1": round(float(confusion[k, k] / totals[k]), 6) if totals[k] else None,
            }
            for k, name in enumerate(class_names)
        ],
        "confusion": confusion.tolist(),
        "predictions": [
            {
                "clip_id": clip_id,
                "label": class_names[predictions.labels[row]],
                "predicted": class_names[predicted[row]],
                "probability": round(float(predictions.probabilities[row].max()), 6),
                "correct": bool(predictions.correct[row]),
            }
            for row, clip_id in enumerate(predictions.clip_ids)
        ],
    }


def _top(probabilities: np.ndarray, labels: torch.Tensor) -> dict[str, float]:
    scores = torch.from_numpy(probabilities)
    classes = scores.shape[1]
    return {
        f"top{k}": round(
            float(multiclass_accuracy(scores, labels, classes, average="micro", top_k=min(k, classes)))
            if classes > 1
            else 1.0,
            6,
        )
        for k in (1, 5)
    }
