"""Choose the frames of a video that the network sees, as indices; nothing is decoded here.

Every function returns `length` indices, ascending and within 0..num_frames-1. A video with fewer frames than `length`
gives all of its frames and then repeats the last one: a still ending is closer to what the video shows than a still
beginning, and the frames stay in order.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np


def dense(num_frames: int, length: int, start: int, stride: int = 1) -> tuple[int, ...]:
    """The frames start, start + stride, ...; positions past the end repeat the last frame.

    Raises:
        ValueError: a count or stride below 1, or a start outside 0..num_frames-1.
    """
    _check(num_frames=num_frames, length=length, stride=stride)
    if not 0 <= start < num_frames:
        raise ValueError(f"start: got {start}, expected 0..{num_frames - 1}")
    if num_frames < length:
        return _repeat_last(num_frames, length)
    return tuple(min(start + i * stride, num_frames - 1) for i in range(length))


def dense_starts(num_frames: int, length: int, clips: int, stride: int = 1) -> tuple[int, ...]:
    """Evenly placed starts for `dense`: first clip at the beginning, last one at the end, a single one in the middle.

    Raises:
        ValueError: a count or stride below 1.
    """
    _check(num_frames=num_frames, length=length, clips=clips, stride=stride)
    last = _last_start(num_frames, length, stride)
    if clips == 1:
        return (last // 2,)
    gaps = clips - 1
    return tuple((2 * k * last + gaps) // (2 * gaps) for k in range(clips))  # k * last / gaps, rounded half up


def uniform(num_frames: int, length: int, clip: int = 0, clips: int = 1) -> tuple[int, ...]:
    """The centre of each of `length` equal segments; several clips take evenly spaced phases inside the segments.

    Raises:
        ValueError: a count below 1, or `clip` outside 0..clips-1.
    """
    _check(num_frames=num_frames, length=length, clips=clips)
    if not 0 <= clip < clips:
        raise ValueError(f"clip: got {clip}, expected 0..{clips - 1}")
    if num_frames < length:
        return _repeat_last(num_frames, length)
    return tuple(((2 * clips * i + 2 * clip + 1) * num_frames) // (2 * clips * length) for i in range(length))


def uniform_jittered(num_frames: int, length: int, rng: np.random.Generator) -> tuple[int, ...]:
    """One random frame of each of `length` equal segments.

    Raises:
        ValueError: a count below 1.
    """
    _check(num_frames=num_frames, length=length)
    if num_frames < length:
        return _repeat_last(num_frames, length)
    borders = np.arange(length + 1) * num_frames // length
    return tuple(int(i) for i in rng.integers(borders[:-1], borders[1:]))


@dataclass(frozen=True)
class Sampling:
    """How a clip of `frames` frames is taken from a video.

    Attributes:
        mode: "dense" takes neighbouring frames (the official code), "uniform" spreads them over the whole video.
        frames: T, the number of frames of a clip.
        stride: distance between neighbouring frames of a dense clip; 1 in uniform mode, which does not use it.
    """

    mode: Literal["dense", "uniform"]
    frames: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("dense", "uniform"):
            raise ValueError(f"mode: got {self.mode!r}, expected 'dense' or 'uniform'")
        for name in ("frames", "stride"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: got {value!r}, expected an integer from 1")
        if self.mode == "uniform" and self.stride != 1:
            raise ValueError(f"stride: got {self.stride} in uniform mode, expected 1")

    def for_training(self, num_frames: int, rng: np.random.Generator) -> tuple[int, ...]:
        """T frames at a random start (dense), or one random frame of each of T segments (uniform)."""
        if self.mode == "uniform":
            return uniform_jittered(num_frames, self.frames, rng)
        start = int(rng.integers(_last_start(num_frames, self.frames, self.stride) + 1))
        return dense(num_frames, self.frames, start, self.stride)

    def for_testing(self, num_frames: int, clips: int = 1) -> tuple[tuple[int, ...], ...]:
        """`clips` evenly placed clips of T frames each, the same on every call."""
        if self.mode == "uniform":
            _check(clips=clips)
            return tuple(uniform(num_frames, self.frames, clip, clips) for clip in range(clips))
        starts = dense_starts(num_frames, self.frames, clips, self.stride)
        return tuple(dense(num_frames, self.frames, start, self.stride) for start in starts)


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")


def _last_start(num_frames: int, length: int, stride: int) -> int:
    return max(num_frames - ((length - 1) * stride + 1), 0)


def _repeat_last(num_frames: int, length: int) -> tuple[int, ...]:
    return tuple(min(i, num_frames - 1) for i in range(length))
