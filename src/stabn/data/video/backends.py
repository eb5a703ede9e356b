"""Read RGB frames of video files by PyAV, or by torchcodec where it loads and PyAV has found a file intact.

Both give the same frames of usual files, bit by bit; of others (rotated, interlaced, more than 8 bits, odd sizes, a
variable rate) torchcodec was seen to give different ones, and it shows damaged files as if nothing were wrong. So PyAV
decodes every file first, from its beginning to its end. When the same unchanged file is read again only what is needed
is decoded: usual files from the key frame before the first wanted frame on, by torchcodec if it loads, others from
their beginning to the last wanted frame.

Parts of long files are read without decoding the rest: the packets say which frames they are, where they can.

Nothing here loads torch before torchcodec is used.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from stabn.data.video.decode import DecodedFrame, RgbConverter, decode
from stabn.data.video.file_check import REMEMBERED_FILES, file_status
from stabn.data.video.frame_index import FrameIndex, index_frames
from stabn.data.video.rgb_frames import FrameSource, RgbFrame, no_such_frame, read_frames, seek_frames
from stabn.data.video.scan import SteadyRate, VideoInfo, cached_scan, first_frame_size, scan_video
from stabn.errors import UserError

_FAR = 250
"""Frames; beyond them packets are read first to find the key frame before the first wanted frame."""
_MOST_PARTS = 128
"""Files whose frames are remembered by their packets: 1.4 MB for an hour."""

Decoder = Literal["auto", "pyav", "torchcodec", "cuda"]
"""auto is torchcodec where it loads, and else PyAV alone; cuda is torchcodec on the GPU, whose colours are rounded
otherwise; torchcodec and cuda refuse to work without it."""


@dataclass(frozen=True, slots=True)
class _IntactFile:
    """A file that PyAV has decoded to its end without an error."""

    size: int
    mtime_ns: int
    count: int
    rate: SteadyRate | None  # None: it cannot be sought


@dataclass(slots=True)
class _PartTiming:
    """When the frames of a file of which only parts are read are shown.

    Attributes:
        size, mtime_ns: of the file.
        index: the frames by the packets; None where these do not say it, and then the file is decoded.
        seconds: times of the frames that were decoded so far.
        is_whole: whether these are all.
    """

    size: int
    mtime_ns: int
    index: FrameIndex | None
    seconds: np.ndarray
    is_whole: bool


class VideoFiles(FrameSource):
    """RGB frames of video files, decoded in this process, which remembers the files that are intact.

    Args:
        decoder: which library.

    Raises:
        UserError: torchcodec is requested and does not load.
    """

    def __init__(self, decoder: Decoder = "auto") -> None:
        self.decoder = decoder
        self._intact: dict[str, _IntactFile] = {}
        self._parts: dict[str, _PartTiming] = {}
        self._torchcodec = decoder != "pyav" and find_spec("torchcodec") is not None
        if decoder in ("torchcodec", "cuda"):
            fault = torchcodec_fault()
            if fault is not None:
                raise UserError(f"--loader.decoder: got {decoder}, but {fault}; give auto, `stabn doctor` tells more")

    def probe(self, path: Path | str, most_pixels: int | None = None) -> VideoInfo:
        """Number, times and size of the frames, as `stabn.data.video.scan.cached_scan`."""
        info = cached_scan(path, most_pixels)
        self._remember(path, info)
        return info

    def frame_times(self, path: Path | str, seconds: float | None = None, count: int | None = None) -> np.ndarray:
        """As `FrameSource.frame_times`."""
        timing = self._part_timing(path)
        if timing.index is not None:
            return timing.index.seconds

        def is_enough(times: Sequence[float] | np.ndarray) -> bool:
            return (seconds is not None and len(times) > 0 and times[-1] >= seconds) or len(times) == count

        if not timing.is_whole and not is_enough(timing.seconds[:count]):
            times: list[float] = []
            with closing(decode(path)) as frames:
                for item in frames:
                    times.append(item.seconds)
                    if is_enough(times):
                        break
                else:
                    timing.is_whole = True
            timing.seconds = np.array(times)
        return timing.seconds

    def frame_size(self, path: Path | str) -> tuple[int, int]:
        """As `FrameSource.frame_size`."""
        status = file_status(path)
        return first_frame_size(os.fspath(path), status.st_size, status.st_mtime_ns)

    def stream_frames(self, path: Path | str, indices: Sequence[int] | None = None) -> Generator[RgbFrame]:
        """As `FrameSource.stream_frames`."""
        intact = self._find_intact(path)
        if indices is None:
            yield from read_frames(path)
            return
        missing = sorted(set(indices))
        if intact is None:
            yield from self._part(path, missing)
            return
        if missing[-1] >= intact.count:
            raise no_such_frame(path, indices, intact.count)
        for frame in self._seek(path, missing, intact):
            yield frame
            missing = missing[1:]
        if missing:
            yield from read_frames(path, missing)

    def sampled_frames(self, path: Path | str) -> Generator[int | list[RgbFrame], Sequence[int], None]:
        """Choose frames by their number: yields how many frames there are, then those whose indices were sent.

        Raises:
            UserError: as `stabn.data.video.scan.scan_video` and `FrameSource.stream_frames`.
        """
        intact = self._find_intact(path)
        held: list[DecodedFrame] = []
        if intact is None:
            info = scan_video(path, held=held)
            self._remember(path, info)
        indices = yield info.num_frames if intact is None else intact.count
        if not held or max(indices) >= len(held):
            yield self.frames(path, indices)
            return
        convert = RgbConverter(path)
        yield [RgbFrame(i, convert(held[i]), held[i].seconds) for i in sorted(set(indices))]

    def _part(self, path: Path | str, indices: Sequence[int]) -> Generator[RgbFrame]:
        """Some frames of a file that was not decoded to its end."""
        timing = self._part_timing(path) if os.fspath(path) in self._parts or indices[0] >= _FAR else None
        if timing is None or timing.index is None:
            yield from read_frames(path, indices)
            return
        seconds = timing.index.seconds
        if indices[-1] >= len(seconds):
            raise no_such_frame(path, indices, len(seconds))
        count = 0
        with suppress(Exception), closing(seek_frames(path, indices, timing.index)) as frames:
            for frame in frames:
                yield frame
                count += 1
        if count == len(indices):
            return
        # no key frame could be sought, the file is damaged, or its packets have promised other frames
        timing.index = None
        for frame in read_frames(path, indices[count:]):
            if frame.seconds != seconds[frame.index]:
                raise UserError(
                    f"{path}: frame {frame.index} is shown at {frame.seconds:.3f} s and not at "
                    f"{seconds[frame.index]:.3f} s, as its packets say; convert it to H.264 MP4 with ffmpeg"
                )
            yield frame

    def _part_timing(self, path: Path | str) -> _PartTiming:
        name, status = os.fspath(path), file_status(path)
        timing = self._parts.get(name)
        if timing is None or (timing.size, timing.mtime_ns) != (status.st_size, status.st_mtime_ns):
            index = index_frames(path)
            timing = self._parts[name] = _PartTiming(
                status.st_size, status.st_mtime_ns, index, np.array([]), is_whole=False
            )
            if len(self._parts) > _MOST_PARTS:
                del self._parts[next(iter(self._parts))]
        return timing

    def _find_intact(self, path: Path | str) -> _IntactFile | None:
        intact = self._intact.get(os.fspath(path))
        if intact is None:
            return None
        status = file_status(path)
        return intact if (status.st_size, status.st_mtime_ns) == (intact.size, intact.mtime_ns) else None

    def _remember(self, path: Path | str, info: VideoInfo) -> None:
        status = file_status(path)
        self._intact[os.fspath(path)] = _IntactFile(status.st_size, status.st_mtime_ns, info.num_frames, info.rate)
        if len(self._intact) > REMEMBERED_FILES:
            del self._intact[next(iter(self._intact))]

    def _seek(self, path: Path | str, indices: Sequence[int], intact: _IntactFile) -> Generator[RgbFrame]:
        """The first of these frames that can be sought, maybe none; after a failure the file is not sought again."""
        if intact.rate is None:
            return
        count = 0
        try:
            if self._torchcodec:
                device = "cuda" if self.decoder == "cuda" else "cpu"
                frames = torchcodec_frames(path, indices, intact.rate, intact.count, device)
            else:
                frames = seek_frames(path, indices, intact.rate)
            with closing(frames):
                for frame in frames:
                    yield frame
                    count += 1
        except Exception:  # noqa: BLE001 -- whatever cannot be sought is then read from the beginning
            pass
        if count < len(indices):
            self._intact[os.fspath(path)] = replace(intact, rate=None)


def torchcodec_fault() -> str | None:
    """Why torchcodec cannot be used, in a few words; None where it can."""
    if find_spec("torchcodec") is None:
        return "torchcodec is not installed"
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"torchcodec does not load ({lines[0] if lines else type(error).__name__})"
    return None


def torchcodec_frames(
    path: Path | str, indices: Sequence[int], rate: SteadyRate, count: int, device: str
) -> Generator[RgbFrame]:
    """Some frames by torchcodec; none where it finds another number of frames or other times than PyAV.

    Args:
        path: a video file.
        indices: T ascending frame numbers.
        rate: the file's timing.
        count: the file's number of frames.
        device: cpu or cuda.
    """
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(os.fspath(path), dimension_order="NHWC", device=device, seek_mode="exact")
    batch = decoder.get_frames_at(list(indices))
    seconds = batch.pts_seconds.cpu().numpy() - (decoder.metadata.begin_stream_seconds or 0.0)
    if decoder.metadata.num_frames != count or np.abs(seconds - rate.step * np.array(indices)).max() > rate.step / 2:
        return
    for frame in zip(indices, batch.data.cpu().numpy(), seconds.tolist(), strict=True):
        yield RgbFrame(*frame)
