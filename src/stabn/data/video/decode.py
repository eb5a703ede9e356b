"""Decode a video file with PyAV: its frames with their times, or an error of one line that says what is wrong.

A file is decoded from its beginning, because a seek is only as exact as the file's index: who seeks has to know the
times of the frames from an earlier pass, and compare them.

Imports no torch, so that processes that only decode (`subprocess_worker`) start in a fraction of a second.
"""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from stabn.data.video.decoder_errors import MissingFrames, choose_decoder, configure_stream
from stabn.data.video.file_check import COPY_AGAIN, check_file
from stabn.errors import UserError

_REENCODE = "convert it to H.264 MP4 with ffmpeg or give another video"
_SEEKABLE = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d")
"""Codecs whose decoders show nothing after a seek until a key frame has made it complete."""


class DecodedFrame(NamedTuple):
    """A decoded frame that is not yet converted to RGB, and what its file's header says.

    Attributes:
        frame: as stored; `RgbConverter` turns it upright.
        seconds: since the first frame.
        first_pts: presentation time of the first frame in the stream's time base; None if it has none.
        container: FFmpeg's name of the format, as in "mov,mp4,m4a,3gp,3g2,mj2".
        fps: frames per second in the header.
        frames: number of frames in the header, those that an edit list hides included; 0 if it does not say.
    """

    frame: av.VideoFrame
    seconds: float
    first_pts: int | None
    container: str
    fps: float
    frames: int


def decode(path: Path | str, start: tuple[int, float] | None = None) -> Generator[DecodedFrame]:
    """Every frame that a player shows, in order; at least one.

    FFmpeg's own messages stay silent: PyAV discards them unless the program asks for them with `av.logging`.

    Args:
        path: a video file.
        start: presentation time of the file's first frame, and seconds after it: frames come from the last key frame
            before that time on, or none at all if the file cannot be sought. None for all frames.

    Raises:
        UserError: the file is missing, no video, cut short, or damaged where the decoder notices.
    """
    path = Path(path)
    check_file(path)
    count = 0

    def problem() -> str:
        return f"frame {count} cannot be decoded" if count else "is not a video that FFmpeg can read"

    with _translate_errors(path, problem), _open(path) as container:
        stream = _video_stream(path, container)
        packets = container.demux(stream) if start is None else _sought_packets(container, stream, *start)
        size = decoder = None
        missing_frames = MissingFrames(container, stream)
        for packet in packets:
            if packet.is_corrupt:
                raise UserError(f"{path}: is damaged or cut short after frame {count}; {COPY_AGAIN}")
            missing_frames.add_packet(packet)
            decoder = decoder or choose_decoder(stream, packet)
            for frame in decoder.decode(packet):
                if frame.is_corrupt:
                    raise UserError(f"{path}: frame {count} is damaged; {COPY_AGAIN}")
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise UserError(
                        f"{path}: frame {count} is {frame.width}x{frame.height} and those before "
                        f"{size[0]}x{size[1]}; {_REENCODE}"
                    )
                if count == 0:
                    clock = _Clock(stream, frame.pts if start is None else start[0])
                    header = (clock.first_pts, container.format.name, clock.fps, stream.frames)
                missing_frames.add_frame(frame)
                yield DecodedFrame(frame, clock.seconds(frame), *header)
                count += 1
        if missing_frames.count():
            raise UserError(f"{path}: {missing_frames.count()} of its frames cannot be decoded; {COPY_AGAIN}")
    if count == 0 and start is None:
        raise UserError(f"{path}: has a video stream without a single frame; {_REENCODE}")


class RgbConverter:
    """Convert decoded frames to upright RGB.

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
        with _translate_errors(self._path, lambda: "cannot be converted to RGB"):
            pixels = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, quarter_turns(frame)))


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height of a frame after the rotation that players apply."""
    return (frame.height, frame.width) if quarter_turns(frame) % 2 else (frame.width, frame.height)


def quarter_turns(frame: av.VideoFrame) -> int:
    """By how many quarters players turn a frame counterclockwise, as `numpy.rot90` counts: 0..3."""
    degrees = frame.rotation
    return round(degrees / 90) % 4 if math.isfinite(degrees) else 0  # a damaged matrix holds no number


@contextmanager
def _translate_errors(path: Path | str, problem: Callable[[], str]) -> Iterator[None]:
    """Turn whatever a library raises about a damaged file into a UserError of one line that names the file."""
    try:
        yield
    except UserError:
        raise
    except av.error.FFmpegError as error:
        raise UserError(f"{path}: {problem()} ({error.strerror}); {_REENCODE}") from None
    except Exception as error:  # noqa: BLE001 -- a damaged file makes PyAV raise nearly anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: {problem()} ({reason}); {_REENCODE}") from None


def _open(path: Path) -> av.container.InputContainer:
    # "file:" and the whitelist keep names like "concat:..." and playlists inside a file from opening anything else
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")


def _video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    # FFmpeg reads any .txt as terminal art and cover pictures as one-frame videos; nobody means either
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if container.format.name == "tty" or not streams:
        raise UserError(f"{path}: has no video stream; give a video file")
    stream = streams[0]
    if stream.codec_context is None:
        raise UserError(f"{path}: has a video stream of an unknown kind; {_REENCODE}")
    configure_stream(stream)
    return stream


def _sought_packets(
    container: av.container.InputContainer, stream: av.VideoStream, first_pts: int, seconds: float
) -> Iterator[av.Packet]:
    """The packets from the last key frame before a time on; none where the container does not lead to one."""
    if stream.codec_context.name not in _SEEKABLE or stream.time_base is None:
        return
    target = first_pts + int(max(seconds, 0) / stream.time_base)
    container.seek(target, stream=stream)
    packets = container.demux(stream)
    first = next(packets)
    if first.pts is not None and first.dts is not None and first.pts > target:
        container.seek(first.dts - 1, stream=stream)  # this key frame is stored before its time, but shown after it
        packets = container.demux(stream)
        first = next(packets)
    if first.is_keyframe and first.pts is not None and first.pts <= target:
        yield first
        yield from packets


class _Clock:
    """Seconds since the first frame, never falling; frames without a time follow at the rate of the header."""

    def __init__(self, stream: av.VideoStream, first_pts: int | None) -> None:
        self.fps = float(stream.average_rate or stream.guessed_rate or 25)  # 25 is FFmpeg's own last resort
        self.first_pts = first_pts
        self._last: float | None = None

    def seconds(self, frame: av.VideoFrame) -> float:
        if frame.pts is None or self.first_pts is None or frame.time_base is None:
            self._last = 0.0 if self._last is None else self._last + 1 / self.fps
        else:
            self._last = max(float((frame.pts - self.first_pts) * frame.time_base), self._last or 0.0)
        return self._last
