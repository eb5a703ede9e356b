"""The parts of bLVNet-TAM: its numbers, temporal aggregation, and layers with a big and a little branch.

Shape suffixes: n frames of all clips (B T), b clips, c channels, t steps, h height, w width.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stabn.nn.backbone import ClipFormat
from stabn.nn.backbones.frame_resnet import flat_convolution

Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class BLVShape:
    """Every number of a bLVNet-TAM.

    Attributes:
        depths: blocks of the ResNet that its layers are made of.
        width: channels of the stem and inside the blocks of layer1; doubled from layer to layer.
        branch: channels of the attention branch.
        format: its clips: two frames per step.
        alpha: how many times fewer channels the little branch has.
        beta: how many times fewer blocks it has.
        blending_frames: frames that TAM mixes, an odd number.
    """

    depths: Four
    width: int
    branch: int
    format: ClipFormat
    alpha: int = 2
    beta: int = 4
    blending_frames: int = 3

    def blocks(self, layer: int) -> tuple[int, int]:
        """Blocks of the big and of the little branch in layer 1 .. 3."""
        depth = self.depths[layer - 1]
        return depth - 1, max(1, depth // self.beta - 1)


class TAM(nn.Module):
    """Temporal aggregation: each channel's weighted sum over neighbouring frames, and ReLU.

    Args:
        channels: C.
        blending_frames: b; the weights of three frames have names of their own in the official code.
    """

    def __init__(self, channels: int, blending_frames: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 1, groups=channels, bias=False) for _ in range(blending_frames)]
        if blending_frames == 3:
            self.prev, self.curr, self.next = layers
        else:
            self.blending_layers = nn.ModuleList(layers)
        self.blending_frames = blending_frames
        self.reset_parameters()

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """From the most distant past to the most distant future."""
        return (self.prev, self.curr, self.next) if self.blending_frames == 3 else tuple(self.blending_layers)

    def reset_parameters(self) -> None:
        """The official initial values: small and random, by the fan-out of a dense convolution."""
        for layer in self.layers:
            assert isinstance(layer.weight, Tensor)
            if not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.weight.shape[0]))

    def forward(self, x_nchw: Float[Tensor, "n c h w"], frames: int) -> Float[Tensor, "n c h w"]:
        """Of clips of so many frames."""
        x_btchw = x_nchw.unflatten(0, (-1, frames))
        reach = self.blending_frames // 2
        padded_btchw = functional.pad(x_btchw, (0, 0, 0, 0, 0, 0, reach, reach))
        mixed = sum(layer(padded_btchw[:, i : i + frames].flatten(0, 1)) for i, layer in enumerate(self.layers))
        return functional.relu(mixed)


class PooledBottleneck(nn.Module):
    """A residual block whose shortcut pools before it projects.

    Args:
        channels_in: of x.
        channels_out: four times those inside.
        stride: of the 3 x 3 convolution.
        tam: whether neighbouring frames are mixed first; a shortcut without projection takes x before that.
        last_relu: whether the sum goes through ReLU.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, tam: TAM | None = None, last_relu: bool = True
    ) -> None:
        super().__init__()
        inside = channels_out // 4
        self.conv1, self.bn1 = flat_convolution(channels_in, inside, 1), nn.BatchNorm2d(inside)
        self.conv2, self.bn2 = flat_convolution(inside, inside, 3, stride), nn.BatchNorm2d(inside)
        self.conv3, self.bn3 = flat_convolution(inside, channels_out, 1), nn.BatchNorm2d(channels_out)
        shortcut: list[nn.Module] = [nn.AvgPool2d(3, 2, 1)] if stride == 2 else []
        if channels_in != channels_out:
            shortcut += [flat_convolution(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out)]
        self.downsample = nn.Sequential(*shortcut) if shortcut else None
        self.tam, self.last_relu = tam, last_relu

    def forward(self, x_nchw: Float[Tensor, "n c h w"], frames: int = 1) -> Float[Tensor, "n c2 h2 w2"]:
        """(N, C, H, W) -> (N, channels_out, H / stride, W / stride), of clips of so many frames."""
        mixed_nchw = x_nchw if self.tam is None else self.tam(x_nchw, frames)
        y_nchw = functional.relu(self.bn1(self.conv1(mixed_nchw)))
        y_nchw = self.bn3(self.conv3(functional.relu(self.bn2(self.conv2(y_nchw)))))
        y_nchw = y_nchw + (x_nchw if self.downsample is None else self.downsample(mixed_nchw))
        return functional.relu(y_nchw) if self.last_relu else y_nchw


class BigLittle(nn.Module):
    """Layer 1 .. 3: both branches, and a block for their sum.

    Args:
        shape: of the network.
        layer: its number.
        channels_in: of every frame.
    """

    def __init__(self, shape: BLVShape, layer: int, channels_in: int) -> None:
        super().__init__()
        channels = 4 * shape.width * 2 ** (layer - 1)
        big, little = shape.blocks(layer)
        thin = channels // shape.alpha
        self.big = nn.Sequential(
            PooledBottleneck(channels_in, channels, 2),  # keeps its ReLU even where it is the only one
            *(PooledBottleneck(channels, channels, 1, last_relu=number < big - 1) for number in range(1, big)),
        )
        self.little = nn.Sequential(
            PooledBottleneck(channels_in, thin, 1), *(PooledBottleneck(thin, thin, 1) for _ in range(1, little))
        )
        self.little_e = nn.Sequential(flat_convolution(thin, channels, 1), nn.BatchNorm2d(channels))
        self.fusion = nn.Sequential(PooledBottleneck(channels, channels, 1 if layer == 3 else 2))
        self.tam = TAM(channels_in, shape.blending_frames)

    def forward(self, pairs_nchw: Float[Tensor, "n c h w"], steps: int) -> Float[Tensor, "n c2 h2 w2"]:
        """(B T / 2, C, H, W) -> the same number of pairs at half the resolution, or at full in layer 3."""
        even_nchw, odd_nchw = frames_of_pairs(self.tam(pairs_nchw.repeat_interleave(2, dim=0), 2 * steps))
        little_nchw = self.little_e(self.little(even_nchw))
        big_nchw = functional.interpolate(self.big(odd_nchw), little_nchw.shape[2:])
        return self.fusion(functional.relu(big_nchw + little_nchw))


def frames_of_pairs(frames_nchw: Tensor) -> tuple[Tensor, Tensor]:
    """The even frames and the odd ones."""
    even_nchw, odd_nchw = frames_nchw.unflatten(0, (-1, 2)).unbind(1)
    return even_nchw, odd_nchw
