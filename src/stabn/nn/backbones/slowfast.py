"""SlowFast (Feichtenhofer et al., ICCV 2019): a slow pathway of few frames beside a thin fast one of all.

The slow pathway alone is `stabn.nn.backbones.resnet3d`, whose blocks both are made of. Files of PySlowFast and of
pytorchvideo are read.

Shape suffixes: b clips, c channels, t steps, h height, w width, k classes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.backbone import ClipFormat, Features, OfficialNetwork, TokenMap, initialise, map_of
from stabn.nn.backbones.clip_network import ClipNetwork
from stabn.nn.backbones.resnet3d import ResidualBlock, ResidualLayer
from stabn.nn.backbones.resnet3d_weights import SLOW_MEAN, SLOW_STD, refuse_caffe2, single_pathway_name
from stabn.nn.state_dict import dimensions_of, unwrap

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
_CLIPS = ClipFormat(32, 224, SLOW_MEAN, SLOW_STD, fixed_frames=True, multiple_of=4)

SLOWFAST_SHAPES = {
    "slowfast_r50":      SlowFastShape((3, 4, 6, 3),  64, 8, 4, 7, 2, 128, _CLIPS),
    "slowfast_r50_4x16": SlowFastShape((3, 4, 6, 3),  64, 8, 8, 5, 2, 128, replace(_CLIPS, multiple_of=8)),
    "slowfast_r101":     SlowFastShape((3, 4, 23, 3), 64, 8, 4, 7, 2, 128, _CLIPS),
    # For a 2-core CPU; no official file has these shapes.
    "slowfast_small":    SlowFastShape((1, 1, 1, 1),  16, 4, 4, 7, 2, 48,  replace(_CLIPS, frames=16, size=56)),
}
# fmt: on

_PATHWAY = re.compile(r"(s\d\.)pathway([01])_|(blocks\.\d\.)multipathway_blocks\.([01])\.")
_FUSION = re.compile(
    r"(?:s([1-4])_fuse|blocks\.([0-3])\.multipathway_fusion)\.(conv_f2s|conv_fast_to_slow|bn|norm)\.(.+)"
)
_CLASSIFIERS = ("head.projection.", "blocks.6.proj.")


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


class SlowFast(ClipNetwork):
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

    architectures: ClassVar[Mapping[str, SlowFastShape]] = SLOWFAST_SHAPES

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.time_stride = self.shape.alpha
        # Not every alpha-th frame: evenly placed from the first to the last one, and rounded down as in PySlowFast.
        steps = torch.linspace(0, frames - 1, frames // self.shape.alpha, device="cpu")
        self.slow_frames = steps.long().tolist()
        self.slow, self.fast = _Pathway(self.shape, "slow"), _Pathway(self.shape, "fast")
        self.fuse = nn.ModuleList(_Fusion(width, self.shape) for width in self.fast.widths[:4])
        self.channels = self.slow.widths[3] + self.shape.fusion_ratio * self.fast.widths[3]
        self.fc = nn.Linear(self.slow.widths[4] + self.fast.widths[4], num_classes)
        initialise(self)

    @classmethod
    def own_names(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of PySlowFast or of pytorchvideo under our names; other names stay."""
        return {_own_name(name): value for name, value in tensors.items()}

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """A checkpoint of PySlowFast or of pytorchvideo.

        Shapes do not tell alpha; the lateral kernel does, as in the published networks.
        """
        own = cls.own_names(unwrap(tensors))
        if not any(name.startswith("fuse.") for name in own):
            return None
        num_classes, _ = dimensions_of(own, "fc.weight", 2)
        kernel = dimensions_of(own, "fuse.0.conv.weight", 5)[2]
        blocks = {match.groups() for name in own if (match := re.match(r"slow\.layer([1-4])\.(\d+)\.", name))}
        depths = tuple(sum(layer == str(number) for layer, _ in blocks) for number in (1, 2, 3, 4))
        for name, shape in SLOWFAST_SHAPES.items():
            if (shape.depths, shape.fusion_kernel) == (depths, kernel):
                return OfficialNetwork(name, num_classes, own)
        raise UserError(f"got {depths} blocks and a lateral kernel of {kernel}, expected those of {_names()}")

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """As for any network; Caffe2's files are refused."""
        refuse_caffe2(weights)
        return super().load_weights(weights)

    def _fused(self, number: int, slow_bcthw: Tensor, fast_bcthw: Tensor) -> tuple[Tensor, Tensor]:
        """Both pathways after the stem (0) or a layer, and the lateral connection behind it."""
        slow_bcthw, fast_bcthw = self.slow.layer(number, slow_bcthw), self.fast.layer(number, fast_bcthw)
        return self.fuse[number](slow_bcthw, fast_bcthw), fast_bcthw

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> TokenMap:
        """The slow map after layer3 and its lateral connection; the fast map's cells beside it."""
        slow_bcthw, fast_bcthw = clip_bcthw[:, :, self.slow_frames], clip_bcthw
        for number in range(self.extracting):
            slow_bcthw, fast_bcthw = self._fused(number, slow_bcthw, fast_bcthw)
        return TokenMap(slow_bcthw, fast_bcthw.flatten(2).transpose(1, 2))

    def fast_map(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """The fast pathway's map, of all frames, in features of `extract`."""
        assert isinstance(features, TokenMap)
        _, _, steps, height, width = features.map.shape
        return features.tokens.transpose(1, 2).unflatten(2, (steps * self.time_stride, height, width))

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """Layer4 of both: the slow pathway's maps, repeated for their frames, and the fast one's behind them."""
        slow_bcthw = self.slow.layer(4, map_of(features))
        fast_bcthw = self.fast.layer(4, self.fast_map(features))
        return torch.cat((slow_bcthw.repeat_interleave(self.time_stride, dim=2), fast_bcthw), dim=1)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stems, the four layers of both pathways with the lateral connections, and the classifier."""
        stems = (self.slow.conv1, self.slow.bn1, self.fast.conv1, self.fast.bn1, self.fuse[0])
        layers = {
            f"layer{n}": (getattr(self.slow, f"layer{n}"), getattr(self.fast, f"layer{n}"), *self.fuse[n : n + 1])
            for n in (1, 2, 3, 4)
        }
        return {"stem": stems, **layers, "fc": (self.fc,)}

    @property
    def maps_time_stride(self) -> int:
        """The last maps have all frames."""
        return 1


def _own_name(name: str) -> str:
    if match := _FUSION.fullmatch(name):
        stage, block, module, tensor = match.groups()
        return f"fuse.{block or int(stage) - 1}.{'conv' if module.startswith('conv') else 'bn'}.{tensor}"
    for classifier in _CLASSIFIERS:
        if name.startswith(classifier):
            return f"fc.{name.removeprefix(classifier)}"
    if match := _PATHWAY.match(name):
        stage, number, block, other = match.groups()
        single = f"{stage}pathway0_" if stage else block
        return f"{'fast' if (number or other) == '1' else 'slow'}.{single_pathway_name(single + name[match.end() :])}"
    return name


def _names() -> str:
    return ", ".join(SLOWFAST_SHAPES)
