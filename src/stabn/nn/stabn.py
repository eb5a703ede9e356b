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
    """Class scores of fixed clips as a function of the attention alone.

    Attributes:
        function: attention -> (B, K) unnormalised.
        nbytes: its size in memory, in bytes.
    """

    function: Callable[[Attention], Tensor]
    nbytes: int

    def __call__(self, attention: Attention) -> Tensor:
        """As `STABN.perceive` with the same features."""
        return self.function(attention)


class STABN(ResNet3D):
    """The Spatio-Temporal Attention Branch Network: a 3D ResNet with an attention branch.

    `model(clip)` is `perceive(features, attend(features))` of `features = encode(clip)`. Nothing is mutated: for the
    class scores of another attention, give another `Attention` to `perceive` with the same features.

    Arguments and errors are those of `ResNet3D`, but the temporal attention has one weight per frame, so the number
    of frames is fixed. Names and shapes of all tensors are those of the official code's checkpoints, and the same for
    all mechanisms.

    Args:
        mechanism: "paper" is Eqs. 1 to 3, in which f_s passes on all frames whatever M_t is. In "gated" (ours) M_t
            weighs both halves, and in "gated-both" (ours) so does M_s.
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
        for name, module in self.named_children():
            if "att" in name:  # the base class has initialised its own
                initialise(module)

    def config(self) -> dict[str, Any]:
        """The content of config.json; the mechanism only where it is not the paper's."""
        return super().config() | ({} if self.mechanism == "paper" else {"mechanism": self.mechanism})

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
        """The attention of both kinds, and the attention branch's own class scores.

        Args:
            features_bcthw: (B, C', T, h, w) from `encode`.

        Returns:
            M_s(x) as (B, T, h, w) and M_t(x) as (B, T), both in 0..1, and unnormalised class scores (B, K).

        Raises:
            ValueError: the features have another number of frames.
        """
        self._check_frames("features", features_bcthw)
        # One feature map per class, from which all three outputs are computed.
        maps_bkthw = self.conv_att_common(self._run_layer(self.layer_att_common, features_bcthw))
        per_frame_bkt = self.conv_att_out(maps_bkthw).mean(dim=(3, 4))
        logits_bk = self.fc_att_out(self.drop(per_frame_bkt.flatten(1)))
        spatial_bthw = self.conv_spatial_att(maps_bkthw).squeeze(1)
        # Frames become channels, so that every frame's importance may depend on all frames.
        frames_bthw = self.conv_temp_att2(self.conv_temp_att1(maps_bkthw).squeeze(1))
        temporal_bt = self.conv_temp_att3(frames_bthw.mean(dim=(2, 3)))
        return Attention(spatial_bthw, temporal_bt), logits_bk

    def perceive(self, features_bcthw: Float[Tensor, "b c t h w"], attention: Attention) -> Float[Tensor, "b k"]:
        """Class scores of the perception branch for features weighted by an attention.

            f_s = (1 + M_s) f           (1)  residual, so that a zero in the map does not erase the features
            f_t =      M_t  f           (2)
            f'  = bn(conv([f_s, f_t]))  (3)

        With "gated", f_s = (1 + M_s) f_t in place of (1); with "gated-both", f_s = f_t = M_s M_t f.

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
        f_t_bcthw = attention.temporal[:, None, :, None, None] * features_bcthw
        m_s_b1thw = attention.spatial[:, None]
        if self.mechanism == "gated-both":
            f_t_bcthw = f_s_bcthw = m_s_b1thw * f_t_bcthw
        else:
            f_s_bcthw = (1 + m_s_b1thw) * (f_t_bcthw if self.mechanism == "gated" else features_bcthw)
        return self.classify(self.conv_att_mechanism(torch.cat((f_s_bcthw, f_t_bcthw), dim=1)))

    def perceiver(self, features_bcthw: Float[Tensor, "b c t h w"]) -> Perceiver:
        """`perceive` for many attentions of the same features.

        Arguments and errors are those of `perceive`. It is cheaper only in `stabn.nn.fast_inference`.
        """
        return Perceiver(partial(self.perceive, features_bcthw), features_bcthw.nbytes)

    def forward(self, clip_bcthw: Tensor) -> Output:
        """The output for a batch of clips with its attention; shapes and errors as in `encode`."""
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
