"""Distributed training with the batches, batch-norm statistics, dropout and losses of a single process.

Every process takes a contiguous shard of each batch. What depends on several clips of a batch is computed here over all
processes; Lightning and PyTorch average the gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync, TorchSyncBatchNorm
from torch import Tensor, autograd, distributed, nn


def process_count() -> int:
    """The number of processes that train together; 1 outside of distributed training."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


@dataclass(frozen=True)
class BatchShard:
    """The rows of the whole batch that this process has.

    Attributes:
        first: the first row, from 0.
        count: number of rows, from 0.
        total: rows of the whole batch; at least `first + count`.
    """

    first: int
    count: int
    total: int

    @property
    def weight(self) -> float:
        """The factor of a mean over these rows that makes the processes' average the mean over all rows."""
        return self.count * process_count() / max(self.total, 1)

    def of(self, whole: Tensor) -> Tensor:
        """These rows of a tensor of the whole batch."""
        return whole[self.first : self.first + self.count]


def shard_of_batch(count: int, device: torch.device) -> BatchShard:
    """The shard of a process with so many rows; a collective call of all processes."""
    if process_count() == 1:
        return BatchShard(0, count, count)
    counts = torch.zeros(process_count(), dtype=torch.int64, device=device)
    rank = distributed.get_rank()
    counts[rank] = count
    distributed.all_reduce(counts)
    rows = counts.tolist()
    return BatchShard(sum(rows[:rank]), count, sum(rows))


def sum_over_processes(values: Sequence[Tensor]) -> list[Tensor]:
    """Each tensor summed over the processes in one message; a collective call of all processes."""
    if process_count() == 1:
        return list(values)
    sums = torch.cat([value.detach().double().flatten() for value in values])
    distributed.all_reduce(sums)
    parts = sums.split([value.numel() for value in values])
    return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]


class ShardedDropout(nn.Dropout):
    """Dropout whose mask is drawn for the whole batch, so that it does not depend on the number of processes.

    Attributes:
        shard: this process's rows; None, or a whole batch, makes it `nn.Dropout`.
    """

    shard: BatchShard | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(B, ...) in its dtype, for the B rows of `shard`."""
        if not self.training or self.p == 0 or self.shard is None or self.shard.count == self.shard.total:
            return super().forward(input)
        mask = torch.empty((self.shard.total, *input.shape[1:]), dtype=input.dtype, device=input.device)
        return input * self.shard.of(mask.bernoulli_(1 - self.p).div_(1 - self.p))


class SyncBatchNorm(LayerSync):
    """Batch norm over the whole batch: PyTorch's on GPUs, and the same arithmetic here on CPUs, which lack it."""

    def __init__(self) -> None:
        self._native = TorchSyncBatchNorm()

    def apply(self, model: nn.Module) -> nn.Module:
        """Share the statistics from now on."""
        if any(parameter.is_cuda for parameter in model.parameters()):
            return self._native.apply(model)
        for module in model.modules():
            if type(module) in _SYNCHRONISED:
                # keeps the parameters that the optimizer already has
                module.__class__ = _SYNCHRONISED[type(module)]
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Compute the statistics in each process again."""
        originals = {synchronised: original for original, synchronised in _SYNCHRONISED.items()}
        for module in model.modules():
            if type(module) in originals:
                module.__class__ = originals[type(module)]
        return self._native.revert(model)


class _Sum(autograd.Function):
    """The sum over all processes; its gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        dims, shape = (0, *range(2, input.ndim)), (1, -1, *(1,) * (input.ndim - 2))
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        first = _Sum.apply(torch.cat([x.sum(dims), x.new_tensor([x.numel() / x.shape[1]])]))
        count = first[-1].detach().clamp(min=1)
        mean = first[:-1] / count
        centred = x - mean.view(shape)
        # Not the mean of squares minus the square of the mean, which loses digits.
        variance = _Sum.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            momentum = 0.0 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        return (out * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)


class _SyncBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    pass


class _SyncBatchNorm3d(_Synchronised, nn.BatchNorm3d):
    pass


_SYNCHRONISED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: _SyncBatchNorm2d,
    nn.BatchNorm3d: _SyncBatchNorm3d,
}
"""Batch norm -> the same with the statistics of all processes."""
