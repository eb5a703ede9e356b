"""Base networks, each split into an extractor (`encode`) and a head (`classify`).

Shape suffixes: b clips, c channels, t frames, h height, w width, k classes.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stabn.errors import UserError
from stabn.nn.attention import Output
from stabn.nn.hub import PretrainedNetwork

Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class Architecture:
    """Every number of a 3D ResNet built like the slow pathway of SlowFast; each 4-tuple is for layer1 .. layer4.

    Attributes:
        block: "basic" (two n x 3 x 3 convolutions) or "bottleneck" (n x 1 x 1, 1 x 3 x 3, 1 x 1 x 1).
        depths: blocks per layer.
        widths: channels inside a block; a bottleneck gives four times as many out.
        temporal_kernels: n above; the temporal stride is 1 everywhere.
        spatial_strides: of each layer's first block.
        stem_width: channels after the 1 x 7 x 7 stem, whose stride and max-pooling act in space only.
    """

    block: Literal["basic", "bottleneck"]
    depths: Four
    widths: Four
    temporal_kernels: Four
    spatial_strides: Four
    stem_width: int

    def channels_out(self, layer: int) -> int:
        """Output channels of layer 0 (the stem) .. 4."""
        if layer == 0:
            return self.stem_width
        return self.widths[layer - 1] * (4 if self.block == "bottleneck" else 1)


# fmt: off
ARCHITECTURES: dict[str, Architecture] = {
    # The official layouts.
    "resnet18":  Architecture("basic",      (2, 2, 2, 2),  (64, 128, 256, 512), (3, 3, 3, 3), (1, 2, 2, 2), 64),
    "resnet34":  Architecture("basic",      (3, 4, 6, 3),  (64, 128, 256, 512), (3, 3, 3, 3), (1, 2, 2, 2), 64),
    "resnet50":  Architecture("bottleneck", (3, 4, 6, 3),  (64, 128, 256, 512), (1, 1, 3, 3), (1, 2, 2, 2), 64),
    "resnet101": Architecture("bottleneck", (3, 4, 23, 3), (64, 128, 256, 512), (1, 1, 3, 3), (1, 2, 2, 2), 64),
    "resnet152": Architecture("bottleneck", (3, 8, 36, 3), (64, 128, 256, 512), (1, 1, 3, 3), (1, 2, 2, 2), 64),
    # The same class for a 2-core CPU; no official checkpoint has these shapes.
    "small":     Architecture("basic",      (1, 1, 1, 1),  (16, 32, 48, 64),    (1, 3, 3, 3), (1, 2, 2, 2), 16),
    "tiny":      Architecture("basic",      (1, 1, 1, 1),  (8, 16, 32, 64),     (3, 3, 3, 3), (1, 2, 2, 2), 8),
    "small-deep": Architecture("basic",     (2, 2, 2, 2),  (16, 32, 48, 64),    (1, 3, 3, 3), (1, 2, 2, 2), 16),
    # Maps twice as fine, for pictures of 32 pixels or so.
    "fine":      Architecture("basic",      (1, 1, 1, 1),  (16, 32, 48, 64),    (1, 3, 3, 3), (1, 2, 1, 2), 16),
    "fine-deep": Architecture("basic",      (2, 2, 2, 2),  (16, 32, 48, 64),    (1, 3, 3, 3), (1, 2, 1, 2), 16),
}
# fmt: on


def _convolution(channels_in: int, channels_out: int, kernel: tuple[int, int, int], stride: int = 1) -> nn.Conv3d:
    """A convolution that keeps T, and H and W too at stride 1; no bias, because a normalisation follows."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(channels_in, channels_out, kernel, (1, stride, stride), padding, bias=False)


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(... relu(bn(conv(x)))))), built as `Architecture.block` says.

    The stride is in the first convolution of a basic block and in the 1 x 3 x 3 convolution of a bottleneck, as in
    torchvision ("v1.5"); only so are the official reference outputs reproduced.

    Attributes:
        norm_checkpointing: in training, keep only the outputs of convolutions, and recompute the normalisation
            between two of them in the backward pass; costs little time, changes no value.
    """

    def __init__(self, block: str, channels_in: int, width: int, temporal_kernel: int, stride: int) -> None:
        super().__init__()
        if block == "bottleneck":
            convolutions = [
                _convolution(channels_in, width, (temporal_kernel, 1, 1)),
                _convolution(width, width, (1, 3, 3), stride),
                _convolution(width, 4 * width, (1, 1, 1)),
            ]
        else:
            convolutions = [
                _convolution(channels_in, width, (temporal_kernel, 3, 3), stride),
                _convolution(width, width, (temporal_kernel, 3, 3)),
            ]
        channels_out = convolutions[-1].out_channels
        for number, convolution in enumerate(convolutions, start=1):
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm3d(convolution.out_channels))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels_out:
            shortcut = _convolution(channels_in, channels_out, (1, 1, 1), stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(channels_out))
        self.norm_checkpointing = False
        self._depth = len(convolutions)

    @property
    def convolutions(self) -> list[tuple[Any, Any]]:
        """Each convolution with the normalisation after it, in order."""
        return [(getattr(self, f"conv{n}"), getattr(self, f"bn{n}")) for n in range(1, self._depth + 1)]

    def forward(self, x_bcthw: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t h2 w2"]:
        """(B, C, T, H, W) -> (B, width or 4 width, T, H / stride, W / stride)."""
        (convolution, norm), *others = self.convolutions
        y_bcthw = convolution(x_bcthw)
        for convolution, next_norm in others:
            y_bcthw = self._norm_relu_conv(norm, convolution, y_bcthw)
            norm = next_norm
        return self.relu(norm(y_bcthw).add_(x_bcthw if self.downsample is None else self.downsample(x_bcthw)))

    def _norm_relu_conv(self, norm: nn.Module, convolution: nn.Module, y_bcthw: Tensor) -> Tensor:
        def compute(y_bcthw: Tensor) -> Tensor:
            return convolution(self.relu(norm(y_bcthw)))

        if not (self.norm_checkpointing and self.training and torch.is_grad_enabled()):
            return compute(y_bcthw)
        # The recomputation stops once all dropped tensors are back, which is before the convolution.
        return _checkpointed(compute, norm, y_bcthw)


def residual_layer(shape: Architecture, layer: int, *, spatial_stride: int | None = None) -> nn.Sequential:
    """Layer 1..4 of an architecture; `spatial_stride` replaces the architecture's own."""
    width, kernel = shape.widths[layer - 1], shape.temporal_kernels[layer - 1]
    stride = shape.spatial_strides[layer - 1] if spatial_stride is None else spatial_stride
    first = ResidualBlock(shape.block, shape.channels_out(layer - 1), width, kernel, stride)
    rest = (
        ResidualBlock(shape.block, shape.channels_out(layer), width, kernel, 1)
        for _ in range(shape.depths[layer - 1] - 1)
    )
    return nn.Sequential(first, *rest)


def initialise(module: nn.Module) -> None:
    """He initialisation of every convolution; normalisations and linear layers keep PyTorch's initialisation.

    It uses fan-in: with fan-out, a convolution to a single map would start so large that weight decay and momentum
    SGD hardly move the attention that it computes.
    """
    for part in module.modules():
        # The meta device has no values, and PyTorch would load its compiler for it, which takes two seconds.
        if isinstance(part, nn.Conv2d | nn.Conv3d) and not part.weight.is_meta:
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")


def _checkpointed(function: Callable[[Tensor], Tensor], normalising: nn.Module, x_bcthw: Tensor) -> Tensor:
    """Activation checkpointing of a function without randomness; `normalising` has all of its batch norms."""
    return checkpoint(
        function,
        x_bcthw,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _frozen_statistics(normalising)),
    )


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Leave running statistics alone within the block: in a recomputation they have counted this batch already."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm3d | nn.SyncBatchNorm)]
    previous = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, previous, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class ResNet3D(nn.Module, PretrainedNetwork):
    """A 3D ResNet video classifier: the paper's baseline, and the base class of `STABN`.

    Args:
        architecture: a key of `ARCHITECTURES`.
        num_classes: K, at least 1.
        frames: T, frames per clip, at least 1. This network takes clips of any length and only records the number;
            `STABN` requires it.
        dropout: probability in 0..1 (1 excluded) of dropping an input of a classifier while training.
        class_names: K names in the order of the outputs, or None.
        preprocessing: how clips were prepared (JSON values), recorded for later use of the network.

    Attributes:
        activation_checkpointing: keep only the inputs of residual blocks and recompute the rest in the backward pass;
            costs about a third more time, changes no value.

    Raises:
        UserError: an argument is none of the allowed values.
    """

    kind: ClassVar[str] = "resnet3d"

    def __init__(
        self,
        architecture: str,
        num_classes: int,
        frames: int,
        dropout: float | int = 0.5,
        class_names: Sequence[str] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise UserError(f"architecture: got {architecture!r}, expected one of {', '.join(ARCHITECTURES)}")
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

        shape = ARCHITECTURES[architecture]
        self.conv1 = _convolution(3, shape.stem_width, (1, 7, 7), stride=2)
        self.bn1 = nn.BatchNorm3d(shape.stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.layer1 = residual_layer(shape, 1)
        self.layer2 = residual_layer(shape, 2)
        self.layer3 = residual_layer(shape, 3)
        self.layer4 = residual_layer(shape, 4)
        self.activation_checkpointing = False
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(shape.channels_out(4), num_classes)
        initialise(self)

    @property
    def extractor(self) -> tuple[nn.Module, ...]:
        """The modules with weights that `encode` uses; fine-tuning on edits freezes them."""
        return self.conv1, self.bn1, self.layer1, self.layer2, self.layer3

    @property
    def feature_stride(self) -> int:
        """Pixels per cell of the feature grid of `encode`, which is also the grid of the attention maps."""
        return 4 * math.prod(ARCHITECTURES[self.architecture].spatial_strides[:3])

    def channels_last(self) -> None:
        """Store the weights of 3D convolutions channels last: changes no value; a CPU trains a fifth faster."""
        for part in self.modules():
            if isinstance(part, nn.Conv3d):
                part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last_3d)

    def checkpoint_norms(self, enabled: bool = True) -> None:
        """Recompute the normalisations inside residual blocks in the backward pass, for training in less memory."""
        for part in self.modules():
            if isinstance(part, ResidualBlock):
                part.norm_checkpointing = enabled

    def encode(self, clip_bcthw: Tensor) -> Float[Tensor, "b c t h w"]:
        """f(x): the features after layer3.

        Args:
            clip_bcthw: (B, 3, T, H, W) in the dtype of the weights, normalised as in training; any T, H, W from 1.

        Returns:
            (B, C', T, h, w), where h = ceil(H / 16) and w = ceil(W / 16).

        Raises:
            ValueError: the clip has another shape or dtype.
        """
        self._check_clip(clip_bcthw)
        x_bcthw = self.maxpool(self.relu(self.bn1(self.conv1(clip_bcthw))))
        for layer in (self.layer1, self.layer2, self.layer3):
            x_bcthw = self._run_layer(layer, x_bcthw)
        return x_bcthw

    def classify(self, features_bcthw: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b k"]:
        """Class scores (B, K), unnormalised, from (B, C', T, h, w): layer4, average, dropout, linear."""
        pooled_bc = self._run_layer(self.layer4, features_bcthw).mean(dim=(2, 3, 4))
        return self.fc(self.drop(pooled_bc))

    def forward(self, clip_bcthw: Tensor) -> Output:
        """The output for a batch of clips: `classify(encode(clip))`; shapes and errors as in `encode`."""
        return Output(self.classify(self.encode(clip_bcthw)))

    def _run_layer(self, layer: nn.Sequential, x_bcthw: Tensor) -> Tensor:
        """The output of a residual layer, by activation checkpointing of its blocks where that is on."""
        if not (self.activation_checkpointing and self.training and torch.is_grad_enabled()):
            return layer(x_bcthw)
        for block in layer:
            x_bcthw = _checkpointed(block, block, x_bcthw)
        return x_bcthw

    def _check_clip(self, clip_bcthw: Tensor) -> None:
        shape = tuple(clip_bcthw.shape)
        if len(shape) != 5 or shape[1] != 3 or 0 in shape[2:]:
            raise ValueError(f"clip: got shape {shape}, expected (B, 3, T, H, W)")
        dtype = self.conv1.weight.dtype
        if clip_bcthw.dtype == dtype:
            return
        # Under autocast PyTorch converts; anywhere else another dtype fails deep inside with an obscure message.
        if not (clip_bcthw.is_floating_point() and torch.is_autocast_enabled(clip_bcthw.device.type)):
            raise ValueError(f"clip: got {clip_bcthw.dtype}, expected {dtype} like the weights")
