"""CPNet (Liu et al. 2019): a 2D ResNet in which each place meets the most similar ones of other frames.

Convolutions have biases, norms an epsilon of 1e-3, and padding is TensorFlow's "SAME", which puts the odd pixel behind.

Shape suffixes besides those of `frame_network`: n places (t, y, x) of a clip, k neighbours.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from stabn.errors import UserError
from stabn.nn.backbone import Features, OfficialNetwork, initialise, map_of
from stabn.nn.backbones.frame_network import FrameArchitecture, FrameNetwork, of_bodies
from stabn.nn.backbones.frame_resnet import FRAME_RESNETS
from stabn.nn.state_dict import dimensions_of

NEIGHBOURS = 8
EPSILON = 1e-3
CPNET_ARCHITECTURES = of_bodies("cpnet", ("resnet34", "resnet18"), 24) | {
    "cpnet_small": FrameArchitecture("small_basic", 8, 56),
    "cpnet_tiny": FrameArchitecture("tiny_basic", 8, 56),
}
LAST = {1: 2, 2: 3}
"""Group -> how many of its last blocks have a correspondence module, where the depth allows it; the first never has."""


def same_padding(x_bcthw: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Padded in space so that a kernel gives ceil(size / stride) cells, the odd pixel behind."""
    padding: list[int] = []
    for size in (x_bcthw.shape[4], x_bcthw.shape[3]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x_bcthw, padding, value=value)


def old_bilinear(x_bcthw: Tensor, height: int, width: int) -> Tensor:
    """TensorFlow 1's resizing in space: source = destination x ratio, without aligned corners or half pixels."""
    for dim, size in ((3, height), (4, width)):
        last = x_bcthw.shape[dim] - 1
        source = torch.arange(size, device=x_bcthw.device) * (x_bcthw.shape[dim] / size)
        lower = source.floor().long()
        share = (source - lower).to(x_bcthw.dtype).view(-1, *(1,) * (4 - dim))
        low, high = (x_bcthw.index_select(dim, index) for index in (lower, (lower + 1).clamp(max=last)))
        x_bcthw = low + (high - low) * share
    return x_bcthw


class NormalisedConvolution(nn.Conv3d):
    """A 1 x k x k convolution with bias, and its norm."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, (1, kernel, kernel), (1, stride, stride))
        self.bn = nn.BatchNorm3d(channels_out, EPSILON)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C2, T, ceil(H / stride), ceil(W / stride))."""
        return self.bn(super().forward(same_padding(input, self.kernel_size[1], self.stride[1])))


class PointConvolution(nn.Conv2d):
    """A 1 x 1 convolution of pairs of places, with bias, norm and ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)
        self.bn = nn.BatchNorm2d(channels_out, EPSILON)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, N, k) -> (B, C2, N, k)."""
        return F.relu(self.bn(super().forward(input)))


class Correspondence(nn.Module):
    """The correspondence proposal module, which starts as zero.

    Args:
        channels: C.
        halved: whether it works on every second row and column.
    """

    def __init__(self, channels: int, halved: bool) -> None:
        super().__init__()
        self.halved = halved
        self.conv0 = PointConvolution(3 + 2 * channels, channels // 4)
        self.conv1 = PointConvolution(channels // 4, channels // 2)
        self.conv_final = nn.Conv3d(channels // 2, channels, 1)
        self.bn_final = nn.BatchNorm3d(channels, EPSILON)

    def matched(self, v_bcthw: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 n"]:
        """The maximum over each place's neighbours of what the two layers make of the pair."""
        index_bnk = nearest_in_other_frames(v_bcthw)
        places_b1n3 = place_coordinates(v_bcthw)
        values_bcn = v_bcthw.flatten(2)
        own_bcnk = values_bcn[..., None].expand(-1, -1, -1, index_bnk.shape[2])
        theirs_bcnk = torch.stack([values[:, index] for values, index in zip(values_bcn, index_bnk, strict=True)])
        offset_b3nk = (places_b1n3[index_bnk] - places_b1n3[:, None]).permute(0, 3, 1, 2)
        pairs_bcnk = torch.cat((offset_b3nk, own_bcnk, theirs_bcnk), dim=1)
        return self.conv1(self.conv0(pairs_bcnk)).amax(dim=3)

    def forward(self, v_bcthw: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """What is added to v."""
        height, width = v_bcthw.shape[3:]
        if self.halved:
            v_bcthw = old_bilinear(v_bcthw, (height + 1) // 2, (width + 1) // 2)
        y_bcthw = self.matched(v_bcthw).unflatten(2, tuple(v_bcthw.shape[2:]))
        y_bcthw = self.bn_final(self.conv_final(y_bcthw))
        return old_bilinear(y_bcthw, height, width) if self.halved else y_bcthw


@torch.no_grad()
def nearest_in_other_frames(v_bcthw: Float[Tensor, "b c t h w"]) -> Int[Tensor, "b n k"]:
    """The places whose values are nearest, frame by frame so that no N x N matrix is held; none of the same frame."""
    points_bnc = v_bcthw.flatten(2).transpose(1, 2)
    squares_bn = points_bnc.square().sum(dim=2)
    area = v_bcthw.shape[3] * v_bcthw.shape[4]
    count = min(NEIGHBOURS, points_bnc.shape[1] - area)
    found = []
    for start in range(0, points_bnc.shape[1], area):
        rows_bmc = points_bnc[:, start : start + area]
        # The squares of the rows are the same for all candidates.
        distance_bmn = squares_bn[:, None] - 2 * rows_bmc @ points_bnc.transpose(1, 2)
        own_frame_n = torch.arange(points_bnc.shape[1], device=v_bcthw.device)
        own_frame_n = (own_frame_n >= start) & (own_frame_n < start + area)
        found.append(distance_bmn.masked_fill(own_frame_n, torch.inf).topk(count, largest=False).indices)
    return torch.cat(found, dim=1)


def place_coordinates(v_bcthw: Tensor) -> Float[Tensor, "n 3"]:
    """(t / T, y / h, x / w) of each place."""
    axes = [torch.arange(size, device=v_bcthw.device, dtype=v_bcthw.dtype) / size for size in v_bcthw.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


class CorrespondenceBlock(nn.Module):
    """A basic residual block, with a correspondence module on the sum before the last ReLU where `matching` says so."""

    def __init__(self, channels_in: int, width: int, stride: int, matching: bool, halved: bool) -> None:
        super().__init__()
        self.conv1 = NormalisedConvolution(channels_in, width, 3, stride)
        self.conv2 = NormalisedConvolution(width, width, 3)
        changed = channels_in != width or stride != 1
        self.convshortcut = NormalisedConvolution(channels_in, width, 1, stride) if changed else None
        self.pointnet = Correspondence(width, halved) if matching else None

    def forward(self, x_bcthw: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, width, T, H / stride, W / stride)."""
        shortcut = x_bcthw if self.convshortcut is None else self.convshortcut(x_bcthw)
        v_bcthw = self.conv2(F.relu(self.conv1(x_bcthw))) + shortcut
        return F.relu(v_bcthw if self.pointnet is None else v_bcthw + self.pointnet(v_bcthw))


class CorrespondenceResNet(nn.Module):
    """The network without its classifier, under the official names: `conv0`, `groupG.blockI`.

    Args:
        name: a key of `FRAME_RESNETS`, of basic blocks.
    """

    extracting = 4
    group0: nn.Module
    group1: nn.Module
    group2: nn.Module

    def __init__(self, name: str) -> None:
        super().__init__()
        shape = FRAME_RESNETS[name]
        self.channels, self.last_channels = shape.channels_out(3), shape.channels_out(4)
        self.conv0 = NormalisedConvolution(3, shape.stem_width, 7, 2)
        for group in range(4):
            depth, width = shape.depths[group], shape.widths[group]
            first_matching = max(1, depth - LAST.get(group, 0))
            blocks = {
                f"block{number}": CorrespondenceBlock(
                    shape.channels_out(group) if number == 0 else width,
                    width,
                    shape.spatial_strides[group] if number == 0 else 1,
                    matching=group in LAST and number >= first_matching,
                    halved=group == 1,
                )
                for number in range(depth)
            }
            self.add_module(f"group{group}", nn.Sequential())
            for block_name, block in blocks.items():
                getattr(self, f"group{group}").add_module(block_name, block)
        initialise(self)
        for module in self.modules():
            if isinstance(module, Correspondence):
                nn.init.zeros_(module.bn_final.weight)

    def shallow(self, x_bcthw: Tensor) -> Tensor:
        """Through group2: (B, 3, T, H, W) -> (B, channels, T, H / 16, W / 16)."""
        x_bcthw = same_padding(F.relu(self.conv0(x_bcthw)), 3, 2, -torch.inf)
        return self.group2(self.group1(self.group0(F.max_pool3d(x_bcthw, (1, 3, 3), (1, 2, 2)))))

    def grid(self, size: int) -> int:
        """Cells along a side behind `shallow`."""
        return -(-size // 16)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem and the four groups."""
        return {"conv0": (self.conv0,)} | {f"group{n}": (getattr(self, f"group{n}"),) for n in range(4)}


class CPNet(FrameNetwork):
    """The correspondence proposal network; frames stay in an axis of their own."""

    architectures: ClassVar[Mapping[str, FrameArchitecture]] = CPNET_ARCHITECTURES

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        if frames < 2:
            raise UserError(f"frames: got {frames}, but {name} takes 2 or more: neighbours are in other frames")
        super().__init__(name, num_classes, frames, dropout)

    def build_body(self, steps: int) -> Any:
        """The network with correspondence modules."""
        return CorrespondenceResNet(self.shape.body)

    def extract(self, clip_bcthw: Tensor) -> Tensor:
        """The maps after group2."""
        return self.base_model.shallow(clip_bcthw)

    def deepen(self, features: Features) -> Tensor:
        """Group3."""
        return self.base_model.group3(map_of(features))

    def classify(self, maps: Features) -> Tensor:
        """Average over space and time, dropout, linear."""
        return self.new_fc(self.drop(map_of(maps).mean(dim=(2, 3, 4))))

    def from_image_network(self, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's tensors, without biases of convolutions; its padding is another one."""
        filled = {}
        for name, value in flat.items():
            own = name.replace("downsample.0", "convshortcut").replace("downsample.1", "convshortcut.bn")
            layer, *rest = own.split(".")
            if layer.startswith("layer"):
                layer, rest = f"group{int(layer[-1]) - 1}", [f"block{rest[0]}", *rest[1:]]
            else:
                layer = {"conv1": "conv0", "bn1": "conv0.bn"}[layer]
            rest = [f"conv{part[-1]}.bn" if part in ("bn1", "bn2") else part for part in rest]
            filled[f"base_model.{'.'.join((layer, *rest))}"] = value[:, :, None] if value.ndim == 4 else value
        biases = {
            name: torch.zeros_like(value)
            for name, value in self.state_dict().items()
            if name.endswith(("conv0.bias", "conv1.bias", "conv2.bias", "convshortcut.bias")) and "pointnet" not in name
        }
        return filled | biases

    def own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The official graph's names, with slashes and TensorFlow's order of dimensions, or with dots and ours."""
        return _own_names(tensors)

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """`conv0` and `group0`, which no other family has."""
        named = _own_names(tensors)
        if "base_model.group0.block0.conv1.weight" not in named:
            return None
        blocks = {tuple(name.split(".")[1:3]) for name in named if name.startswith("base_model.group")}
        depths = tuple(sum(group == f"group{number}" for group, _ in blocks) for number in range(4))
        bodies = [shape.body for shape in cls.architectures.values() if FRAME_RESNETS[shape.body].depths == depths]
        if not bodies:
            raise UserError(f"got groups of {depths} blocks, expected those of {', '.join(cls.architectures)}")
        return OfficialNetwork(f"cpnet_{bodies[0]}", dimensions_of(named, "new_fc.weight", 2)[0], named)


_RENAMED = {
    "weights": "weight",
    "biases": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""TensorFlow's names of tensors -> ours."""


def _own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for name, value in tensors.items():
        if "/" in name:
            *modules, tensor = name.removesuffix(":0").split("/")
            name = ".".join((*modules, _RENAMED.get(tensor, tensor)))
            if value.ndim > 1:  # kernels end in (channels in, channels out)
                value = value.permute(-1, -2, *range(value.ndim - 2))
        if name.startswith(("conv0.", "group")):
            name = f"base_model.{name}"
        named[f"new_{name}" if name.startswith("fc.") else name] = value
    return named
