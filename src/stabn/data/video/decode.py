"""The only decoder: a video file becomes RGB frames, or one sentence that says what is wrong with it.

Frames are counted from 0 in the order in which a player shows them. Files are decoded from their beginning, because a
seek is only as exact as the file's index and a wrong frame would be noticed by nobody.

Imports no torch: processes that only decode (`subprocess_worker`) start in a fraction of a second.
"""

import math
import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from stabn.data.video.decoder_errors import Expected, decoder_of, set_up
from stabn.data.video.truncation import damaged_cluster, missing_bytes
from stabn.errors import UserError

_REENCODE = "convert it to H.264 MP4 with ffmpeg or give another video"
_AGAIN = "download or copy it again"
_HELD_BYTES = 256 * 2**20  # decoded frames that are kept while nobody knows how many there are


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


class Announced(NamedTuple):
    """What a file says of itself.

    Attributes:
        container: FFmpeg's name for its kind, as in "mov,mp4,m4a,3gp,3g2,mj2".
        fps: its rate.
        frames: how many it has, those that an edit list hides included; 0 if it does not say.
    """

    container: str
    fps: float
    frames: int


class Shown(NamedTuple):
    """A decoded frame, not yet RGB.

    Attributes:
        frame: upright only after `Rgb`.
        seconds: since the first frame.
        announced: what the file says.
    """

    frame: av.VideoFrame
    seconds: float
    announced: Announced


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """A frame as people see it.

    Attributes:
        index: counted from 0.
        pixels: (H, W, 3) uint8 RGB, upright.
        seconds: since the first frame of the file.
    """

    index: int
    pixels: np.ndarray
    seconds: float


def probe(path: Path | str, most_pixels: int | None = None) -> VideoInfo:
    """Count and time the frames of a video by decoding all of it, without converting any to RGB.

    Packets are not counted: VP8 and VP9 have invisible frames, and edit lists hide frames. The answer is remembered
    until the file changes.

    Raises:
        UserError: as `stabn.data.video.clip.probe`.
    """
    status = file_status(Path(path))
    return _probe(os.fspath(path), status.st_size, status.st_mtime_ns, most_pixels)


@lru_cache(maxsize=4096)
def _probe(path: str, size: int, mtime_ns: int, most_pixels: int | None) -> VideoInfo:
    times = []
    pixels = 0
    with closing(decode(Path(path))) as shown:
        for item in shown:
            times.append(item.seconds)
            pixels += max(item.frame.width * item.frame.height, 2**16)  # tiny frames cost time, too
            if most_pixels is not None and pixels > most_pixels:
                raise UserError(f"{path}: has more than {most_pixels:.1g} pixels in all frames; cut out a shorter part")
    width, height = upright_size(item.frame)
    fps = (len(times) - 1) / times[-1] if times[-1] > 0 else item.announced.fps
    return VideoInfo(len(times), tuple(times), width, height, fps)


def pictures(path: Path | str, indices: Sequence[int]) -> Generator[Picture]:
    """The frames of these numbers in the order of the file, each as soon as it is decoded, and each once.

    Args:
        path: a video file.
        indices: as `checked` gives them.

    Raises:
        UserError: the file cannot be read up to the last of them, or has fewer frames.
    """
    missing = set(indices)
    rgb, count = Rgb(path), 0
    with closing(decode(Path(path))) as shown:
        for count, item in enumerate(shown, start=1):
            if count - 1 in missing:
                missing.remove(count - 1)
                yield Picture(count - 1, rgb(item.frame), item.seconds)
            if not missing:
                break
    if missing:
        raise out_of_range(path, indices, count)


def all_pictures(path: Path | str) -> Generator[Picture]:
    """All frames in order.

    Raises:
        UserError: the file is damaged; frames before the damage have been given by then.
    """
    rgb = Rgb(path)
    with closing(decode(Path(path))) as shown:
        for index, item in enumerate(shown):
            yield Picture(index, rgb(item.frame), item.seconds)


class Sampled:
    """A file of which some frames will be wanted once it is known how many there are; short ones are decoded once.

    Args:
        path: a video file.

    Attributes:
        count: how many frames it has.
        seconds: (count,) float64, when each of them is shown.
        usual: whether it is an upright 8-bit 4:2:0 video of even size, not interlaced, in MP4, MOV, Matroska or WebM.

    Raises:
        UserError: it cannot be read to its end.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._held: list[Shown] | None = []
        seconds, used, interlaced = [], 0, False
        with closing(decode(Path(path))) as shown:
            for item in shown:
                seconds.append(item.seconds)
                interlaced |= item.frame.interlaced_frame
                used += sum(plane.buffer_size for plane in item.frame.planes)
                if used > _HELD_BYTES:
                    self._held = None
                if self._held is not None:
                    self._held.append(item)
        frame = item.frame
        self.usual = (
            not interlaced
            and quarter_turns(frame) == frame.width % 2 == frame.height % 2 == 0
            and frame.format.name in ("yuv420p", "yuvj420p")
            and item.announced.container.startswith(("mov", "matroska"))
        )
        self.seconds = np.array(seconds)
        self.count = len(seconds)

    def pictures(self, indices: Sequence[int]) -> list[Picture]:
        """The frames of these numbers, each once.

        Raises:
            UserError: there is no frame of such a number.
        """
        if max(indices) >= self.count:
            raise out_of_range(self.path, indices, self.count)
        if self._held is None:
            return list(pictures(self.path, indices))
        rgb = Rgb(self.path)
        return [Picture(i, rgb(self._held[i].frame), self._held[i].seconds) for i in sorted(set(indices))]


def chunks(path: Path | str, size: int) -> Generator[list[Picture]]:
    """All frames in order, `size` at a time and the rest.

    Raises:
        UserError: as `all_pictures`.
    """
    with closing(all_pictures(path)) as shown:
        while chunk := list(islice(shown, size)):
            yield chunk


def decode(path: Path) -> Generator[Shown]:
    """Every frame that a player shows, in order; at least one.

    FFmpeg's own messages stay silent: PyAV discards them unless the program asks for them with `av.logging`.

    Raises:
        UserError: the file is missing, no video, cut short, or damaged where the decoder notices.
    """
    file_status(path)
    if _is_text(path):
        raise UserError(f"{path}: is a text, not a video; give a video file")
    missing = missing_bytes(path)
    if missing:
        raise UserError(f"{path}: is cut short, {missing} bytes are missing at its end; {_AGAIN}")
    damaged = damaged_cluster(path)
    if damaged is not None:
        raise UserError(f"{path}: is damaged at byte {damaged}; {_AGAIN}")
    count = 0
    with _named(path, lambda: f"frame {count} cannot be decoded" if count else "is not a video that FFmpeg can read"):
        # "file:" and the whitelist keep names like "concat:..." and playlists inside a file from opening anything else
        options = {"protocol_whitelist": "file"}
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            stream = _video_stream(path, container)
            size = decoder = None
            expected = Expected(container, stream)
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise UserError(f"{path}: is damaged or cut short after frame {count}; {_AGAIN}")
                expected.sent(packet)
                decoder = decoder or decoder_of(stream, packet)
                for frame in decoder.decode(packet):
                    if frame.is_corrupt:
                        raise UserError(f"{path}: frame {count} is damaged; {_AGAIN}")
                    size = size or (frame.width, frame.height)
                    if (frame.width, frame.height) != size:
                        raise UserError(
                            f"{path}: frame {count} is {frame.width}x{frame.height} and those before "
                            f"{size[0]}x{size[1]}; {_REENCODE}"
                        )
                    if count == 0:
                        clock = _Clock(frame, stream)
                        announced = Announced(container.format.name, clock.fps, stream.frames)
                    expected.shown(frame)
                    yield Shown(frame, clock.seconds(frame), announced)
                    count += 1
            if expected.missing():
                raise UserError(f"{path}: {expected.missing()} of its frames cannot be decoded; {_AGAIN}")
    if count == 0:
        raise UserError(f"{path}: has a video stream without a single frame; {_REENCODE}")


class Rgb:
    """From decoded frames to upright RGB.

    One converter for all frames and one thread: on its own, every frame sets up a converter with a pool of threads,
    which was measured to take longer than decoding a small clip.

    Args:
        path: of the file, for messages.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8.

        Raises:
            UserError: FFmpeg cannot convert such frames.
        """
        with _named(self._path, lambda: "cannot be converted to RGB"):
            pixels = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, quarter_turns(frame)))


def file_status(path: Path) -> os.stat_result:
    """What the file system says of a file that can be opened.

    Raises:
        UserError: there is none, it is empty, no regular file, or must not be read.
    """
    try:
        status = path.stat()
        regular = stat.S_ISREG(status.st_mode)
        if regular:  # opening a pipe would wait for a writer, maybe for ever
            path.open("rb").close()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the name") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        told = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({told}); check the name and its permissions") from None
    if not regular:
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise UserError(f"{path}: is {kind}; give a video file")
    if status.st_size == 0:
        raise UserError(f"{path}: is empty; {_AGAIN}")
    return status


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height after the rotation that players apply."""
    return (frame.height, frame.width) if quarter_turns(frame) % 2 else (frame.width, frame.height)


def quarter_turns(frame: av.VideoFrame) -> int:
    """By how many quarters players turn a frame counterclockwise, as `numpy.rot90` counts: 0..3."""
    degrees = frame.rotation
    return round(degrees / 90) % 4 if math.isfinite(degrees) else 0  # a damaged matrix turns by no number


def checked(frame_indices: Sequence[int]) -> list[int]:
    """Frame numbers as whole numbers.

    Raises:
        ValueError: there are none, or a negative one.
    """
    indices = [int(i) for i in frame_indices]
    if not indices or min(indices) < 0:
        raise ValueError(f"frame_indices: got {indices}, expected at least one, counted from 0")
    return indices


class NoSuchFrameError(UserError):
    """A frame was asked for that a sound file has not: whoever chose it meant another file."""


def out_of_range(path: Path | str, indices: Sequence[int], count: int) -> NoSuchFrameError:
    """What to say where frames were asked for that a file has not."""
    return NoSuchFrameError(f"{path}: has no frame {max(indices)}, only 0..{count - 1}; choose frames in that range")


@contextmanager
def _named(path: Path | str, what: Callable[[], str]) -> Iterator[None]:
    """Whatever a library makes of a damaged file becomes one sentence about the file."""
    try:
        yield
    except UserError:
        raise
    except av.error.FFmpegError as error:
        raise UserError(f"{path}: {what()} ({error.strerror}); {_REENCODE}") from None
    except Exception as error:  # noqa: BLE001 -- a damaged file makes PyAV raise nearly anything
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: {what()} ({told}); {_REENCODE}") from None


def _is_text(path: Path) -> bool:
    """Whether a file begins like a text: FFmpeg would take some for pictures, others for playlists of other files."""
    with path.open("rb") as file:
        head = file.read(4096)
    if any(byte < 32 and byte not in b"\t\n\v\f\r\x1b" for byte in head):
        return False
    return "\ufffd" not in head[:-3].decode("utf-8", "replace")[:-1]


def _video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    # FFmpeg reads any .txt as terminal art and cover pictures as one-frame videos; nobody means either
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if container.format.name == "tty" or not streams:
        raise UserError(f"{path}: has no video stream; give a video file")
    stream = streams[0]
    if stream.codec_context is None:
        raise UserError(f"{path}: has a video stream of an unknown kind; {_REENCODE}")
    set_up(stream)
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
