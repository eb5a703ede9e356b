"""bLVNet-TAM (Fan et al., NeurIPS 2019): pairs of frames share a deep and a thin network.

Odd frames go through the deep one at low resolution, even ones through the thin one at full resolution; each pair takes
the sum. Temporal aggregation (TAM) mixes neighbouring frames.

    TAM(x)[t] = relu( sum_i w_i x[t + i - b // 2] )     per channel, i = 0 .. b - 1, zeros outside the clip

Written from the paper; names of tensors are those of the official code (Apache-2.0).

Shape suffixes: n frames of all clips (B T), b clips, c channels, t steps, h height, w width, k classes.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stabn.errors import UserError
from stabn.nn.backbone import (
    Backbone,
    ClipFormat,
    Features,
    OfficialNetwork,
    convolutional_head,
    initialise,
    map_of,
)
from stabn.nn.backbones.frame_network import unfold
from stabn.nn.hub import read_weights
from stabn.nn.state_dict import dimensions_of, fill

Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class BLVShape:
    """Every number of a bLVNet-TAM.

    Attributes:
        depths: blocks of the ResNet that its layers are made of.
        width: channels of the stem and inside the blocks of layer1; doubled from layer to layer.
        branch: channels of the attention branch.
        format: its clips: two frames per step.
        alpha: how many times fewer channels the little branch has.
        beta: how many times fewer blocks it has.
        blending_frames: frames that TAM mixes, an odd number.
    """

    depths: Four
    width: int
    branch: int
    format: ClipFormat
    alpha: int = 2
    beta: int = 4
    blending_frames: int = 3

    def blocks(self, layer: int) -> tuple[int, int]:
        """Blocks of the big and of the little branch in layer 1 .. 3."""
        depth = self.depths[layer - 1]
        return depth - 1, max(1, depth // self.beta - 1)


BLV_SHAPES = {
    "blvnet_tam_50": BLVShape((3, 4, 6, 3), 64, 128, ClipFormat(16, 224)),
    "blvnet_tam_101": BLVShape((4, 8, 18, 3), 64, 128, ClipFormat(16, 224)),
    "blvnet_tam_152": BLVShape((5, 12, 30, 3), 64, 128, ClipFormat(16, 224)),
    # For a 2-core CPU; no official file has these shapes.
    "blvnet_tam_small": BLVShape((2, 2, 2, 1), 16, 48, ClipFormat(16, 56)),
}


class TAM(nn.Module):
    """Temporal aggregation: each channel's weighted sum over neighbouring frames, and ReLU.

    Args:
        channels: C.
        blending_frames: b; the weights of three frames have names of their own in the official code.
    """

    def __init__(self, channels: int, blending_frames: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 1, groups=channels, bias=False) for _ in range(blending_frames)]
        if blending_frames == 3:
            self.prev, self.curr, self.next = layers
        else:
            self.blending_layers = nn.ModuleList(layers)
        self.blending_frames = blending_frames
        self.reset_parameters()

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """From the most distant past to the most distant future."""
        return (self.prev, self.curr, self.next) if self.blending_frames == 3 else tuple(self.blending_layers)

    def reset_parameters(self) -> None:
        """The official initial values: small and random, by the fan-out of a dense convolution."""
        for layer in self.layers:
            if not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.weight.shape[0]))

    def forward(self, x_nchw: Float[Tensor, "n c h w"], frames: int) -> Float[Tensor, "n c h w"]:
        """Of clips of so many frames."""
        x_btchw = x_nchw.unflatten(0, (-1, frames))
        reach = self.blending_frames // 2
        padded_btchw = functional.pad(x_btchw, (0, 0, 0, 0, 0, 0, reach, reach))
        mixed = sum(layer(padded_btchw[:, i : i + frames].flatten(0, 1)) for i, layer in enumerate(self.layers))
        return functional.relu(mixed)


class _Bottleneck(nn.Module):
    """A residual block whose shortcut pools before it projects.

    Args:
        channels_in: of x.
        channels_out: four times those inside.
        stride: of the 3 x 3 convolution.
        tam: whether neighbouring frames are mixed first; a shortcut without projection takes x before that.
        last_relu: whether the sum goes through ReLU.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, tam: TAM | None = None, last_relu: bool = True
    ) -> None:
        super().__init__()
        inside = channels_out // 4
        self.conv1, self.bn1 = _flat(channels_in, inside, 1), nn.BatchNorm2d(inside)
        self.conv2, self.bn2 = _flat(inside, inside, 3, stride), nn.BatchNorm2d(inside)
        self.conv3, self.bn3 = _flat(inside, channels_out, 1), nn.BatchNorm2d(channels_out)
        shortcut: list[nn.Module] = [nn.AvgPool2d(3, 2, 1)] if stride == 2 else []
        if channels_in != channels_out:
            shortcut += [_flat(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out)]
        self.downsample = nn.Sequential(*shortcut) if shortcut else None
        self.tam, self.last_relu = tam, last_relu

    def forward(self, x_nchw: Float[Tensor, "n c h w"], frames: int = 1) -> Float[Tensor, "n c2 h2 w2"]:
        mixed_nchw = x_nchw if self.tam is None else self.tam(x_nchw, frames)
        y_nchw = functional.relu(self.bn1(self.conv1(mixed_nchw)))
        y_nchw = self.bn3(self.conv3(functional.relu(self.bn2(self.conv2(y_nchw)))))
        y_nchw = y_nchw + (x_nchw if self.downsample is None else self.downsample(mixed_nchw))
        return functional.relu(y_nchw) if self.last_relu else y_nchw


class _BigLittle(nn.Module):
    """Layer 1 .. 3: both branches, and a block for their sum.

    Args:
        shape: of the network.
        layer: its number.
        channels_in: of every frame.
    """

    def __init__(self, shape: BLVShape, layer: int, channels_in: int) -> None:
        super().__init__()
        channels = 4 * shape.width * 2 ** (layer - 1)
        big, little = shape.blocks(layer)
        thin = channels // shape.alpha
        self.big = nn.Sequential(
            _Bottleneck(channels_in, channels, 2),  # keeps its ReLU even where it is the only one
            *(_Bottleneck(channels, channels, 1, last_relu=number < big - 1) for number in range(1, big)),
        )
        self.little = nn.Sequential(
            _Bottleneck(channels_in, thin, 1), *(_Bottleneck(thin, thin, 1) for _ in range(1, little))
        )
        self.little_e = nn.Sequential(_flat(thin, channels, 1), nn.BatchNorm2d(channels))
        self.fusion = nn.Sequential(_Bottleneck(channels, channels, 1 if layer == 3 else 2))
        self.tam = TAM(channels_in, shape.blending_frames)

    def forward(self, pairs_nchw: Float[Tensor, "n c h w"], steps: int) -> Float[Tensor, "n c2 h2 w2"]:
        """(B T / 2, C, H, W) -> the same number of pairs at half the resolution, or at full in layer 3."""
        even_nchw, odd_nchw = _frames_of_pairs(self.tam(pairs_nchw.repeat_interleave(2, dim=0), 2 * steps))
        little_nchw = self.little_e(self.little(even_nchw))
        big_nchw = functional.interpolate(self.big(odd_nchw), little_nchw.shape[2:])
        return self.fusion(functional.relu(big_nchw + little_nchw))


def _frames_of_pairs(frames_nchw: Tensor) -> tuple[Tensor, Tensor]:
    """The even frames and the odd ones."""
    even_nchw, odd_nchw = frames_nchw.unflatten(0, (-1, 2)).unbind(1)
    return even_nchw, odd_nchw


def _flat(channels_in: int, channels_out: int, side: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, side, stride, side // 2, bias=False)


class BLVNet(Backbone):
    """bLVNet-TAM, split after layer3, where both frames of a pair are equal: T' = T / 2.

    Args:
        name: a key of `BLV_SHAPES`.
        num_classes: K.
        frames: T, even; the network takes no other number.
        dropout: before the classifier.
        alpha, beta, blending_frames: in place of the name's.

    Raises:
        UserError: the number of frames is odd, or that of blended frames even.
    """

    architectures: ClassVar[Mapping[str, BLVShape]] = BLV_SHAPES
    time_stride = 2
    space_stride = 16
    extracting = 4

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5, **options: int) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.name, self.shape, self.options = name, replace(self.architectures[name], **options), options
        shape, width = self.shape, self.shape.width
        if shape.blending_frames % 2 == 0:
            raise UserError(f"blending_frames: got {shape.blending_frames}, expected an odd number")
        self.format = self.format_for(name, {}).built_for(name, frames)
        thin = width // shape.alpha
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.tam = TAM(width, shape.blending_frames)
        self.b_conv0, self.bn_b0 = _flat(width, width, 3, 2), nn.BatchNorm2d(width)
        self.l_conv0, self.bn_l0 = _flat(width, thin, 3), nn.BatchNorm2d(thin)
        self.l_conv1, self.bn_l1 = _flat(thin, thin, 3, 2), nn.BatchNorm2d(thin)
        self.l_conv2, self.bn_l2 = _flat(thin, width, 1), nn.BatchNorm2d(width)
        self.bl_init, self.bn_bl_init = _flat(width, width, 1), nn.BatchNorm2d(width)
        channels = width
        for layer in (1, 2, 3):
            self.add_module(f"layer{layer}", _BigLittle(shape, layer, channels))
            channels = 4 * width * 2 ** (layer - 1)
        self.channels, self.branch_channels = channels, shape.branch
        self.layer4 = nn.ModuleList()
        for number in range(shape.depths[3]):
            stride = 1 if number else 2
            self.layer4.append(_Bottleneck(channels, 32 * width, stride, TAM(channels, shape.blending_frames)))
            channels = 32 * width
        self.drop = nn.Dropout(dropout)
        self.new_fc = nn.Linear(channels, num_classes)
        initialise(self)
        for part in self.modules():
            if isinstance(part, TAM):
                part.reset_parameters()

    @classmethod
    def format_for(cls, name: str, options: Mapping[str, Any]) -> ClipFormat:
        """The published clips; a network takes one even number of frames."""
        return replace(cls.architectures[name].format, fixed_frames=True, multiple_of=2)

    @classmethod
    def own_names(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the official code under our names; other names stay."""
        flat = {name.removeprefix("baseline_model."): value for name, value in tensors.items()}
        return {f"new_{name}" if name.startswith("fc.") else name: value for name, value in flat.items()}

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """A checkpoint of the official code; the number of frames is in no shape."""
        own = cls.own_names(tensors)
        if "bl_init.weight" not in own or not any(name.startswith("tam.") for name in own):
            return None
        num_classes, _ = dimensions_of(own, "new_fc.weight", 2)
        deep = (_count(own, rf"layer{n}\.big\.(\d+)\.") + 1 for n in (1, 2, 3))
        depths = (*deep, _count(own, r"layer4\.(\d+)\."))
        width, *_ = dimensions_of(own, "conv1.weight", 4)
        for name, shape in cls.architectures.items():
            if (shape.depths, shape.width) == (depths, width):
                return OfficialNetwork(name, num_classes, own, options=_options(shape, own))
        raise UserError(f"got {depths} blocks, expected those of {', '.join(cls.architectures)}")

    @classmethod
    def options_for(cls, name: str, weights: str | None) -> dict[str, Any]:
        """What the weights tell: blended frames, and the little branch's channels and blocks."""
        if weights is None:
            return {}
        own = cls.own_names(read_weights(weights, name))
        return _options(cls.architectures[name], own)

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifier.

        Args:
            weights: a checkpoint of the official code, or a file or folder of ours.
        """
        own = self.own_names(read_weights(weights, self.name))
        return fill(self, own, classifier="new_fc.", source=weights, remedy=f"give weights of {self.name}")

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """The maps after layer3, one of each pair of frames."""
        frames = clip_bcthw.shape[2]
        x_nchw = functional.relu(self.bn1(self.conv1(clip_bcthw.transpose(1, 2).flatten(0, 1))))
        even_nchw, odd_nchw = _frames_of_pairs(self.tam(x_nchw, frames))
        little_nchw = functional.relu(self.bn_l0(self.l_conv0(even_nchw)))
        little_nchw = functional.relu(self.bn_l1(self.l_conv1(little_nchw)))
        both_nchw = self.bn_b0(self.b_conv0(odd_nchw)) + self.bn_l2(self.l_conv2(little_nchw))
        pairs_nchw = functional.relu(self.bn_bl_init(self.bl_init(functional.relu(both_nchw))))
        for layer in (self.layer1, self.layer2, self.layer3):
            pairs_nchw = layer(pairs_nchw, frames // 2)
        return unfold(pairs_nchw, frames // 2)

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """Layer4, in which TAM mixes neighbouring pairs."""
        steps = map_of(features).shape[2]
        x_nchw = map_of(features).transpose(1, 2).flatten(0, 1)
        for block in self.layer4:
            x_nchw = block(x_nchw, steps)
        return unfold(x_nchw, steps)

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """The mean over pairs of each pair's class scores."""
        pooled_btc = map_of(maps).mean(dim=(3, 4)).transpose(1, 2)
        return self.new_fc(self.drop(pooled_btc)).mean(dim=1)

    def fresh_head(self) -> nn.Module:
        """A convolutional head."""
        return convolutional_head(self.channels, self.branch_channels)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem with the first pair of branches, the four layers and the classifier."""
        layers = {f"layer{n}": (getattr(self, f"layer{n}"),) for n in (1, 2, 3, 4)}
        others = (part for name, part in self.named_children() if name not in (*layers, "new_fc", "drop"))
        return {"stem": tuple(others), **layers, "new_fc": (self.new_fc,)}

    @property
    def linear(self) -> nn.Linear:
        """The classifier of the maps' mean."""
        return self.new_fc


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many values the number in names of a pattern has."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _options(shape: BLVShape, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Options that differ from those of the name; tensors that do not fit are left to `fill`."""
    thin = tensors.get("l_conv0.weight")
    little = [_count(tensors, rf"layer{n}\.little\.(\d+)\.") for n in (1, 2, 3)]
    betas = (
        n for n in (shape.beta, *range(1, 9)) if [replace(shape, beta=n).blocks(i)[1] for i in (1, 2, 3)] == little
    )
    told = {
        "alpha": shape.alpha if thin is None or not len(thin) else shape.width // len(thin),
        "beta": next(betas, shape.beta),
        "blending_frames": _count(tensors, r"tam\.blending_layers\.(\d+)\.") or 3,
    }
    return {name: value for name, value in told.items() if value != getattr(shape, name)}
