"""3D ResNets built like the slow pathway of SlowFast, the paper's base networks, with the official code's names.

Shape suffixes: b clips, c channels, t frames, h height, w width, k classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.backbone import Backbone, ClipFormat, Features, OfficialNetwork, PublishedWeights, initialise, map_of
from stabn.nn.backbones.recompute import recomputed
from stabn.nn.backbones.resnet3d_weights import (
    SLOW_MEAN,
    SLOW_STD,
    imagenet_weights,
    is_local,
    is_slow_pathway,
    own_names,
    resnet_tensors,
)
from stabn.nn.imagenet import load_imagenet
from stabn.nn.state_dict import CONTAINERS, dimensions_of, fill, read_tensors, unwrap

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


OFFICIAL = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
"""The architectures of the official code."""


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

    def foldable(self) -> list[tuple[nn.Module, str, str]]:
        """(module, name of a convolution, name of the norm behind it) for `stabn.nn.fast_inference`."""
        pairs: list[tuple[nn.Module, str, str]] = [(self, f"conv{n}", f"bn{n}") for n in range(1, self._depth + 1)]
        return pairs if self.downsample is None else [*pairs, (self.downsample, "0", "1")]

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
        return recomputed(compute, norm, y_bcthw)


class ResidualLayer(nn.Sequential):
    """Residual blocks in a row.

    Attributes:
        activation_checkpointing: in training, keep only the inputs of the blocks and recompute the rest in the
            backward pass; costs about a third more time, changes no value.
    """

    activation_checkpointing = False

    def forward(self, maps: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c2 ..."]:
        """The output of the last block."""
        if not (self.activation_checkpointing and self.training and torch.is_grad_enabled()):
            return super().forward(maps)
        for block in self:
            maps = recomputed(block, block, maps)
        return maps


def residual_layer(shape: Architecture, layer: int, *, spatial_stride: int | None = None) -> ResidualLayer:
    """Layer 1..4 of an architecture; `spatial_stride` replaces the architecture's own."""
    width, kernel = shape.widths[layer - 1], shape.temporal_kernels[layer - 1]
    stride = shape.spatial_strides[layer - 1] if spatial_stride is None else spatial_stride
    first = ResidualBlock(shape.block, shape.channels_out(layer - 1), width, kernel, stride)
    rest = (
        ResidualBlock(shape.block, shape.channels_out(layer), width, kernel, 1)
        for _ in range(shape.depths[layer - 1] - 1)
    )
    return ResidualLayer(first, *rest)


class ResNet3D(Backbone):
    """A 3D ResNet, split after layer3.

    Args:
        architecture: a key of `ARCHITECTURES`.
        num_classes: K.
        frames: any number of frames is taken.
        dropout: probability in 0..1 (1 excluded) of dropping an input of the classifier while training.
    """

    time_stride = 1
    extracting = 4
    can_fold: ClassVar[bool] = True
    builds_on_meta: ClassVar[bool] = True

    def __init__(self, architecture: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(architecture, num_classes, frames, dropout)
        shape = ARCHITECTURES[architecture]
        self.architecture, self.shape = architecture, shape
        self.format = self.format_for(architecture, {})
        self.channels, self.branch_channels = shape.channels_out(3), shape.channels_out(4)
        self.space_stride = 4 * math.prod(shape.spatial_strides[:3])
        self.conv1 = _convolution(3, shape.stem_width, (1, 7, 7), stride=2)
        self.bn1 = nn.BatchNorm3d(shape.stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.layer1 = residual_layer(shape, 1)
        self.layer2 = residual_layer(shape, 2)
        self.layer3 = residual_layer(shape, 3)
        self.layer4 = residual_layer(shape, 4)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(shape.channels_out(4), num_classes)
        initialise(self)

    @classmethod
    def format_for(cls, name: str, options: Mapping[str, Any]) -> ClipFormat:
        """Any clips; the paper's are 32 frames of 224 pixels, and those of the networks for a CPU 16 of 56."""
        return ClipFormat(32, 224) if name in OFFICIAL else ClipFormat(16, 56)

    @classmethod
    def format_of(cls, name: str, weights: str | None) -> ClipFormat:
        """As for any network; weights of PySlowFast and pytorchvideo have a mean and std of their own."""
        wanted = super().format_of(name, weights)
        if weights is None or not is_local(weights) or Path(weights).is_dir() or Path(weights).suffix == ".pkl":
            return wanted
        slow = is_slow_pathway(unwrap(read_tensors(weights, inside=CONTAINERS, names_only=True)))
        return replace(wanted, mean=SLOW_MEAN, std=SLOW_STD) if slow else wanted

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """The ImageNet weights of torchvision's 2D ResNet of the same depth."""
        return imagenet_weights(name)

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """A slow pathway of PySlowFast or pytorchvideo; `import_official` reads checkpoints of the ST-ABN code."""
        tensors = unwrap(tensors)
        if not is_slow_pathway(tensors):
            return None
        own = own_names(tensors, source="checkpoint")
        depths = tuple(len({n.split(".")[1] for n in own if n.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4))
        for name in OFFICIAL:
            if (ARCHITECTURES[name].block, ARCHITECTURES[name].depths) == ("bottleneck", depths):
                return OfficialNetwork(name, dimensions_of(own, "fc.weight", 2)[0], own)
        raise UserError(f"got {depths} blocks, expected those of a 3D ResNet-50, -101 or -152")

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network with weights of 3D ResNets, or with those of a 2D one, inflated with their kernels centred.

        Args:
            weights: a file of ours, of the official ST-ABN code, of PySlowFast (Slow R50 or R101), of pytorchvideo
                (the same) or of a 2D ResNet; a folder of ours; a name of `published`; a hub repository of timm.
        """
        tensors = resnet_tensors(weights, self.architecture)
        first = tensors.get("conv1.weight")
        if first is not None and first.ndim == 4:
            flat = {name: value for name, value in tensors.items() if not name.startswith("fc.")}
            return load_imagenet(self, flat, source=weights).left_random
        return fill(self, tensors, classifier="fc.", source=weights, remedy=f"give weights of {self.architecture}")

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t h2 w2"]:
        """The features after layer3: (B, C', T, ceil(H / 16), ceil(W / 16)); the fine architectures have 8 for 16."""
        x_bcthw = self.maxpool(self.relu(self.bn1(self.conv1(clip_bcthw))))
        return self.layer3(self.layer2(self.layer1(x_bcthw)))

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """Layer4."""
        return self.layer4(map_of(features))

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """Average, dropout, linear."""
        return self.fc(self.drop(map_of(maps).mean(dim=(2, 3, 4))))

    def fresh_head(self) -> ResidualLayer:
        """Layer4 once more, but at the features' own resolution so that the maps stay fine."""
        return residual_layer(self.shape, 4, spatial_stride=1)

    def fill_head(self, head: nn.Module) -> None:
        """The values of layer4."""
        head.load_state_dict(self.layer4.state_dict())

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem, the four layers and the classifier."""
        layers = {f"layer{n}": (getattr(self, f"layer{n}"),) for n in (1, 2, 3, 4)}
        return {"stem": (self.conv1, self.bn1), **layers, "fc": (self.fc,)}

    @property
    def linear(self) -> nn.Linear:
        """The classifier of the maps' mean."""
        return self.fc

    def foldable(self) -> list[tuple[nn.Module, str, str]]:
        """The stem's convolution and norm."""
        return [(self, "conv1", "bn1")]

    def reverse_colours(self) -> None:
        """Turn a network that was trained on BGR into one for RGB."""
        self.conv1.weight.data = self.conv1.weight.data.flip(1)
