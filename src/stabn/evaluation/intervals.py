"""95 % intervals of means over clips (percentile bootstrap) and over seeds (Student's t)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: of the values as measured.
        low, high: the ends of the interval.
    """

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0 altogether."""
        return self.low > 0 or self.high < 0

    def as_json(self) -> dict[str, float]:
        """{"mean", "low", "high"}, rounded to six places."""
        return {name: round(getattr(self, name), 6) for name in ("mean", "low", "high")}


def bootstrap_interval(values: np.ndarray, *, seed: int = 0) -> Interval:
    """The mean of one number per clip, with its percentile bootstrap interval over clips (Efron 1979).

    The same seed and number of clips give the same resamples, so two calls about the same clips are paired. The
    interval does not cover the chance of training, for which several seeds are needed (`seed_interval`).

    Args:
        values: (N,) numbers or bools, N from 1.
        seed: for the resamples.

    Raises:
        ValueError: no clip, or a value that is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"values: got shape {numbers.shape}, expected (N,) with N from 1")
    if not np.isfinite(numbers).all():
        raise ValueError("values: got NaN or infinity, expected finite numbers; leave out clips without a value")
    mean = float(numbers.mean())
    if len(numbers) == 1:  # scipy refuses to resample a single value
        return Interval(mean, mean, mean)
    low, high = stats.bootstrap(
        (numbers,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(2**20 // len(numbers), 1),  # all at once would be RESAMPLES x N numbers
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(low), float(high))


def summarise_clips(values: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """The mean of one number per clip as JSON: {"mean", "low", "high", "per_clip"}, rounded to six places."""
    per_clip = [round(float(value), 6) for value in values]
    return bootstrap_interval(values, seed=seed).as_json() | {"per_clip": per_clip}


def paired_interval(a: np.ndarray, b: np.ndarray, *, seed: int = 0) -> Interval:
    """`bootstrap_interval` of the paired difference a - b over the same clips.

    Raises:
        ValueError: as `bootstrap_interval`, or a and b have different shapes.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"b: got shape {np.shape(b)}, expected {np.shape(a)} as in a, one number per clip")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return bootstrap_interval(difference, seed=seed)


def seed_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """The mean over seeds, with Student's t interval of that mean.

    Args:
        values: (n,) one number per seed, n from 2; for a paired difference, the differences.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) < 2:
        raise ValueError(f"values: got shape {numbers.shape}, expected (n,) with n from 2; one seed has no interval")
    if not np.isfinite(numbers).all():
        raise ValueError("values: got NaN or infinity, expected finite numbers; leave out seeds without a value")
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(numbers) - 1))
    half = quantile * numbers.std(ddof=1) / math.sqrt(len(numbers))
    return Interval(float(numbers.mean()), float(numbers.mean() - half), float(numbers.mean() + half))
