"""The Spatio-Temporal Attention Branch Network in three visible calls: encode, attend, perceive."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.attention import Attention, Output
from stabn.nn.resnet3d import ARCHITECTURES, ResNet3D, initialise, residual_layer

Mechanism = Literal["paper", "gated", "gated-both"]
MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)


@dataclass(frozen=True, eq=False)
class Perceiver:
    """What a network answers for certain clips, as a function of the attention alone.

    Attributes:
        answer: attention -> (B, K) unnormalised.
        nbytes: what it holds in memory.
    """

    answer: Callable[[Attention], Tensor]
    nbytes: int

    def __call__(self, attention: Attention) -> Tensor:
        """As `STABN.perceive` with the same features."""
        return self.answer(attention)


class STABN(ResNet3D):
    """A 3D ResNet with a branch that says where and when it looks, and looks there.

    `model(clip)` is `perceive(features, attend(features))` of `features = encode(clip)`. Nothing is mutated: to ask
    what another attention would have answered, hand another `Attention` to `perceive` with the same features.

    Arguments and errors are those of `ResNet3D`, but the temporal attention has one weight per frame, so the number
    of frames is fixed. Names and shapes of all tensors are those of the official code's checkpoints, and the same for
    all mechanisms.

    Args:
        mechanism: paper is Eqs. 1 to 3, in which what M_t turns down still reaches the answer through f_s; in gated,
            ours, nothing passes M_t by, and in gated-both nothing passes M_s by either.
    """

    kind: ClassVar[str] = "stabn"

    def __init__(
        self,
        architecture: str,
        num_classes: int,
        frames: int,
        dropout: float | int = 0.5,
        class_names: Sequence[str] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        mechanism: str = "paper",
    ) -> None:
        super().__init__(architecture, num_classes, frames, dropout, class_names, preprocessing)
        if mechanism not in MECHANISMS:
            raise UserError(f"mechanism: got {mechanism!r}, expected one of {', '.join(MECHANISMS)}")
        self.mechanism = mechanism
        shape = ARCHITECTURES[architecture]
        k, t, extracted = num_classes, frames, shape.channels_out(3)
        # layer4 once more, but at the features' own resolution so that the maps stay fine.
        self.layer_att_common = residual_layer(shape, 4, spatial_stride=1)
        branch = shape.channels_out(4)
        self.conv_att_common = nn.Sequential(
            nn.BatchNorm3d(branch), nn.Conv3d(branch, k, 1, bias=False), nn.BatchNorm3d(k), nn.ReLU(inplace=True)
        )
        self.conv_att_out = nn.Sequential(nn.Conv3d(k, k, 1, bias=False))
        self.fc_att_out = nn.Linear(k * t, k)
        self.conv_spatial_att = nn.Sequential(nn.Conv3d(k, 1, 1, bias=False), nn.BatchNorm3d(1), nn.Sigmoid())
        self.conv_temp_att1 = nn.Sequential(
            nn.Conv3d(k, 1, 3, padding=1, bias=False), nn.BatchNorm3d(1), nn.ReLU(inplace=True)
        )
        self.conv_temp_att2 = nn.Sequential(nn.Conv2d(t, t, 1, bias=False), nn.ReLU(inplace=True))
        self.conv_temp_att3 = nn.Sequential(nn.Linear(t, t), nn.ReLU(inplace=True), nn.Linear(t, t), nn.Sigmoid())
        self.conv_att_mechanism = nn.Sequential(
            nn.Conv3d(2 * extracted, extracted, 1, bias=False), nn.BatchNorm3d(extracted)
        )
        for added in (
            self.layer_att_common,
            self.conv_att_common,
            self.conv_att_out,
            self.conv_spatial_att,
            self.conv_temp_att1,
            self.conv_temp_att2,
            self.conv_att_mechanism,
        ):
            initialise(added)

    def config(self) -> dict[str, Any]:
        """What config.json holds; the mechanism only where it is not the paper's."""
        value = super().config()
        return value if self.mechanism == "paper" else value | {"mechanism": self.mechanism}

    def encode(self, clip_bcthw: Tensor) -> Float[Tensor, "b c t h w"]:
        """f(x): the features after layer3.

        Args:
            clip_bcthw: (B, 3, T, H, W) in the dtype of the weights, normalised as in training; T = `self.frames`.

        Returns:
            (B, C', T, h, w), where h = ceil(H / 16) and w = ceil(W / 16); for the fine architectures 8 in place of 16.

        Raises:
            ValueError: the clip has another shape, number of frames or dtype.
        """
        self._check_clip(clip_bcthw)
        self._check_frames("clip", clip_bcthw)
        return super().encode(clip_bcthw)

    def attend(self, features_bcthw: Float[Tensor, "b c t h w"]) -> tuple[Attention, Float[Tensor, "b k"]]:
        """Where and when to look, and the attention branch's own class scores.

        Args:
            features_bcthw: (B, C', T, h, w) from `encode`.

        Returns:
            M_s(x) as (B, T, h, w) and M_t(x) as (B, T), both in 0..1, and unnormalised class scores (B, K).

        Raises:
            ValueError: the features have another number of frames.
        """
        self._check_frames("features", features_bcthw)
        # One feature map per class, from which all three answers are read.
        maps_bkthw = self.conv_att_common(self._through(self.layer_att_common, features_bcthw))
        per_frame_bkt = self.conv_att_out(maps_bkthw).mean(dim=(3, 4))
        logits_bk = self.fc_att_out(self.drop(per_frame_bkt.flatten(1)))
        spatial_bthw = self.conv_spatial_att(maps_bkthw).squeeze(1)
        # The frames become the channels, so that every frame's importance may depend on all frames.
        frames_bthw = self.conv_temp_att2(self.conv_temp_att1(maps_bkthw).squeeze(1))
        temporal_bt = self.conv_temp_att3(frames_bthw.mean(dim=(2, 3)))
        return Attention(spatial_bthw, temporal_bt), logits_bk

    def perceive(self, features_bcthw: Float[Tensor, "b c t h w"], attention: Attention) -> Float[Tensor, "b k"]:
        """Class scores of the features seen through an attention.

            f_s = (1 + M_s) f     (1)  residual, so a zero in the map cannot erase the features
            f_t =      M_t  f     (2)
            f'  = bn(conv([f_s, f_t]))  (3)

        With the mechanism gated f_s = (1 + M_s) f_t in place of (1); with gated-both f_s = f_t = M_s M_t f.

        Args:
            features_bcthw: (B, C', T, h, w) from `encode`.
            attention: that of `attend`, or any other of the same shape.

        Returns:
            (B, K) unnormalised.

        Raises:
            ValueError: the attention's shape is not that of the features.
        """
        self._check_frames("features", features_bcthw)
        self._check_attention(features_bcthw, attention)
        in_time_bcthw = attention.temporal[:, None, :, None, None] * features_bcthw
        where_b1thw = attention.spatial[:, None]
        if self.mechanism == "gated-both":
            in_time_bcthw = in_space_bcthw = where_b1thw * in_time_bcthw
        else:
            weighed_bcthw = in_time_bcthw if self.mechanism == "gated" else features_bcthw
            in_space_bcthw = (1 + where_b1thw) * weighed_bcthw
        return self.classify(self.conv_att_mechanism(torch.cat((in_space_bcthw, in_time_bcthw), dim=1)))

    def perceiver(self, features_bcthw: Float[Tensor, "b c t h w"]) -> Perceiver:
        """`perceive` for many attentions of the same features.

        Arguments and errors are those of `perceive`; here it is no cheaper, in `stabn.nn.fast_inference` it is.
        """
        return Perceiver(partial(self.perceive, features_bcthw), features_bcthw.nbytes)

    def forward(self, clip_bcthw: Tensor) -> Output:
        """The answer for a batch of clips with its attention; shapes and errors as in `encode`."""
        features_bcthw = self.encode(clip_bcthw)
        attention, attention_logits_bk = self.attend(features_bcthw)
        return Output(self.perceive(features_bcthw, attention), attention_logits_bk, attention)

    def _check_attention(self, features_bcthw: Tensor, attention: Attention) -> None:
        expected = (features_bcthw.shape[0], *features_bcthw.shape[2:])
        if tuple(attention.spatial.shape) != expected:
            raise ValueError(
                f"attention: got spatial shape {tuple(attention.spatial.shape)}, expected {expected} "
                f"for features of shape {tuple(features_bcthw.shape)}"
            )

    def _check_frames(self, name: str, value_bcthw: Tensor) -> None:
        if value_bcthw.shape[2] != self.frames:
            raise ValueError(
                f"{name}: got {value_bcthw.shape[2]} frames, expected {self.frames}, which this network was built for"
            )
