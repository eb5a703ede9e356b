"""A batch of clips for the network, and how items of a data set become one."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor

from stabn.data.transforms import ColorFactors, Preprocessing


@dataclass(frozen=True)
class SkippedClip:
    """A clip that was left out because its video cannot be read.

    Attributes:
        clip_id: its name.
        path: its video.
        reason: the error, one line that names the file.
    """

    clip_id: str
    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """B clips for the network; an item of a `VideoDataset` is a batch too, with one row per view of its video.

    Attributes:
        pixels: (B, 3, T, S, S) uint8, RGB; already the mirror image where the clip is mirrored. S is 0 where `features`
            take their place.
        labels: (B,) int64; already the mirrored class where the clip is mirrored.
        clip_ids: B names; all windows of a video share its name.
        scores: (B, T) float32 in 0..1; zeros where there are none.
        has_scores: (B,) bool.
        score_weights: (B,) float32 in 0..1, how much the scores count; None where all count 1.
        frame_indices: (B, T) int64, counted from 0 in the source file.
        timestamps: (B, T) float64, seconds since the first frame of the file.
        preprocessing: how the pixels become `clips`.
        colours: B, how the colours of each clip are varied; empty where they are not.
        maps: (B, T, h, w) float32 in 0..1, the spatial attention that a person wants, on the grid of the network's
            features; None without any.
        has_maps: (B, T) bool, the frames that have a map; None likewise.
        skipped: the clips that belong to the batch but could not be read; B may be 0 then.
        features: (B, C, T', h, w) floating point, what a frozen extractor gave for the clips; None without any.
        tokens: (B, N, C) class tokens beside them; N is 0 for networks without; None likewise.
    """

    pixels: UInt8[Tensor, "b 3 t s s"]
    labels: Int64[Tensor, " b"]
    clip_ids: tuple[str, ...]
    scores: Float32[Tensor, "b t"]
    has_scores: Bool[Tensor, " b"]
    frame_indices: Int64[Tensor, "b t"]
    timestamps: Float64[Tensor, "b t"]
    preprocessing: Preprocessing
    colours: tuple[ColorFactors, ...] = ()
    maps: Float32[Tensor, "b t _ _"] | None = None
    has_maps: Bool[Tensor, "b t"] | None = None
    skipped: tuple[SkippedClip, ...] = ()
    features: Tensor | None = None
    tokens: Tensor | None = None
    score_weights: Float32[Tensor, " b"] | None = None

    def __post_init__(self) -> None:
        rows, frames = len(self.pixels), self.pixels.shape[2]
        if self.pixels.dtype != torch.uint8:
            raise ValueError(f"pixels: got {self.pixels.dtype}, expected torch.uint8")
        if self.colours and len(self.colours) != rows:
            raise ValueError(f"colours: got {len(self.colours)}, expected {rows}, one per clip, or none")
        for name in ("labels", "clip_ids", "has_scores"):
            if len(getattr(self, name)) != rows:
                raise ValueError(f"{name}: got {len(getattr(self, name))}, expected {rows}, one per clip")
        for name in ("scores", "frame_indices", "timestamps"):
            if getattr(self, name).shape != (rows, frames):
                raise ValueError(f"{name}: got shape {tuple(getattr(self, name).shape)}, expected ({rows}, {frames})")

    @cached_property
    def clips(self) -> Float32[Tensor, "b 3 t s s"]:
        """The network's input, computed on the pixels' device: bytes are a quarter of the floats to move there."""
        return self.preprocessing.network_clips(self.pixels, self.colours)

    def with_features(self, features: Tensor, tokens: Tensor) -> "ClipBatch":
        """The same clips with kept features, (B, C, T', h, w) and (B, N, C)."""
        return replace(self, features=features, tokens=tokens)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "ClipBatch":
        """The same batch with its tensors on `device`."""
        tensors = self._tensors().items()
        return replace(self, **{name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors})

    def pin_memory(self) -> "ClipBatch":
        """The same batch in page-locked memory; `torch.utils.data.DataLoader` calls this."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self._tensors().items()})

    def _tensors(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def collate(items: Sequence[ClipBatch]) -> ClipBatch:
    """One batch with the rows of all items in their order; give this to the data loader as `collate_fn`."""
    read = [item for item in items if item.clip_ids] or items[:1]  # an item that could not be read has no maps
    tensors = {name: torch.cat([getattr(item, name) for item in read]) for name in read[0]._tensors()}
    return ClipBatch(
        clip_ids=tuple(clip_id for item in read for clip_id in item.clip_ids),
        preprocessing=read[0].preprocessing,
        colours=tuple(colours for item in read for colours in item.colours),
        skipped=tuple(skipped for item in items for skipped in item.skipped),
        **tensors,
    )
