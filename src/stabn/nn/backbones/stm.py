"""STM (Jiang et al. 2019): in every bottleneck a spatio-temporal branch and one of the motion between frames.

There is no official release; equations, names and places of the norms are those of code that its first author signed.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stabn.nn.backbone import OfficialNetwork
from stabn.nn.backbones.frame_network import FrameArchitecture, FrameNetwork, of_bodies, official_network
from stabn.nn.backbones.frame_resnet import FrameBlock, FrameResNet

REDUCTION = 16
"""Channels of a block for one of its motion branch."""

STM_ARCHITECTURES = of_bodies("stm", ("resnet50", "resnet101", "resnet152", "small", "tiny"), 8)


class ChannelwiseTime(nn.Module):
    """s_c[t] = sum over i of k_c[i] x_c[t + i - 1]: three taps in time for each channel, zeros beyond the ends.

    At the start a quarter of the channels copies the previous frame, a quarter the next one and half the own one.

    Args:
        channels: C.
        steps: T'.
    """

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.weight = nn.Parameter(torch.zeros(channels, 1, 3))
        with torch.no_grad():
            quarter = channels // 4
            self.weight[:quarter, 0, 0] = 1
            self.weight[quarter : channels - quarter, 0, 1] = 1
            self.weight[channels - quarter :, 0, 2] = 1

    def forward(self, x_nchw: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """(B T', C, H, W) -> the same."""
        x_btchw = x_nchw.unflatten(0, (-1, self.steps))
        padded = F.pad(x_btchw, (0, 0, 0, 0, 0, 0, 1, 1))
        previous, own, following = self.weight[:, 0, :, None, None].unbind(1)
        y_btchw = previous * padded[:, :-2] + own * x_btchw + following * padded[:, 2:]
        return y_btchw.flatten(0, 1)


class ChannelwiseMotion(nn.Module):
    """CMM: conv1x1(D(r[t + 1]) - r[t]) of few channels r = bn(conv1x1(x)); zero in the last frame.

    D is a 3 x 3 convolution of each channel.

    Args:
        channels: C.
        steps: T'.
    """

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        few = max(1, channels // REDUCTION)
        self.stage_conv = nn.Conv2d(channels, few, 1, bias=False)
        self.stage_bn = nn.BatchNorm2d(few)
        self.shift = nn.Conv2d(few, few, 3, padding=1, groups=few, bias=False)
        self.conv1x1 = nn.Conv2d(few, channels, 1, bias=False)

    def forward(self, x_nchw: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """(B T', C, H, W) -> the same."""
        reduced_nchw = self.stage_bn(self.stage_conv(x_nchw))
        later_btchw = self.shift(reduced_nchw).unflatten(0, (-1, self.steps))
        own_btchw = reduced_nchw.unflatten(0, (-1, self.steps))
        motion_btchw = F.pad(later_btchw[:, 1:] - own_btchw[:, :-1], (0, 0, 0, 0, 0, 0, 0, 1))
        return self.conv1x1(motion_btchw.flatten(0, 1))


class MotionBlock(FrameBlock):
    """A bottleneck with both branches in place of its 3 x 3 convolution; arguments as of `FrameBlock`, and T'."""

    def __init__(self, steps: int, kind: str, channels_in: int, width: int, stride: int, *_place: int) -> None:
        super().__init__(kind, channels_in, width, stride)
        self.shift = ChannelwiseTime(width, steps)
        self.mb = ChannelwiseMotion(width, steps)

    def residual(self, x_nchw: Tensor) -> Tensor:
        """The sum of the two branches between the 1 x 1 convolutions."""
        u_nchw = self.relu(self.bn1(self.conv1(x_nchw)))
        space_time = self.relu(self.bn2(self.conv2(self.shift(u_nchw))))
        motion = self.mb(u_nchw)
        if self.stride != 1:
            motion = F.max_pool2d(motion, self.stride, ceil_mode=True)
        return self.bn3(self.conv3(space_time + motion))


class STM(FrameNetwork):
    """STM in every block of a 2D ResNet of bottlenecks."""

    architectures: ClassVar[Mapping[str, FrameArchitecture]] = STM_ARCHITECTURES

    def build_body(self, steps: int) -> Any:
        """The 2D ResNet with motion blocks."""
        return FrameResNet(self.shape.body, partial(MotionBlock, steps), self.shape.channels_in)

    @classmethod
    def own_names(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The authors' code has no prefix and calls the classifier `fc`."""
        if "layer1.0.mb.shift.weight" not in tensors:
            return dict(tensors)
        return {
            f"new_{name}" if name.startswith("fc.") else f"base_model.{name}": value for name, value in tensors.items()
        }

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """`mb.shift`, which no other family has."""
        named = cls.own_names(tensors)
        if "base_model.layer1.0.mb.shift.weight" not in named:
            return None
        return official_network(cls, "stm", named, "new_fc.weight")
