"""A video recognition network around a base network: what ST-ABN and the plain network beside it share."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.attention import Attention, Output
from stabn.nn.backbone import Backbone, Features, map_of
from stabn.nn.backbones import backbone_class, build_backbone
from stabn.nn.hub import Network, PretrainedNetwork

PREFIX = "backbone."


@dataclass(frozen=True, eq=False)
class Perceiver:
    """Class scores of fixed clips as a function of the attention alone.

    Attributes:
        function: attention -> (B, K) unnormalised.
        nbytes: its size in memory, in bytes.
    """

    function: Callable[[Attention], Tensor]
    nbytes: int

    def __call__(self, attention: Attention) -> Tensor:
        """As `STABN.perceive` with the same features."""
        return self.function(attention)


class VideoNetwork(nn.Module, PretrainedNetwork):
    """A base network with what a recogniser remembers of its training.

    Args:
        architecture: the base network's name, one of `stabn backbones`.
        num_classes: K, at least 1.
        frames: T, frames per clip, at least 1.
        dropout: probability in 0..1 (1 excluded) of dropping an input of a classifier while training.
        class_names: K names in the order of the outputs, or None.
        preprocessing: how clips were prepared (JSON values), recorded for later use of the network.
        backbone_options: the base network's further options (JSON values), as `Backbone.options` gives them.

    Attributes:
        backbone: the base network. Its tensors have no prefix in state dicts, so that checkpoints of the official code
            fit by name.

    Raises:
        UserError: an argument is none of the allowed values.
    """

    def __init__(
        self,
        architecture: str,
        num_classes: int,
        frames: int,
        dropout: float | int = 0.5,
        class_names: Sequence[str] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("frames", frames)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name}: got {value!r}, expected an integer from 1")
        if isinstance(dropout, bool) or not 0 <= dropout < 1:
            raise UserError(f"dropout: got {dropout!r}, expected a number from 0 to less than 1")
        if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names or ()):
            raise UserError(f"class_names: got {class_names!r}, expected a list of strings")
        if class_names is not None and len(class_names) != num_classes:
            raise UserError(f"class_names: got {len(class_names)} names, expected {num_classes}, one per class")
        self.architecture = architecture
        self.num_classes = num_classes
        self.frames = frames
        self.dropout = float(dropout)
        self.class_names = None if class_names is None else tuple(class_names)
        try:
            # as JSON gives it back, so that saving and loading changes nothing
            text = json.dumps(preprocessing and dict(preprocessing), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(f"preprocessing: got what JSON cannot hold ({error}), expected plain values") from None
        self.preprocessing: dict[str, Any] | None = json.loads(text)
        self.backbone: Backbone = build_backbone(
            architecture, num_classes, frames, self.dropout, backbone_options or {}
        )
        self.register_state_dict_post_hook(_remove_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    @classmethod
    def without_weights(cls: type[Network], **arguments: Any) -> Network:
        """A network whose values are yet to be assigned; random numbers go on as if none had been drawn."""
        if backbone_class(arguments["architecture"]).builds_on_meta:
            with torch.device("meta"):
                return cls(**arguments)
        with torch.random.fork_rng(devices=[]):
            return cls(**arguments)

    @property
    def backbone_options(self) -> dict[str, Any]:
        """The base network's further options, for config.json."""
        return dict(self.backbone.options)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the base network, but for its classifier; arguments, return value and errors of its `load_weights`."""
        return self.backbone.load_weights(weights)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The modules with weights by name, from the clip to the classifier."""
        return self.backbone.stages()

    @property
    def extractor(self) -> tuple[nn.Module, ...]:
        """The modules with weights that `encode` uses; fine-tuning on edits freezes them."""
        stages = list(self.backbone.stages().values())[: self.backbone.extracting]
        return tuple(module for modules in stages for module in modules)

    def channels_last(self) -> None:
        """Store the weights of 3D convolutions channels last: changes no value; a CPU trains a fifth faster."""
        for part in self.modules():
            if isinstance(part, nn.Conv3d):
                part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last_3d)

    def checkpoint_activations(self, enabled: bool = True) -> bool:
        """Keep only the inputs of blocks and recompute the rest in the backward pass, where the family allows it.

        It costs about a third more time and changes no value. Returns whether any module does it.
        """
        parts = [part for part in self.modules() if hasattr(part, "activation_checkpointing")]
        for part in parts:
            setattr(part, "activation_checkpointing", enabled)  # noqa: B010 - a module's attribute, for the type checker
        return bool(parts)

    def checkpoint_norms(self, enabled: bool = True) -> None:
        """Recompute the normalisations inside residual blocks in the backward pass, for training in less memory."""
        for part in self.modules():
            if hasattr(part, "norm_checkpointing"):
                setattr(part, "norm_checkpointing", enabled)  # noqa: B010

    def encode(self, clip_bcthw: Tensor) -> Features:
        """f(x), the features of normalised clips.

        Args:
            clip_bcthw: (B, 3, T, H, W) in the dtype of the weights, normalised as in training.

        Returns:
            (B, C', T', h, w): T' = ceil(T / backbone.time_stride), h = ceil(H / backbone.space_stride).

        Raises:
            ValueError: the clip has another shape or dtype than the base network takes.
        """
        self.backbone.check_clip(clip_bcthw)
        return self.backbone.extract(clip_bcthw)

    def last_maps(self, clip_bcthw: Tensor) -> Features:
        """The maps before the classifier; shapes and errors as in `encode`."""
        return self.backbone.deepen(self.encode(clip_bcthw))

    def recognise(self, features: Features) -> Output:
        """The output of features from `encode`."""
        return Output(self.classify(features))

    def classify(self, features: Features) -> Float[Tensor, "b k"]:
        """Class scores (B, K), unnormalised, of features by the base network's own head."""
        return self.backbone.classify(self.backbone.deepen(features))


class PlainNetwork(VideoNetwork):
    """A base network alone, the baseline of ST-ABN; arguments and errors as of `VideoNetwork`."""

    kind: ClassVar[str] = "plain"

    def recognise(self, features: Features) -> Output:
        """The output of features from `encode`, with the base network's own attention where it has some."""
        if not self.backbone.attends:
            return super().recognise(features)
        attention, attention_logits_bk = self.attend(features)
        return Output(self.perceive(features, attention), attention_logits_bk, attention)

    def attend(self, features: Features) -> tuple[Attention, Float[Tensor, "b k"]]:
        """The base network's own attention, and class scores of its branch; only where `backbone.attends`."""
        return self.backbone.attend(features)

    def perceive(self, features: Features, attention: Attention) -> Float[Tensor, "b k"]:
        """Class scores with that attention, or any other of the same shape, in place of the base network's own.

        Raises:
            ValueError: the attention's shape is not that of the features.
        """
        shape = map_of(features).shape
        expected = (shape[0], *shape[2:])
        if tuple(attention.spatial.shape) != expected:
            raise ValueError(f"attention: got spatial shape {tuple(attention.spatial.shape)}, expected {expected}")
        return self.backbone.classify(self.backbone.deepen_weighed(self.backbone.weigh(features, attention)))

    def perceiver(self, features: Features) -> Perceiver:
        """`perceive` for many attentions of the same features."""
        return Perceiver(partial(self.perceive, features), map_of(features).nbytes)

    def forward(self, clip_bcthw: Tensor) -> Output:
        """The output for a batch of clips: `classify(encode(clip))`; shapes and errors as in `encode`."""
        return self.recognise(self.encode(clip_bcthw))


def _remove_prefix(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, _local_metadata: object) -> None:
    """Name the base network's tensors as if they were the network's own."""
    renamed = {
        prefix + name.removeprefix(prefix + PREFIX) if name.startswith(prefix + PREFIX) else name: value
        for name, value in state_dict.items()
    }
    state_dict.clear()
    state_dict.update(renamed)


def _add_prefix(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_options: object) -> None:
    """The other way round: what no other child has is the base network's."""
    own = {name for name, _ in module.named_children()} - {PREFIX.rstrip(".")}
    renamed = {
        name
        if not name.startswith(prefix) or name[len(prefix) :].split(".")[0] in own
        else prefix + PREFIX + name[len(prefix) :]: value
        for name, value in state_dict.items()
    }
    state_dict.clear()
    state_dict.update(renamed)
