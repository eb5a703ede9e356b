"""The seam between a base network and ST-ABN: all that a base network offers, and no more.

    clip -> extract -> features -> deepen -> maps -> classify -> logits

The attention branch reads the features, and the perception branch weighs them and goes on with `deepen`. Each family
of base networks is a file in `stabn.nn.backbones`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.attention import Attention
from stabn.nn.hub import Triple, recorded_normalisation


@dataclass(frozen=True)
class ClipFormat:
    """The clips that a base network takes, and those that its published weights were trained on.

    Colours are in the order R, G, B in all families: weights of another order are turned round where they are loaded.

    Attributes:
        frames: per clip.
        size: side of the square in pixels.
        mean: of R, G and B in 0..1, subtracted.
        std: of R, G and B in 0..1, divided by.
        fps: frames per second that the weights were trained on; None where frames were spread over the whole video.
        fixed_frames: whether another number of frames is refused.
        fixed_size: whether another size is refused.
        multiple_of: what the number of frames must be a multiple of.
        snippet: consecutive frames at each of the places of a video that it reads.
        flow: whether it reads optical flow, of which pixels must not be mirrored or recoloured.
    """

    frames: int
    size: int
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    fps: float | None = None
    fixed_frames: bool = False
    fixed_size: bool = False
    multiple_of: int = 1
    snippet: int = 1
    flow: bool = False

    def built_for(self, name: str, frames: int) -> "ClipFormat":
        """The same for another number of frames.

        Raises:
            UserError: the network `name` does not take so many.
        """
        if frames % self.multiple_of:
            raise UserError(f"frames: got {frames}, but {name} takes multiples of {self.multiple_of}")
        return replace(self, frames=frames)


@dataclass(frozen=True)
class PublishedWeights:
    """Weights of a base network that have a name.

    Attributes:
        name: as `--network.weights` takes it.
        trained_on: the data.
        file: where they are, or would be, on this machine.
        source: the address that they are downloaded from; None where a package of the registry has them.
    """

    name: str
    trained_on: str
    file: Path
    source: str | None


@dataclass(frozen=True, eq=False)
class OfficialNetwork:
    """The base network whose tensors a checkpoint of its official code holds, with its classifier.

    Attributes:
        name: of the base network.
        num_classes: K.
        tensors: under the names of `Backbone.state_dict`.
        frames: T of a clip; None where the shapes do not tell.
        options: as `Backbone.options`.
    """

    name: str
    num_classes: int
    tensors: dict[str, Tensor]
    frames: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TokenMap:
    """A map with what attention does not weigh: class tokens, or the cells of SlowFast's fast pathway.

    Attributes:
        map: (B, C, T', h, w).
        tokens: (B, N, C2).
    """

    map: Tensor
    tokens: Tensor


Features = Tensor | TokenMap
"""(B, C, T', h, w), with class tokens beside it in the families that have them."""


def map_of(features: Features) -> Float[Tensor, "b c t h w"]:
    """The map alone."""
    return features.map if isinstance(features, TokenMap) else features


def with_map(features: Features, map_bcthw: Float[Tensor, "b c t h w"]) -> Features:
    """The features with another map and the same class tokens."""
    return TokenMap(map_bcthw, features.tokens) if isinstance(features, TokenMap) else map_bcthw


class Backbone(nn.Module):
    """A base network, split where ST-ABN's attention branch begins.

    Attributes:
        format: the clips that it takes.
        channels: C of the features.
        time_stride: frames per step of the features: T' = ceil(T / time_stride).
        space_stride: pixels per cell of the features' grid.
        branch_channels: C of what `fresh_head` gives.
        drop: the dropout before the classifier, which the attention branch shares.
        options: JSON values that build the same network again, beyond name, classes, frames and size.
        can_fold: whether `stabn.nn.fast_inference` can fold its normalisations into its convolutions.
        attends: whether it has attention of its own, so that `attend`, `weigh` and `deepen_weighed` are there.
        builds_on_meta: whether the state dict has all values, so that it can be built without any before it is loaded.
    """

    format: ClipFormat
    channels: int
    time_stride: int
    space_stride: int
    branch_channels: int
    drop: nn.Dropout
    options: Mapping[str, Any] = {}
    can_fold: ClassVar[bool] = False
    attends: ClassVar[bool] = False
    builds_on_meta: ClassVar[bool] = False

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5, **options: Any) -> None:
        super().__init__()

    @classmethod
    def options_for(cls, name: str, weights: str | None) -> dict[str, Any]:
        """The `options` that build the network which published weights belong to; {} where the name says all.

        Raises:
            UserError: the weights cannot be read, or are of another network.
        """
        return {}

    @classmethod
    def options_of_clips(cls, name: str, weights: str | None, frames: int, size: int) -> dict[str, Any]:
        """`options_for`, and what a network needs to know of the clips that it is to read."""
        return cls.options_for(name, weights)

    @classmethod
    def format_for(cls, name: str, options: Mapping[str, Any]) -> ClipFormat:
        """The clips that a network of this name takes, without building it."""
        raise NotImplementedError

    @classmethod
    def format_of(cls, name: str, weights: str | None) -> ClipFormat:
        """The clips that weights were trained on; what the weights do not tell is as in `format_for`.

        Args:
            name: the network's.
            weights: as `load_weights` takes them; a saved network says its own mean and std.

        Raises:
            UserError: the weights cannot be read, or are of another network.
        """
        wanted = cls.format_for(name, cls.options_for(name, weights))
        recorded = None if weights is None else recorded_normalisation(weights)
        return wanted if recorded is None else replace(wanted, mean=recorded[0], std=recorded[1])

    @classmethod
    def published(cls, name: str) -> tuple["PublishedWeights", ...]:
        """The weights that `load_weights` knows by name."""
        return ()

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """The network in a checkpoint of the family's official code; None where the names are those of others.

        Args:
            tensors: without prefixes of wrapping modules.

        Raises:
            UserError: the names are the family's, but a tensor that tells depth, classes or frames is missing or has
                another number of dimensions.
        """
        return None

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifier, with published weights.

        Args:
            weights: a name of `published`, a file, a folder or a repository on the hub, as the family allows.

        Returns:
            The names of the tensors, as in `state_dict`, that keep their values.

        Raises:
            UserError: the weights cannot be read or downloaded, or the first tensor that does not fit.
        """
        raise NotImplementedError

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Features:
        """The features of normalised clips."""
        raise NotImplementedError

    def deepen(self, features: Features) -> Features:
        """The last feature maps before the classifier."""
        raise NotImplementedError

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """Class scores, unnormalised, of the last maps."""
        raise NotImplementedError

    def attend(self, features: Features) -> tuple[Attention, Float[Tensor, "b k"]]:
        """Own attention of features, and class scores of the branch that computes it."""
        raise NotImplementedError

    def weigh(self, features: Features, attention: Attention) -> Features:
        """Features as own attention weighs them, with that of `attend` or any other of the same shape."""
        raise NotImplementedError

    def deepen_weighed(self, features: Features) -> Features:
        """`deepen` of features that are weighed already."""
        raise NotImplementedError

    def fresh_head(self) -> nn.Module:
        """New layers at the features' resolution, (B, C, T', h, w) -> (B, branch_channels, T', h, w)."""
        raise NotImplementedError

    def fill_head(self, head: nn.Module) -> None:
        """Give a fresh head the values of the own layers that it is a copy of; other heads keep theirs."""

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The modules with weights by name, from the clip to the classifier."""
        raise NotImplementedError

    @property
    def extracting(self) -> int:
        """How many of the `stages` belong to `extract`."""
        raise NotImplementedError

    @property
    def linear(self) -> nn.Linear | None:
        """The classifier, where `classify` is linear in the maps' mean, so that CAM is defined; else None."""
        return None

    @property
    def maps_time_stride(self) -> int:
        """Frames per step of what `deepen` gives."""
        return self.time_stride

    def features_shape(self, frames: int, size: int) -> tuple[int, int, int, int]:
        """(C, T', h, w) of the features of a square clip."""
        return self.channels, self.steps(frames), self.grid(size), self.grid(size)

    def steps(self, frames: int) -> int:
        """T' of so many frames."""
        return math.ceil(frames / self.time_stride)

    def grid(self, size: int) -> int:
        """Cells along a side of the features of so many pixels."""
        return math.ceil(size / self.space_stride)

    def check_clip(self, clip_bcthw: Tensor) -> None:
        """Check shape and dtype of clips.

        Raises:
            ValueError: they are wrong.
        """
        shape, wanted = tuple(clip_bcthw.shape), self.format
        frames, size = (wanted.frames if wanted.fixed_frames else "T"), (wanted.size if wanted.fixed_size else None)
        sides = f"{size}, {size}" if size else "H, W"
        if (
            len(shape) != 5
            or shape[1] != 3
            or 0 in shape[2:]
            or (wanted.fixed_frames and shape[2] != wanted.frames)
            or (wanted.fixed_size and shape[3:] != (wanted.size, wanted.size))
        ):
            raise ValueError(f"clip: got shape {shape}, expected (B, 3, {frames}, {sides})")
        if shape[2] % wanted.multiple_of:
            raise ValueError(f"clip: got {shape[2]} frames, expected a multiple of {wanted.multiple_of}")
        dtype = next(self.parameters()).dtype
        if clip_bcthw.dtype == dtype:
            return
        # Under autocast PyTorch converts; anywhere else another dtype fails deep inside with an obscure message.
        if not (clip_bcthw.is_floating_point() and torch.is_autocast_enabled(clip_bcthw.device.type)):
            raise ValueError(f"clip: got {clip_bcthw.dtype}, expected {dtype} like the weights")


def convolutional_head(channels: int, width: int) -> nn.Sequential:
    """A light head at the features' resolution: (B, channels, T', h, w) -> (B, width, T', h, w).

    A 1 x 1 x 1 convolution reduces the channels, and a 3 x 3 x 3 one looks at the neighbourhood in space and time; He
    initialisation, by fan-in.
    """
    head = nn.Sequential(
        nn.Conv3d(channels, width, 1, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
        nn.Conv3d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )
    initialise(head)
    return head


def initialise(module: nn.Module) -> None:
    """He initialisation of every convolution; normalisations and linear layers keep PyTorch's initialisation.

    It uses fan-in: with fan-out, a convolution to a single map would start so large that weight decay and momentum
    SGD hardly move the attention that it computes.
    """
    for part in module.modules():
        # The meta device has no values, and PyTorch would load its compiler for it, which takes two seconds.
        if isinstance(part, nn.Conv2d | nn.Conv3d) and not part.weight.is_meta:
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
