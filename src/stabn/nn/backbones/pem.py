"""PEM (Weng et al. 2020), our reading: channels that tell frames apart and were not used before are enhanced in turn.

No code was published; the equations are ours, made from the paper's abstract. After the first ReLU of every
bottleneck, for frames t = 1 .. T with pooled features v_t and a memory z_t of what earlier frames contributed:

    a_t = sigmoid(W2 relu(W1 (v_t - z_{t-1})))      y_t = a_t x_t      e_t = a_t v_t
    g_t = sigmoid(w [e_t, z_{t-1}] + b)             z_t = (1 - g_t) z_{t-1} + g_t e_t,    z_0 = 0
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stabn.nn.backbones.frame_network import FrameArchitecture, FrameNetwork, of_bodies
from stabn.nn.backbones.frame_resnet import FrameBlock, FrameResNet
from stabn.nn.backbones.stm import ChannelwiseTime

PEM_ARCHITECTURES = of_bodies("pem_our_reading", ("resnet50", "resnet101", "resnet152", "small", "tiny"), 16)


class Enhanced(NamedTuple):
    """What the module makes of a clip: y (B, T, C, H, W), a and z (B, T, C), g (B, T)."""

    frames: Tensor
    attention: Tensor
    memory: Tensor
    gate: Tensor


class ProgressiveEnhancement(nn.Module):
    """The progressive enhancement module.

    Args:
        channels: C.
        reduction: channels for one between W1 and W2.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        few = max(1, channels // reduction)
        self.reduce = nn.Conv2d(channels, few, 1)
        self.restore = nn.Conv2d(few, channels, 1)
        self.memory_gate = nn.Conv2d(2 * channels, 1, 1)

    def forward(self, x_btchw: Float[Tensor, "b t c h w"]) -> Enhanced:
        """One frame after the other."""
        pooled_btc11 = x_btchw.mean(dim=(3, 4), keepdim=True)
        memory = torch.zeros_like(pooled_btc11[:, 0])
        attentions, memories, gates = [], [], []
        for pooled in pooled_btc11.unbind(1):
            attention = self.restore(F.relu(self.reduce(pooled - memory))).sigmoid()
            used = attention * pooled
            gate = self.memory_gate(torch.cat((used, memory), dim=1)).sigmoid()
            memory = (1 - gate) * memory + gate * used
            attentions.append(attention)
            memories.append(memory)
            gates.append(gate)
        attention_btc11 = torch.stack(attentions, dim=1)
        return Enhanced(
            x_btchw * attention_btc11,
            attention_btc11[..., 0, 0],
            torch.stack(memories, dim=1)[..., 0, 0],
            torch.stack(gates, dim=1)[:, :, 0, 0, 0],
        )


def temporal_diversity(maps_btchw: Float[Tensor, "b t c h w"], share: float = 0.5) -> Float[Tensor, ""]:
    """The TD loss: how alike the maps of one kernel are in different frames.

    Args:
        maps_btchw: of a layer.
        share: of the channels, the first ones.

    Returns:
        The mean over clips, channels and ordered pairs of different frames of the cosine between flattened maps.
    """
    channels = round(maps_btchw.shape[2] * share)
    unit_bctx = F.normalize(maps_btchw[:, :, :channels].flatten(3).transpose(1, 2), dim=3)
    steps = maps_btchw.shape[1]
    cosine_bctt = unit_bctx @ unit_bctx.transpose(2, 3)
    different = ~torch.eye(steps, dtype=torch.bool, device=maps_btchw.device)
    return cosine_bctt[:, :, different].mean()


class EnhancedBlock(FrameBlock):
    """A bottleneck whose 3 x 3 convolution reads enhanced frames, mixed in time; arguments as of `MotionBlock`."""

    def __init__(self, steps: int, kind: str, channels_in: int, width: int, stride: int, *_place: int) -> None:
        super().__init__(kind, channels_in, width, stride)
        self.steps = steps
        self.pem = ProgressiveEnhancement(width)
        self.shift = ChannelwiseTime(width, steps)

    def residual(self, x_nchw: Tensor) -> Tensor:
        """The module and the taps in time behind the first ReLU."""
        u_nchw = self.relu(self.bn1(self.conv1(x_nchw)))
        enhanced = self.pem(u_nchw.unflatten(0, (-1, self.steps))).frames.flatten(0, 1)
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(self.shift(enhanced))))))


class PEM(FrameNetwork):
    """Our reading of PEM, in every block of a 2D ResNet of bottlenecks."""

    architectures: ClassVar[Mapping[str, FrameArchitecture]] = PEM_ARCHITECTURES

    def build_body(self, steps: int) -> Any:
        """The 2D ResNet with enhanced blocks."""
        return FrameResNet(self.shape.body, partial(EnhancedBlock, steps), self.shape.channels_in)
