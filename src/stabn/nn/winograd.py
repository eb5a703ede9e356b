"""Winograd's convolutions, which need fewer multiplications, for kernels of size three in float32 on CPUs.

Four outputs in a row of a kernel of three need twelve multiplications, or six if inputs and kernel are first summed
with fixed small numbers (Winograd 1980; for networks Lavin and Gray, arXiv 1509.09308, whose F(4, 3) this is). Along
time that is half of the multiplications, in the image plane a quarter. The sums are matrix products with small
constant matrices, so that everything here is a matrix product. In float32 the output differs from the direct
convolution's by some 1e-5 of its standard deviation; in bfloat16 it would be useless.

Features are channels last throughout: (B, C, T, H, W) whose memory is (B, T, H, W, C).

Shape suffixes: n tiles of four outputs, c and d channels in and out; the rest as in `stabn.nn.backbones.resnet3d`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4
"""Outputs per tile and dimension, which share their multiplications."""

# Six values in, summed (B), multiplied with the summed kernel (G), summed to four outputs (A).
_B = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_G = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_A = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)


def _matrix(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, device="cpu")


def tile_count(length: int) -> int:
    """The number of tiles that cover `length` outputs."""
    return -(-length // TILE)


class TemporalWinogradConv(nn.Module):
    """A 3 x 1 x 1 convolution of stride 1 with zeros before and after.

    Args:
        weight_dct11: (D, C, 3, 1, 1).
        bias_d: (D,), added.
    """

    kernel: Tensor
    bias: Tensor

    def __init__(self, weight_dct11: Tensor, bias_d: Tensor) -> None:
        super().__init__()
        taps_tcd = weight_dct11[..., 0, 0].permute(2, 1, 0)
        kernel = _matrix(_G).to(weight_dct11) @ taps_tcd.reshape(3, -1)
        self.register_buffer("kernel", kernel.view(6, *taps_tcd.shape[1:]))
        self.register_buffer("bias", bias_d)

    def forward(self, x_bcthw: Tensor) -> Tensor:
        """(B, C, T, H, W) channels last -> (B, D, T, H, W) likewise."""
        batch, channels, frames, height, width = x_bcthw.shape
        summing, gathering = _in_time(frames, x_bcthw)
        n = tile_count(frames)
        x_bthwc = to_channels_last(x_bcthw).permute(0, 2, 3, 4, 1)
        out_bthwd = x_bthwc.new_empty(batch, frames, height, width, self.kernel.shape[2])
        for one_thwc, out_thwd in zip(x_bthwc, out_bthwd, strict=True):
            summed = (summing @ one_thwc.reshape(frames, -1)).view(6, n * height * width, channels)
            products = torch.bmm(summed, self.kernel)
            torch.mm(gathering, products.view(6 * n, -1), out=out_thwd.view(frames, -1))
        return out_bthwd.add_(self.bias).permute(0, 4, 1, 2, 3)


def _in_time(frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices from T frames to sums of them, (6 n, T), and from 6 n products to T frames, (T, 6 n)."""
    n = tile_count(frames)
    padded = F.pad(torch.eye(frames, dtype=torch.float64, device="cpu"), (0, 0, 1, TILE * n - frames + 1))
    summing = torch.einsum("ij,ntj->int", _matrix(_B), padded.unfold(0, 6, TILE))
    gathering = torch.einsum("ji,nm->njim", _matrix(_A), torch.eye(n, dtype=torch.float64, device="cpu"))
    return summing.reshape(6 * n, frames).to(like), gathering.reshape(TILE * n, 6 * n)[:frames].to(like)


class SpatialWinogradConv(nn.Module):
    """A 1 x 3 x 3 or 3 x 3 x 3 convolution of stride 1 with zeros around.

    Args:
        weight_dcthw: (D, C, 1 or 3, 3, 3).
        bias_d: (D,), added.
    """

    kernel: Tensor
    bias: Tensor
    summing: Tensor
    gathering: Tensor

    def __init__(self, weight_dcthw: Tensor, bias_d: Tensor) -> None:
        super().__init__()
        taps_tyxcd = weight_dcthw.permute(2, 3, 4, 1, 0)
        kernel = torch.kron(_matrix(_G), _matrix(_G)).to(weight_dcthw) @ taps_tyxcd.reshape(len(taps_tyxcd), 9, -1)
        self.register_buffer("kernel", kernel.view(-1, 36, *taps_tyxcd.shape[3:]))
        self.register_buffer("bias", bias_d)
        self.register_buffer("summing", torch.kron(_matrix(_B), _matrix(_B)).to(weight_dcthw))
        self.register_buffer("gathering", torch.kron(_matrix(_A), _matrix(_A)).to(weight_dcthw))

    def forward(self, x_bcthw: Tensor) -> Tensor:
        """(B, C, T, H, W) channels last -> (B, D, T, H, W) likewise."""
        batch, channels, frames, height, width = x_bcthw.shape
        rows, columns = tile_count(height), tile_count(width)
        around = (0, 0, 1, TILE * columns - width + 1, 1, TILE * rows - height + 1)
        x_bthwc = to_channels_last(x_bcthw).permute(0, 2, 3, 4, 1)
        out_bthwd = x_bthwc.new_empty(batch, frames, height, width, self.kernel.shape[3])
        for one_thwc, out_thwd in zip(x_bthwc, out_bthwd, strict=True):
            # (6, 6, T, rows, columns, C): neighbouring tiles overlap by two
            windows = F.pad(one_thwc, around).unfold(1, 6, TILE).unfold(2, 6, TILE).permute(4, 5, 0, 1, 2, 3)
            summed = (self.summing @ windows.reshape(36, -1)).view(36, frames, -1, channels)
            products = self._products(summed)
            tiled = (self.gathering @ products.view(36, -1)).view(TILE, TILE, frames, rows, columns, -1)
            whole = tiled.permute(2, 3, 0, 4, 1, 5).reshape(frames, TILE * rows, TILE * columns, -1)
            torch.add(whole[:, :height, :width], self.bias, out=out_thwd)
        return out_bthwd.permute(0, 4, 1, 2, 3)

    def _products(self, summed: Tensor) -> Tensor:
        """(36, T, n, C) -> (36, T, n, D), over the frames that the kernel spans."""
        before, now, after = self.kernel if len(self.kernel) == 3 else (None, self.kernel[0], None)
        products = _times(summed, now)
        if before is not None and after is not None and summed.shape[1] > 1:
            products[:, 1:] += _times(summed[:, :-1], before)
            products[:, :-1] += _times(summed[:, 1:], after)
        return products


def _times(summed: Tensor, kernel: Tensor) -> Tensor:
    """(36, T, n, C) times (36, C, D) -> (36, T, n, D)."""
    return torch.bmm(summed.flatten(1, 2), kernel).view(*summed.shape[:3], -1)


def to_channels_last(x_bcthw: Tensor) -> Tensor:
    """Convert to the memory format channels_last_3d; values and shape stay."""
    return x_bcthw.contiguous(memory_format=torch.channels_last_3d)
