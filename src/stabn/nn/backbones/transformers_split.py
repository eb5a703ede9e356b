"""What transformers' video networks share: tokens as cells of a map, and the split two blocks before the end.

Tokens are the cells of the features, and class tokens travel beside them. Shape suffixes: b clips, n tokens,
c channels, t steps, h height, w width, k classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.files import read_json
from stabn.nn.backbone import (
    Backbone,
    ClipFormat,
    Features,
    PublishedWeights,
    TokenMap,
    convolutional_head,
    map_of,
)
from stabn.nn.backbones.recompute import recomputed
from stabn.nn.backbones.transformers_config import (
    TransformersFamily,
    fast_sine_table,
    plain_fields,
    reset_at_random,
    square_side,
    token_geometry,
    transformers_configuration,
    transformers_library,
)
from stabn.nn.backbones.transformers_weights import (
    converted_tensors,
    file_beside,
    hub_file,
    normalisation_beside,
    note_about_weights,
    saved_options,
    transformers_remedy,
)
from stabn.nn.hub import CONFIG, is_saved_network, read_weights
from stabn.nn.state_dict import first_line_of

HEAD_BLOCKS = 2
"""How many blocks come after the split; half of them in networks of fewer than four."""

WIDTH = 256
"""Channels of the attention branch."""

# They change nothing that the network computes in evaluation, so weights may come with other values.
_OF_TRAINING = ("dropout", "drop_path", "initializer_range")


class TransformersVideo(Backbone):
    """A video network of transformers.

    Args:
        name: a key of `TRANSFORMERS`.
        num_classes: K.
        frames: T, a multiple of the frames of one token.
        dropout: before the classifier; dropout inside the network is in `config`.
        config: fields of the library's configuration; by default those of the base network, for T frames.
        mean: of the clips that the weights were trained on, by default the library's.
        std: likewise.

    Attributes:
        activation_checkpointing: in training, keep only the inputs of the blocks and recompute the rest in the
            backward pass.

    Raises:
        UserError: transformers is not installed, the configuration is not one that the library takes, or it does not
            take so many frames.
    """

    family: ClassVar[TransformersFamily]
    class_tokens: ClassVar[int] = 0
    builds_on_meta: ClassVar[bool] = True
    activation_checkpointing = False

    def __init__(
        self,
        name: str,
        num_classes: int,
        frames: int,
        dropout: float = 0.5,
        config: Mapping[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.name = name
        given = {self.family.frames_field: frames, **(config or {})}
        for key in {self.family.size_field, "patch_size"} & given.keys():
            given[key] = square_side(name, key, given[key])  # TimeSformer takes no pairs
        settings = transformers_configuration(name, self.family, {**given, **self.family.without}, num_classes)
        self.config = plain_fields(settings)
        self.options: Mapping[str, Any] = {"config": self.config}
        self.time_stride, self.space_stride = token_geometry(name, self.config, self.family)
        self._normalise_with(mean or self.family.mean, std or self.family.std)
        if self.format.fixed_frames and frames != self.format.frames:
            raise UserError(
                f"frames: got {frames}, expected {self.format.frames}, which this {name} was configured for"
            )
        if frames % self.time_stride:
            raise UserError(f"frames: got {frames}, expected a multiple of {self.time_stride} for {name}")
        self.channels, self.branch_channels = settings.hidden_size, WIDTH
        try:
            with fast_sine_table():
                self.model = getattr(transformers_library(name), self.family.model)(settings)
        except ValueError as error:
            raise UserError(f"{name}: {first_line_of(error)}") from None
        self._prune()
        for part in self.model.modules():
            if any(True for _ in part.parameters(recurse=False)) and not hasattr(part, "reset_parameters"):
                part.reset_parameters = partial(reset_at_random, part)
        self.split = len(self.blocks) - min(HEAD_BLOCKS, (len(self.blocks) + 1) // 2)
        self.drop = nn.Dropout(dropout)

    def _prune(self) -> None:
        """Remove what the classifier does not use."""

    def _normalise_with(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.options = {**self.options, "mean": list(mean), "std": list(std)}
        self.format = self.format_for(self.name, self.options)

    # What differs between the networks.

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the encoder."""
        raise NotImplementedError

    @property
    def embeddings(self) -> nn.Module:
        """What makes tokens of a clip."""
        raise NotImplementedError

    @property
    def before_classifier(self) -> tuple[nn.Module, ...]:
        """The modules with weights between the last block and the classifier."""
        raise NotImplementedError

    def _pool(self, tokens_bnc: Tensor) -> Tensor:
        """(B, C) of what `deepen` gives."""
        raise NotImplementedError

    @property
    def _reads_one_token(self) -> bool:
        return bool(self.class_tokens)

    def _embed(self, frames_btchw: Tensor) -> Tensor:
        return self.embeddings(frames_btchw)

    def _to_map(self, cells_bnc: Tensor, t: int, h: int) -> Tensor:
        return cells_bnc.unflatten(1, (t, h, -1)).permute(0, 4, 1, 2, 3)

    def _to_cells(self, map_bcthw: Tensor) -> Tensor:
        return map_bcthw.flatten(2).transpose(1, 2)

    # What they share.

    def check_clip(self, clip_bcthw: Tensor) -> None:
        """As for any network; with any number of frames, it is a multiple of those of one token."""
        super().check_clip(clip_bcthw)
        if clip_bcthw.shape[2] % self.time_stride:
            raise ValueError(
                f"clip: got {clip_bcthw.shape[2]} frames, expected a multiple of {self.time_stride} for {self.name}"
            )

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Features:
        """The tokens after the first blocks."""
        tokens_bnc = self._run(self.blocks[: self.split], self._embed(clip_bcthw.transpose(1, 2)))
        return self._features(tokens_bnc, self.steps(clip_bcthw.shape[2]), self.grid(clip_bcthw.shape[3]))

    def deepen(self, features: Features) -> Features:
        """The blocks of the head; all but the last one where the classifier reads one token alone."""
        end = len(self.blocks) - self._reads_one_token
        t, h = map_of(features).shape[2:4]
        return self._features(self._run(self.blocks[self.split : end], self._tokens(features)), t, h)

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """The rest: a last block where the classifier reads one token alone, norm, pooling, dropout, linear."""
        tokens_bnc = self._tokens(maps)
        if self._reads_one_token:
            tokens_bnc = self._run(self.blocks[-1:], tokens_bnc)
        return self.model.classifier(self.drop(self._pool(tokens_bnc)))

    def fresh_head(self) -> nn.Module:
        """Convolutions on the grid of the tokens."""
        return convolutional_head(self.channels, self.branch_channels)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The embeddings, the blocks, what is between them and the classifier, the classifier."""
        blocks = {f"block{number}": (block,) for number, block in enumerate(self.blocks, start=1)}
        return {
            "embeddings": (self.embeddings,),
            **blocks,
            "norm": self.before_classifier,
            "classifier": (self.model.classifier,),
        }

    @property
    def extracting(self) -> int:
        """The embeddings and the first blocks."""
        return 1 + self.split

    def _run(self, blocks: Iterable[nn.Module], tokens_bnc: Tensor) -> Tensor:
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        for block in blocks:
            output = recomputed(block, block, tokens_bnc, random=True) if recompute else block(tokens_bnc)
            tokens_bnc = output[0] if isinstance(output, tuple) else output
        return tokens_bnc

    def _features(self, tokens_bnc: Tensor, t: int, h: int) -> Features:
        map_bcthw = self._to_map(tokens_bnc[:, self.class_tokens :], t, h)
        return TokenMap(map_bcthw, tokens_bnc[:, : self.class_tokens]) if self.class_tokens else map_bcthw

    def _tokens(self, features: Features) -> Tensor:
        cells_bnc = self._to_cells(map_of(features))
        return torch.cat((features.tokens, cells_bnc), dim=1) if isinstance(features, TokenMap) else cells_bnc

    # Weights.

    @classmethod
    def format_for(cls, name: str, options: Mapping[str, Any]) -> ClipFormat:
        """The clips of the configuration; without one, those of the base network, with any number of frames."""
        config = options.get("config") or {}
        frames = config.get(cls.family.frames_field)
        mean, std = options.get("mean") or cls.family.mean, options.get("std") or cls.family.std
        return ClipFormat(
            frames or cls.family.frames,
            square_side(name, cls.family.size_field, config.get(cls.family.size_field, cls.family.size)),
            (float(mean[0]), float(mean[1]), float(mean[2])),
            (float(std[0]), float(std[1]), float(std[2])),
            fixed_frames=frames is not None and cls._has_positions_in_time(),
            fixed_size=True,
        )

    @classmethod
    def _has_positions_in_time(cls) -> bool:
        """Whether the network was made for one number of frames."""
        return True

    @classmethod
    def options_for(cls, name: str, weights: str | None) -> dict[str, Any]:
        """The configuration and the normalisation that lie beside the weights."""
        if weights is None:
            return {}
        if is_saved_network(weights):
            return saved_options(name, weights)
        path = file_beside(weights, (CONFIG,))
        if path is None:
            if Path(weights).is_dir() or not Path(weights).exists():
                raise UserError(f"{weights}: has no {CONFIG}; {transformers_remedy(name)}")
            note_about_weights(f"{weights}: no {CONFIG} beside it, so it is taken for the base network of {name}")
            return {}
        content = read_json(path, remedy=transformers_remedy(name))
        kind = content.get("model_type") if isinstance(content, dict) else content
        if kind != name:
            raise UserError(f"{path}: model_type: got {kind!r}, expected {name!r}; give weights of that network")
        config = plain_fields(transformers_configuration(f"{path}", cls.family, content, None, library=name))
        mean, std = normalisation_beside(cls.family, weights)
        return {"config": config, "mean": mean, "std": std}

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """The repositories on the hub whose networks the library's own documentation uses, and those for SSv2."""
        return tuple(
            PublishedWeights(repository, data, hub_file(repository), f"https://huggingface.co/{repository}")
            for repository, data in cls.family.published.items()
        )

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifier, and take the normalisation that belongs to the weights.

        Args:
            weights: a folder that the library's or our own `save_pretrained` wrote, a repository on the hub, or a file
                of tensors. A head that the weights lack (those without labels) stays random.
        """
        options = self.options_for(self.name, weights)
        self._check_configuration(weights, options.get("config", {}))
        shapes: dict[str, list[int]] = {}
        if is_saved_network(weights):
            theirs = {key.removeprefix("model."): value for key, value in read_weights(weights, self.name).items()}
            missing = set(self.model.state_dict()) - set(theirs)
        else:
            theirs, missing, shapes = converted_tensors(self.family, self.model.config, weights)
        own = self.model.state_dict()
        head = tuple(f"{key}." for key, _ in self.model.named_children() if key != self.model.base_model_prefix)
        left = [key for key in own if key.startswith("classifier.") or (key in missing and key.startswith(head))]
        for key, value in own.items():
            if key in left:
                continue
            got = shapes.get(key, None if key in missing else list(theirs[key].shape))
            if got != list(value.shape):
                raise UserError(
                    f"{weights}: tensor {key}: {'missing' if got is None else f'got shape {got}'}, expected "
                    f"{'shape ' * (got is None)}{list(value.shape)}; {transformers_remedy(self.name)}"
                )
            if not bool(theirs[key].isfinite().all()):
                raise UserError(f"{weights}: tensor {key}: has NaN or infinity; give other weights")
        with torch.no_grad():
            for key in own.keys() - set(left):
                own[key].copy_(theirs[key])
        if options:
            self._normalise_with(options["mean"], options["std"])
        return tuple(f"model.{key}" for key in left)

    def _check_configuration(self, weights: str, config: Mapping[str, Any]) -> None:
        """Refuse weights of a network that computes something else with tensors of the same shapes."""
        for key, got in config.items():
            same = self.config.get(key) == got or any(word in key for word in _OF_TRAINING)
            if not same and (key != self.family.frames_field or self._has_positions_in_time()):
                raise UserError(
                    f"{weights}: {key}: got {got!r}, expected {self.config.get(key)!r}; "
                    f"{transformers_remedy(self.name)}"
                )
