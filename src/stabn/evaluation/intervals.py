"""95 % intervals of means over clips (percentile bootstrap) and over seeds (Student's t)."""

import math
from collections.abc import Callable, Sequence
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
    return Interval(mean, *_percentile_bootstrap([numbers], np.mean, seed))


def mean_class_interval(values: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Interval:
    """The mean over classes of the mean over each class's clips, with its percentile bootstrap interval.

    Of 0 and 1 for wrong and right it is the mean class accuracy, also called balanced accuracy or macro recall, over
    the classes that have clips. Clips are resampled within their class, so that every resample has all classes; a
    class of one clip adds no width.

    Args:
        values: (N,) numbers or bools, N from 1.
        labels: (N,) integers, the class of each.
        seed: for the resamples.

    Raises:
        ValueError: no clip, or another number of labels.
    """
    if values.shape != labels.shape or not len(labels):
        raise ValueError(f"values: got shape {values.shape} for labels {labels.shape}, expected (N,) each, N from 1")
    numbers = np.asarray(values, dtype=np.float64)
    classes = [numbers[labels == label] for label in np.unique(labels)]
    mean = float(np.mean([of_class.mean() for of_class in classes]))
    several = [of_class for of_class in classes if len(of_class) > 1]  # scipy refuses to resample a single value
    if not several:
        return Interval(mean, mean, mean)
    of_singles = sum(float(of_class[0]) for of_class in classes if len(of_class) == 1)

    def mean_of_means(*resampled: np.ndarray, axis: int) -> np.ndarray:
        return (sum(of_class.mean(axis) for of_class in resampled) + of_singles) / len(classes)

    return Interval(mean, *_percentile_bootstrap(several, mean_of_means, seed))


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


def _percentile_bootstrap(
    samples: Sequence[np.ndarray], statistic: Callable[..., Any], seed: int
) -> tuple[float, float]:
    """The ends of a statistic's interval; each sample, of at least two values, is resampled by itself."""
    low, high = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        batch=max(2**20 // max(map(len, samples)), 1),  # all at once would be RESAMPLES x N numbers
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(low), float(high)
