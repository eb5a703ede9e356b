"""Expected calibration error and reliability diagram: is confidence the share of predictions that are right?"""

from typing import Any

import numpy as np
import torch

from stabn.evaluation.intervals import LEVEL, RESAMPLES

BINS = 15


def calibration(probabilities: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Expected calibration error of the top prediction (Guo et al. 2017, l1 over 15 bins), and its reliability diagram.

    The error is sum_b n_b / N |accuracy_b - confidence_b| over bins of equal width; a bin holds its lower end, and the
    last one also confidence 1. The value is torchmetrics' `multiclass_calibration_error`, which gives neither the bins
    nor an interval. Chance alone makes the error larger than 0, the more so the fewer clips there are, and every
    resample adds as much again. Hence the interval is the basic bootstrap (twice the error minus the resampled
    quantiles), cut at 0 and 1: a percentile interval of this error would lie above the true error altogether.

    Args:
        probabilities: (N, K) softmax scores, N from 1.
        labels: (N,) integers, the true classes.
        seed: for the resamples.

    Returns:
        {"error", "low", "high", "bins": 15 times {"low", "high", "count", "confidence", "accuracy"}}, the last two None
        in a bin without clips.

    Raises:
        ValueError: no clip, or shapes that do not match.
    """
    if probabilities.ndim != 2 or not len(probabilities) or labels.shape != probabilities.shape[:1]:
        got = f"{probabilities.shape} and {labels.shape}"
        raise ValueError(f"probabilities, labels: got shapes {got}, expected (N, K) and (N,) with N from 1")
    clips = len(labels)
    confidence = torch.from_numpy(probabilities.max(1)).float()
    edges = torch.linspace(0, 1, BINS + 1)
    bins = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, BINS - 1).numpy()
    confidences = confidence.double().numpy()
    right = (probabilities.argmax(1) == labels).astype(np.float64)
    counts, sure, hits = (np.bincount(bins, weights, BINS) for weights in (None, confidences, right))
    error = float(np.abs(hits - sure).sum() / clips)
    low, high = np.quantile(_resampled(bins, right - confidences, seed), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return {
        "error": round(error, 6),
        "low": round(max(0.0, float(2 * error - high)), 6),
        "high": round(min(1.0, max(error, float(2 * error - low))), 6),
        "bins": [
            {
                "low": round(float(edges[b]), 6),
                "high": round(float(edges[b + 1]), 6),
                "count": int(counts[b]),
                "confidence": round(float(sure[b] / counts[b]), 6) if counts[b] else None,
                "accuracy": round(float(hits[b] / counts[b]), 6) if counts[b] else None,
            }
            for b in range(BINS)
        ],
    }


def _resampled(bins: np.ndarray, gaps: np.ndarray, seed: int) -> np.ndarray:
    """(RESAMPLES,) calibration errors of clips drawn with replacement."""
    rng, clips = np.random.default_rng(seed), len(bins)
    samples = (rng.integers(clips, size=clips) for _ in range(RESAMPLES))
    return np.array([np.abs(np.bincount(bins[rows], gaps[rows], BINS)).sum() / clips for rows in samples])
