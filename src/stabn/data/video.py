"""The only decoder, and the encoder: a video file becomes a `Clip` of RGB frames, and frames become a video file.

Frames are counted from 0 in the order in which a player shows them. Files are decoded from their beginning, because a
seek is only as exact as the file's index and a wrong frame would be noticed by nobody.
"""

import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from stabn.data.containers import missing_bytes
from stabn.errors import UserError
from stabn.files import replacing

_REENCODE = "convert it to H.264 MP4 with ffmpeg or give another video"
_HELD_BYTES = 256 * 2**20  # decoded frames that `read_sampled` may keep while it does not know how many there are
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


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` measured.

    Attributes:
        num_frames: how many frames a player shows.
        timestamps: num_frames times in seconds, ascending from 0.0, the first frame.
        width: pixels, after the rotation that players apply.
        height: pixels, after the rotation that players apply.
        fps: frames per second on average; for a single frame, what the file announces.
    """

    num_frames: int
    timestamps: tuple[float, ...]
    width: int
    height: int
    fps: float


def probe(path: Path | str, most_pixels: int | None = None) -> VideoInfo:
    """Count and time the frames of a video by decoding all of it, without converting any to RGB.

    Packets are not counted: VP8 and VP9 have invisible frames, and edit lists hide frames. The answer is remembered
    until the file changes.

    Args:
        path: a video file.
        most_pixels: of all frames together, each counted as at least 65,536; a stranger's video may take hours.

    Raises:
        UserError: the file is missing, is no video, has no frames, is damaged or has more than `most_pixels`.
    """
    status = _status(Path(path))
    return _probe(os.fspath(path), status.st_size, status.st_mtime_ns, most_pixels)


@lru_cache(maxsize=4096)
def _probe(path: str, size: int, mtime_ns: int, most_pixels: int | None) -> VideoInfo:
    times = []
    pixels = 0
    with closing(_decode(Path(path))) as shown:
        for item in shown:
            times.append(item.seconds)
            pixels += max(item.frame.width * item.frame.height, 2**16)  # tiny frames cost time, too
            if most_pixels is not None and pixels > most_pixels:
                raise UserError(f"{path}: has more than {most_pixels:.1g} pixels in all frames; cut out a shorter part")
    width, height = _upright_size(item.frame)
    fps = (len(times) - 1) / times[-1] if times[-1] > 0 else item.announced_fps
    return VideoInfo(len(times), tuple(times), width, height, fps)


def read_clip(path: Path | str, frame_indices: Sequence[int]) -> Clip:
    """Decode from the beginning to the last wanted frame and give the wanted ones as RGB, in the order asked for.

    Args:
        path: a video file.
        frame_indices: T >= 1 frames, counted from 0; repeats are allowed.

    Raises:
        UserError: the file is missing, is no video, is damaged, or has no frame of such an index.
        ValueError: no index, or a negative one.
    """
    return _clip(path, _checked(frame_indices), dict(_wanted(path, frame_indices)))


def stream_clip(path: Path | str, frame_indices: Sequence[int]) -> Iterator[Clip]:
    """The wanted frames in the order of the file, each as a clip of one frame as soon as it is decoded.

    Args:
        path: a video file.
        frame_indices: frames, counted from 0; a repeated one comes once.

    Raises:
        UserError: as `read_clip`; frames before the damage have been given by then.
        ValueError: no index, or a negative one.
    """
    for index, picture in _wanted(path, frame_indices):
        yield _clip(path, [index], {index: picture})


def _wanted(path: Path | str, frame_indices: Sequence[int]) -> "Iterator[tuple[int, _Picture]]":
    indices = _checked(frame_indices)
    missing = set(indices)
    rgb, count = _Rgb(), 0
    with closing(_decode(Path(path))) as shown:
        for count, item in enumerate(shown, start=1):
            if count - 1 in missing:
                missing.remove(count - 1)
                yield count - 1, _Picture(rgb(item.frame), item.seconds)
            if not missing:
                break
    _check_range(path, indices, count, complete=not missing)


def read_sampled(path: Path | str, choose: Callable[[int], Sequence[int]]) -> Clip:
    """The frames that `choose` picks once the number of frames is known, in one pass over the file if it is short.

    Args:
        path: a video file.
        choose: from the number of frames to T >= 1 indices.

    Raises:
        UserError: as `read_clip`.
    """
    held: list[_Shown] | None = []
    used = count = 0
    with closing(_decode(Path(path))) as shown:
        for item in shown:
            count += 1
            used += sum(plane.buffer_size for plane in item.frame.planes)
            if used > _HELD_BYTES:
                held = None
            if held is not None:
                held.append(item)
    indices = _checked(choose(count))
    if held is None:
        return read_clip(path, indices)
    _check_range(path, indices, count, complete=max(indices) < count)
    rgb = _Rgb()
    return _clip(path, indices, {i: _Picture(rgb(held[i].frame), held[i].seconds) for i in set(indices)})


def read_chunks(path: Path | str, size: int = 64) -> Iterator[Clip]:
    """All frames of a video in order, as clips of `size` frames and a shorter last one.

    Raises:
        UserError: as `read_clip`; chunks before the damage have been given by then.
    """
    rgb, pictures = _Rgb(), dict[int, _Picture]()
    with closing(_decode(Path(path))) as shown:
        for index, item in enumerate(shown):
            pictures[index] = _Picture(rgb(item.frame), item.seconds)
            if len(pictures) == size:
                yield _clip(path, list(pictures), pictures)
                pictures = {}
    if pictures:
        yield _clip(path, list(pictures), pictures)


def write_video(
    path: Path | str,
    frames: Iterable[np.ndarray] | np.ndarray,
    fps: int | Fraction,
    *,
    crf: int = 18,
    preset: str = "medium",
    timestamps: Sequence[float] | None = None,
) -> None:
    """Encode frames, atomically; the same frames give the same bytes.

    Args:
        path: .mp4 (H.264, header first so that browsers can start at once) or .webm (VP9).
        frames: at least one uint8 (H, W, 3) RGB picture, all of one size. 4:2:0 video needs even sizes: an odd width
            or height grows by one pixel that repeats the edge.
        fps: frames per second; with `timestamps` only a hint for players.
        crf: quality, 0 the best; 18 looks lossless to most eyes.
        preset: how hard libx264 tries to make the file small, ultrafast .. veryslow; VP9 has no such choice.
        timestamps: one ascending time in seconds per frame, for a variable rate.

    Raises:
        ValueError: no frames, a wrong dtype or shape, another suffix, times that are not one per frame and ascending.
    """
    path = Path(path)
    bitexact = {"fflags": "+bitexact"}  # no dates, versions or random ids in the file
    encoders = {
        ".mp4": (
            "libx264",
            {"crf": str(crf), "preset": preset, "threads": "1"},
            {"movflags": "+faststart", **bitexact},
        ),
        ".webm": ("libvpx-vp9", {"crf": str(crf), "b": "0", "threads": "1", "cpu-used": "4"}, bitexact),
    }
    if path.suffix.lower() not in encoders:
        raise ValueError(f"path: got {path}, expected a name ending in .mp4 or .webm")
    if fps <= 0:
        raise ValueError(f"fps: got {fps}, expected more than 0")
    codec, codec_options, container_options = encoders[path.suffix.lower()]
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("frames: got none, expected at least one")
    shape = first.shape
    ticks = _ticks(fps, timestamps)
    with replacing(path) as temporary, av.open(os.fspath(temporary), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(100_000), options=codec_options)
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        stream.codec_context.time_base = Fraction(1, _PTS_PER_SECOND)
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _SMPTE170M  # else players guess, by size
        context.color_range = _LIMITED
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = (side + side % 2 for side in shape[:2])
        for index, picture in enumerate(chain([first], pictures)):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.shape != shape:
                expected = shape if len(shape) == 3 and shape[2] == 3 else "(H, W, 3)"
                raise ValueError(f"frame {index}: got {picture.dtype} {picture.shape}, expected uint8 {expected}")
            even = np.pad(picture, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame.time_base = Fraction(1, _PTS_PER_SECOND)
            frame.pts = ticks(index)
            container.mux(stream.encode(frame))
        if timestamps is not None and len(timestamps) != index + 1:
            raise ValueError(f"timestamps: got {len(timestamps)} for {index + 1} frames, expected one per frame")
        container.mux(stream.encode(None))


class _Shown(NamedTuple):
    """A decoded frame, not yet RGB, and when it is shown."""

    frame: av.VideoFrame
    seconds: float
    announced_fps: float


class _Picture(NamedTuple):
    pixels: Tensor
    seconds: float


def _is_text(path: Path) -> bool:
    """Whether a file begins like a text: FFmpeg would take some for pictures, others for playlists of other files."""
    with path.open("rb") as file:
        head = file.read(4096)
    if any(byte < 32 and byte not in b"\t\n\v\f\r\x1b" for byte in head):
        return False
    return "\ufffd" not in head[:-3].decode("utf-8", "replace")[:-1]


def _decode(path: Path) -> Generator[_Shown]:
    """Every frame that a player shows, in order; at least one.

    FFmpeg's own messages stay silent: PyAV discards them unless the program asks for them with `av.logging`.
    """
    _status(path)
    if _is_text(path):
        raise UserError(f"{path}: is a text, not a video; give a video file")
    missing = missing_bytes(path)
    if missing:
        raise UserError(f"{path}: is cut short, {missing} bytes are missing at its end; download or copy it again")
    count = 0
    try:
        # "file:" and the whitelist keep names like "concat:..." and playlists inside a file from opening anything else
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            stream = _video_stream(path, container)
            size = None
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise UserError(f"{path}: is damaged or cut short after frame {count}; download or copy it again")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise UserError(f"{path}: frame {count} is damaged; download or copy it again")
                    size = size or (frame.width, frame.height)
                    if (frame.width, frame.height) != size:
                        raise UserError(
                            f"{path}: frame {count} is {frame.width}x{frame.height} and those before "
                            f"{size[0]}x{size[1]}; {_REENCODE}"
                        )
                    if count == 0:
                        clock = _Clock(frame, stream)
                    yield _Shown(frame, clock.seconds(frame), clock.fps)
                    count += 1
    except av.error.FFmpegError as error:
        where = f"frame {count} cannot be decoded" if count else "is not a video that FFmpeg can read"
        raise UserError(f"{path}: {where} ({error.strerror}); {_REENCODE}") from None
    if count == 0:
        raise UserError(f"{path}: has a video stream without a single frame; {_REENCODE}")


def _video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    # FFmpeg reads any .txt as terminal art and cover pictures as one-frame videos; nobody means either
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if container.format.name == "tty" or not streams:
        raise UserError(f"{path}: has no video stream; give a video file")
    stream = streams[0]
    # measured: threads double the time of a small clip, and data loaders already run one process per core
    stream.thread_type = "AUTO" if stream.width * stream.height >= 1280 * 720 else "NONE"
    return stream


class _Clock:
    """Seconds since the first frame, never falling; frames without a time follow at the announced rate."""

    def __init__(self, first: av.VideoFrame, stream: av.VideoStream) -> None:
        self.fps = float(stream.average_rate or stream.guessed_rate or 25)  # 25 is FFmpeg's own last resort
        self._first_pts = first.pts
        self._last: float | None = None

    def seconds(self, frame: av.VideoFrame) -> float:
        if frame.pts is None or self._first_pts is None or frame.time_base is None:
            self._last = 0.0 if self._last is None else self._last + 1 / self.fps
        else:
            self._last = max(float((frame.pts - self._first_pts) * frame.time_base), self._last or 0.0)
        return self._last


def _status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
        with path.open("rb"):  # a directory, or a file without read permission
            pass
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the name") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; give a video file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the name and its permissions") from None
    if status.st_size == 0:
        raise UserError(f"{path}: is empty; download or copy it again")
    return status


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) % 4  # counterclockwise, as numpy.rot90 counts


def _upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    return (frame.height, frame.width) if _quarter_turns(frame) % 2 else (frame.width, frame.height)


class _Rgb:
    """From decoded frames to upright RGB.

    One converter for all frames and one thread: on its own, every frame sets up a converter with a pool of threads,
    which was measured to take longer than decoding a small clip.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> UInt8[Tensor, "3 h w"]:
        pixels = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return torch.from_numpy(np.ascontiguousarray(np.rot90(pixels, _quarter_turns(frame)))).permute(2, 0, 1)


def _checked(frame_indices: Sequence[int]) -> list[int]:
    indices = [int(i) for i in frame_indices]
    if not indices or min(indices) < 0:
        raise ValueError(f"frame_indices: got {indices}, expected at least one, counted from 0")
    return indices


def _check_range(path: Path | str, indices: list[int], count: int, *, complete: bool) -> None:
    if not complete:
        raise UserError(f"{path}: has no frame {max(indices)}, only 0..{count - 1}; choose frames in that range")


def _clip(path: Path | str, indices: list[int], pictures: dict[int, _Picture]) -> Clip:
    return Clip(
        frames=torch.stack([pictures[i].pixels for i in indices]),
        frame_indices=torch.tensor(indices, dtype=torch.int64),
        timestamps=torch.tensor([pictures[i].seconds for i in indices], dtype=torch.float64),
        path=os.fspath(path),
    )


def _ticks(fps: int | Fraction, timestamps: Sequence[float] | None) -> Callable[[int], int]:
    """From a frame's number to its time in ticks."""
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
