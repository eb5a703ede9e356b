"""DFB-Net (Martinez et al., ICCV 2019), our reading: no code is published that it could be checked against.

A 2D ResNet of frames whose last layer is there twice: once as usual, and once, with weights of its own, on maps of
twice the resolution, whose filters per class vote with their maxima over the clip.

    z_average = fc(mean of the global maps);  p = max over t, y, x of (bank * local maps), N filters per class
    z_maximum = linear(p);  z_cross = mean of each class's N maxima;  logits = z_average + z_maximum + z_cross

Shape suffixes: b clips, c channels, t frames, h height, w width, k classes.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stabn.nn.backbone import ClipFormat, Features, PublishedWeights, initialise, map_of
from stabn.nn.backbones.clip_network import ClipNetwork
from stabn.nn.backbones.frame_network import unfold
from stabn.nn.backbones.frame_resnet import FrameResNet
from stabn.nn.backbones.resnet3d_weights import imagenet_weights, is_local, resnet_tensors
from stabn.nn.hub import read_weights


@dataclass(frozen=True)
class DFBShape:
    """Every number of a DFB-Net.

    Attributes:
        body: the 2D ResNet, a key of `FRAME_RESNETS`.
        filters: of the bank, per class.
        branch: channels of the attention branch.
        format: its clips.
    """

    body: str
    filters: int
    branch: int
    format: ClipFormat


DFB_SHAPES = {
    "dfb_our_reading_resnet50": DFBShape("resnet50", 10, 128, ClipFormat(16, 224)),
    "dfb_our_reading_resnet101": DFBShape("resnet101", 10, 128, ClipFormat(16, 224)),
    "dfb_our_reading_resnet152": DFBShape("resnet152", 10, 128, ClipFormat(16, 224)),
    "dfb_our_reading_small": DFBShape("small", 10, 48, ClipFormat(16, 56)),
}


@dataclass(frozen=True, eq=False)
class FilterScores:
    """The parts of DFB-Net's class scores.

    Attributes:
        pooled: (B, K N), the maximum of every filter.
        average: (B, K), of the global maps.
        maximum: (B, K), linear in the maxima.
        cross_channel: (B, K), the mean of each class's maxima.
    """

    pooled: Tensor
    average: Tensor
    maximum: Tensor
    cross_channel: Tensor

    @property
    def logits(self) -> Float[Tensor, "b k"]:
        """Their sum."""
        return self.average + self.maximum + self.cross_channel


class FilterBankHead(nn.Module):
    """The three classifiers; filter k N + n is of class k, without norm or ReLU before the maximum (ours).

    Args:
        channels: C of both maps.
        num_classes: K.
        filters: N.
    """

    def __init__(self, channels: int, num_classes: int, filters: int) -> None:
        super().__init__()
        self.filters = filters
        self.fc = nn.Linear(channels, num_classes)
        self.bank = nn.Conv3d(channels, num_classes * filters, 1)
        self.fc_max = nn.Linear(num_classes * filters, num_classes)

    def forward(
        self, global_bcthw: Float[Tensor, "b c t h w"], local_bcthw: Float[Tensor, "b c t h2 w2"], drop: nn.Module
    ) -> FilterScores:
        """Scores of the maps of both branches; `drop` is applied to the mean of the global ones."""
        pooled_bf = self.bank(local_bcthw).amax(dim=(2, 3, 4))
        return FilterScores(
            pooled=pooled_bf,
            average=self.fc(drop(global_bcthw.mean(dim=(2, 3, 4)))),
            maximum=self.fc_max(pooled_bf),
            cross_channel=pooled_bf.unflatten(1, (-1, self.filters)).mean(dim=2),
        )


class DFBNet(ClipNetwork):
    """DFB-Net, our reading, split before both copies of the last layer.

    The last maps are those of both branches in one, on the finer grid: each global cell is there four times.

    Args:
        name: a key of `DFB_SHAPES`.
        num_classes: K.
        frames: any number is taken.
        dropout: before the global classifier.
    """

    architectures: ClassVar[Mapping[str, DFBShape]] = DFB_SHAPES
    per_class = "head"

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.base_model = FrameResNet(self.shape.body)
        self.local_layer4 = deepcopy(self.base_model.layer4)
        self.channels = self.base_model.channels
        self.head = FilterBankHead(self.base_model.last_channels, num_classes, self.shape.filters)
        initialise(self.head)

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """torchvision's ImageNet weights of the 2D network."""
        return imagenet_weights(cls.architectures[name].body)

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifiers; from a 2D ResNet, both copies of the last layer are equal.

        Args:
            weights: a file or folder of ours, a checkpoint of a 2D ResNet, or a name of `published`.
        """
        tensors = read_weights(weights, self.name) if is_local(weights) else resnet_tensors(weights, self.shape.body)
        if not any(name.startswith("base_model.") for name in tensors):
            flat = {name: value for name, value in tensors.items() if not name.startswith("fc.")}
            tensors = {f"base_model.{name}": value for name, value in flat.items()}
            tensors |= {f"local_{name}": value for name, value in flat.items() if name.startswith("layer4.")}
        return self.fill_from(tensors, weights)

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t h2 w2"]:
        """The maps of every frame after layer3."""
        return unfold(self.base_model.shallow(clip_bcthw.transpose(1, 2).flatten(0, 1)), clip_bcthw.shape[2])

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """Layer4 of the maps, and the other layer4 of the maps enlarged by two, behind its channels."""
        f_nchw = map_of(features).transpose(1, 2).flatten(0, 1)
        local_nchw = self.local_layer4(functional.interpolate(f_nchw, scale_factor=2, mode="bilinear"))
        global_nchw = self.base_model.deep(f_nchw).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        height, width = local_nchw.shape[2:]
        return unfold(torch.cat((global_nchw[:, :, :height, :width], local_nchw), dim=1), map_of(features).shape[2])

    def scores(self, maps: Features) -> FilterScores:
        """The parts of the class scores, of maps of `deepen`."""
        global_bcthw, local_bcthw = map_of(maps).chunk(2, dim=1)
        return self.head(global_bcthw[..., ::2, ::2], local_bcthw, self.drop)

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """The sum of the three classifiers."""
        return self.scores(maps).logits

    @property
    def linear(self) -> None:
        """None: maxima are not linear in the maps' mean."""

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem, the layers, the last of them with its copy, and the classifiers."""
        stages = self.base_model.stages()
        return stages | {"layer4": (*stages["layer4"], self.local_layer4), "head": (self.head,)}
