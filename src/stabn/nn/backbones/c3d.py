"""C3D (Tran et al., ICCV 2015): 3 x 3 x 3 convolutions with biases, poolings and three linear layers.

No batch norm anywhere. Written from the paper's tables; names of tensors are those of the PyTorch port by D. Abati, and
those of MMAction2 are read too.

Shape suffixes: b clips, c channels, t steps, h height, w width, k classes.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stabn.nn.backbone import ClipFormat, Features, OfficialNetwork, initialise, map_of
from stabn.nn.backbones.clip_network import ClipNetwork
from stabn.nn.hub import is_saved_network, read_weights
from stabn.nn.state_dict import dimensions_of

logger = logging.getLogger(__name__)

_LAYERS = (("conv1",), ("conv2",), ("conv3a", "conv3b"), ("conv4a", "conv4b"), ("conv5a", "conv5b"))
"""The convolutions in front of each pooling."""
_SPLIT = 4
"""Layers of the extractor."""


@dataclass(frozen=True)
class C3DShape:
    """Every number of a C3D.

    Attributes:
        widths: channels of conv1 .. conv5.
        times: steps that each of the five poolings makes one; in space it is always two.
        cells: side of the last pooling's grid, which fc6 reads.
        hidden: width of fc6 and fc7.
        branch: channels of the attention branch.
        format: its clips.
    """

    widths: tuple[int, ...]
    times: tuple[int, ...]
    cells: int
    hidden: int
    branch: int
    format: ClipFormat


# fmt: off
C3D_SHAPES = {
    "c3d":       C3DShape((64, 128, 256, 512, 512), (1, 2, 2, 2, 2), 4, 4096, 128, ClipFormat(16, 112, multiple_of=16)),
    # For a 2-core CPU; no official file has these shapes.
    "c3d_small": C3DShape((8, 16, 32, 48, 48),      (1, 2, 2, 1, 1), 2, 64,   48,  ClipFormat(16, 56, multiple_of=4)),
}
# fmt: on

_SPORTS_MEAN = (104 / 255, 117 / 255, 128 / 255)
_SPORTS_STD = (1 / 255, 1 / 255, 1 / 255)
"""MMAction2's: values in 0..255 with the mean subtracted, for R, G and B."""
_MMACTION = re.compile(r"(backbone\.)?conv1a\.conv\.")


class C3D(ClipNetwork):
    """C3D, split after conv4b: T' = T / 4.

    An adaptive average pooling behind pool5 frees frames and size, which fc6 would fix; at 16 x 112 it changes nothing.

    Args:
        name: a key of `C3D_SHAPES`.
        num_classes: K.
        frames: a multiple of 16, or of 4 for `c3d_small`.
        dropout: behind fc6 and fc7.

    Raises:
        UserError: the network does not take so many frames.
    """

    architectures: ClassVar[Mapping[str, C3DShape]] = C3D_SHAPES
    per_class = "fc8"
    time_stride = 4
    space_stride = 8
    extracting = 6

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.channels = self.shape.widths[3]
        before = 3
        for layers, width in zip(_LAYERS, self.shape.widths, strict=True):
            for layer in layers:
                self.add_module(layer, nn.Conv3d(before, width, 3, padding=1))
                before = width
        self.fc6 = nn.Linear(before * self.shape.cells**2, self.shape.hidden)
        self.fc7 = nn.Linear(self.shape.hidden, self.shape.hidden)
        self.fc8 = nn.Linear(self.shape.hidden, num_classes)
        initialise(self)

    @classmethod
    def format_of(cls, name: str, weights: str | None) -> ClipFormat:
        """As for any network; MMAction2's weights have a mean and std of their own."""
        wanted = super().format_of(name, weights)
        if weights is None or is_saved_network(weights):
            return wanted
        names = read_weights(weights, name)
        return replace(wanted, mean=_SPORTS_MEAN, std=_SPORTS_STD) if any(map(_MMACTION.match, names)) else wanted

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for fc8.

        Args:
            weights: a file of the PyTorch ports or of MMAction2, or a file or folder of ours.
        """
        tensors = read_weights(weights, self.name)
        if not is_saved_network(weights) and not any(map(_MMACTION.match, tensors)):
            # Fed otherwise than they were trained, weights of Sports-1M fail without a sign of it.
            logger.warning("note: %s does not say the mean and std of its clips; check --preprocessing.mean", weights)
        return self.fill_from(self.own_names(tensors), weights)

    @property
    def linear(self) -> None:
        """None: fc6 reads places."""

    @classmethod
    def own_names(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """MMAction2's tensors under the names of the ports; other names stay."""
        names = {"conv1a": "conv1", "conv2a": "conv2", "fc_cls": "fc8"}
        own = {}
        for name, value in tensors.items():
            layer, _, rest = name.removeprefix("backbone.").removeprefix("cls_head.").partition(".")
            own[f"{names.get(layer, layer)}.{rest.removeprefix('conv.')}"] = value
        return own

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """A checkpoint of one of the ports, or of MMAction2."""
        own = cls.own_names(tensors)
        if "conv3b.weight" not in own:
            return None
        return OfficialNetwork("c3d", dimensions_of(own, "fc8.weight", 2)[0], own)

    def _layer(self, number: int, x_bcthw: Tensor) -> Tensor:
        """The pooling in front of a layer, where there is one, and its convolutions."""
        if number:
            x_bcthw = functional.max_pool3d(x_bcthw, (self.shape.times[number - 1], 2, 2))
        for name in _LAYERS[number]:
            x_bcthw = functional.relu(getattr(self, name)(x_bcthw))
        return x_bcthw

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """The maps of conv4b."""
        for number in range(_SPLIT):
            clip_bcthw = self._layer(number, clip_bcthw)
        return clip_bcthw

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """Pool4, conv5a and conv5b."""
        return self._layer(_SPLIT, map_of(features))

    def pool(self, maps: Features) -> Float[Tensor, "b c 1 h w"]:
        """Pool5, whose grid is padded in space, and the adaptive average where its grid is another than fc6's."""
        pooled = functional.max_pool3d(map_of(maps), (self.shape.times[_SPLIT], 2, 2), padding=(0, 1, 1))
        grid = (1, self.shape.cells, self.shape.cells)
        return pooled if tuple(pooled.shape[2:]) == grid else functional.adaptive_avg_pool3d(pooled, grid)

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """Pool5, fc6, fc7 and fc8."""
        hidden = self.drop(functional.relu(self.fc6(self.pool(maps).flatten(1))))
        return self.fc8(self.drop(functional.relu(self.fc7(hidden))))

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The convolutions and the linear layers, one by one."""
        names = [name for layer in _LAYERS for name in layer] + ["fc6", "fc7", "fc8"]
        return {name: (getattr(self, name),) for name in names}

    @property
    def maps_time_stride(self) -> int:
        """Frames per step of conv5b."""
        return self.time_stride * self.shape.times[3]

    def grid(self, size: int) -> int:
        """Cells along a side of the features; poolings leave out an incomplete one."""
        return size // self.space_stride
