"""Measure a video file by decoding all of it once: number, times and size of its frames.

Packets are not counted: VP8 and VP9 have invisible frames, and edit lists hide frames.
"""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stabn.data.video.decode import DecodedFrame, SeekTarget, decode
from stabn.data.video.file_check import file_status
from stabn.errors import UserError

_HELD_BYTES = 256 * 2**20  # decoded frames that a scan may hold


class SteadyRate(NamedTuple):
    """The timing of a file of constant frame rate: frame i is shown at i * step.

    Attributes:
        first_pts: presentation time of the first frame in the stream's time base.
        step: seconds from frame to frame.
    """

    first_pts: int
    step: float

    def frame_at(self, seconds: float) -> int | None:
        """The frame that is shown at this time; None for a time between two frames."""
        index = round(seconds / self.step)
        return index if abs(seconds / self.step - index) < 0.25 else None

    def seek_target(self, index: int) -> SeekTarget:
        """Where to begin to decode in order to see a frame."""
        return SeekTarget(self.first_pts, (index - 0.25) * self.step)


@dataclass(frozen=True)
class VideoInfo:
    """Number, times and size of the frames of a video.

    Attributes:
        num_frames: how many frames a player shows.
        timestamps: num_frames times in seconds, ascending from 0.0, the first frame.
        width: in pixels, as players show it: upright and with square pixels.
        height: likewise.
        fps: frames per second on average; for a single frame, the rate in the file's header.
        rate: the timing, if it is a usual file: the only video of its file, upright, with square pixels, 8-bit 4:2:0,
            of even size, constant rate and at least two frames, not interlaced, in MP4, MOV, Matroska or WebM. All
            decoders show the same frames of such files.
    """

    num_frames: int
    timestamps: tuple[float, ...]
    width: int
    height: int
    fps: float
    rate: SteadyRate | None = None


def scan_video(path: Path | str, most_pixels: int | None = None, held: list[DecodedFrame] | None = None) -> VideoInfo:
    """Count and time the frames of a video file by decoding all of it, without converting any to RGB.

    Args:
        path: a video file.
        most_pixels: limit for the pixels of all frames, each counted as at least 65,536; None for no limit.
        held: a list that receives the decoded frames; it is left empty if they need more than 256 MiB.

    Raises:
        UserError: the file cannot be decoded to its end, or has more than `most_pixels`.
    """
    times: list[float] = []
    pixels, held_bytes, interlaced = 0, 0, False
    with closing(decode(path)) as frames:
        for item in frames:
            frame = item.frame
            times.append(item.seconds)
            interlaced |= frame.interlaced_frame
            pixels += max(frame.width * frame.height, 2**16)  # tiny frames cost time, too
            if most_pixels is not None and pixels > most_pixels:
                raise UserError(f"{path}: has more than {most_pixels:.1g} pixels in all frames; cut out a shorter part")
            if held is not None:
                held.append(item)
                held_bytes += sum(plane.buffer_size for plane in frame.planes)
                if held_bytes > _HELD_BYTES:
                    held.clear()
    if held is not None and len(held) < len(times):
        held.clear()
    width, height = item.display.width, item.display.height
    fps = (len(times) - 1) / times[-1] if times[-1] > 0 else item.fps
    rate = None if interlaced else _steady_rate(item, times)
    return VideoInfo(len(times), tuple(times), width, height, fps, rate)


def _steady_rate(last: DecodedFrame, times: Sequence[float]) -> SteadyRate | None:
    """As `VideoInfo.rate`, for a video that is not interlaced."""
    frame, steps = last.frame, np.diff(times)
    is_usual = (
        last.display == ((), frame.width, frame.height)
        and frame.width % 2 == frame.height % 2 == 0
        and last.streams == 1
        and frame.format.name in ("yuv420p", "yuvj420p")
        and last.container.startswith(("mov", "matroska"))
    )
    if not is_usual or last.first_pts is None or not len(steps) or steps.min() < 0.9 * steps.max():
        return None
    return SteadyRate(last.first_pts, times[-1] / len(steps))


def cached_scan(path: Path | str, most_pixels: int | None = None) -> VideoInfo:
    """`scan_video`, with the results for the last 4096 files kept until the files change.

    Raises:
        UserError: as `scan_video`.
    """
    status = file_status(path)
    return _cached_scan(os.fspath(path), status.st_size, status.st_mtime_ns, most_pixels)


@lru_cache(maxsize=4096)
def _cached_scan(path: str, size: int, mtime_ns: int, most_pixels: int | None) -> VideoInfo:
    return scan_video(path, most_pixels)


@lru_cache(maxsize=4096)
def first_frame_size(path: str, size: int, mtime_ns: int) -> tuple[int, int]:
    """Width and height of the frames of a file, of which only the first is decoded.

    Args:
        path: a video file.
        size: of the file in bytes.
        mtime_ns: when it was changed.

    Raises:
        UserError: as `stabn.data.video.decode.decode`.
    """
    with closing(decode(path)) as frames:
        display = next(frames).display
    return display.width, display.height
