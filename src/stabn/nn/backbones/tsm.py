"""TSM (Lin et al. 2019): TSN in which each block reads some channels from the next and some from the previous frame."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stabn.nn.backbone import OfficialNetwork
from stabn.nn.backbones.frame_network import FrameArchitecture, FrameNetwork, of_bodies, official_network
from stabn.nn.backbones.frame_resnet import FRAME_RESNETS, FrameBlock, FrameResNet
from stabn.nn.backbones.mmaction import frame_names
from stabn.nn.backbones.resnet3d import OFFICIAL

SHARE = 8
"""One channel of so many is read from the next frame, and one of so many from the previous one."""

TSM_ARCHITECTURES = of_bodies("tsm", (*OFFICIAL, "small", "tiny"), 8)


def shifted(x_nchw: Tensor, steps: int) -> Tensor:
    """The first eighth of the channels from frame t + 1, the second from t - 1; zeros beyond the clip's ends.

    Args:
        x_nchw: (B T', C, H, W).
        steps: T'.
    """
    x_btchw = x_nchw.unflatten(0, (-1, steps))
    count = x_nchw.shape[1] // SHARE
    later, earlier, rest = x_btchw.split((count, count, x_nchw.shape[1] - 2 * count), dim=2)
    nothing = torch.zeros_like(later[:, :1])
    later = torch.cat((later[:, 1:], nothing), dim=1)
    earlier = torch.cat((nothing, earlier[:, :-1]), dim=1)
    return torch.cat((later, earlier, rest), dim=2).flatten(0, 1)


class ShiftedConvolution(nn.Module):
    """A convolution of shifted frames.

    Args:
        net: the convolution.
        steps: T'.
    """

    def __init__(self, net: nn.Module, steps: int) -> None:
        super().__init__()
        self.net, self.steps = net, steps

    def forward(self, x_nchw: Tensor) -> Tensor:
        """As the convolution."""
        return self.net(shifted(x_nchw, self.steps))


def shifted_block(
    every: int, steps: int, kind: str, channels_in: int, width: int, stride: int, layer: int, number: int
) -> nn.Module:
    """A residual block whose first convolution is shifted, in every second block if `every` is 2; not its shortcut."""
    block = FrameBlock(kind, channels_in, width, stride)
    if number % every == 0:
        block.conv1 = ShiftedConvolution(block.conv1, steps)
    return block


def shift_every(body: str) -> int:
    """2 where layer3 has 23 blocks or more, else 1."""
    return 2 if FRAME_RESNETS[body].depths[2] >= 23 else 1


class TSM(FrameNetwork):
    """The temporal shift module in every residual block of a 2D ResNet, with zeros at the clip's ends."""

    architectures: ClassVar[Mapping[str, FrameArchitecture]] = TSM_ARCHITECTURES

    def build_body(self, steps: int) -> Any:
        """The 2D ResNet with shifted blocks."""
        body = self.shape.body
        return FrameResNet(body, partial(shifted_block, shift_every(body), steps), self.shape.channels_in)

    def own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of the official code; also of MMAction2 and, with shifts put in, of TSN."""
        return {self._with_shift(name): value for name, value in frame_names(tensors).items()}

    def _with_shift(self, name: str) -> str:
        plain = name.replace(".conv1.net.", ".conv1.")
        shifted_name = plain.replace(".conv1.", ".conv1.net.") if ".layer" in plain else plain
        return shifted_name if shifted_name in self.state_dict() else name

    def from_image_network(self, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The 2D network's tensors, which all have a counterpart."""
        return {self._with_shift(name): value for name, value in super().from_image_network(flat).items()}

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """`base_model.layer1.0.conv1.net.`, which no other family has."""
        named = frame_names(tensors)
        if "base_model.layer1.0.conv1.net.weight" not in named:
            return None
        return official_network(cls, "tsm", named, "new_fc.weight")
