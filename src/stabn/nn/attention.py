"""The values that networks return: where and when they looked (`Attention`), and class scores (`Output`)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from stabn.errors import NotFiniteError


def repeat_steps(values_bs: Float[Tensor, "b s ..."], stride: int, frames: int) -> Float[Tensor, "b t ..."]:
    """The value of each step of the features for each of its frames.

    Frame t takes that of step floor(t / stride), and the last frames that of the last step, however few there are.
    """
    if stride == 1 and values_bs.shape[1] == frames:
        return values_bs
    repeated = values_bs.repeat_interleave(stride, dim=1)[:, :frames]
    left = frames - repeated.shape[1]
    return repeated if not left else torch.cat((repeated, repeated[:, -1:].expand(-1, left, *repeated.shape[2:])), 1)


def pool_frames(values_bt: Float[Tensor, "b t ..."], stride: int, steps: int | None = None) -> Float[Tensor, "b s ..."]:
    """The mean over the frames of each step, the transpose of `repeat_steps` divided by the number of frames.

    Args:
        values_bt: of T frames.
        stride: frames per step.
        steps: T'; the last step takes the frames that are left. By default ceil(T / stride).
    """
    whole = values_bt.shape[1] // stride if steps is None else steps - 1
    if stride == 1 and steps in (None, values_bt.shape[1]):
        return values_bt
    parts = [values_bt[:, : whole * stride].unflatten(1, (whole, stride)).mean(dim=2)] if whole else []
    # The last step may have fewer frames, or more.
    rest = values_bt[:, whole * stride :]
    return torch.cat((*parts, rest.mean(1, True)), dim=1) if rest.shape[1] else parts[0]


@dataclass(frozen=True, eq=False)
class Attention:
    """Spatio-temporal attention of a batch of clips; `dataclasses.replace` makes an edited one.

    Attributes:
        spatial: (B, T, h, w) floating point in 0..1, M_s(x) of Eq. 1: one map per frame, on the grid of the features.
        temporal: (B, T) floating point in 0..1, M_t(x) of Eq. 2: one importance per frame.

    Raises:
        ValueError: a shape or a value is wrong; `NotFiniteError` where it is NaN. Values are not checked while a
            program traces or compiles the network, nor on the meta device, because there are none.
    """

    # Plain tensors here and in Output: the values check themselves, with or without jaxtyping.
    spatial: Tensor
    temporal: Tensor

    def __post_init__(self) -> None:
        if self.spatial.ndim != 4:
            raise ValueError(f"spatial: got shape {tuple(self.spatial.shape)}, expected (B, T, h, w)")
        if self.temporal.shape != self.spatial.shape[:2]:
            raise ValueError(
                f"temporal: got shape {tuple(self.temporal.shape)}, expected {tuple(self.spatial.shape[:2])} "
                f"as in spatial, whose shape is {tuple(self.spatial.shape)}"
            )
        for name in ("spatial", "temporal"):
            value = getattr(self, name)
            if not value.is_floating_point():
                raise ValueError(f"{name}: got {value.dtype}, expected floating point")
            if value.is_meta or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
                continue
            # True for NaN too; one number per tensor leaves the device.
            if not bool(((value >= 0) & (value <= 1)).all()):
                if value.isnan().any():
                    raise NotFiniteError(f"{name}: got NaN, expected 0..1")
                raise ValueError(f"{name}: got values in {value.min():g}..{value.max():g}, expected 0..1")

    def inverse_spatial(self) -> "Attention":
        """The attention with 1 - M_s in place of M_s (Eq. 7); the temporal attention is shared, not copied."""
        return replace(self, spatial=1 - self.spatial)

    def inverse_temporal(self) -> "Attention":
        """The attention with 1 - M_t in place of M_t; the spatial attention is shared, not copied."""
        return replace(self, temporal=1 - self.temporal)

    def uniform_spatial(self) -> "Attention":
        """The attention with every map replaced by its mean over the frame; the temporal attention is shared."""
        return replace(self, spatial=self.spatial.mean(dim=(2, 3), keepdim=True).expand_as(self.spatial))

    def uniform_temporal(self) -> "Attention":
        """The attention with M_t replaced by its mean over the clip; the spatial attention is shared."""
        return replace(self, temporal=self.temporal.mean(dim=1, keepdim=True).expand_as(self.temporal))

    def with_spatial_of(self, other: "Attention") -> "Attention":
        """The attention with another one's M_s, row by row; the temporal attention is shared, not copied.

        Raises:
            ValueError: the other one has another shape.
        """
        return replace(self, spatial=self._of_same_shape("spatial", other.spatial))

    def with_temporal_of(self, other: "Attention") -> "Attention":
        """The attention with another one's M_t, row by row; the spatial attention is shared, not copied.

        Raises:
            ValueError: the other one has another shape.
        """
        return replace(self, temporal=self._of_same_shape("temporal", other.temporal))

    def rows(self, index: Tensor | slice) -> "Attention":
        """The attention of some of the clips: a slice, int64 positions in any order, or (B,) bool."""
        return Attention(self.spatial[index], self.temporal[index])

    def _of_same_shape(self, name: str, value: Tensor) -> Tensor:
        own: Tensor = getattr(self, name)
        if value.shape != own.shape:
            raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected {tuple(own.shape)}")
        return value.to(own)


@dataclass(frozen=True, eq=False)
class Output:
    """The network's output for a batch of clips.

    Attributes:
        logits: (B, K) floating point, unnormalised class scores of the perception branch.
        attention_logits: (B, K) likewise of the attention branch; None for a network without one.
        attention: where and when the network looked; None for a network without an attention branch.

    Raises:
        ValueError: shapes do not belong together.
    """

    logits: Tensor
    attention_logits: Tensor | None = None
    attention: Attention | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 2:
            raise ValueError(f"logits: got shape {tuple(self.logits.shape)}, expected (B, K)")
        if self.attention_logits is not None and self.attention_logits.shape != self.logits.shape:
            raise ValueError(
                f"attention_logits: got shape {tuple(self.attention_logits.shape)}, "
                f"expected {tuple(self.logits.shape)} as in logits"
            )
        # shape[0] and not len, because torch.export takes a len for a constant
        if self.attention is not None and self.attention.temporal.shape[0] != self.logits.shape[0]:
            raise ValueError(f"attention: got {len(self.attention.temporal)} clips, expected {len(self.logits)}")
