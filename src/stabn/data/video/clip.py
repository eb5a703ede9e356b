"""Clips: frames of one video as tensors; and how frames are written to a video file."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from stabn.files import atomic_write

_PTS_PER_SECOND = 90_000
_SMPTE170M, _LIMITED = 6, 1  # how FFmpeg converts RGB to YUV, in its own numbers


@dataclass(frozen=True, eq=False)
class Clip:
    """Some frames of one video.

    Attributes:
        frames: (T, 3, H, W) uint8 RGB, upright.
        frame_indices: (T,) int64, which frames of the file, counted from 0.
        timestamps: (T,) float64, seconds since the first frame of the file.
        path: the video file.
    """

    frames: UInt8[Tensor, "t 3 h w"]
    frame_indices: Int64[Tensor, " t"]
    timestamps: Float64[Tensor, " t"]
    path: str

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3 or self.frames.dtype != torch.uint8:
            raise ValueError(f"frames: got {self.frames.dtype} {tuple(self.frames.shape)}, expected uint8 (T, 3, H, W)")
        length = len(self.frames)
        for name, dtype in (("frame_indices", torch.int64), ("timestamps", torch.float64)):
            value = getattr(self, name)
            if value.shape != (length,) or value.dtype != dtype:
                raise ValueError(f"{name}: got {value.dtype} {tuple(value.shape)}, expected {dtype} ({length},)")


def write_video(
    path: Path | str,
    frames: Iterable[np.ndarray] | np.ndarray,
    fps: int | Fraction,
    *,
    crf: int = 18,
    preset: str = "medium",
    timestamps: Sequence[float] | None = None,
) -> None:
    """Encode frames as a video file, written atomically; the same frames give the same bytes.

    Args:
        path: .mp4 (H.264, header first so that browsers can start at once) or .webm (VP9).
        frames: at least one uint8 (H, W, 3) RGB array, all of one size. 4:2:0 video needs even sizes: an odd width
            or height grows by one pixel that repeats the edge.
        fps: frames per second; with `timestamps` only a hint for players.
        crf: quality, 0 the best; 18 looks lossless to most eyes.
        preset: how hard libx264 tries to make the file small, ultrafast .. veryslow; VP9 has no such choice.
        timestamps: one ascending time in seconds per frame, for a variable rate.

    Raises:
        ValueError: no frames, a wrong dtype or shape, another suffix, times that are not one per frame and ascending.
    """
    path = Path(path)
    codec, codec_options, container_options = _encoder(path, crf, preset)
    if fps <= 0:
        raise ValueError(f"fps: got {fps}, expected more than 0")
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError("frames: got none, expected at least one")
    height, width = first.shape[:2]
    ticks = _ticks(fps, timestamps)
    with atomic_write(path) as temporary, av.open(os.fspath(temporary), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(100_000), options=codec_options)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt, stream.height, stream.width = "yuv420p", height + height % 2, width + width % 2
        context = stream.codec_context
        context.flags |= av.codec.context.Flags.bitexact
        context.time_base = Fraction(1, _PTS_PER_SECOND)
        context.colorspace = context.color_primaries = context.color_trc = _SMPTE170M  # else players guess, by size
        context.color_range = _LIMITED
        for index, pixels in enumerate(chain([first], remaining)):
            if pixels.dtype != np.uint8 or pixels.shape != first.shape or pixels.shape[2:] != (3,):
                expected = first.shape if first.shape[2:] == (3,) else "(H, W, 3)"
                raise ValueError(f"frame {index}: got {pixels.dtype} {pixels.shape}, expected uint8 {expected}")
            even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame.pts, frame.time_base = ticks(index), Fraction(1, _PTS_PER_SECOND)
            container.mux(stream.encode(frame))
        if timestamps is not None and len(timestamps) != index + 1:
            raise ValueError(f"timestamps: got {len(timestamps)} for {index + 1} frames, expected one per frame")
        container.mux(stream.encode(None))


def _encoder(path: Path, crf: int, preset: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Codec, its options and the container's options for a file name."""
    bitexact = {"fflags": "+bitexact"}  # no dates, versions or random ids in the file
    if path.suffix.lower() == ".mp4":
        options = {"crf": str(crf), "preset": preset, "threads": "1"}
        return "libx264", options, {"movflags": "+faststart", **bitexact}
    if path.suffix.lower() == ".webm":
        return "libvpx-vp9", {"crf": str(crf), "b": "0", "threads": "1", "cpu-used": "4"}, bitexact
    raise ValueError(f"path: got {path}, expected a name ending in .mp4 or .webm")


def _ticks(fps: int | Fraction, timestamps: Sequence[float] | None) -> Callable[[int], int]:
    """A function from a frame's index to its time in ticks."""
    if timestamps is None:
        return lambda index: round(index * _PTS_PER_SECOND / Fraction(fps))
    if not all(math.isfinite(t) and t >= 0 for t in timestamps):
        raise ValueError("timestamps: got a negative or infinite time, expected seconds from 0")
    ticks = [round(t * _PTS_PER_SECOND) for t in timestamps]
    if any(a >= b for a, b in pairwise(ticks)):
        raise ValueError("timestamps: got times that do not rise, expected ascending seconds")

    def tick(index: int) -> int:
        if index >= len(ticks):
            raise ValueError(f"timestamps: got {len(ticks)} for more frames, expected one per frame")
        return ticks[index]

    return tick
