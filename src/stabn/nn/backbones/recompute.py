"""Activation checkpointing of blocks that may have batch norms."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Any], module: nn.Module, *inputs: Any, random: bool = False) -> Any:
    """What a function gives, of which the backward pass keeps only the inputs and recomputes the rest.

    Args:
        function: of the inputs.
        module: has all batch norms that the function uses.
        inputs: of the function.
        random: whether the function draws random numbers, such as those of dropout; the same are drawn again.
    """
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=random,
        context_fn=lambda: (nullcontext(), _frozen_statistics(module)),
    )


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Leave running statistics alone within the block: in a recomputation they have counted this batch already."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    previous = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, previous, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
