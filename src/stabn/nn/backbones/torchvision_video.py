"""torchvision's video networks: 3D ResNets of 18 layers, S3D, Video Swin and MViT, with its Kinetics weights.

Each class has the library's network as `network`, whose tensors keep their names, and runs its parts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.backbone import (
    Backbone,
    ClipFormat,
    Features,
    PublishedWeights,
    TokenMap,
    convolutional_head,
    map_of,
)
from stabn.nn.backbones.recompute import recomputed
from stabn.nn.hub import Triple, read_weights
from stabn.nn.state_dict import fill, unwrap
from stabn.nn.torchvision_weights import published_in, torchvision_tensors


@dataclass(frozen=True)
class VideoArchitecture:
    """The numbers of one of torchvision's video networks.

    Attributes:
        family: the class that splits it.
        weights: the library's enumeration of its weights, in `torchvision.models.video`.
        format: the clips that the weights were trained on.
        channels: of the features.
        time_stride: frames per step of the features.
        maps_time_stride: frames per step of the last maps.
        space_stride: pixels per cell of the features.
        width: channels of the attention branch.
    """

    family: "type[TorchvisionVideo]"
    weights: str
    format: ClipFormat
    channels: int
    time_stride: int
    maps_time_stride: int
    space_stride: int
    width: int


class TorchvisionVideo(Backbone):
    """A video network of torchvision; each of its families says where it is split.

    Args:
        name: a key of `VIDEO_ARCHITECTURES`.
        num_classes: K.
        frames: per clip.
        dropout: before the classifier, in place of the library's own.

    Attributes:
        activation_checkpointing: in training, keep only the inputs of the blocks and recompute the rest in the
            backward pass.

    Raises:
        UserError: the network does not take so many frames.
    """

    classifier: ClassVar[str]
    """The module in which the library's network has its classifier."""
    activation_checkpointing = False

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(name, num_classes, frames, dropout)
        shape = VIDEO_ARCHITECTURES[name]
        self.name, self.format = name, shape.format
        self.channels, self.branch_channels = shape.channels, shape.width
        self.time_stride, self.space_stride = shape.time_stride, shape.space_stride
        if shape.format.fixed_frames and frames != shape.format.frames:
            raise UserError(f"frames: got {frames}, expected {shape.format.frames}, the only number that {name} takes")
        self.network = self.build(name, num_classes)
        self.drop = nn.Dropout(dropout)

    @staticmethod
    def build(name: str, num_classes: int) -> Any:
        """The library's network, with random weights."""
        from torchvision.models import video

        return getattr(video, name)(weights=None, num_classes=num_classes)

    @classmethod
    def format_for(cls, name: str, options: Mapping[str, Any]) -> ClipFormat:
        """The clips that the library's Kinetics weights were trained on."""
        return VIDEO_ARCHITECTURES[name].format

    @classmethod
    def published(cls, name: str) -> tuple[PublishedWeights, ...]:
        """The library's weights of this network."""
        return published_in(_enumeration(name), "Kinetics-400")

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the library's network, but for its classifier.

        Args:
            weights: a name like KINETICS400_V1 or Swin3D_T_Weights.KINETICS400_V1; a file in the library's names or
                in ours; a folder of ours.
        """
        path, enumeration = Path(weights), _enumeration(self.name)
        member = weights.removeprefix(f"{enumeration.__name__}.")
        if member in enumeration.__members__:
            tensors = torchvision_tensors(enumeration[member])
        elif path.exists() or path.suffix in (".pth", ".pt", ".ckpt", ".safetensors"):
            tensors = unwrap(read_weights(path, self.name), ("network.",))
        else:
            raise UserError(
                f"--network.weights: got {weights!r}, expected a .pth or .safetensors file, the folder of a network, "
                f"or a name of the weights of {self.name}: {', '.join(enumeration.__members__)}"
            )
        classifier = f"{self.classifier}."
        left = fill(self.network, tensors, classifier=classifier, source=weights, remedy=f"give weights of {self.name}")
        return tuple(f"network.{name}" for name in left)

    def run(self, blocks: Iterable[nn.Module], *state: Any) -> Any:
        """What the last of some blocks in a row gives; each takes what the one before it gives."""
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        for block in blocks:
            output = recomputed(block, block, *state, random=True) if recompute else block(*state)
            state = output if isinstance(output, tuple) else (output,)
        return state if len(state) > 1 else state[0]

    @property
    def maps_time_stride(self) -> int:
        """Frames per step of the last maps, which some networks reduce once more."""
        return VIDEO_ARCHITECTURES[self.name].maps_time_stride

    def fresh_head(self) -> nn.Module:
        """A convolutional head."""
        return convolutional_head(self.channels, self.branch_channels)


def _enumeration(name: str) -> Any:
    from torchvision.models import video

    return getattr(video, VIDEO_ARCHITECTURES[name].weights)


class TorchvisionResNet(TorchvisionVideo):
    """r3d_18, mc3_18 and r2plus1d_18, split after layer3; any clips are taken."""

    classifier = "fc"
    extracting = 4

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """The maps after layer3."""
        net = self.network
        return self.run((*net.layer1, *net.layer2, *net.layer3), net.stem(clip_bcthw))

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """Layer4."""
        return self.run(self.network.layer4, map_of(features))

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """Average, dropout, linear."""
        return self.network.fc(self.drop(map_of(maps).mean(dim=(2, 3, 4))))

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The stem, the four layers and the classifier."""
        return {name: (getattr(self.network, name),) for name in ("stem", *(f"layer{n}" for n in (1, 2, 3, 4)), "fc")}

    @property
    def linear(self) -> nn.Linear:
        """The classifier of the maps' mean."""
        return self.network.fc


class TorchvisionS3D(TorchvisionVideo):
    """S3D, split before its last pooling.

    Its classifier reads means over windows of 2 x 7 x 7 cells, so clips need 13 frames of 209 pixels at least.
    """

    classifier = "classifier"
    split: ClassVar[int] = 13
    extracting = 10

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(name, num_classes, frames, dropout)
        least = self.least
        if frames < least[0]:
            raise UserError(f"frames: got {frames}, expected {least[0]} or more for {name}")

    @property
    def least(self) -> tuple[int, int]:
        """The fewest frames and pixels of a side whose last maps fill one window."""
        window = self.network.avgpool.kernel_size
        # In front of the last pooling there must be twice as many steps and cells.
        return self.time_stride * (2 * window[0] - 1) + 1, self.space_stride * (2 * window[1] - 1) + 1

    def check_clip(self, clip_bcthw: Tensor) -> None:
        """As for any network, and that the clip is large enough."""
        super().check_clip(clip_bcthw)
        frames, side = self.least
        if clip_bcthw.shape[2] < frames or min(clip_bcthw.shape[3:]) < side:
            raise ValueError(
                f"clip: got shape {tuple(clip_bcthw.shape)}, expected (B, 3, T, H, W) with T from {frames} and H, W "
                f"from {side}"
            )

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """The maps before the last pooling."""
        return self.run(self.network.features[: self.split], clip_bcthw)

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """The last pooling and the two blocks behind it."""
        return self.run(self.network.features[self.split :], map_of(features))

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """The classifier of the means over windows, averaged."""
        return self.network.classifier[1](self.drop(self.network.avgpool(map_of(maps)))).mean(dim=(2, 3, 4))

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The blocks with weights, and the classifier."""
        blocks = _with_weights(self.network.features, "features")
        return {**blocks, "classifier": (self.network.classifier,)}


class TorchvisionSwin(TorchvisionVideo):
    """Video Swin transformers, split after the third stage; any clips are taken."""

    classifier = "head"
    split: ClassVar[int] = 5
    extracting = 1 + split

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """The maps after the third stage."""
        net = self.network
        x_bthwc = self._through(net.features[: self.split], net.pos_drop(net.patch_embed(clip_bcthw)))
        return x_bthwc.permute(0, 4, 1, 2, 3)

    def deepen(self, features: Features) -> Float[Tensor, "b c t h w"]:
        """The last stage and the normalisation of every cell."""
        x_bthwc = self._through(self.network.features[self.split :], map_of(features).permute(0, 2, 3, 4, 1))
        return self.network.norm(x_bthwc).permute(0, 4, 1, 2, 3)

    def _through(self, parts: Iterable[nn.Module], x_bthwc: Tensor) -> Tensor:
        """Stages, which have their blocks in a row, and mergings between them."""
        return self.run(
            (block for part in parts for block in (part if isinstance(part, nn.Sequential) else (part,))), x_bthwc
        )

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """Average, dropout, linear."""
        return self.network.head(self.drop(map_of(maps).mean(dim=(2, 3, 4))))

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The patches' embedding, stages and mergings in turn, the last normalisation and the classifier."""
        net = self.network
        parts = _with_weights(net.features, "features")
        return {"patch_embed": (net.patch_embed,), **parts, "norm": (net.norm,), "head": (net.head,)}

    @property
    def linear(self) -> nn.Linear:
        """The classifier of the maps' mean."""
        return self.network.head


class TorchvisionMViT(TorchvisionVideo):
    """Multiscale vision transformers, split before the last two blocks.

    The class token is all that the classifier reads, so the last maps are those before the last block.
    """

    classifier = "head"

    @property
    def split(self) -> int:
        """How many blocks belong to `extract`."""
        return len(self.network.blocks) - 2

    @property
    def extracting(self) -> int:
        """The embedding, the positions and the blocks of `extract`."""
        return 2 + self.split

    def extract(self, clip_bcthw: Float[Tensor, "b 3 t h w"]) -> TokenMap:
        """Class token and map behind all blocks but two."""
        net = self.network
        patches_bcthw = net.conv_proj(clip_bcthw)
        tokens_bnc = net.pos_encoding(patches_bcthw.flatten(2).transpose(1, 2))
        return self._through(tokens_bnc, tuple(patches_bcthw.shape[2:]), 0, self.split)

    def deepen(self, features: Features) -> TokenMap:
        """The last block but one."""
        return self._through(*_as_tokens(features), self.split, self.split + 1)

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """The last block, and the classifier of its class token."""
        last = self._through(*_as_tokens(maps), self.split + 1, self.split + 2)
        token_bc = self.network.norm(last.tokens)[:, 0]
        return self.network.head[1](self.drop(token_bc))

    def _through(self, tokens_bnc: Tensor, grid: tuple[int, ...], first: int, end: int) -> TokenMap:
        tokens_bnc, grid = self.run(self.network.blocks[first:end], tokens_bnc, grid)
        map_bcthw = tokens_bnc[:, 1:].transpose(1, 2).unflatten(2, tuple(grid))
        return TokenMap(map_bcthw, tokens_bnc[:, :1])

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The patches' embedding, the positions, the blocks, the last normalisation and the classifier."""
        net = self.network
        embedding = {name: (getattr(net, name),) for name in ("conv_proj", "pos_encoding")}
        return {**embedding, **_with_weights(net.blocks, "blocks"), "norm": (net.norm,), "head": (net.head,)}


def _with_weights(parts: Any, name: str) -> dict[str, tuple[nn.Module, ...]]:
    return {f"{name}.{n}": (part,) for n, part in enumerate(parts) if next(part.parameters(), None) is not None}


def _as_tokens(features: Features) -> tuple[Tensor, tuple[int, ...]]:
    """(B, 1 + T' h w, C) with the class token in front, and (T', h, w)."""
    assert isinstance(features, TokenMap)
    map_bcthw = features.map
    return torch.cat((features.tokens, map_bcthw.flatten(2).transpose(1, 2)), dim=1), tuple(map_bcthw.shape[2:])


_KINETICS_MEAN: Triple = (0.43216, 0.394666, 0.37645)
_KINETICS_STD: Triple = (0.22803, 0.22145, 0.216989)
_RESNET = ClipFormat(16, 112, _KINETICS_MEAN, _KINETICS_STD, fps=15)
_S3D = ClipFormat(64, 224, _KINETICS_MEAN, _KINETICS_STD, fps=15)
_SWIN = ClipFormat(32, 224, fps=15)
_MVIT = ClipFormat(16, 224, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225), 7.5, fixed_frames=True, fixed_size=True)

VIDEO_ARCHITECTURES = {
    "r3d_18": VideoArchitecture(TorchvisionResNet, "R3D_18_Weights", _RESNET, 256, 4, 8, 8, 128),
    "mc3_18": VideoArchitecture(TorchvisionResNet, "MC3_18_Weights", _RESNET, 256, 1, 1, 8, 128),
    "r2plus1d_18": VideoArchitecture(TorchvisionResNet, "R2Plus1D_18_Weights", _RESNET, 256, 4, 8, 8, 128),
    "s3d": VideoArchitecture(TorchvisionS3D, "S3D_Weights", _S3D, 832, 4, 8, 16, 128),
    "mvit_v1_b": VideoArchitecture(TorchvisionMViT, "MViT_V1_B_Weights", _MVIT, 768, 2, 2, 16, 128),
    "mvit_v2_s": VideoArchitecture(TorchvisionMViT, "MViT_V2_S_Weights", _MVIT, 384, 2, 2, 16, 128),
    "swin3d_t": VideoArchitecture(TorchvisionSwin, "Swin3D_T_Weights", _SWIN, 384, 2, 2, 16, 128),
    "swin3d_s": VideoArchitecture(TorchvisionSwin, "Swin3D_S_Weights", _SWIN, 384, 2, 2, 16, 128),
    "swin3d_b": VideoArchitecture(TorchvisionSwin, "Swin3D_B_Weights", _SWIN, 512, 2, 2, 16, 128),
}
