"""A 2D ResNet in torchvision's layout that reads a video as a batch of frames.

The caller says what its residual blocks are, and so where frames meet: see `tsm`, `stm`, `pem` and `abm`.

Shape suffixes: n frames of all clips (B T'), c channels, h height, w width.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from stabn.nn.backbone import initialise
from stabn.nn.backbones.resnet3d import ARCHITECTURES, OFFICIAL, Architecture, ResidualLayer

# fmt: off
FRAME_RESNETS: dict[str, Architecture] = {name: ARCHITECTURES[name] for name in OFFICIAL} | {
    # For a 2-core CPU, with two blocks per layer so that every kind of block is there; no official file has these.
    "small": Architecture("bottleneck", (2, 2, 2, 2), (16, 32, 48, 64), (1, 1, 1, 1), (1, 2, 2, 2), 16),
    "tiny":  Architecture("bottleneck", (2, 2, 2, 2), (8, 8, 16, 16),   (1, 1, 1, 1), (1, 2, 2, 2), 8),
    "small_basic": Architecture("basic", (2, 2, 2, 2), (16, 32, 48, 64), (1, 1, 1, 1), (1, 2, 2, 2), 16),
    "tiny_basic": Architecture("basic", (2, 2, 2, 2), (8, 8, 16, 16),   (1, 1, 1, 1), (1, 2, 2, 2), 8),
}
# fmt: on
"""Name of a 2D ResNet -> its numbers; `temporal_kernels` are not used."""


def flat_convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps H and W at stride 1; no bias, because a normalisation follows."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)


class FrameBlock(nn.Module):
    """torchvision's residual block on frames: relu(shortcut(x) + residual(x)), the stride on the 3 x 3 convolution.

    Args:
        kind: "basic" (two 3 x 3 convolutions) or "bottleneck" (1 x 1, 3 x 3, 1 x 1).
        channels_in: of x.
        width: channels inside; a bottleneck gives four times as many.
        stride: in space.
    """

    def __init__(self, kind: str, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.kind, self.width, self.stride = kind, width, stride
        wide = kind == "bottleneck"
        channels_out = 4 * width if wide else width
        self.conv1: nn.Module = flat_convolution(channels_in, width, 1 if wide else 3, 1 if wide else stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2: nn.Module = flat_convolution(width, width, 3, stride if wide else 1)
        self.bn2 = nn.BatchNorm2d(width)
        if wide:
            self.conv3 = flat_convolution(width, channels_out, 1)
            self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels_out:
            shortcut = flat_convolution(channels_in, channels_out, 1, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels_out))

    def residual(self, x_nchw: Tensor) -> Tensor:
        """The convolutions, without the last ReLU."""
        y_nchw = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x_nchw)))))
        return y_nchw if self.kind == "basic" else self.bn3(self.conv3(self.relu(y_nchw)))

    def forward(self, x_nchw: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """(N, C, H, W) -> (N, width or 4 width, H / stride, W / stride)."""
        shortcut_nchw = x_nchw if self.downsample is None else self.downsample(x_nchw)
        return self.relu(self.residual(x_nchw) + shortcut_nchw)


BlockMaker = Callable[[str, int, int, int, int, int], nn.Module]
"""(kind, channels_in, width, stride, layer 1..4, number within the layer) -> a residual block."""


def plain_block(kind: str, channels_in: int, width: int, stride: int, layer: int, number: int) -> nn.Module:
    """The 2D network's own block, whatever its place."""
    return FrameBlock(kind, channels_in, width, stride)


class FrameResNet(nn.Module):
    """A 2D ResNet of frames without its classifier; tensors have torchvision's names.

    Args:
        name: a key of `FRAME_RESNETS`.
        make_block: builds every residual block.
        channels_in: of the first convolution.
    """

    extracting = 4
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, name: str, make_block: BlockMaker = plain_block, channels_in: int = 3) -> None:
        super().__init__()
        shape = FRAME_RESNETS[name]
        self.channels, self.last_channels = shape.channels_out(3), shape.channels_out(4)
        self.conv1 = flat_convolution(channels_in, shape.stem_width, 7, 2)
        self.bn1 = nn.BatchNorm2d(shape.stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for layer in (1, 2, 3, 4):
            width, stride, before = (
                shape.widths[layer - 1],
                shape.spatial_strides[layer - 1],
                shape.channels_out(layer - 1),
            )
            blocks = [make_block(shape.block, before, width, stride, layer, 0)]
            blocks += [
                make_block(shape.block, shape.channels_out(layer), width, 1, layer, number)
                for number in range(1, shape.depths[layer - 1])
            ]
            self.add_module(f"layer{layer}", ResidualLayer(*blocks))
        initialise(self)

    def stem(self, x_nchw: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 64, H / 4, W / 4)."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x_nchw))))

    def shallow(self, x_nchw: Tensor) -> Tensor:
        """Through layer3: (N, C, H, W) -> (N, channels, H / 16, W / 16)."""
        return self.layer3(self.layer2(self.layer1(self.stem(x_nchw))))

    def deep(self, x_nchw: Tensor) -> Tensor:
        """Layer4."""
        return self.layer4(x_nchw)

    def grid(self, size: int) -> int:
        """Cells along a side behind `shallow`."""
        return -(-size // 16)

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem and the four layers."""
        return {"stem": (self.conv1, self.bn1)} | {f"layer{n}": (getattr(self, f"layer{n}"),) for n in (1, 2, 3, 4)}
