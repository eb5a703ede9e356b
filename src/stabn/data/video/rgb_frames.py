"""RGB frames of a video file by their numbers, read from its beginning or from the key frame before them."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from stabn.data.video.decode import RgbConverter, decode
from stabn.data.video.frame_index import FrameIndex
from stabn.data.video.scan import SteadyRate
from stabn.errors import UserError


@dataclass(frozen=True, eq=False, slots=True)
class RgbFrame:
    """An RGB frame as players show it: upright and with square pixels.

    Attributes:
        index: counted from 0.
        pixels: (H, W, 3) uint8 RGB.
        seconds: since the first frame of the file.
    """

    index: int
    pixels: np.ndarray
    seconds: float


class NoSuchFrameError(UserError):
    """A frame was requested beyond the end of an intact file: the request was meant for another file."""


def no_such_frame(path: Path | str, indices: Sequence[int], count: int) -> NoSuchFrameError:
    """The error for frame numbers of which the largest is not in 0..count-1."""
    return NoSuchFrameError(f"{path}: has no frame {max(indices)}, only 0..{count - 1}; choose frames in that range")


class FrameSource:
    """What can be read of any source of frames, in terms of `stream_frames`."""

    def stream_frames(self, path: Path | str, indices: Sequence[int] | None = None) -> Generator[RgbFrame]:
        """Some frames in order, each once and as soon as it is decoded.

        Args:
            path: the source.
            indices: frames counted from 0, at least one; None for all frames.

        Raises:
            UserError: a frame cannot be read or does not exist; the frames before it have been yielded by then.
        """
        raise NotImplementedError

    def frame_times(self, path: Path | str, seconds: float | None = None, count: int | None = None) -> np.ndarray:
        """When the frames are shown, at least up to one at or after `seconds` or up to `count` of them.

        Args:
            path: the source.
            seconds: since the first frame; None for no such limit.
            count: of frames; None for no such limit. Without either all frames are meant.

        Returns:
            (N,) float64, ascending seconds since the first frame; N is the number of all frames if it is fewer.

        Raises:
            UserError: what is read of the source is damaged.
        """
        raise NotImplementedError

    def frame_size(self, path: Path | str) -> tuple[int, int]:
        """Width and height of the frames, by the first one.

        Raises:
            UserError: it cannot be read.
        """
        raise NotImplementedError

    def frames(self, path: Path | str, indices: Sequence[int]) -> list[RgbFrame]:
        """As `stream_frames`, all at once."""
        return list(self.stream_frames(path, indices))

    def frame_chunks(self, path: Path | str, size: int) -> Generator[list[RgbFrame]]:
        """All frames in order, `size` at a time and a shorter last chunk."""
        with closing(self.stream_frames(path)) as frames:
            while chunk := list(islice(frames, size)):
                yield chunk


def read_frames(path: Path | str, indices: Sequence[int] | None = None) -> Generator[RgbFrame]:
    """Frames of a video file decoded from its beginning, as `FrameSource.stream_frames`."""
    missing = None if indices is None else set(indices)
    convert, count = RgbConverter(path), 0
    with closing(decode(path)) as frames:
        for index, item in enumerate(frames):
            count = index + 1
            if missing is None or index in missing:
                yield RgbFrame(index, convert(item), item.seconds)
            if missing is not None:
                missing.discard(index)
                if not missing:
                    return
    if indices is not None:
        raise no_such_frame(path, indices, count)


def seek_frames(path: Path | str, indices: Sequence[int], timing: SteadyRate | FrameIndex) -> Generator[RgbFrame]:
    """Some frames, decoded from the last key frame before the first of them.

    It ends early, with fewer frames than requested, where the file cannot be sought or shows frames at other times
    than `timing` says.

    Args:
        path: a video file.
        indices: ascending frame numbers.
        timing: of the file.

    Raises:
        UserError: the file cannot be decoded.
    """
    missing, convert = list(indices), RgbConverter(path)
    with closing(decode(path, timing.seek_target(missing[0]))) as frames:
        for item in frames:
            index = timing.frame_at(item.seconds)
            if index is None or index > missing[0]:
                return
            if index == missing[0]:
                yield RgbFrame(index, convert(item), item.seconds)
                del missing[0]
            if not missing:
                return
