"""Winograd's convolutions against PyTorch's direct ones."""

import pytest
import torch
from torch.nn import functional as F

from stabn.nn.winograd import SpatialWinogradConv, TemporalWinogradConv, tile_count


def values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("batch", [1, 3])
def test_along_time_equals_the_direct_convolution(frames, batch):
    x, weight, bias = values(batch, 5, frames, 3, 2), values(7, 5, 3, 1, 1), values(7)
    expected = F.conv3d(x, weight, bias, padding=(1, 0, 0))
    assert torch.allclose(TemporalWinogradConv(weight, bias)(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (5, 3), (7, 8), (14, 2)])
@pytest.mark.parametrize(("kernel", "frames"), [(1, 1), (1, 3), (3, 1), (3, 2), (3, 5)])
def test_in_the_plane_equals_the_direct_convolution(height, width, kernel, frames):
    x, weight, bias = values(2, 5, frames, height, width), values(7, 5, kernel, 3, 3), values(7)
    expected = F.conv3d(x, weight, bias, padding=(kernel // 2, 1, 1))
    assert torch.allclose(SpatialWinogradConv(weight, bias)(x), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("make", "kernel", "padding"),
    [
        (TemporalWinogradConv, (3, 1, 1), (1, 0, 0)),
        (SpatialWinogradConv, (1, 3, 3), (0, 1, 1)),
        (SpatialWinogradConv, (3, 3, 3), (1, 1, 1)),
    ],
)
def test_float32_is_good_to_a_ten_thousandth_of_the_spread(make, kernel, padding):
    x, weight, bias = values(1, 128, 8, 14, 14), values(64, 128, *kernel), values(64)
    exact = F.conv3d(x, weight, bias, padding=padding)
    found = make(weight.float(), bias.float())(x.float())
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-4 * exact.std()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("make", "kernel"), [(TemporalWinogradConv, (3, 1, 1)), (SpatialWinogradConv, (1, 3, 3))])
def test_any_memory_comes_in_and_channels_last_comes_out(make, kernel, layout):
    x = values(2, 6, 4, 5, 5).contiguous(memory_format=layout)
    before = x.clone()
    assert make(values(6, 6, *kernel), values(6))(x).is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(x, before)


def test_tiles_cover_their_outputs():
    assert [tile_count(length) for length in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]
