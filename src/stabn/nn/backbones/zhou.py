"""The 3D DenseNet-121 of Zhou et al. (CVPR 2020), whose units see space alone (S), space and time (ST), or both.

    dense layer:  u = [S] conv 1x1x1(relu bn x) + [ST] conv 3x1x1(relu bn' x);  concat(x, conv 1x3x3(relu bn u))
    transition:   [S] conv 1x1x1(relu bn x) + [ST] conv 3x1x1(relu bn' x);  average pool 1x2x2

A fusion strategy says which paths each of the 61 units keeps; a path that is left out acts like a zero kernel. Written
from the paper and its supplement; names of tensors are those of the authors' experimental code.

Shape suffixes: b clips, c channels, t steps, h height, w width, k classes.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stabn.errors import UserError
from stabn.nn.backbone import Features, OfficialNetwork, PublishedWeights, initialise, map_of
from stabn.nn.backbones.clip_network import ClipNetwork
from stabn.nn.backbones.fusion_strategies import ZHOU_SHAPES, DenseShape
from stabn.nn.backbones.resnet3d_weights import is_local
from stabn.nn.hub import read_weights
from stabn.nn.state_dict import dimensions_of
from stabn.nn.torchvision_weights import published_in, torchvision_tensors

_ENUMERATION = "DenseNet121_Weights."
_PATH = re.compile(r"features\.(denseblock\d\.denselayer\d+|transition\d)\.(bottleneck|original|temporal)\.")


def _path(channels_in: int, channels_out: int, taps: int, side: int = 1, number: str = "") -> nn.Sequential:
    """Norm, ReLU and a convolution of taps x side x side that keeps the grid."""
    convolution = nn.Conv3d(
        channels_in, channels_out, (taps, side, side), padding=(taps // 2, side // 2, side // 2), bias=False
    )
    parts = {"norm": nn.BatchNorm3d(channels_in), "relu": nn.ReLU(inplace=True), "conv": convolution}
    return nn.Sequential(OrderedDict((name + number, part) for name, part in parts.items()))


class _Unit(nn.Module):
    """The sum of the paths that a strategy keeps, each with a norm of its own.

    Args:
        strategy: "S", "ST" or "S+ST".
        flat: the name of the path that sees space alone.
        number: ends the names of its parts.
    """

    def __init__(self, strategy: str, flat: str, channels_in: int, channels_out: int, number: str = "") -> None:
        super().__init__()
        taps = {"S": {flat: 1}, "ST": {"temporal": 3}, "S+ST": {flat: 1, "temporal": 3}}[strategy]
        self.kept = tuple(taps)
        for name, count in taps.items():
            self.add_module(name, _path(channels_in, channels_out, count, number=number))

    def paths(self, x_bcthw: Tensor) -> Tensor:
        """Their sum."""
        first, *others = (getattr(self, name)(x_bcthw) for name in self.kept)
        return first + others[0] if others else first


class _DenseLayer(_Unit):
    """A unit of the bottleneck's width and a convolution in space, whose channels join x."""

    def __init__(self, strategy: str, channels_in: int, shape: DenseShape) -> None:
        super().__init__(strategy, "bottleneck", channels_in, shape.bottleneck, "1")
        self.spatial = _path(shape.bottleneck, shape.growth, 1, 3, "2")

    def forward(self, x_bcthw: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t h w"]:
        return torch.cat((x_bcthw, self.spatial(self.paths(x_bcthw))), dim=1)


class _Transition(_Unit):
    """A unit that halves the channels, and an average over 2 x 2 places, and over two steps where `time` is 2."""

    def __init__(self, strategy: str, channels_in: int, time: int) -> None:
        super().__init__(strategy, "original", channels_in, channels_in // 2)
        self.pool = nn.AvgPool3d((time, 2, 2))

    def forward(self, x_bcthw: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t2 h2 w2"]:
        return self.pool(self.paths(x_bcthw))


class ZhouDenseNet(ClipNetwork):
    """A 3D DenseNet, split after its third block, before the third transition: maps of 1/16 of the frame's size.

    Args:
        name: a key of `ZHOU_SHAPES`.
        num_classes: K.
        frames: any number, or a multiple of 8 where time shrinks.
        dropout: before the classifier.
        strategy: of every unit from the clip to the classifier, in place of the name's.

    Raises:
        UserError: the network does not take so many frames, or the strategy has other units.
    """

    architectures: ClassVar[Mapping[str, DenseShape]] = ZHOU_SHAPES
    per_class = "classifier"
    extracting = 6

    def __init__(
        self,
        name: str,
        num_classes: int,
        frames: int,
        dropout: float = 0.5,
        strategy: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.strategies = self.shape.strategies()
        if strategy is not None:
            if len(strategy) != len(self.strategies) or not set(strategy) <= {"S", "ST", "S+ST"}:
                raise UserError(
                    f"strategy: got {list(strategy)}, expected S, ST or S+ST for {len(self.strategies)} units"
                )
            self.strategies = dict(zip(self.strategies, strategy, strict=True))
            self.options = {"strategy": list(strategy)}
        self.time_stride = 8 if self.shape.shrinks_time else 1
        self.features = nn.Sequential(OrderedDict(self._parts()))
        last = self.features.get_submodule("norm5")
        assert isinstance(last, nn.BatchNorm3d)
        self.classifier = nn.Linear(last.num_features, num_classes)
        initialise(self)

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        """The parts of `features`, from the clip on."""
        time = 2 if self.shape.shrinks_time else 1
        yield "conv0", nn.Conv3d(3, self.shape.stem, (5, 7, 7), (time, 2, 2), (2, 3, 3), bias=False)
        yield "norm0", nn.BatchNorm3d(self.shape.stem)
        yield "relu0", nn.ReLU(inplace=True)
        yield "pool0", nn.MaxPool3d(3, (time, 2, 2), 1)
        channels = self.shape.stem
        for block, depth in enumerate(self.shape.depths, start=1):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for number in range(1, depth + 1):
                strategy = self.strategies[f"denseblock{block}.denselayer{number}"]
                layers[f"denselayer{number}"] = _DenseLayer(strategy, channels, self.shape)
                channels += self.shape.growth
            yield f"denseblock{block}", nn.Sequential(layers)
            if block == len(self.shape.depths):
                break
            if block == len(self.shape.depths) - 1:
                self.channels = channels
            name = f"transition{block}"
            yield name, _Transition(self.strategies[name], channels, time if block == 1 else 1)
            channels //= 2
        yield "norm5", nn.BatchNorm3d(channels)

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """torchvision's ImageNet weights of the 2D DenseNet-121, for the networks of its depth."""
        if cls.architectures[name].depths != DenseShape.depths:
            return ()
        from torchvision.models import DenseNet121_Weights

        return published_in(DenseNet121_Weights, "ImageNet-1k")

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """A checkpoint of the authors' code. Its paths tell the strategy; whether time shrinks, no shape tells."""
        found = _strategies(tensors)
        if not found:
            return None
        num_classes = dimensions_of(tensors, "classifier.weight", 2)[0]
        for name, shape in cls.architectures.items():
            if shape.strategies() == found:
                return OfficialNetwork(name, num_classes, dict(tensors))
        name = "zhou_densenet121_sst"
        units = cls.architectures[name].strategies()
        if found.keys() != units.keys():
            raise UserError(f"got {len(found)} units, expected the {len(units)} of a DenseNet-121")
        return OfficialNetwork(name, num_classes, dict(tensors), options={"strategy": [found[unit] for unit in units]})

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifier.

        From a network with both paths everywhere, a strategy takes its own. From a 2D DenseNet, every path has the
        kernel, shared among its taps.

        Args:
            weights: a checkpoint of the authors' code or of a 2D DenseNet, a file or folder of ours, or a name of
                `published`.
        """
        if is_local(weights):
            tensors = read_weights(weights, self.name)
        else:
            names, weights = [one.name for one in self.published(self.name)], weights.removeprefix(_ENUMERATION)
            if weights not in names:
                raise UserError(
                    f"weights: got {weights!r}, expected a .pth or .safetensors file, the folder of a network, or a "
                    f"name: {', '.join(names) or 'none'}"
                )
            from torchvision.models import DenseNet121_Weights

            tensors = torchvision_tensors(DenseNet121_Weights[weights])
        if "features.denseblock1.denselayer1.spatial.conv2.weight" not in tensors:
            tensors = self._inflated(tensors)
        elif set(_strategies(tensors).values()) == {"S+ST"}:
            own = self.state_dict()
            tensors = {name: value for name, value in tensors.items() if name in own or not _PATH.match(name)}
        return self.fill_from(tensors, weights)

    def _inflated(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a 2D DenseNet under our names and in our shapes; names without a place here stay."""
        # torchvision's own files have the names of an older version of it.
        rest = {re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name): value for name, value in tensors.items()}
        inflated, taken = {}, set()
        for name, own in self.state_dict().items():
            origin = re.sub(r"\.(bottleneck|temporal|original|spatial)\.", ".", name)
            if origin in rest:
                taken.add(origin)
                value = rest[origin]
                wide = own.ndim == 5 and value.ndim == 4
                inflated[name] = (
                    value[:, :, None].expand(-1, -1, own.shape[2], -1, -1) / own.shape[2] if wide else value
                )
        return inflated | {name: value for name, value in rest.items() if name not in taken}

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """The maps after the third block."""
        return self.features[: self._split](clip_bcthw)

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """The third transition, the fourth block, norm and ReLU."""
        return functional.relu(self.features[self._split :](map_of(features)))

    @property
    def _split(self) -> int:
        """Parts of `features` in front of the third transition."""
        return list(dict(self.features.named_children())).index("transition3")

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem, blocks and transitions in turn, the last norm and the classifier."""
        parts = dict(self.features.named_children())
        rows = {name: (part,) for name, part in parts.items() if name.startswith(("dense", "transition", "norm5"))}
        return {"stem": (parts["conv0"], parts["norm0"]), **rows, "classifier": (self.classifier,)}

    def grid(self, size: int) -> int:
        """Cells along a side; the transitions leave out an incomplete one."""
        return math.ceil(size / 4) // 4


def _strategies(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The strategy of each unit, by the paths that have tensors."""
    paths: dict[str, set[str]] = {}
    for match in filter(None, map(_PATH.match, tensors)):
        paths.setdefault(match[1], set()).add("ST" if match[2] == "temporal" else "S")
    return {unit: "+".join(sorted(kept)) for unit, kept in paths.items()}
