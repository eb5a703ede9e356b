"""The Attention Branch Network (Fukui et al., CVPR 2019), a 2D network with a map of its own, on every frame.

    h = bn(layer(f)),  m = relu(bn(conv h)),  logits_att = mean(conv m),  M = sigmoid(bn(conv m))
    logits = fc(mean(layer(f + f M)))

f is what comes before the last layer of a ResNet; the branch's copy of that layer has stride 1. Class scores of both
branches are averaged over frames (ours). Written from the paper's equations; names of tensors are those of the official
code (MIT), whose map has a 3 x 3 convolution where the paper draws 1 x 1.

Shape suffixes: n frames of all clips (B T), b clips, c channels, t frames, h height, w width, k classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stabn.errors import UserError
from stabn.nn.attention import Attention
from stabn.nn.backbone import ClipFormat, Features, OfficialNetwork, PublishedWeights, initialise, map_of
from stabn.nn.backbones.clip_network import ClipNetwork
from stabn.nn.backbones.frame_network import unfold
from stabn.nn.backbones.frame_resnet import FrameBlock, flat_convolution
from stabn.nn.backbones.resnet3d import ARCHITECTURES, OFFICIAL, ResidualLayer
from stabn.nn.backbones.resnet3d_weights import imagenet_weights, is_local, resnet_tensors
from stabn.nn.hub import read_weights
from stabn.nn.state_dict import dimensions_of, fill


@dataclass(frozen=True)
class ABNShape:
    """Every number of a 2D ABN.

    Attributes:
        block: "basic" or "bottleneck", as in `FrameBlock`.
        depths: blocks per layer; the attention branch begins before the last one.
        widths: channels inside the blocks of each layer.
        stem: channels of the stem.
        large: whether the stem is ImageNet's, of 1/4 of the resolution, or CIFAR's, of all of it.
        branch: channels of ST-ABN's attention branch.
        format: its clips.
    """

    block: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: int
    large: bool
    branch: int
    format: ClipFormat


_CIFAR = {depth: "bottleneck" if depth >= 44 else "basic" for depth in (20, 32, 44, 56, 110)}
"""Depth 6 n + 2 -> its blocks, n in each layer."""

ABN_SHAPES: dict[str, ABNShape] = {
    f"abn2d_{name}": ABNShape(shape.block, shape.depths, shape.widths, 64, True, 128, ClipFormat(8, 224))
    for name, shape in ARCHITECTURES.items()
    if name in OFFICIAL
}
ABN_SHAPES |= {
    f"abn2d_cifar_resnet{depth}": ABNShape(
        block, ((depth - 2) // 6,) * 3, (16, 32, 64), 16, False, 32, ClipFormat(8, 32)
    )
    for depth, block in _CIFAR.items()
}
# For a 2-core CPU; no official file has these shapes.
ABN_SHAPES["abn2d_small"] = ABNShape("basic", (1, 1, 1, 1), (16, 32, 48, 64), 16, True, 48, ClipFormat(16, 56))


class ABN2D(ClipNetwork):
    """A 2D ABN of frames, split where its own attention branch begins: before the last layer.

    Args:
        name: a key of `ABN_SHAPES`.
        num_classes: K.
        frames: any number is taken.
        dropout: before the classifier.
    """

    architectures: ClassVar[Mapping[str, ABNShape]] = ABN_SHAPES
    attends: ClassVar[bool] = True

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(name, num_classes, frames, dropout)
        shape = self.shape
        self.conv1 = flat_convolution(3, shape.stem, 7, 2) if shape.large else flat_convolution(3, shape.stem, 3)
        self.bn1 = nn.BatchNorm2d(shape.stem)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if shape.large else nn.Identity()
        channels, last = shape.stem, len(shape.depths)
        self.extracting = last  # the stem, and all layers but the last
        for number in range(1, last + 1):
            if number == last:
                self.channels = channels
                self.add_module(f"att_layer{last}", self._layer(number, channels, 1))
            self.add_module(f"layer{number}", self._layer(number, channels, 1 if number == 1 else 2))
            channels = shape.widths[number - 1] * (4 if shape.block == "bottleneck" else 1)
        self.bn_att = nn.BatchNorm2d(channels)
        self.att_conv, self.bn_att2 = flat_convolution(channels, num_classes, 1), nn.BatchNorm2d(num_classes)
        self.att_conv2 = flat_convolution(num_classes, num_classes, 1)
        self.att_conv3, self.bn_att3 = flat_convolution(num_classes, 1, 3), nn.BatchNorm2d(1)
        self.space_stride = (4 if shape.large else 1) * 2 ** (last - 2)
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def _layer(self, number: int, channels: int, stride: int) -> ResidualLayer:
        block, width = self.shape.block, self.shape.widths[number - 1]
        wide = width * (4 if block == "bottleneck" else 1)
        rest = (FrameBlock(block, wide, width, 1) for _ in range(1, self.shape.depths[number - 1]))
        return ResidualLayer(FrameBlock(block, channels, width, stride), *rest)

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """torchvision's ImageNet weights of the ResNet alone."""
        return imagenet_weights(name.removeprefix("abn2d_"))

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """A checkpoint of the official code."""
        if "att_conv3.weight" not in tensors:
            return None
        num_classes, _ = dimensions_of(tensors, "fc.weight", 2)
        large = dimensions_of(tensors, "conv1.weight", 4)[2] == 7
        numbers = range(1, 5 if large else 4)
        depths = tuple(len({n.split(".")[1] for n in tensors if n.startswith(f"layer{i}.")}) for i in numbers)
        block = "bottleneck" if "layer1.0.conv3.weight" in tensors else "basic"
        for name, shape in cls.architectures.items():
            if (shape.block, shape.depths, shape.large) == (block, depths, large):
                return OfficialNetwork(name, num_classes, dict(tensors))
        raise UserError(f"got {block} blocks {depths}, expected those of {', '.join(cls.architectures)}")

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifiers and its map.

        From a ResNet alone, the branch's layer is filled as the last layer is.

        Args:
            weights: a checkpoint of the official code or of a ResNet, a file or folder of ours, or a name of
                `published`.
        """
        body = self.name.removeprefix("abn2d_")
        tensors = read_weights(weights, self.name) if is_local(weights) else resnet_tensors(weights, body)
        if "att_conv3.weight" not in tensors:
            own, last = self.state_dict(), f"layer{self.extracting}."
            tensors |= {f"att_{name}": value for name, value in tensors.items() if name.startswith(last)}
            tensors |= {name: value for name, value in own.items() if name.startswith(("bn_att.", "bn_att3."))}
        per_class = ("fc.", "att_conv.", "bn_att2.", "att_conv2.", "att_conv3.")
        return fill(self, tensors, classifier=per_class, source=weights, remedy=f"give weights of {self.name}")

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t h2 w2"]:
        """f, the maps before the last layer."""
        x_nchw = clip_bcthw.transpose(1, 2).flatten(0, 1)
        x_nchw = self.maxpool(functional.relu(self.bn1(self.conv1(x_nchw))))
        for number in range(1, self.extracting):
            x_nchw = getattr(self, f"layer{number}")(x_nchw)
        return unfold(x_nchw, clip_bcthw.shape[2])

    def attend(self, features: Features) -> tuple[Attention, Float[Tensor, "b k"]]:
        """M of every frame, and the branch's class scores; the temporal attention is 1 everywhere."""
        frames = map_of(features).shape[2]
        h_nchw = self.bn_att(getattr(self, f"att_layer{self.extracting}")(_fold(features)))
        m_nkhw = functional.relu(self.bn_att2(self.att_conv(h_nchw)))
        logits_bk = self.att_conv2(m_nkhw).mean(dim=(2, 3)).unflatten(0, (-1, frames)).mean(dim=1)
        spatial_nhw = torch.sigmoid(self.bn_att3(self.att_conv3(m_nkhw))).squeeze(1)
        spatial_bthw = spatial_nhw.unflatten(0, (-1, frames))
        return Attention(spatial_bthw, spatial_bthw.new_ones(spatial_bthw.shape[:2])), logits_bk

    def weigh(self, features: Features, attention: Attention) -> Float[Tensor, "b c t h w"]:
        """f (1 + M)."""
        return map_of(features) * (1 + attention.spatial[:, None])

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """The last layer, of the features that the own map weighs."""
        return self.deepen_weighed(self.weigh(features, self.attend(features)[0]))

    def deepen_weighed(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """The last layer alone."""
        last = getattr(self, f"layer{self.extracting}")
        return unfold(last(_fold(features)), map_of(features).shape[2])

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem, the layers, the own attention branch before the last of them, and what has a row per class."""
        layers: list[tuple[str, tuple[nn.Module, ...]]] = [
            (f"layer{n}", (getattr(self, f"layer{n}"),)) for n in range(1, self.extracting + 1)
        ]
        branch = (getattr(self, f"att_layer{self.extracting}"), self.bn_att, self.bn_att3)
        layers.insert(-1, ("own attention branch", branch))
        classifiers = (self.fc, self.att_conv, self.bn_att2, self.att_conv2, self.att_conv3)
        return {"stem": (self.conv1, self.bn1), **dict(layers), "classifiers": classifiers}


def _fold(features: Features) -> Float[Tensor, "n c h w"]:
    return map_of(features).transpose(1, 2).flatten(0, 1)
