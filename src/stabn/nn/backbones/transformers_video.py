"""The video networks of transformers: VideoMAE, TimeSformer, ViViT and V-JEPA 2, split two blocks before the end.

Tokens are the cells of the features, and class tokens travel beside them. Weights are read through the library, whose
names of tensors are others than those in files.

| name | T' | class token | frames | size | last maps |
|---|---|---|---|---|---|
| videomae | T / 2 | no | as its position table | likewise | of the last block, where it averages tokens |
| timesformer | T | yes | as its position table | likewise | before the last block |
| vivit | T / 2 | yes | as its position table | likewise | before the last block |
| vjepa2 | T / 2 | no | any even number | as its grid | of the last block, before norm and attentive pooler |

Behind the last block of a network that reads one token alone, the other tokens have no influence on the scores, and
Grad-CAM would be zero. Shape suffixes: b clips, n tokens, c channels, t steps, h height, w width, k classes.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
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
from stabn.nn.hub import is_saved_network, read_config, read_weights
from stabn.nn.state_dict import CONTAINERS, first_line_of, read_tensors, unwrap

HEAD_BLOCKS = 2
"""How many blocks come after the split; half of them in networks of fewer than four."""

WIDTH = 256
"""Channels of the attention branch."""

CONFIG = "config.json"
_PREPROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_FILES = (".safetensors", ".pth", ".pt", ".bin")
_BLOCK = re.compile(r"(^|\.)(encoder\.layer|layers)\.\d+\.")
# They change nothing that the network computes in evaluation, so weights may come with other values.
_OF_TRAINING = ("dropout", "drop_path", "initializer_range")

_HALF = (0.5, 0.5, 0.5)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class _Family:
    """What the library calls its parts, and the defaults of its configuration and of its preprocessing.

    Attributes:
        config: the class of the configuration.
        model: the class of the network.
        frames_field, frames: T in the configuration.
        size_field, size: side of a clip in pixels in the configuration.
        mean, std: of the preprocessing where no file says another.
        rescale: pixels of 0..255 are multiplied by it before.
        offset: whether 1 is subtracted after that.
        without: fields that keep the library from building what the classifier does not use.
        published: repositories on the hub with the data that they were trained on.
    """

    config: str
    model: str
    frames: int
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    published: Mapping[str, str]
    frames_field: str = "num_frames"
    size_field: str = "image_size"
    rescale: float = 1 / 255
    offset: bool = False
    without: Mapping[str, Any] = field(default_factory=dict)


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

    family: ClassVar[_Family]
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
            given[key] = _side(name, key, given[key])  # TimeSformer takes no pairs
        settings = _configuration(name, self.family, {**given, **self.family.without}, num_classes)
        self.config = _plain(settings)
        self.options: Mapping[str, Any] = {"config": self.config}
        self.time_stride, self.space_stride = _geometry(name, self.config, self.family)
        self._normalise_with(mean or self.family.mean, std or self.family.std)
        if self.format.fixed_frames and frames != self.format.frames:
            raise UserError(
                f"frames: got {frames}, expected {self.format.frames}, which this {name} was configured for"
            )
        if frames % self.time_stride:
            raise UserError(f"frames: got {frames}, expected a multiple of {self.time_stride} for {name}")
        self.channels, self.branch_channels = settings.hidden_size, WIDTH
        try:
            with _fast_sine_table():
                self.model = getattr(_library(name), self.family.model)(settings)
        except ValueError as error:
            raise UserError(f"{name}: {first_line_of(error)}") from None
        self._prune()
        for part in self.model.modules():
            if any(True for _ in part.parameters(recurse=False)) and not hasattr(part, "reset_parameters"):
                part.reset_parameters = partial(_reset, part)
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
            _side(name, cls.family.size_field, config.get(cls.family.size_field, cls.family.size)),
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
            return _saved_options(name, weights)
        path = _beside(weights, (CONFIG,))
        if path is None:
            if Path(weights).is_dir() or not Path(weights).exists():
                raise UserError(f"{weights}: has no {CONFIG}; {_remedy(name)}")
            _note(f"{weights}: no {CONFIG} beside it, so it is taken for the base network of {name}")
            return {}
        content = read_json(path, remedy=_remedy(name))
        kind = content.get("model_type") if isinstance(content, dict) else content
        if kind != name:
            raise UserError(f"{path}: model_type: got {kind!r}, expected {name!r}; give weights of that network")
        config = _plain(_configuration(f"{path}", cls.family, content, None, library=name))
        mean, std = cls._normalisation(name, weights)
        return {"config": config, "mean": mean, "std": std}

    @classmethod
    def _normalisation(cls, name: str, weights: str) -> tuple[list[float], list[float]]:
        """Mean and std for pixels of 0..1 that do what the library's preprocessing of these weights does."""
        family = cls.family
        path = _beside(weights, _PREPROCESSORS)
        content: dict[str, Any] = {}
        if path is None:
            _note(f"{weights}: has no {_PREPROCESSORS[-1]}; mean {family.mean} and std {family.std} are taken")
        else:
            read = read_json(path, remedy=_remedy(name))
            content = read if isinstance(read, dict) else {}
        mean, std = content.get("image_mean"), content.get("image_std")
        mean, std = list(family.mean if mean is None else mean), list(family.std if std is None else std)
        if not content.get("do_normalize", True):
            mean, std = [0.0] * 3, [1.0] * 3
        rescale, offset = content.get("rescale_factor", family.rescale), content.get("offset", family.offset)
        if not content.get("do_rescale", True):
            rescale, offset = 1.0, False
        try:
            scale = 255 * float(rescale)
            if len(mean) != 3 or len(std) != 3 or scale <= 0 or not all(value > 0 for value in std):
                raise ValueError
            if path is None or (abs(scale - 1) < 1e-9 and not offset):
                return [float(value) for value in mean], [float(value) for value in std]
            # ((pixel * scale - offset) - mean) / std
            return [(value + bool(offset)) / scale for value in mean], [value / scale for value in std]
        except (TypeError, ValueError):
            raise UserError(
                f"{path}: got image_mean {mean}, image_std {std}, rescale_factor {rescale}, expected three numbers, "
                "three numbers above 0 and one above 0; copy the file again"
            ) from None

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """The repositories on the hub whose networks the library's own documentation uses, and those for SSv2."""
        return tuple(
            PublishedWeights(repository, data, _cached(repository), f"https://huggingface.co/{repository}")
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
            theirs, missing, shapes = self._converted(weights)
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
                    f"{'shape ' * (got is None)}{list(value.shape)}; {_remedy(self.name)}"
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
                    f"{weights}: {key}: got {got!r}, expected {self.config.get(key)!r}; {_remedy(self.name)}"
                )

    def _converted(self, weights: str) -> tuple[dict[str, Tensor], set[str], dict[str, list[int]]]:
        """Tensors in the library's names, the names that are missing, and the shapes of those that do not fit."""
        tensors = unwrap(read_tensors_of(self.name, weights))
        network = getattr(_library(self.name), self.family.model)
        with _quiet(), _fast_sine_table(), torch.random.fork_rng(devices=[]):
            loaded, found = network.from_pretrained(
                None,
                config=self.model.config,
                state_dict=tensors,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        for key in sorted(found["unexpected_keys"]):
            # Heads of other tasks may be there, but not more blocks than the network has.
            if _BLOCK.search(key) and "predictor" not in key:
                raise UserError(f"{weights}: unexpected tensor {key}; {_remedy(self.name)}")
        shapes = {key: list(got) for key, got, _ in found["mismatched_keys"]}
        return dict(loaded.state_dict()), set(found["missing_keys"]), shapes


class VideoMAE(TransformersVideo):
    """VideoMAE (Tong et al. 2022): joint attention of space and time over tokens of 2 x 16 x 16."""

    family: ClassVar[_Family] = _Family(
        "VideoMAEConfig",
        "VideoMAEForVideoClassification",
        16,
        224,
        _HALF,
        _HALF,
        {
            "MCG-NJU/videomae-base-finetuned-kinetics": "Kinetics-400",
            "MCG-NJU/videomae-base-finetuned-ssv2": "Something-Something V2",
            "MCG-NJU/videomae-base": "Kinetics-400, without labels",
        },
    )

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the encoder."""
        return self.model.videomae.encoder.layer

    @property
    def embeddings(self) -> nn.Module:
        """Tubelets and a fixed table of sines."""
        return self.model.videomae.embeddings

    @property
    def before_classifier(self) -> tuple[nn.Module, ...]:
        """A norm, of the mean of all tokens or of the first one."""
        return (self.model.videomae.layernorm if self._reads_one_token else self.model.fc_norm,)

    @property
    def _reads_one_token(self) -> bool:
        return not self.config["use_mean_pooling"]

    def _embed(self, frames_btchw: Tensor) -> Tensor:
        return self.embeddings(frames_btchw, None)

    def _pool(self, tokens_bnc: Tensor) -> Tensor:
        if self._reads_one_token:
            return self.model.videomae.layernorm(tokens_bnc)[:, 0]
        return self.model.fc_norm(tokens_bnc.mean(1))


class TimeSformer(TransformersVideo):
    """TimeSformer (Bertasius et al. 2021): attention along time, then in space, over tokens of 16 x 16."""

    class_tokens: ClassVar[int] = 1
    family: ClassVar[_Family] = _Family(
        "TimesformerConfig",
        "TimesformerForVideoClassification",
        8,
        224,
        *_IMAGENET,
        {
            "facebook/timesformer-base-finetuned-k400": "Kinetics-400",
            "facebook/timesformer-base-finetuned-k600": "Kinetics-600",
            "facebook/timesformer-base-finetuned-ssv2": "Something-Something V2",
        },
    )

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the encoder."""
        return self.model.timesformer.encoder.layer

    @property
    def embeddings(self) -> nn.Module:
        """Patches with learned positions in space and in time."""
        return self.model.timesformer.embeddings

    @property
    def before_classifier(self) -> tuple[nn.Module, ...]:
        """The norm of the class token."""
        return (self.model.timesformer.layernorm,)

    def _pool(self, tokens_bnc: Tensor) -> Tensor:
        return self.model.timesformer.layernorm(tokens_bnc)[:, 0]

    # Time is the fastest index of this network's tokens.

    def _to_map(self, cells_bnc: Tensor, t: int, h: int) -> Tensor:
        return cells_bnc.unflatten(1, (h, -1, t)).permute(0, 4, 3, 1, 2)

    def _to_cells(self, map_bcthw: Tensor) -> Tensor:
        return map_bcthw.permute(0, 3, 4, 2, 1).flatten(1, 3)


class ViViT(TransformersVideo):
    """ViViT (Arnab et al. 2021), model 1: joint attention of space and time over tokens of 2 x 16 x 16."""

    class_tokens: ClassVar[int] = 1
    family: ClassVar[_Family] = _Family(
        "VivitConfig",
        "VivitForVideoClassification",
        32,
        224,
        _HALF,
        _HALF,
        {"google/vivit-b-16x2-kinetics400": "Kinetics-400"},
        rescale=1 / 127.5,
        offset=True,
    )

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the encoder."""
        return self.model.vivit.layers

    @property
    def embeddings(self) -> nn.Module:
        """Tubelets with a learned table of positions."""
        return self.model.vivit.embeddings

    @property
    def before_classifier(self) -> tuple[nn.Module, ...]:
        """The norm of the class token."""
        return (self.model.vivit.layernorm,)

    def _pool(self, tokens_bnc: Tensor) -> Tensor:
        return self.model.vivit.layernorm(tokens_bnc)[:, 0]


class VJEPA2(TransformersVideo):
    """V-JEPA 2 (Assran et al. 2025): rotary positions in space and time; an attentive pooler reads all tokens."""

    family: ClassVar[_Family] = _Family(
        "VJEPA2Config",
        "VJEPA2ForVideoClassification",
        64,
        256,
        *_IMAGENET,
        {
            "facebook/vjepa2-vitl-fpc16-256-ssv2": "Something-Something V2",
            "facebook/vjepa2-vitl-fpc64-256": "VideoMix22M, without labels",
        },
        frames_field="frames_per_clip",
        size_field="crop_size",
        without={"pred_num_hidden_layers": 0},
    )

    def _prune(self) -> None:
        """What is left of the predictor of masked tokens."""
        del self.model.vjepa2.predictor

    @classmethod
    def _has_positions_in_time(cls) -> bool:
        return False

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the encoder."""
        return self.model.vjepa2.encoder.layer

    @property
    def embeddings(self) -> nn.Module:
        """Tubelets."""
        return self.model.vjepa2.encoder.embeddings

    @property
    def before_classifier(self) -> tuple[nn.Module, ...]:
        """The encoder's norm and the attentive pooler."""
        return self.model.vjepa2.encoder.layernorm, self.model.pooler

    def _pool(self, tokens_bnc: Tensor) -> Tensor:
        return self.model.pooler(self.model.vjepa2.encoder.layernorm(tokens_bnc))


TRANSFORMERS: dict[str, type[TransformersVideo]] = {
    "videomae": VideoMAE,
    "timesformer": TimeSformer,
    "vivit": ViViT,
    "vjepa2": VJEPA2,
}


def _library(name: str) -> Any:
    """The library, which takes seconds to import."""
    if find_spec("transformers") is None:
        raise UserError(
            f"--network.backbone: got {name!r}, but transformers is not installed; pip install 'stabn[transformers]'"
        )
    import transformers

    return transformers


def _configuration(
    source: str, family: _Family, content: Mapping[str, Any], num_classes: int | None, library: str | None = None
) -> Any:
    """The library's configuration with these fields, of which none is unknown unless `library` wrote them."""
    known = getattr(_library(library or source), family.config)
    classes = {} if num_classes is None else {"num_labels": num_classes}
    if library is None:
        for key in content:
            if key not in known.__annotations__:
                raise UserError(f"{source}: {key}: unknown field of its configuration")
    try:
        # A file of the library has more fields, and older ones, which it knows how to read.
        return known(**content, **classes) if library is None else known.from_dict(dict(content))
    except Exception as error:  # noqa: BLE001 - the library's classes check themselves with errors of their own
        raise UserError(f"{source}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _plain(config: Any) -> dict[str, Any]:
    """The fields of a configuration that the classifier depends on, as JSON gives them back."""
    fields = {
        key: getattr(config, key)
        for key in type(config).__annotations__
        if key != "model_type" and not key.startswith(("decoder_", "pred_", "norm_pix_loss", "pooler_"))
    }
    return json.loads(json.dumps(fields))


def _side(name: str, key: str, value: Any) -> int:
    """The side of a square that a configuration gives as one number or as two equal ones."""
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) != 1 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"{name}: {key}: got {value!r}, expected a square")
    return int(sides.pop())


def _geometry(name: str, config: Mapping[str, Any], family: _Family) -> tuple[int, int]:
    """(frames per token, pixels along its side).

    Raises:
        UserError: patches or clips are no squares or do not divide, or the network has no such tokens.
    """
    tubelet = config.get("tubelet_size", 1)
    frames, *sides = tubelet if isinstance(tubelet, list) else [tubelet]
    patch = _side(name, "tubelet_size" if sides else "patch_size", sides or config.get("patch_size"))
    size = _side(name, family.size_field, config[family.size_field])
    if size % patch:
        raise UserError(f"{name}: {family.size_field}: got {size}, expected a multiple of its patches of {patch}")
    if config.get("num_channels", config.get("in_chans")) != 3:
        raise UserError(f"{name}: num_channels: got another number than 3 colours")
    if config.get("attention_type") == "space_only":
        raise UserError(f"{name}: attention_type: got 'space_only', expected attention over space and time")
    return int(frames), patch


def _reset(module: nn.Module) -> None:
    """Random values for a module's own parameters, tokens and positions, as training starts from."""
    for parameter in module.parameters(recurse=False):
        nn.init.trunc_normal_(parameter, std=0.02)


@contextmanager
def _fast_sine_table() -> Iterator[None]:
    """Let VideoMAE compute its table of positions, to the bit, in milliseconds rather than in seconds."""
    from transformers.models.videomae import modeling_videomae

    def table(n_position: int, d_hid: int) -> Tensor:
        divisors_c = np.array([np.power(10000, 2 * (channel // 2) / d_hid) for channel in range(d_hid)])
        angles_nc = np.arange(n_position)[:, None] / divisors_c
        angles_nc[:, 0::2] = np.sin(angles_nc[:, 0::2])
        angles_nc[:, 1::2] = np.cos(angles_nc[:, 1::2])
        return torch.from_numpy(angles_nc).float()[None]

    slow = modeling_videomae.get_sinusoid_encoding_table
    modeling_videomae.get_sinusoid_encoding_table = table
    try:
        yield
    finally:
        modeling_videomae.get_sinusoid_encoding_table = slow


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and reports of the library within the block."""
    from transformers.utils import logging as notes

    level, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity_error()
    notes.disable_progress_bar()
    try:
        yield
    finally:
        notes.set_verbosity(level)
        if bars:
            notes.enable_progress_bar()


@cache
def _note(text: str) -> None:
    """Tell something once, however often the weights are read."""
    logging.getLogger(__name__).warning("note: %s", text)


def _remedy(name: str) -> str:
    return (
        f"give a repository on the hub or a folder with {CONFIG}, {_PREPROCESSORS[-1]} and {_WEIGHTS[0]} of a {name} "
        "network of transformers"
    )


def _saved_options(name: str, folder: str) -> dict[str, Any]:
    """The options of a network that we saved, with the normalisation that it was trained with."""
    arguments = read_config(folder)[1]
    if arguments["architecture"] != name:
        raise UserError(f"{Path(folder) / CONFIG}: architecture: got {arguments['architecture']!r}, expected {name!r}")
    return dict(arguments.get("backbone_options", {}))


def _beside(weights: str, names: Sequence[str]) -> Path | None:
    """The first of these files in a folder, beside a file of tensors, or in a repository; None if there is none.

    Raises:
        UserError: `weights` is none of the three, or the repository cannot be reached and the cache lacks all files.
    """
    path = Path(weights)
    if path.is_dir() or path.is_file():
        folder = path if path.is_dir() else path.parent
        return next((folder / name for name in names if (folder / name).is_file()), None)
    if path.suffix in _FILES or not re.fullmatch(r"[\w.-]+/[\w.-]+", weights):
        raise UserError(f"{weights}: no such file or folder, and not the name of a repository like owner/name")
    return _downloaded(weights, names)


def _downloaded(repository: str, names: Sequence[str]) -> Path | None:
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging as notes

    looked_up = [try_to_load_from_cache(repository, name) for name in names]
    for found in looked_up:
        if isinstance(found, str):
            return Path(found)
    for name, found in zip(names, looked_up, strict=True):
        if found is _CACHED_NO_EXIST:
            continue
        level = notes.get_verbosity()
        notes.set_verbosity_error()  # it tells every try
        try:
            return Path(hf_hub_download(repository, name))
        except Exception as error:  # noqa: BLE001 - errors of the hub's client and of its HTTP library
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            raise UserError(
                f"{repository}: cannot get {names[-1]} from the Hugging Face hub ({type(error).__name__}: "
                f"{first_line_of(error)}); check the name and the network, or copy the repository into "
                f"{_cached(repository).parent}, or give the path to a copy of it"
            ) from None
        finally:
            notes.set_verbosity(level)
    return None


def _cached(repository: str) -> Path:
    """Where the hub's client finds the weights of a repository on this machine, or would find a copy."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    for name in _WEIGHTS:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots" / "main" / _WEIGHTS[0]


def read_tensors_of(name: str, weights: str) -> dict[str, Tensor]:
    """Named tensors of a file, or of the one or several files in a folder or a repository.

    Raises:
        UserError: there is no such file, or one is damaged.
    """
    path = Path(weights) if Path(weights).is_file() else _beside(weights, _WEIGHTS)
    if path is None:
        raise UserError(f"{weights}: has none of {', '.join(_WEIGHTS)}; {_remedy(name)}")
    if path.suffix != ".json":
        return read_tensors(path, inside=CONTAINERS)
    index = read_json(path, remedy=_remedy(name))
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict):
        raise UserError(f"{path}: has no weight_map; {_remedy(name)}")
    tensors: dict[str, Tensor] = {}
    for part in sorted(set(places.values())):
        found = _beside(weights, (part,))
        if found is None:
            raise UserError(f"{path}: names {part}, which is not there; copy it, too")
        tensors |= read_tensors(found, inside=())
    return tensors
