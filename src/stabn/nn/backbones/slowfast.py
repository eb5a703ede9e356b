"""SlowFast (Feichtenhofer et al., ICCV 2019): a slow pathway of few frames beside a thin fast one of all.

The slow pathway alone is `stabn.nn.backbones.resnet3d`, whose blocks both are made of. Files of PySlowFast and of
pytorchvideo are read.

Shape suffixes: b clips, c channels, t steps, h height, w width, k classes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.backbone import Backbone, ClipFormat, Features, TokenMap, convolutional_head, initialise, map_of
from stabn.nn.backbones.resnet3d import ResidualBlock, ResidualLayer
from stabn.nn.backbones.resnet3d_weights import SLOW_MEAN, SLOW_STD, single_pathway_name
from stabn.nn.hub import read_weights
from stabn.nn.state_dict import fill

Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class SlowFastShape:
    """Every number of a SlowFast; each 4-tuple is for layer1 .. layer4.

    Attributes:
        depths: blocks per layer.
        width: channels inside a block of the slow pathway's layer1, and of its stem; doubled from layer to layer.
        ratio: how many times fewer channels the fast pathway has.
        alpha: frames per step of the slow pathway.
        fusion_kernel: steps that a lateral convolution sees.
        fusion_ratio: how many times more channels it has than the fast pathway.
        branch: channels of the attention branch.
        format: its clips.
        temporal_kernels: of the slow pathway; those of the fast one are 3.
    """

    depths: Four
    width: int
    ratio: int
    alpha: int
    fusion_kernel: int
    fusion_ratio: int
    branch: int
    format: ClipFormat
    temporal_kernels: Four = (1, 1, 3, 3)


# fmt: off
SLOWFAST_SHAPES = {
    "slowfast_r50":      SlowFastShape((3, 4, 6, 3),  64, 8, 4, 7, 2, 128, ClipFormat(32, 224, SLOW_MEAN, SLOW_STD)),
    "slowfast_r50_4x16": SlowFastShape((3, 4, 6, 3),  64, 8, 8, 5, 2, 128, ClipFormat(32, 224, SLOW_MEAN, SLOW_STD)),
    "slowfast_r101":     SlowFastShape((3, 4, 23, 3), 64, 8, 4, 7, 2, 128, ClipFormat(32, 224, SLOW_MEAN, SLOW_STD)),
    # For a 2-core CPU; no official file has these shapes.
    "slowfast_small":    SlowFastShape((1, 1, 1, 1),  16, 4, 4, 7, 2, 48,  ClipFormat(16, 56, SLOW_MEAN, SLOW_STD)),
}
# fmt: on


class _Pathway(nn.Module):
    """A 3D ResNet whose layers take more channels than the layer before them gives.

    Args:
        shape: of the network.
        which: slow or fast.
    """

    def __init__(self, shape: SlowFastShape, which: Literal["slow", "fast"]) -> None:
        super().__init__()
        is_fast = which == "fast"
        width = shape.width // shape.ratio if is_fast else shape.width
        taps = 5 if is_fast else 1
        self.conv1 = nn.Conv3d(3, width, (taps, 7, 7), (1, 2, 2), (taps // 2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.widths = (width, *(4 * width * 2**n for n in range(4)))
        """Channels after the stem and each layer."""
        for layer, depth in enumerate(shape.depths, start=1):
            before, inside = self.widths[layer - 1], self.widths[layer] // 4
            before += 0 if is_fast else before // shape.ratio * shape.fusion_ratio
            kernel = 3 if is_fast else shape.temporal_kernels[layer - 1]
            first = ResidualBlock("bottleneck", before, inside, kernel, 1 if layer == 1 else 2)
            rest = (ResidualBlock("bottleneck", self.widths[layer], inside, kernel, 1) for _ in range(depth - 1))
            self.add_module(f"layer{layer}", ResidualLayer(first, *rest))

    def layer(self, number: int, x_bcthw: Tensor) -> Tensor:
        """The stem (0) or a layer."""
        if number == 0:
            return self.maxpool(self.relu(self.bn1(self.conv1(x_bcthw))))
        return getattr(self, f"layer{number}")(x_bcthw)


class _Fusion(nn.Module):
    """The lateral connection: the fast pathway's maps, brought to the slow pathway's steps, behind its channels."""

    def __init__(self, channels: int, shape: SlowFastShape) -> None:
        super().__init__()
        kernel, padding = (shape.fusion_kernel, 1, 1), (shape.fusion_kernel // 2, 0, 0)
        wide = shape.fusion_ratio * channels
        self.conv = nn.Conv3d(channels, wide, kernel, (shape.alpha, 1, 1), padding, bias=False)
        self.bn = nn.BatchNorm3d(wide)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, slow_bcthw: Tensor, fast_bcthw: Tensor) -> Tensor:
        return torch.cat((slow_bcthw, self.relu(self.bn(self.conv(fast_bcthw)))), dim=1)


class SlowFast(Backbone):
    """SlowFast, split after layer3 and its lateral connection.

    Features are the slow map, T' = T / alpha, which attention weighs; the fast map travels beside it. The last maps are
    both in one, the slow one repeated for its frames, so that their mean is the mean of each over its own grid.

    Args:
        name: a key of `SLOWFAST_SHAPES`.
        num_classes: K.
        frames: of the fast pathway, a multiple of alpha; no other number is taken.
        dropout: before the classifier.

    Raises:
        UserError: the network does not take so many frames.
    """

    space_stride = 16
    extracting = 4
    maps_time_stride = 1

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.name, self.shape = name, SLOWFAST_SHAPES[name]
        self.format = self.format_for(name, {}).built_for(name, frames)
        self.time_stride, self.branch_channels = self.shape.alpha, self.shape.branch
        # Not every alpha-th frame: evenly placed from the first to the last one, and rounded down as in PySlowFast.
        steps = torch.linspace(0, frames - 1, frames // self.shape.alpha, device="cpu")
        self.slow_frames = steps.long().tolist()
        self.slow, self.fast = _Pathway(self.shape, "slow"), _Pathway(self.shape, "fast")
        self.fuse = nn.ModuleList(_Fusion(width, self.shape) for width in self.fast.widths[:4])
        self.channels = self.slow.widths[3] + self.shape.fusion_ratio * self.fast.widths[3]
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(self.slow.widths[4] + self.fast.widths[4], num_classes)
        initialise(self)
