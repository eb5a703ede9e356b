"""What the families that read a video as a batch of frames share: folding, splitting, weights.

(B, 3, T, H, W) is folded to (B T', C, H, W), steps innermost, where C holds the colours of the consecutive frames of a
step's snippet, or the two components of their optical flow.

Shape suffixes: n steps of all clips (B T'), b clips, c channels, t steps, h height, w width, k classes.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.backbone import (
    Backbone,
    ClipFormat,
    Features,
    OfficialNetwork,
    PublishedWeights,
    convolutional_head,
    map_of,
)
from stabn.nn.backbones.bn_inception import BNInception
from stabn.nn.backbones.frame_resnet import FRAME_RESNETS, FrameResNet, plain_block
from stabn.nn.backbones.resnet3d import OFFICIAL
from stabn.nn.backbones.resnet3d_weights import imagenet_weights, is_local, resnet_tensors
from stabn.nn.hub import Triple, is_saved_network, read_config, read_weights
from stabn.nn.state_dict import check_tensors, dimensions_of, fill

BN_INCEPTION = "bninception"
BRANCH_WIDTH = 128
"""Channels of the attention branch, at most."""

_NORMALISATION: dict[tuple[bool, bool], tuple[Triple, Triple]] = {
    (False, False): ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    (False, True): ((0.5,) * 3, (0.226,) * 3),
    (True, False): ((128 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3),
    (True, True): ((128 / 255,) * 3, (1 / 255,) * 3),
}
"""(BN-Inception, flow) -> mean and std in R, G, B, or in x, y and nothing."""


@dataclass(frozen=True)
class FrameArchitecture:
    """The numbers of one network of frames.

    Attributes:
        body: of the 2D network: a key of `FRAME_RESNETS`, or `BN_INCEPTION`.
        frames: of a clip, as published.
        size: side of a clip in pixels, as published.
        snippet: consecutive frames of a step, stacked as channels.
        flow: whether it reads optical flow: x in the clip's first channel, y in its second; the third is not read.
        variant: the kind of network in families that have several.
    """

    body: str
    frames: int
    size: int = 224
    snippet: int = 1
    flow: bool = False
    variant: str = ""

    @property
    def channels_in(self) -> int:
        """Of the first convolution."""
        return self.snippet * (2 if self.flow else 3)


class FrameNetwork(Backbone):
    """A 2D network of frames with frames meeting as a family says, split after its third stage.

    Args:
        name: a key of `architectures`.
        num_classes: K.
        frames: T of a clip, a multiple of the snippet's length.
        dropout: of the classifier's inputs.

    Raises:
        UserError: the network does not take so many frames.
    """

    architectures: ClassVar[Mapping[str, FrameArchitecture]]
    fixed_frames: ClassVar[bool] = True
    classifier: ClassVar[tuple[str, ...]] = ("new_fc.",)
    """How the names of tensors with a row per class begin."""
    builds_on_meta: ClassVar[bool] = True

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5, **options: Any) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.name, self.options, self.shape = name, options, self.shape_for(name, options)
        self.format = self.format_for(name, options).built_for(name, frames)
        self.time_stride = self.shape.snippet
        self.base_model = self.build_body(frames // self.shape.snippet)
        self.channels = self.base_model.channels
        self.space_stride = 16
        self.branch_channels = min(BRANCH_WIDTH, self.channels)
        self.drop = nn.Dropout(dropout)
        self.new_fc = self.build_classifier(num_classes)

    @classmethod
    def shape_for(cls, name: str, options: Mapping[str, Any]) -> FrameArchitecture:
        """The numbers of a network with options."""
        return cls.architectures[name]

    def build_body(self, steps: int) -> Any:
        """The 2D network, in which so many snippets of a clip may meet."""
        return self.flat_body(self.shape.channels_in)

    def build_classifier(self, num_classes: int) -> nn.Linear:
        """The classifier of a step's pooled maps."""
        return small_linear(self.base_model.last_channels, num_classes)

    def flat_body(self, channels_in: int = 3) -> Any:
        """The 2D network without anything between frames."""
        if self.shape.body == BN_INCEPTION:
            return BNInception(channels_in)
        return FrameResNet(self.shape.body, plain_block, channels_in)

    @classmethod
    def format_for(cls, name: str, options: Mapping[str, Any]) -> ClipFormat:
        """As published."""
        shape = cls.shape_for(name, options)
        mean, std = _NORMALISATION[shape.body == BN_INCEPTION, shape.flow]
        return ClipFormat(
            shape.frames,
            shape.size,
            mean,
            std,
            fixed_frames=cls.fixed_frames,
            multiple_of=shape.snippet,
            snippet=shape.snippet,
            flow=shape.flow,
        )

    @classmethod
    def options_for(cls, name: str, weights: str | None) -> dict[str, Any]:
        """Those of a saved network, or what the shapes in an official checkpoint tell."""
        if weights is not None and is_saved_network(weights):
            return dict(read_config(weights)[1].get("backbone_options", {}))
        found = cls._found(name, weights)
        return {} if found is None else dict(found.options)

    @classmethod
    def format_of(cls, name: str, weights: str | None) -> ClipFormat:
        """As for any network; some official checkpoints tell their number of frames."""
        wanted, found = super().format_of(name, weights), cls._found(name, weights)
        return wanted if found is None or found.frames is None else replace(wanted, frames=found.frames)

    @classmethod
    def _found(cls, name: str, weights: str | None) -> OfficialNetwork | None:
        local = weights is not None and is_local(weights)
        return cls.official(read_weights(weights, name)) if weights is not None and local else None

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """torchvision's ImageNet weights of the 2D network."""
        return imagenet_weights(cls.architectures[name].body)

    def own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the official code, or of another program that has the family, under our names."""
        return dict(tensors)

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifier.

        Args:
            weights: a checkpoint of the official code, or of the 2D network; a folder of ours; a name of `published`.
        """
        if is_local(weights):
            tensors = read_weights(weights, self.name)
        elif self.shape.body in OFFICIAL:
            tensors = resnet_tensors(weights, self.shape.body)
        else:
            raise UserError(f"weights: got {weights!r}, expected a .pth or .safetensors file, or a folder of ours")
        remedy = f"give weights of {self.name}"
        own = self.own_names(tensors)
        if any(name.startswith("base_model.") for name in own):
            return fill(self, own, classifier=self.classifier, source=weights, remedy=remedy)
        with torch.device("meta"):
            expected = self.flat_body().state_dict()
        flat = {
            name: value.flatten() if value.shape[:-1] == (1,) and expected[name].ndim == 1 else value
            for name, value in tensors.items()
            if name in expected or not name.startswith(("fc.", "last_linear."))
        }
        wanted = {name: value for name, value in expected.items() if name in flat or not name.endswith("_tracked")}
        check_tensors(flat, wanted, source=weights, remedy=f"{remedy}, or of its 2D network")
        filled = self.from_image_network(flat)
        state = self.state_dict()
        with torch.no_grad():
            for name, value in filled.items():
                state[name].copy_(value)
        return tuple(name for name in state if name not in filled and not name.endswith("_tracked"))

    def from_image_network(self, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the 2D network under our names, in our shapes; those that are missing start at random."""
        first, *_ = flat
        length = self.shape.channels_in
        if self.shape.flow:
            kernel = flat[first].mean(dim=1, keepdim=True).expand(-1, length, -1, -1)
        else:
            kernel = flat[first].repeat(1, self.shape.snippet, 1, 1)
        return {f"base_model.{name}": value for name, value in ({**flat, first: kernel}).items()}

    def check_clip(self, clip_bcthw: Tensor) -> None:
        """As for any network, and that BN-Inception can halve the sides."""
        super().check_clip(clip_bcthw)
        height, width = clip_bcthw.shape[3:]
        if self.shape.body == BN_INCEPTION and not (BNInception.takes(height) and BNInception.takes(width)):
            raise ValueError(f"clip: got {height} x {width} pixels, expected sides in multiples of 32")

    @property
    def blue_first(self) -> bool:
        """Whether the official weights want blue, green, red; clips are red, green, blue in all families."""
        return self.shape.body == BN_INCEPTION and not self.shape.flow

    def fold(self, clip_bcthw: Tensor) -> Float[Tensor, "n c h w"]:
        """Frames, or snippets of them, in the batch axis."""
        if self.shape.flow:
            clip_bcthw = clip_bcthw[:, :2]
        elif self.blue_first:
            clip_bcthw = clip_bcthw.flip(1)
        snippets = clip_bcthw.unflatten(2, (-1, self.shape.snippet))
        return snippets.permute(0, 2, 3, 1, 4, 5).flatten(2, 3).flatten(0, 1)

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """The maps after the third stage, one per snippet."""
        return unfold(self.base_model.shallow(self.fold(clip_bcthw)), self.steps(clip_bcthw.shape[2]))

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """The last stage."""
        map_bcthw = map_of(features)
        return unfold(self.base_model.deep(map_bcthw.transpose(1, 2).flatten(0, 1)), map_bcthw.shape[2])

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """The mean over steps of each step's class scores."""
        pooled_btc = map_of(maps).mean(dim=(3, 4)).transpose(1, 2)
        return self.new_fc(self.drop(pooled_btc)).mean(dim=1)

    def fresh_head(self) -> nn.Module:
        """A convolutional head."""
        return convolutional_head(self.channels, self.branch_channels)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The 2D network's stages and the classifier."""
        return {**self.base_model.stages(), "new_fc": (self.new_fc,)}

    @property
    def extracting(self) -> int:
        """The 2D network's stages but the last."""
        return int(self.base_model.extracting)

    @property
    def linear(self) -> nn.Linear | None:
        """The classifier, which is linear in the mean over steps and places."""
        return self.new_fc

    def grid(self, size: int) -> int:
        """Cells along a side of the features."""
        return int(self.base_model.grid(size))


def of_bodies(prefix: str, bodies: Iterable[str], frames: int, **numbers: Any) -> dict[str, FrameArchitecture]:
    """PREFIX_BODY -> the same numbers, at 224 pixels for official bodies and 56 for those for a CPU."""
    return {
        f"{prefix}_{body}": FrameArchitecture(body, frames, 224 if body in OFFICIAL else 56, **numbers)
        for body in bodies
    }


def unfold(maps_nchw: Float[Tensor, "n c h w"], steps: int) -> Float[Tensor, "b c t h w"]:
    """The steps of each clip in an axis of their own."""
    return maps_nchw.unflatten(0, (-1, steps)).transpose(1, 2).contiguous()


def small_linear(channels: int, num_classes: int) -> nn.Linear:
    """A classifier with the small initial weights of TSN's official code: std 0.001, bias 0."""
    linear = nn.Linear(channels, num_classes)
    if not linear.weight.is_meta:
        nn.init.normal_(linear.weight, std=0.001)
        nn.init.zeros_(linear.bias)
    return linear


def resnet_of(names: Iterable[str], prefix: str = "base_model.") -> str | None:
    """The 2D ResNet that has these blocks, by name; None for none of `FRAME_RESNETS`."""
    pattern = re.compile(rf"{re.escape(prefix)}layer([1-4])\.(\d+)\.(conv3\.)?")
    matches = [match for name in names if (match := pattern.match(name))]
    blocks = {match.groups()[:2] for match in matches}
    depths = tuple(sum(layer == str(number) for layer, _ in blocks) for number in (1, 2, 3, 4))
    kind = "bottleneck" if any(match[3] for match in matches) else "basic"
    return next(
        (name for name in OFFICIAL if (FRAME_RESNETS[name].block, FRAME_RESNETS[name].depths) == (kind, depths)), None
    )


def official_network(
    family: type[FrameNetwork], prefix: str, tensors: dict[str, Tensor], classifier: str, frames: int | None = None
) -> OfficialNetwork:
    """What a checkpoint tells: the depth by its blocks, the classes by the classifier's rows.

    Args:
        family: has the network PREFIX_RESNET.
        prefix: how the network's name begins.
        tensors: under our names.
        classifier: the name of the classifier's weight.
        frames: as `OfficialNetwork.frames`.

    Raises:
        UserError: the family has no such depth, or the classifier is missing.
    """
    body = resnet_of(tensors)
    name = f"{prefix}_{body}"
    if name not in family.architectures:
        raise UserError(f"got the blocks of {body or 'no ResNet'}, expected those of {', '.join(family.architectures)}")
    return OfficialNetwork(name, dimensions_of(tensors, classifier, 2)[0], tensors, frames)
