"""Replacements of a network's attention before the perception branch: inverse, uniform, and that of another clip."""

from collections.abc import Callable

import numpy as np

from stabn.errors import UserError
from stabn.nn import Attention

ATTENTIONS: dict[str, Callable[[Attention], Attention]] = {
    "as-is": lambda attention: attention,
    "inverse-spatial": Attention.inverse_spatial,
    "inverse-temporal": Attention.inverse_temporal,
    "uniform-spatial": Attention.uniform_spatial,
    "uniform-temporal": Attention.uniform_temporal,
}
"""Replacements for the network's own attention before the perception branch (Eq. 7 and its relatives)."""

SHUFFLED: dict[str, Callable[[Attention, Attention], Attention]] = {
    "shuffled-spatial": Attention.with_spatial_of,
    "shuffled-temporal": Attention.with_temporal_of,
}
"""Replacements by the attention of another clip of the data set, which `random_derangement` chooses."""


def random_derangement(count: int, seed: int = 0) -> np.ndarray:
    """A random permutation of `count` clips that leaves none in its place (a single cycle).

    Returns:
        (count,) int64; no element is its own position.

    Raises:
        UserError: fewer than two clips.
    """
    if count < 2:
        raise UserError(f"attention: got {count} clip, expected at least two to exchange attention; take more clips")
    order = np.random.default_rng(seed).permutation(count)
    permutation = np.empty(count, dtype=np.int64)
    permutation[order] = np.roll(order, 1)
    return permutation
