"""BN-Inception (Ioffe and Szegedy 2015) as the official code of TSN and TRN has it, with its names.

Every convolution has a bias and is followed by batch norm and ReLU; all pools round their sizes up.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabn.nn.backbone import initialise


@dataclass(frozen=True)
class Block:
    """The widths of one inception block, in the order in which the branches are concatenated.

    Attributes:
        single: of the 1 x 1 convolution; None in blocks of stride 2, which have none.
        triple: reduction and output of the 3 x 3 branch.
        double: reduction and output (twice) of the branch of two 3 x 3 convolutions.
        pool: "avg" or "max".
        projection: of the pooled branch; None in blocks of stride 2, which keep it as it is.
    """

    single: int | None
    triple: tuple[int, int]
    double: tuple[int, int]
    pool: str
    projection: int | None

    def channels_out(self, channels_in: int) -> int:
        """Of the concatenated branches."""
        pooled = channels_in if self.projection is None else self.projection
        return (self.single or 0) + self.triple[1] + self.double[1] + pooled


# fmt: off
BLOCKS = {
    "3a": Block(64,   (64, 64),   (64, 96),   "avg", 32),
    "3b": Block(64,   (64, 96),   (64, 96),   "avg", 64),
    "3c": Block(None, (128, 160), (64, 96),   "max", None),
    "4a": Block(224,  (64, 96),   (96, 128),  "avg", 128),
    "4b": Block(192,  (96, 128),  (96, 128),  "avg", 128),
    "4c": Block(160,  (128, 160), (128, 160), "avg", 128),
    "4d": Block(96,   (128, 192), (160, 192), "avg", 128),
    "4e": Block(None, (128, 192), (192, 256), "max", None),
    "5a": Block(352,  (192, 320), (160, 224), "avg", 128),
    "5b": Block(352,  (192, 320), (192, 224), "max", 128),
}
# fmt: on
STEM = ("conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3")
DEEP = ("4e", "5a", "5b")
"""The blocks behind the split."""


class BNInception(nn.Module):
    """The network without its classifier.

    Args:
        channels_in: of the first convolution.
    """

    channels = 608
    last_channels = 1024

    def __init__(self, channels_in: int = 3) -> None:
        super().__init__()
        self._add("conv1_7x7_s2", channels_in, 64, 7, 2)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        self._add("conv2_3x3", 64, 192, 3)
        channels = 192
        for name, block in BLOCKS.items():
            stride = 1 if block.projection else 2
            prefix, (reduced, out), (reduced_twice, out_twice) = f"inception_{name}", block.triple, block.double
            if block.single:
                self._add(f"{prefix}_1x1", channels, block.single, 1)
            self._add(f"{prefix}_3x3_reduce", channels, reduced, 1)
            self._add(f"{prefix}_3x3", reduced, out, 3, stride)
            self._add(f"{prefix}_double_3x3_reduce", channels, reduced_twice, 1)
            self._add(f"{prefix}_double_3x3_1", reduced_twice, out_twice, 3)
            self._add(f"{prefix}_double_3x3_2", out_twice, out_twice, 3, stride)
            if block.projection:
                self._add(f"{prefix}_pool_proj", channels, block.projection, 1)
            channels = block.channels_out(channels)
        initialise(self)

    def _add(self, name: str, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(channels_out))

    def _convolve(self, name: str, x_nchw: Tensor) -> Tensor:
        return F.relu(getattr(self, f"{name}_bn")(getattr(self, name)(x_nchw)))

    def _through(self, name: str, x_nchw: Tensor) -> Tensor:
        block, prefix = BLOCKS[name], f"inception_{name}"
        triple = self._convolve(f"{prefix}_3x3", self._convolve(f"{prefix}_3x3_reduce", x_nchw))
        double = self._convolve(f"{prefix}_double_3x3_1", self._convolve(f"{prefix}_double_3x3_reduce", x_nchw))
        double = self._convolve(f"{prefix}_double_3x3_2", double)
        if block.projection is None:
            return torch.cat((triple, double, _halved(x_nchw)), dim=1)
        pooled = (F.avg_pool2d if block.pool == "avg" else F.max_pool2d)(x_nchw, 3, 1, 1, ceil_mode=True)
        single = self._convolve(f"{prefix}_1x1", x_nchw)
        return torch.cat((single, triple, double, self._convolve(f"{prefix}_pool_proj", pooled)), dim=1)

    def shallow(self, x_nchw: Tensor) -> Tensor:
        """Through block 4d: (N, C, H, W) -> (N, 608, about H / 16, about W / 16)."""
        first, reduce, second = STEM
        x_nchw = _halved(self._convolve(first, x_nchw))
        x_nchw = _halved(self._convolve(second, self._convolve(reduce, x_nchw)))
        for name in BLOCKS:
            if name not in DEEP:
                x_nchw = self._through(name, x_nchw)
        return x_nchw

    def deep(self, x_nchw: Tensor) -> Tensor:
        """Blocks 4e, 5a and 5b: (N, 608, h, w) -> (N, 1024, about h / 2, about w / 2)."""
        for name in DEEP:
            x_nchw = self._through(name, x_nchw)
        return x_nchw

    def grid(self, size: int) -> int:
        """Cells along a side behind `shallow`: a convolution with padding, two pools without, one strided block."""
        cells = (size + 1) // 2
        for _ in range(3):
            cells = cells // 2 if cells > 1 else 1
        return cells

    @staticmethod
    def takes(size: int) -> bool:
        """Whether the convolution and the pool of both strided blocks give maps of one size, as for multiples of 32."""
        return size >= 31 and (size + 1) // 8 % 4 == 0

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem and the inception blocks."""
        parts = {"stem": STEM} | {
            name: tuple(
                own
                for own, module in self.named_children()
                if own.startswith(f"inception_{name}_") and isinstance(module, nn.Conv2d)
            )
            for name in BLOCKS
        }
        return {
            stage: tuple(getattr(self, f"{own}{suffix}") for own in names for suffix in ("", "_bn"))
            for stage, names in parts.items()
        }

    @property
    def extracting(self) -> int:
        """The stem and the blocks before the split."""
        return 1 + len(BLOCKS) - len(DEEP)


def _halved(x_nchw: Tensor) -> Tensor:
    return F.max_pool2d(x_nchw, 3, 2, ceil_mode=True)
