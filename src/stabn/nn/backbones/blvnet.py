"""bLVNet-TAM (Fan et al., NeurIPS 2019): pairs of frames share a deep and a thin network.

Odd frames go through the deep one at low resolution, even ones through the thin one at full resolution; each pair takes
the sum. Temporal aggregation (TAM) mixes neighbouring frames.

    TAM(x)[t] = relu( sum_i w_i x[t + i - b // 2] )     per channel, i = 0 .. b - 1, zeros outside the clip

Written from the paper; names of tensors are those of the official code (Apache-2.0).

Shape suffixes: n frames of all clips (B T), b clips, c channels, t steps, h height, w width, k classes.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stabn.errors import UserError
from stabn.nn.backbone import ClipFormat, Features, OfficialNetwork, initialise, map_of
from stabn.nn.backbones.big_little import TAM, BigLittle, BLVShape, PooledBottleneck, frames_of_pairs
from stabn.nn.backbones.clip_network import ClipNetwork
from stabn.nn.backbones.frame_network import unfold
from stabn.nn.backbones.frame_resnet import flat_convolution
from stabn.nn.hub import read_weights
from stabn.nn.state_dict import dimensions_of

_CLIPS = ClipFormat(16, 224, fixed_frames=True, multiple_of=2)

BLV_SHAPES = {
    "blvnet_tam_50": BLVShape((3, 4, 6, 3), 64, 128, _CLIPS),
    "blvnet_tam_101": BLVShape((4, 8, 18, 3), 64, 128, _CLIPS),
    "blvnet_tam_152": BLVShape((5, 12, 30, 3), 64, 128, _CLIPS),
    # For a 2-core CPU; no official file has these shapes.
    "blvnet_tam_small": BLVShape((2, 2, 2, 1), 16, 48, replace(_CLIPS, size=56)),
}


class BLVNet(ClipNetwork):
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
    per_class = "new_fc"
    time_stride = 2

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5, **options: int) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.shape, self.options = replace(self.shape, **options), options
        shape, width = self.shape, self.shape.width
        if shape.blending_frames % 2 == 0:
            raise UserError(f"blending_frames: got {shape.blending_frames}, expected an odd number")
        thin = width // shape.alpha
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.tam = TAM(width, shape.blending_frames)
        self.b_conv0, self.bn_b0 = flat_convolution(width, width, 3, 2), nn.BatchNorm2d(width)
        self.l_conv0, self.bn_l0 = flat_convolution(width, thin, 3), nn.BatchNorm2d(thin)
        self.l_conv1, self.bn_l1 = flat_convolution(thin, thin, 3, 2), nn.BatchNorm2d(thin)
        self.l_conv2, self.bn_l2 = flat_convolution(thin, width, 1), nn.BatchNorm2d(width)
        self.bl_init, self.bn_bl_init = flat_convolution(width, width, 1), nn.BatchNorm2d(width)
        channels = width
        for layer in (1, 2, 3):
            self.add_module(f"layer{layer}", BigLittle(shape, layer, channels))
            channels = 4 * width * 2 ** (layer - 1)
        self.channels = channels
        self.layer4 = nn.ModuleList()
        for number in range(shape.depths[3]):
            stride = 1 if number else 2
            self.layer4.append(PooledBottleneck(channels, 32 * width, stride, TAM(channels, shape.blending_frames)))
            channels = 32 * width
        self.new_fc = nn.Linear(channels, num_classes)
        initialise(self)
        for part in self.modules():
            if isinstance(part, TAM):
                part.reset_parameters()

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

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """The maps after layer3, one of each pair of frames."""
        frames = clip_bcthw.shape[2]
        x_nchw = functional.relu(self.bn1(self.conv1(clip_bcthw.transpose(1, 2).flatten(0, 1))))
        even_nchw, odd_nchw = frames_of_pairs(self.tam(x_nchw, frames))
        little_nchw = functional.relu(self.bn_l0(self.l_conv0(even_nchw)))
        little_nchw = functional.relu(self.bn_l1(self.l_conv1(little_nchw)))
        both_nchw = self.bn_b0(self.b_conv0(odd_nchw)) + self.bn_l2(self.l_conv2(little_nchw))
        pairs_nchw = functional.relu(self.bn_bl_init(self.bl_init(functional.relu(both_nchw))))
        for number in (1, 2, 3):
            pairs_nchw = self.get_submodule(f"layer{number}")(pairs_nchw, frames // 2)
        return unfold(pairs_nchw, frames // 2)

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """Layer4, in which TAM mixes neighbouring pairs."""
        steps = map_of(features).shape[2]
        x_nchw = map_of(features).transpose(1, 2).flatten(0, 1)
        for block in self.layer4:
            x_nchw = block(x_nchw, steps)
        return unfold(x_nchw, steps)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem with the first pair of branches, the four layers and the classifier."""
        layers = {f"layer{n}": (getattr(self, f"layer{n}"),) for n in (1, 2, 3, 4)}
        others = (part for name, part in self.named_children() if name not in (*layers, "new_fc", "drop"))
        return {"stem": tuple(others), **layers, "new_fc": (self.new_fc,)}


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
