"""GST (Luo and Yuille 2019): grouped spatial-temporal aggregation, a 3D ResNet whose 3 x 3 convolutions are split.

Three quarters of a bottleneck's channels come from a 1 x 3 x 3 convolution, one quarter from a 3 x 3 x 3 one. In GST
each reads its own half of the channels, in GST-Large both read all.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stabn.nn.backbone import Features, OfficialNetwork, initialise, map_of
from stabn.nn.backbones.frame_network import FrameArchitecture, FrameNetwork, of_bodies, official_network
from stabn.nn.backbones.frame_resnet import FRAME_RESNETS
from stabn.nn.backbones.resnet3d import ResidualBlock, ResidualLayer
from stabn.nn.state_dict import dimensions_of

ALPHA = 4
"""One channel of so many is spatio-temporal."""

GST_ARCHITECTURES = of_bodies("gst", ("resnet50", "resnet101", "resnet152", "small", "tiny"), 16) | of_bodies(
    "gst_large", ("resnet50", "resnet101", "resnet152", "tiny"), 8, variant="large"
)


class GroupedBlock(ResidualBlock):
    """A bottleneck with a spatial and a spatio-temporal convolution side by side.

    Args:
        channels_in: of its input.
        width: channels inside; four times as many out.
        stride: in space.
        beta: 2 for a half of the channels into each convolution, 1 for all into both.
    """

    def __init__(self, channels_in: int, width: int, stride: int, beta: int) -> None:
        super().__init__("bottleneck", channels_in, width, 1, stride)
        self.halves = beta == 2
        seen, mixed = width // beta, width // ALPHA
        options: dict[str, Any] = {"stride": (1, stride, stride), "bias": False}
        self.conv2 = nn.Conv3d(seen, mixed * (ALPHA - 1), (1, 3, 3), padding=(0, 1, 1), **options)
        self.Tconv = nn.Conv3d(seen, mixed, 3, padding=1, **options)

    def forward(self, x_bcthw: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, 4 width, T, H / stride, W / stride)."""
        (conv1, bn1), (conv2, bn2), (conv3, bn3) = self.convolutions
        y_bcthw = self.relu(bn1(conv1(x_bcthw)))
        first, second = y_bcthw.chunk(2, dim=1) if self.halves else (y_bcthw, y_bcthw)
        y_bcthw = self.relu(bn2(torch.cat((conv2(first), self.Tconv(second)), dim=1)))
        return self.relu(bn3(conv3(y_bcthw)) + (x_bcthw if self.downsample is None else self.downsample(x_bcthw)))


class GroupedResNet(nn.Module):
    """The network without its classifier, under the official names.

    Args:
        name: a key of `FRAME_RESNETS`, of bottlenecks.
        beta: as in `GroupedBlock`.
    """

    extracting = 4
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module

    def __init__(self, name: str, beta: int) -> None:
        super().__init__()
        shape = FRAME_RESNETS[name]
        self.channels, self.last_channels = shape.channels_out(3), shape.channels_out(4)
        self.conv1 = nn.Conv3d(3, shape.stem_width, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(shape.stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        for layer in (1, 2, 3, 4):
            width, stride = shape.widths[layer - 1], shape.spatial_strides[layer - 1]
            first = GroupedBlock(shape.channels_out(layer - 1), width, stride, beta)
            rest = [GroupedBlock(4 * width, width, 1, beta) for _ in range(shape.depths[layer - 1] - 1)]
            self.add_module(f"layer{layer}", ResidualLayer(first, *rest))
        initialise(self)

    def shallow(self, x_bcthw: Tensor) -> Tensor:
        """Through layer3: (B, 3, T, H, W) -> (B, channels, T, H / 16, W / 16)."""
        x_bcthw = self.maxpool(self.relu(self.bn1(self.conv1(x_bcthw))))
        return self.layer3(self.layer2(self.layer1(x_bcthw)))

    def grid(self, size: int) -> int:
        """Cells along a side behind `shallow`."""
        return -(-size // 16)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem and the four layers."""
        return {"stem": (self.conv1, self.bn1)} | {f"layer{n}": (getattr(self, f"layer{n}"),) for n in (1, 2, 3, 4)}


class GST(FrameNetwork):
    """Grouped spatial-temporal aggregation; frames stay in an axis of their own."""

    architectures: ClassVar[Mapping[str, FrameArchitecture]] = GST_ARCHITECTURES

    def build_body(self, steps: int) -> Any:
        """The network of grouped blocks."""
        return GroupedResNet(self.shape.body, 1 if self.shape.variant == "large" else 2)

    def extract(self, clip_bcthw: Tensor) -> Tensor:
        """The maps after layer3."""
        return self.base_model.shallow(clip_bcthw)

    def deepen(self, features: Features) -> Tensor:
        """Layer4."""
        return self.base_model.layer4(map_of(features))

    def from_image_network(self, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first outputs and inputs of each 3 x 3 kernel; the spatio-temporal convolutions stay random."""
        own = self.state_dict()
        filled = {}
        for name, value in flat.items():
            like = own[f"base_model.{name}"]
            if value.ndim == 4:
                value = value[: like.shape[0], : like.shape[1], None]
            filled[f"base_model.{name}"] = value
        return filled

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """`Tconv`, which no other family has; GST-Large is told by its inputs."""
        first = "base_model.layer1.0.Tconv.weight"
        if first not in tensors:
            return None
        width = dimensions_of(tensors, "base_model.layer1.0.conv1.weight", 5)[0]
        prefix = "gst_large" if dimensions_of(tensors, first, 5)[1] == width else "gst"
        return official_network(cls, prefix, dict(tensors), "new_fc.weight")
