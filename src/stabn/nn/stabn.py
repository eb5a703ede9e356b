"""The Spatio-Temporal Attention Branch Network in three visible calls: encode, attend, perceive."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, TypeGuard, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.attention import Attention, Output, pool_frames, repeat_steps
from stabn.nn.backbone import Features, initialise, map_of, with_map
from stabn.nn.network import Perceiver, PlainNetwork, VideoNetwork

Mechanism = Literal["paper", "gated", "gated-both"]
MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)


class STABN(VideoNetwork):
    """The Spatio-Temporal Attention Branch Network: a base network with an attention branch.

    `model(clip)` is `perceive(features, attend(features))` of `features = encode(clip)`. Nothing is mutated: for the
    class scores of another attention, give another `Attention` to `perceive` with the same features.

    Arguments and errors are those of `VideoNetwork`, but the temporal attention has one weight per frame, so the number
    of frames is fixed. With 3D ResNets, names and shapes of all tensors are those of the official code's checkpoints;
    they are the same for all mechanisms. Where the features have fewer steps than the clip has frames, the network
    computes one score and one map per step; attention has T frames everywhere (`repeat_steps`, `pool_frames`).

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
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture, num_classes, frames, dropout, class_names, preprocessing, backbone_options)
        if mechanism not in MECHANISMS:
            raise UserError(f"mechanism: got {mechanism!r}, expected one of {', '.join(MECHANISMS)}")
        self.mechanism = mechanism
        k, t, extracted = num_classes, self.backbone.steps(frames), self.backbone.channels
        self.layer_att_common = self.backbone.fresh_head()
        branch = self.backbone.branch_channels
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
            if "att" in name:  # the base network has initialised its own
                initialise(module)

    def config(self) -> dict[str, Any]:
        """The content of config.json; the mechanism only where it is not the paper's."""
        return super().config() | ({} if self.mechanism == "paper" else {"mechanism": self.mechanism})

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """As for any network; where the attention branch has a copy of the base network's layers, it is filled too."""
        left = super().load_weights(weights)
        self.backbone.fill_head(self.layer_att_common)
        return left

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """As for any network, with the attention branch and the mechanism between extractor and head."""
        stages = list(self.backbone.stages().items())
        branch = (
            self.layer_att_common,
            self.conv_att_common,
            self.conv_att_out,
            self.conv_spatial_att,
            self.conv_temp_att1,
            self.conv_temp_att2,
            self.conv_temp_att3,
            self.fc_att_out,
        )
        split = self.backbone.extracting
        own = {"attention branch": branch, "attention mechanism": (self.conv_att_mechanism,)}
        return dict(stages[:split]) | own | dict(stages[split:])

    def encode(self, clip_bcthw: Tensor) -> Features:
        """As `VideoNetwork.encode`, for clips of T = `self.frames` frames.

        Raises:
            ValueError: the clip has another shape, number of frames or dtype.
        """
        self.backbone.check_clip(clip_bcthw)
        if clip_bcthw.shape[2] != self.frames:
            raise ValueError(
                f"clip: got {clip_bcthw.shape[2]} frames, expected {self.frames}, which this network was built for"
            )
        return self.backbone.extract(clip_bcthw)

    def class_maps(self, features: Features) -> Float[Tensor, "b k t h w"]:
        """One map per class, from which the attention branch computes its three outputs."""
        return self.conv_att_common(self.layer_att_common(map_of(features)))

    def attend(self, features: Features) -> tuple[Attention, Float[Tensor, "b k"]]:
        """The attention of both kinds, and the attention branch's own class scores.

        Args:
            features: (B, C', T', h, w) from `encode`.

        Returns:
            M_s(x) as (B, T, h, w) and M_t(x) as (B, T), both in 0..1, and unnormalised class scores (B, K).

        Raises:
            ValueError: the features have another number of steps.
        """
        self._check_steps(features)
        maps_bkthw = self.class_maps(features)
        per_frame_bkt = self.conv_att_out(maps_bkthw).mean(dim=(3, 4))
        logits_bk = self.fc_att_out(self.backbone.drop(per_frame_bkt.flatten(1)))
        spatial_bthw = self.conv_spatial_att(maps_bkthw).squeeze(1)
        # Frames become channels, so that every frame's importance may depend on all frames.
        frames_bthw = self.conv_temp_att2(self.conv_temp_att1(maps_bkthw).squeeze(1))
        temporal_bt = self.conv_temp_att3(frames_bthw.mean(dim=(2, 3)))
        stride = self.backbone.time_stride
        return Attention(
            repeat_steps(spatial_bthw, stride, self.frames), repeat_steps(temporal_bt, stride, self.frames)
        ), logits_bk

    def perceive(self, features: Features, attention: Attention) -> Float[Tensor, "b k"]:
        """Class scores of the perception branch for features weighted by an attention.

            f_s = (1 + M_s) f           (1)  residual, so that a zero in the map does not erase the features
            f_t =      M_t  f           (2)
            f'  = bn(conv([f_s, f_t]))  (3)

        With "gated", f_s = (1 + M_s) f_t in place of (1); with "gated-both", f_s = f_t = M_s M_t f. Class tokens, where
        the base network has them, are not weighed.

        Args:
            features: (B, C', T', h, w) from `encode`.
            attention: that of `attend`, or any other of the same shape.

        Returns:
            (B, K) unnormalised.

        Raises:
            ValueError: the attention's shape is not that of the features.
        """
        return self.classify(self.weigh(features, attention))

    def weigh(self, features: Features, attention: Attention) -> Features:
        """f', the features weighted by an attention; arguments and errors as of `perceive`."""
        self._check_steps(features)
        m_s_bthw, m_t_bt = self._attention_of_steps(features, attention)
        features_bcthw = map_of(features)
        f_t_bcthw = m_t_bt[:, None, :, None, None] * features_bcthw
        m_s_b1thw = m_s_bthw[:, None]
        if self.mechanism == "gated-both":
            f_t_bcthw = f_s_bcthw = m_s_b1thw * f_t_bcthw
        else:
            f_s_bcthw = (1 + m_s_b1thw) * (f_t_bcthw if self.mechanism == "gated" else features_bcthw)
        mixed_bcthw = self.conv_att_mechanism(torch.cat((f_s_bcthw, f_t_bcthw), dim=1))
        return with_map(features, mixed_bcthw)

    def perceiver(self, features: Features) -> Perceiver:
        """`perceive` for many attentions of the same features.

        Arguments and errors are those of `perceive`. It is cheaper only in `stabn.nn.fast_inference`.
        """
        return Perceiver(partial(self.perceive, features), map_of(features).nbytes)

    def forward(self, clip_bcthw: Tensor) -> Output:
        """The output for a batch of clips with its attention; shapes and errors as in `encode`."""
        return self.recognise(self.encode(clip_bcthw))

    def recognise(self, features: Features) -> Output:
        """The output of features from `encode`."""
        attention, attention_logits_bk = self.attend(features)
        return Output(self.perceive(features, attention), attention_logits_bk, attention)

    def last_maps(self, clip_bcthw: Tensor) -> Features:
        """The perception branch's maps before its classifier; shapes and errors as in `encode`."""
        features = self.encode(clip_bcthw)
        return self.backbone.deepen(self.weigh(features, self.attend(features)[0]))

    def _attention_of_steps(self, features: Features, attention: Attention) -> tuple[Tensor, Tensor]:
        """M_s (B, T', h, w) and M_t (B, T') on the steps of the features."""
        shape = tuple(map_of(features).shape)
        expected = (shape[0], self.frames, *shape[3:])
        if tuple(attention.spatial.shape) != expected:
            raise ValueError(
                f"attention: got spatial shape {tuple(attention.spatial.shape)}, expected {expected} "
                f"for features of shape {shape}"
            )
        stride = self.backbone.time_stride
        steps = shape[2]
        return pool_frames(attention.spatial, stride, steps), pool_frames(attention.temporal, stride, steps)

    def _check_steps(self, features: Features) -> None:
        got, expected = map_of(features).shape[2], self.backbone.steps(self.frames)
        if got != expected:
            raise ValueError(f"features: got {got} frames, expected {expected}, which this network was built for")


def has_attention(model: object) -> TypeGuard[STABN]:
    """Whether a network has an attention branch; type checkers know it as `STABN` where this is true."""
    return isinstance(model, STABN)


def shows_attention(model: object) -> TypeGuard[STABN | PlainNetwork]:
    """Whether a network has attention in its output: that of an attention branch, or its base network's own."""
    return has_attention(model) or (isinstance(model, PlainNetwork) and model.backbone.attends)
