"""Segments: the part of a long recording that is one clip."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from stabn.data.video.reader import IN_PROCESS, Reader
from stabn.errors import UserError

Unit = Literal["seconds", "frames"]


@dataclass(frozen=True)
class Segment:
    """A part of a video file or folder of frames, start inclusive and end exclusive.

    Attributes:
        start: from 0.
        end: more than `start`; None for the end of the source. A segment may reach beyond it.
        unit: "seconds" since the source's first frame, or "frames" of the source, whole numbers counted from 0.

    Raises:
        ValueError: a value is out of its range.
    """

    start: float
    end: float | None = None
    unit: Unit = "seconds"

    def __post_init__(self) -> None:
        if self.unit not in ("seconds", "frames"):
            raise ValueError(f"unit: got {self.unit!r}, expected 'seconds' or 'frames'")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"start: got {self.start}, expected {self.unit} from 0")
        if self.end is not None and not self.start < self.end < math.inf:
            raise ValueError(f"end: got {self.end}, expected more {self.unit} than the start, {self.start}")
        for name, value in (("start", self.start), ("end", self.end)):
            if self.unit == "frames" and value is not None and value != int(value):
                raise ValueError(f"{name}: got {value}, expected a whole number of frames")

    def __str__(self) -> str:
        """As in "seconds 3.5 to 7"."""
        start, end = (None if value is None else format_number(value) for value in (self.start, self.end))
        return f"{self.unit} {start} to {end or 'the end'}"

    def frames(self, timestamps: Sequence[float] | np.ndarray) -> range:
        """The frames of the source that lie in the segment, maybe none.

        Args:
            timestamps: when each frame of the source is shown, in seconds since the first, ascending.

        Returns:
            Indices of `timestamps`. For a segment in seconds those of the frames that appear at or after the start and
            before the end: a frame that is on show since before the start does not belong.
        """
        count = len(timestamps)
        if self.unit == "frames":
            end = count if self.end is None else min(int(self.end), count)
            return range(min(int(self.start), end), end)
        first = bisect_left(timestamps, self.start)
        return range(first, count if self.end is None else bisect_left(timestamps, self.end))


def format_number(value: float) -> str:
    """A number with all of its digits, and without a trailing ".0"."""
    return str(int(value)) if value == int(value) else repr(value)


def segment_frames(path: Path | str, segment: Segment | None, clip_id: str, reader: Reader = IN_PROCESS) -> range:
    """The frames of a source that belong to a clip.

    A file that is a clip is decoded from beginning to end, which examines all of it; of one that holds a segment no
    more is read than is needed to number its frames.

    Args:
        path: a video file or folder of frames.
        segment: which part; None for all of it.
        clip_id: for the message.
        reader: reads the source.

    Returns:
        Frames counted from 0 in the source; at least one.

    Raises:
        UserError: the source cannot be read, or has no frame in the segment.
    """
    if segment is None:
        return range(reader.probe(path).num_frames)
    seconds = segment.end if segment.unit == "seconds" else None
    count = math.ceil(segment.end) if segment.unit == "frames" and segment.end is not None else None
    frames = segment.frames(reader.frame_times(path, seconds, count))
    if not frames:
        times = reader.frame_times(path)
        raise UserError(
            f"{path}: has no frame in {segment}, which is clip {clip_id!r}; it has {len(times)} frames and the "
            f"last appears at {times[-1]:.2f} s; correct the segment"
        )
    return frames
