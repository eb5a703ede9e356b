"""SmallBigNet (Li et al., CVPR 2020): every convolution sees a small view and, through max pooling, a big one.

    a = relu( bn1(conv1 x) + bnA(conv1 P3(x)) )                    conv1, conv2, conv3 are shared by both views
    b = relu( bn2(conv2 a) + bnB(conv2 P3(a)) )
    y = relu( bn3(conv3 b) + bnC(conv3 PT(b)) + shortcut(x) )

P3 is the maximum over 3 x 3 x 3 neighbours, PT that over all steps and 3 x 3 places. As released, only these symmetric
poolings look across time, so that a clip and its reversal have the same class scores; `_temporal` (ours) gives conv1 of
layer3 and layer4 a kernel of three steps. Written from the paper's equations; names of tensors are the official ones.

Shape suffixes: b clips, c channels, t frames, h height, w width, k classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stabn.errors import UserError
from stabn.nn.backbone import ClipFormat, Features, OfficialNetwork, PublishedWeights, initialise, map_of
from stabn.nn.backbones.clip_network import ClipNetwork
from stabn.nn.backbones.resnet3d import ResidualBlock, ResidualLayer
from stabn.nn.backbones.resnet3d_weights import imagenet_weights, is_local, resnet_tensors
from stabn.nn.hub import read_weights
from stabn.nn.state_dict import dimensions_of

Four = tuple[int, int, int, int]
_CLIPS = ClipFormat(8, 224, fixed_frames=True)
_WIDTH = 64
"""Of the published networks."""


@dataclass(frozen=True)
class SmallBigShape:
    """Every number of a SmallBigNet.

    Attributes:
        depths: blocks in layer1 .. layer4.
        extra: whether the blocks of layer2 .. layer4 begin with the view of the whole clip.
        temporal_kernel: steps that conv1 of layer3 and layer4 sees.
        width: channels inside a block of layer1, and of the stem; doubled from layer to layer.
        branch: channels of the attention branch.
        format: its clips.
    """

    depths: Four
    extra: bool = False
    temporal_kernel: int = 1
    width: int = _WIDTH
    branch: int = 128
    format: ClipFormat = _CLIPS


_SMALL_CLIPS = replace(_CLIPS, frames=16, size=56)

SMALLBIG_SHAPES = {
    "smallbig50": SmallBigShape((3, 4, 6, 3)),
    "smallbig50_extra": SmallBigShape((3, 4, 6, 3), extra=True),
    "smallbig50_temporal": SmallBigShape((3, 4, 6, 3), temporal_kernel=3),
    "smallbig101": SmallBigShape((3, 4, 23, 3)),
    "smallbig101_extra": SmallBigShape((3, 4, 23, 3), extra=True),
    "smallbig101_temporal": SmallBigShape((3, 4, 23, 3), temporal_kernel=3),
    # For a 2-core CPU; no official file has these shapes.
    "smallbig_small": SmallBigShape((1, 1, 1, 1), width=16, branch=48, format=_SMALL_CLIPS),
    "smallbig_small_temporal": SmallBigShape((1, 1, 1, 1), False, 3, 16, 48, _SMALL_CLIPS),
}


class _SmallBigBlock(ResidualBlock):
    """A bottleneck with both views.

    Args:
        channels_in: of x.
        width: channels inside; four times as many come out.
        temporal_kernel: of conv1.
        stride: of conv2, in space.
        extra: whether x first gets a view of the whole clip.
    """

    def __init__(self, channels_in: int, width: int, temporal_kernel: int, stride: int, extra: bool) -> None:
        super().__init__("bottleneck", channels_in, width, temporal_kernel, stride)
        near, whole = nn.MaxPool3d(3, 1, 1), _WholeClip()
        self.big1 = nn.Sequential(near, _zero_norm(width))
        self.big2 = nn.Sequential(near, _zero_norm(width))
        self.big3 = nn.Sequential(whole, _zero_norm(4 * width))
        self.big4_1: nn.Module | None = None
        if extra:
            self.big4_1 = nn.Conv3d(channels_in, channels_in // 4, 1, bias=False)
            back = nn.Conv3d(channels_in // 4, channels_in, 1, bias=False)
            self.big4_2 = nn.Sequential(back, _zero_norm(channels_in))

    def forward(self, x_bcthw: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t h2 w2"]:
        """As `ResidualBlock`."""
        if self.big4_1 is not None:
            gate = torch.sigmoid(self.big4_1(functional.adaptive_max_pool3d(x_bcthw, 1)))
            x_bcthw = x_bcthw + self.big4_2(self.big4_1(x_bcthw) * gate)
        y_bcthw = x_bcthw
        for number, (convolution, norm) in enumerate(self.convolutions, start=1):
            pool, big_norm = getattr(self, f"big{number}")
            both = norm(convolution(y_bcthw)) + big_norm(convolution(pool(y_bcthw)))
            y_bcthw = self.relu(both) if number < 3 else both
        return self.relu(y_bcthw + (x_bcthw if self.downsample is None else self.downsample(x_bcthw)))


class _WholeClip(nn.Module):
    """The maximum over all steps and 3 x 3 places: one step."""

    def forward(self, x_bcthw: Tensor) -> Tensor:
        return functional.max_pool3d(x_bcthw.amax(dim=2, keepdim=True), (1, 3, 3), 1, (0, 1, 1))


def _zero_norm(channels: int) -> nn.BatchNorm3d:
    """The norm of a big view, which starts as nothing, so that a network starts as its 2D one."""
    norm = nn.BatchNorm3d(channels)
    nn.init.zeros_(norm.weight)
    return norm


class SmallBig(ClipNetwork):
    """SmallBigNet, split after layer3.

    Args:
        name: a key of `SMALLBIG_SHAPES`.
        num_classes: K.
        frames: T; the network takes no other number.
        dropout: before the classifier.
    """

    architectures: ClassVar[Mapping[str, SmallBigShape]] = SMALLBIG_SHAPES

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(name, num_classes, frames, dropout)
        width = self.shape.width
        self.conv1 = nn.Conv3d(3, width, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        channels = width
        for layer, depth in enumerate(self.shape.depths, start=1):
            blocks = []
            for number in range(depth):
                blocks.append(self._block(layer, channels, width, 2 if layer > 1 and not number else 1))
                channels = 4 * width
            self.add_module(f"layer{layer}", ResidualLayer(*blocks))
            width *= 2
        self.channels = channels // 2
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def _block(self, layer: int, channels: int, width: int, stride: int) -> ResidualBlock:
        if layer == 1:
            return ResidualBlock("bottleneck", channels, width, 1, stride)
        kernel = self.shape.temporal_kernel if layer > 2 else 1
        return _SmallBigBlock(channels, width, kernel, stride, self.shape.extra)

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """torchvision's ImageNet weights of the 2D ResNet of the same depth."""
        return imagenet_weights(_flat_name(name))

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """A checkpoint of the official code; the number of frames is in no shape."""
        if "layer2.0.big1.1.weight" not in tensors:
            return None
        num_classes, _ = dimensions_of(tensors, "fc.weight", 2)
        kernel = dimensions_of(tensors, "layer3.0.conv1.weight", 5)[2]
        depths = tuple(len({n.split(".")[1] for n in tensors if n.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4))
        wanted = (depths, "layer2.0.big4_1.weight" in tensors, kernel)
        for name, shape in cls.architectures.items():
            if (shape.depths, shape.extra, shape.temporal_kernel) == wanted and shape.width == _WIDTH:
                return OfficialNetwork(name, num_classes, dict(tensors))
        raise UserError(
            f"got {depths} blocks and a kernel of {kernel} steps, expected those of a SmallBigNet-50 or -101"
        )

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifier.

        From a 2D ResNet, kernels stand in the middle of several steps, and the norms of big views stay zero, so that
        the network answers as the 2D one.

        Args:
            weights: a checkpoint of the official code or of a 2D ResNet, a file or folder of ours, or a name of
                `published`.
        """
        if is_local(weights):
            tensors = read_weights(weights, self.name)
        else:
            tensors = resnet_tensors(weights, _flat_name(self.name))
        own = self.state_dict()
        first = tensors.get("conv1.weight")
        if first is not None and first.ndim == 4:
            tensors = {name: _middle(value, own.get(name)) for name, value in tensors.items()}
            tensors |= {name: value for name, value in own.items() if ".big" in name and name not in tensors}
        return self.fill_from(tensors, weights)

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t h2 w2"]:
        """The maps after layer3."""
        x_bcthw = self.maxpool(self.relu(self.bn1(self.conv1(clip_bcthw))))
        for number in (1, 2, 3):
            x_bcthw = self.get_submodule(f"layer{number}")(x_bcthw)
        return x_bcthw

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """Layer4."""
        return self.get_submodule("layer4")(map_of(features))

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem, the four layers and the classifier."""
        layers = {f"layer{n}": (getattr(self, f"layer{n}"),) for n in (1, 2, 3, 4)}
        return {"stem": (self.conv1, self.bn1), **layers, "fc": (self.fc,)}


def _flat_name(name: str) -> str:
    """The 2D ResNet of the same depth."""
    return f"resnet{name.partition('_')[0].removeprefix('smallbig')}"


def _middle(flat: Tensor, own: Tensor | None) -> Tensor:
    """A 2D kernel in the middle of a 3D one; anything else as it is."""
    if own is None or flat.ndim != 4 or own.ndim != 5:
        return flat
    steps = own.shape[2]
    return functional.pad(flat[:, :, None], (0, 0, 0, 0, steps // 2, steps // 2))
