"""How far a mean over clips would move with other clips: percentile bootstrap, of a mean and of a paired difference."""

from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over clips, and what resampled clips say about it.

    Attributes:
        mean: of the clips as they are.
        low, high: the interval's ends.
    """

    mean: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low, high: got {self.low} and {self.high}, expected them in this order")

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0 altogether."""
        return self.low > 0 or self.high < 0

    def as_json(self) -> dict[str, float]:
        """{"mean", "low", "high"}, rounded to six places."""
        return {name: round(getattr(self, name), 6) for name in ("mean", "low", "high")}


def bootstrap_interval(
    values: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """The mean of one number per clip, with the percentile bootstrap interval over clips (Efron 1979).

    The same seed and number of clips give the same resamples, so that two calls about the same clips are paired. The
    interval does not contain the chance of training, for which runs with several seeds are needed.

    Args:
        values: (N,) numbers or bools, N from 1.
        seed: of the resamples.
        resamples: how many.
        level: share of the resampled means inside the interval, above 0 and below 1.

    Raises:
        ValueError: no clip, a value that is not finite, or another argument out of range.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"values: got shape {numbers.shape}, expected (N,) with N from 1")
    if not np.isfinite(numbers).all():
        raise ValueError("values: got NaN or infinity, expected finite numbers; leave out clips without a value")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples, level: got {resamples} and {level}, expected at least 1, and between 0 and 1")
    rng = np.random.default_rng(seed)
    count = len(numbers)
    means = np.empty(resamples)
    block = max(2**20 // count, 1)  # all at once is resamples x N numbers, too many for a whole data set
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        means[start : start + rows] = numbers[rng.integers(count, size=(rows, count))].mean(axis=1)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(numbers.mean()), float(low), float(high))


def summarise_clips(values: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """One number per clip for a JSON file: {"mean", "low", "high", "per_clip"}, rounded to six places."""
    per_clip = [round(float(value), 6) for value in values]
    return bootstrap_interval(values, seed=seed).as_json() | {"per_clip": per_clip}


def paired_interval(
    a: np.ndarray, b: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """The mean of a - b over the same clips, with its interval; arguments and errors as in `bootstrap_interval`.

    Raises:
        ValueError: a and b are not of the same clips, too.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"b: got shape {np.shape(b)}, expected {np.shape(a)} as in a, one number per clip")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return bootstrap_interval(difference, seed=seed, resamples=resamples, level=level)
