"""Choose the frames of a video that the network sees, as indices; nothing is decoded here.

Indices are within 0..num_frames-1. Those of "dense" and "uniform" are ascending, and a video with fewer frames than
`length` gives all of its frames and then repeats the last one: a still ending is closer to what the video shows than a
still beginning, and the frames stay in order. The other modes are those of the published recognisers.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

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


def segment_starts(num_frames: int, segments: int, snippet: int = 1, clip: int = 0, clips: int = 1) -> tuple[int, ...]:
    """Where the snippets of TSN, TRN, TSM and GST begin in a test: one in each of equal segments.

        int(tick / 2 + i tick),    tick = (num_frames - snippet + 1) / segments

    Of two clips ("twice" in TSM's code) the second is int(i tick); more take evenly spaced phases. Short videos repeat
    frames in order.

    Raises:
        ValueError: a count below 1, or `clip` outside 0..clips-1.
    """
    _check(num_frames=num_frames, segments=segments, snippet=snippet, clips=clips)
    if not 0 <= clip < clips:
        raise ValueError(f"clip: got {clip}, expected 0..{clips - 1}")
    tick = max(num_frames - snippet + 1, 1) / segments
    phase = (0.5, 0.0)[clip] if clips <= 2 else (2 * clip + 1) / (2 * clips)
    return tuple(int(phase * tick + i * tick) for i in range(segments))


def segment_starts_jittered(num_frames: int, segments: int, snippet: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Where snippets begin in a training of TSN, TRN, TSM and GST: i d + a random integer below d each.

    d = (num_frames - snippet + 1) // segments; the last frames of a video are never reached. Where d is 0, sorted
    random starts; the official code shows the first frame alone where there are no more frames than segments.

    Raises:
        ValueError: a count below 1.
    """
    _check(num_frames=num_frames, segments=segments, snippet=snippet)
    length = (num_frames - snippet + 1) // segments
    if length > 0:
        return tuple(int(i) for i in np.arange(segments) * length + rng.integers(length, size=segments))
    return _random_starts(num_frames, segments, snippet, rng)


def snippet_starts(num_frames: int, segments: int, snippet: int, clip: int = 0, clips: int = 1) -> tuple[int, ...]:
    """Where ABM's snippets begin in a test; several clips are its shifting inference.

    With tick = (num_frames - snippet + 1) / segments: one clip begins at int(tick / 2 + i tick). Of several, clip j
    begins at int(j gap + i tick), gap = tick // clips, one more where (clips - 1) (gap + 1) < int(tick). Videos of
    fewer than segments + snippet - 1 frames give the first frames; of fewer than `segments`, every frame once with the
    first and the last one repeated before and after.

    Raises:
        ValueError: a count below 1, or `clip` outside 0..clips-1.
    """
    _check(num_frames=num_frames, segments=segments, snippet=snippet, clips=clips)
    if not 0 <= clip < clips:
        raise ValueError(f"clip: got {clip}, expected 0..{clips - 1}")
    if num_frames < segments:
        before = (segments - num_frames) // 2
        return tuple(min(max(i - before, 0), num_frames - 1) for i in range(segments))
    if num_frames < segments + snippet - 1:
        return tuple(range(segments))
    tick = (num_frames - snippet + 1) / segments
    gap = tick // clips
    if (clips - 1) * (gap + 1) < int(tick):
        gap += 1
    offset = tick / 2 if clips == 1 else clip * gap
    return tuple(min(int(offset + i * tick), num_frames - 1) for i in range(segments))


def snippet_starts_jittered(num_frames: int, segments: int, snippet: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Where ABM's snippets begin in a training: round(i a) + a random integer below int(a), a = (N - L + 1) / T.

    Raises:
        ValueError: a count below 1.
    """
    _check(num_frames=num_frames, segments=segments, snippet=snippet)
    if num_frames < segments + snippet - 1:
        return _random_starts(num_frames, segments, snippet, rng)
    average = (num_frames - snippet + 1) / segments
    return tuple(round(i * average) + int(rng.integers(int(average))) for i in range(segments))


def shared_offset(num_frames: int, segments: int, rng: np.random.Generator) -> tuple[int, ...]:
    """One frame of each of bLVNet-TAM's segments of num_frames // segments frames, at one random offset in all.

    Videos of fewer frames give sorted random ones, some of them several times.

    Raises:
        ValueError: a count below 1.
    """
    _check(num_frames=num_frames, segments=segments)
    length = num_frames // segments
    if length == 0:
        return _random_starts(num_frames, segments, 1, rng)
    offset = int(rng.integers(length))
    return tuple(i * length + offset for i in range(segments))


def with_snippets(starts: tuple[int, ...], snippet: int, num_frames: int) -> tuple[int, ...]:
    """The consecutive frames from each start; those past the end repeat the last frame."""
    return tuple(min(start + i, num_frames - 1) for start in starts for i in range(snippet))


MODES = ("dense", "uniform", "segments", "snippets", "shared-offset")
SamplingMode = Literal["dense", "uniform", "segments", "snippets", "shared-offset"]
"""How frames are chosen; the last three are those of the published recognisers."""


@dataclass(frozen=True)
class Sampling:
    """How a clip of `frames` frames is taken from a video.

    Attributes:
        mode: "dense" takes neighbouring frames (the official code), "uniform" spreads them over the whole video,
            "segments" does so as TSN, TRN, TSM and GST do, "snippets" as ABM, "shared-offset" as bLVNet-TAM.
        frames: T, the number of frames of a clip.
        stride: distance between neighbouring frames of a dense clip; 1 in the other modes, which do not use it.
        snippet: consecutive frames at each of frames / snippet places, in the modes "segments" and "snippets"; those
            of neighbouring places overlap in short videos.
    """

    mode: SamplingMode
    frames: int
    stride: int = 1
    snippet: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode: got {self.mode!r}, expected one of {', '.join(MODES)}")
        for name in ("frames", "stride", "snippet"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: got {value!r}, expected an integer from 1")
        if self.mode != "dense" and self.stride != 1:
            raise ValueError(f"stride: got {self.stride} in {self.mode} mode, expected 1")
        if self.mode not in ("segments", "snippets") and self.snippet != 1:
            raise ValueError(f"snippet: got {self.snippet} in {self.mode} mode, expected 1")
        if self.frames % self.snippet:
            raise ValueError(f"frames: got {self.frames}, expected a multiple of snippet = {self.snippet}")

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values; what earlier versions did not have is there only where it acts."""
        value = asdict(self)
        return {name: v for name, v in value.items() if name != "snippet" or v != 1}

    def for_training(self, num_frames: int, rng: np.random.Generator) -> tuple[int, ...]:
        """T frames at random, as the mode says."""
        places = self.frames // self.snippet
        if self.mode == "uniform":
            return uniform_jittered(num_frames, self.frames, rng)
        if self.mode == "shared-offset":
            return shared_offset(num_frames, self.frames, rng)
        if self.mode == "segments":
            return with_snippets(
                segment_starts_jittered(num_frames, places, self.snippet, rng), self.snippet, num_frames
            )
        if self.mode == "snippets":
            return with_snippets(
                snippet_starts_jittered(num_frames, places, self.snippet, rng), self.snippet, num_frames
            )
        start = int(rng.integers(_last_start(num_frames, self.frames, self.stride) + 1))
        return dense(num_frames, self.frames, start, self.stride)

    def for_testing(self, num_frames: int, clips: int = 1) -> tuple[tuple[int, ...], ...]:
        """`clips` clips of T frames each, as the mode says, the same on every call."""
        _check(clips=clips)
        if self.mode == "uniform":
            return tuple(uniform(num_frames, self.frames, clip, clips) for clip in range(clips))
        if self.mode == "dense":
            starts = dense_starts(num_frames, self.frames, clips, self.stride)
            return tuple(dense(num_frames, self.frames, start, self.stride) for start in starts)
        choose = snippet_starts if self.mode == "snippets" else segment_starts
        places = self.frames // self.snippet
        return tuple(
            with_snippets(choose(num_frames, places, self.snippet, clip, clips), self.snippet, num_frames)
            for clip in range(clips)
        )


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")


def _last_start(num_frames: int, length: int, stride: int) -> int:
    return max(num_frames - ((length - 1) * stride + 1), 0)


def _random_starts(num_frames: int, segments: int, snippet: int, rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(i) for i in np.sort(rng.integers(max(num_frames - snippet, 0) + 1, size=segments)))


def _repeat_last(num_frames: int, length: int) -> tuple[int, ...]:
    return tuple(min(i, num_frames - 1) for i in range(length))
