"""The video networks of transformers: VideoMAE, TimeSformer, ViViT and V-JEPA 2, split two blocks before the end.

Each class says where the library has the parts; `TransformersVideo` runs them. Weights are read through the library,
whose names of tensors are others than those in files.

| name | T' | class token | frames | size | last maps |
|---|---|---|---|---|---|
| videomae | T / 2 | no | as its position table | likewise | of the last block, where it averages tokens |
| timesformer | T | yes | as its position table | likewise | before the last block |
| vivit | T / 2 | yes | as its position table | likewise | before the last block |
| vjepa2 | T / 2 | no | any even number | as its grid | of the last block, before norm and attentive pooler |

Behind the last block of a network that reads one token alone, the other tokens have no influence on the scores, and
Grad-CAM would be zero. Shape suffixes: b clips, n tokens, c channels, t steps, h height, w width, k classes.
"""

from typing import ClassVar

from torch import Tensor, nn

from stabn.nn.backbones.transformers_config import TransformersFamily
from stabn.nn.backbones.transformers_split import TransformersVideo

_HALF = (0.5, 0.5, 0.5)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class VideoMAE(TransformersVideo):
    """VideoMAE (Tong et al. 2022): joint attention of space and time over tokens of 2 x 16 x 16."""

    family: ClassVar[TransformersFamily] = TransformersFamily(
        "videomae",
        "VideoMAEConfig",
        "VideoMAEForVideoClassification",
        16,
        224,
        _HALF,
        _HALF,
        {
            "MCG-NJU/videomae-base-finetuned-kinetics": "Kinetics-400",
            "MCG-NJU/videomae-base-finetuned-ssv2": "Something-Something V2",
            "MCG-NJU/videomae-base": "Kinetics-400, without labels",
        },
    )

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the encoder."""
        return self.model.videomae.encoder.layer

    @property
    def embeddings(self) -> nn.Module:
        """Tubelets and a fixed table of sines."""
        return self.model.videomae.embeddings

    @property
    def before_classifier(self) -> tuple[nn.Module, ...]:
        """A norm, of the mean of all tokens or of the first one."""
        return (self.model.videomae.layernorm if self._reads_one_token else self.model.fc_norm,)

    @property
    def _reads_one_token(self) -> bool:
        return not self.config["use_mean_pooling"]

    def _embed(self, frames_btchw: Tensor) -> Tensor:
        return self.embeddings(frames_btchw, None)

    def _pool(self, tokens_bnc: Tensor) -> Tensor:
        if self._reads_one_token:
            return self.model.videomae.layernorm(tokens_bnc)[:, 0]
        return self.model.fc_norm(tokens_bnc.mean(1))


class TimeSformer(TransformersVideo):
    """TimeSformer (Bertasius et al. 2021): attention along time, then in space, over tokens of 16 x 16."""

    class_tokens: ClassVar[int] = 1
    family: ClassVar[TransformersFamily] = TransformersFamily(
        "timesformer",
        "TimesformerConfig",
        "TimesformerForVideoClassification",
        8,
        224,
        *_IMAGENET,
        {
            "facebook/timesformer-base-finetuned-k400": "Kinetics-400",
            "facebook/timesformer-base-finetuned-k600": "Kinetics-600",
            "facebook/timesformer-base-finetuned-ssv2": "Something-Something V2",
        },
    )

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the encoder."""
        return self.model.timesformer.encoder.layer

    @property
    def embeddings(self) -> nn.Module:
        """Patches with learned positions in space and in time."""
        return self.model.timesformer.embeddings

    @property
    def before_classifier(self) -> tuple[nn.Module, ...]:
        """The norm of the class token."""
        return (self.model.timesformer.layernorm,)

    def _pool(self, tokens_bnc: Tensor) -> Tensor:
        return self.model.timesformer.layernorm(tokens_bnc)[:, 0]

    # Time is the fastest index of this network's tokens.

    def _to_map(self, cells_bnc: Tensor, t: int, h: int) -> Tensor:
        return cells_bnc.unflatten(1, (h, -1, t)).permute(0, 4, 3, 1, 2)

    def _to_cells(self, map_bcthw: Tensor) -> Tensor:
        return map_bcthw.permute(0, 3, 4, 2, 1).flatten(1, 3)


class ViViT(TransformersVideo):
    """ViViT (Arnab et al. 2021), model 1: joint attention of space and time over tokens of 2 x 16 x 16."""

    class_tokens: ClassVar[int] = 1
    family: ClassVar[TransformersFamily] = TransformersFamily(
        "vivit",
        "VivitConfig",
        "VivitForVideoClassification",
        32,
        224,
        _HALF,
        _HALF,
        {"google/vivit-b-16x2-kinetics400": "Kinetics-400"},
        rescale=1 / 127.5,
        offset=True,
    )

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the encoder."""
        return self.model.vivit.layers

    @property
    def embeddings(self) -> nn.Module:
        """Tubelets with a learned table of positions."""
        return self.model.vivit.embeddings

    @property
    def before_classifier(self) -> tuple[nn.Module, ...]:
        """The norm of the class token."""
        return (self.model.vivit.layernorm,)

    def _pool(self, tokens_bnc: Tensor) -> Tensor:
        return self.model.vivit.layernorm(tokens_bnc)[:, 0]


class VJEPA2(TransformersVideo):
    """V-JEPA 2 (Assran et al. 2025): rotary positions in space and time; an attentive pooler reads all tokens."""

    family: ClassVar[TransformersFamily] = TransformersFamily(
        "vjepa2",
        "VJEPA2Config",
        "VJEPA2ForVideoClassification",
        64,
        256,
        *_IMAGENET,
        {
            "facebook/vjepa2-vitl-fpc16-256-ssv2": "Something-Something V2",
            "facebook/vjepa2-vitl-fpc64-256": "VideoMix22M, without labels",
        },
        frames_field="frames_per_clip",
        size_field="crop_size",
        without={"pred_num_hidden_layers": 0},
    )

    def _prune(self) -> None:
        """What is left of the predictor of masked tokens."""
        del self.model.vjepa2.predictor

    @classmethod
    def _has_positions_in_time(cls) -> bool:
        return False

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the encoder."""
        return self.model.vjepa2.encoder.layer

    @property
    def embeddings(self) -> nn.Module:
        """Tubelets."""
        return self.model.vjepa2.encoder.embeddings

    @property
    def before_classifier(self) -> tuple[nn.Module, ...]:
        """The encoder's norm and the attentive pooler."""
        return self.model.vjepa2.encoder.layernorm, self.model.pooler

    def _pool(self, tokens_bnc: Tensor) -> Tensor:
        return self.model.pooler(self.model.vjepa2.encoder.layernorm(tokens_bnc))


TRANSFORMERS: dict[str, type[TransformersVideo]] = {
    "videomae": VideoMAE,
    "timesformer": TimeSformer,
    "vivit": ViViT,
    "vjepa2": VJEPA2,
}
