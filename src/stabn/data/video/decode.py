"""Decode a video file with PyAV: its frames with their times, or an error of one line that says what is wrong.

A file is decoded from its beginning, because a seek is only as exact as the file's index: who seeks has to know the
times of the frames from an earlier pass, and compare them.

Imports no torch, so that processes that only decode (`subprocess_worker`) start in a fraction of a second.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from stabn.data.video.decoder_errors import MissingFrames, choose_decoder, configure_stream
from stabn.data.video.display import Display, DisplayGraph, frame_display
from stabn.data.video.file_check import COPY_AGAIN, check_file
from stabn.data.video.other_recordings import check_other_recordings
from stabn.data.video.transport_stream import TransportStreamJoints
from stabn.errors import UserError

_REENCODE = "convert it to H.264 MP4 with ffmpeg or give another video"
_SEEKABLE = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d")
"""Codecs whose decoders show nothing after a seek until a key frame has made it complete."""
_STATES_ASPECT = ("mov", "matroska")
"""Containers whose word about the shape of pixels counts more than the video's own."""
_BACK, AHEAD = Fraction(1, 10), 10
"""Seconds back or ahead from frame to frame that mean another recording: the limits of the `ffmpeg` command."""


class SeekTarget(NamedTuple):
    """Where to begin to decode.

    Attributes:
        first_pts: presentation time of the file's first frame.
        seconds: after it; frames come from the last key frame before that time on.
        key: presentation time of this key frame, if it is known.
        by_reading: whether the file is read up to it, because its container does not lead there exactly.
    """

    first_pts: int
    seconds: float
    key: int | None = None
    by_reading: bool = False


class DecodedFrame(NamedTuple):
    """A decoded frame that is not yet converted to RGB, and what its file's header says.

    Attributes:
        frame: as stored; `RgbConverter` makes of it what players show.
        seconds: since the first frame.
        display: how players show it, the same for all frames of a file.
        first_pts: presentation time of the first frame in the stream's time base; None if it has none.
        container: FFmpeg's name of the format, as in "mov,mp4,m4a,3gp,3g2,mj2".
        fps: frames per second in the header.
        frames: number of frames in the header, those that an edit list hides included; 0 if it does not say.
        streams: number of video streams.
    """

    frame: av.VideoFrame
    seconds: float
    display: Display
    first_pts: int | None
    container: str
    fps: float
    frames: int
    streams: int


def decode(path: Path | str, start: SeekTarget | None = None) -> Generator[DecodedFrame]:
    """Every frame that a player shows, in order; at least one.

    FFmpeg's own messages stay silent: PyAV discards them unless the program asks for them with `av.logging`.

    Args:
        path: a video file.
        start: where to begin; no frame comes if the file cannot be sought. None for all frames.

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
        packets = container.demux(stream) if start is None else _sought_packets(container, stream, start)
        size = display = decoder = None
        missing_frames, joints = MissingFrames(container, stream), TransportStreamJoints(path, container, stream)
        for packet in packets:
            if packet.is_corrupt and not joints.explain(packet):
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
                aspect = _pixel_aspect(container, stream, decoder)
                previous: Display | None = display
                display = _display(path, frame, aspect)
                if previous is not None and display != previous:
                    raise UserError(
                        f"{path}: frame {count} is shown turned or stretched otherwise than those before, as "
                        f"{display.width}x{display.height} and not {previous.width}x{previous.height}; {_REENCODE}"
                    )
                if count == 0:
                    clock = _Clock(path, container, stream, frame if start is None else start.first_pts)
                    header = (clock.first_pts, container.format.name, clock.fps, stream.frames)
                missing_frames.add_frame(frame)
                yield DecodedFrame(frame, clock.seconds(frame), display, *header, len(container.streams.video))
                count += 1
        if missing_frames.count():
            raise UserError(f"{path}: {missing_frames.count()} of its frames cannot be decoded; {COPY_AGAIN}")
        check_other_recordings(path, container.format.name, stream.id)
    if count == 0 and start is None:
        raise UserError(f"{path}: has a video stream without a single frame; {_REENCODE}")


class RgbConverter:
    """Convert decoded frames to the RGB frames that players show.

    One converter for all frames of a file: setting up FFmpeg's filters takes as long as converting a small frame.

    Args:
        path: of the file, for messages.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._graphs: dict[object, DisplayGraph] = {}

    def __call__(self, item: DecodedFrame) -> np.ndarray:
        """(H, W, 3) uint8.

        Raises:
            UserError: FFmpeg cannot convert such frames.
        """
        frame = item.frame
        kind = (frame.format.name, frame.colorspace, frame.color_range)
        with _translate_errors(self._path, lambda: "cannot be converted to RGB"):
            if kind not in self._graphs:
                self._graphs[kind] = DisplayGraph(frame, item.display)
            return self._graphs[kind](frame)


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A file and its video stream, to read packets without decoding them.

    Raises:
        UserError: the file is missing, no video, or cut short.
    """
    check_file(path)
    with _translate_errors(path, lambda: "is not a video that FFmpeg can read"), _open(path) as container:
        yield container, _video_stream(path, container)


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
    films = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if container.format.name == "tty" or not films:
        raise UserError(f"{path}: has no video stream; give a video file")
    best = container.streams.best("video")
    stream = best if best in films else films[0]
    assert isinstance(stream, av.VideoStream)
    if stream.codec_context is None:
        raise UserError(f"{path}: has a video stream of an unknown kind; {_REENCODE}")
    configure_stream(stream)
    return stream


def _sought_packets(
    container: av.container.InputContainer, stream: av.VideoStream, start: SeekTarget
) -> Iterator[av.Packet]:
    """The packets from the last key frame before a time on; none where the container does not lead to one."""
    if start.by_reading:
        packets = container.demux(stream)
        yield from dropwhile(lambda packet: packet.size > 0 and packet_time(container, packet) != start.key, packets)
        return
    if stream.time_base is None or (start.key is None and stream.codec_context.name not in _SEEKABLE):
        return
    target = start.first_pts + int(max(start.seconds, 0) / stream.time_base) if start.key is None else start.key
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


def packet_time(container: av.container.InputContainer, packet: av.Packet) -> int | None:
    """When the frame of a packet is shown, in the stream's time base."""
    return packet.dts if shown_in_stored_order(container) else packet.pts


def clock_may_start_anew(container: av.container.InputContainer) -> bool:
    """Whether the times in files of this format may start anew, as where recordings were joined."""
    return bool(container.format.flags & av.format.Flags.ts_discont.value)  # type: ignore[operator]


def shown_in_stored_order(container: av.container.InputContainer) -> bool:
    """Whether the format has no presentation times: frames are shown in steps of the order in which they are stored."""
    return container.format.name == "avi"


def _pixel_aspect(
    container: av.container.InputContainer, stream: av.VideoStream, decoder: av.VideoCodecContext
) -> Fraction | None:
    """Width by height of a pixel: what the container says, or else what the decoder has read last."""
    stated, read = stream.sample_aspect_ratio, decoder.sample_aspect_ratio
    return stated if stated and container.format.name.startswith(_STATES_ASPECT) else read or stated


def _display(path: Path, frame: av.VideoFrame, pixel_aspect: Fraction | None) -> Display:
    try:
        return frame_display(frame, pixel_aspect)
    except ValueError as error:
        raise UserError(f"{path}: has {error}, which makes its frames too large; {_REENCODE}") from None


class _Clock:
    """Seconds since the first frame, never falling; frames without a time follow at the rate of the header.

    Where recordings were joined the clock goes on: the first frame of the next one follows the last frame of the one
    before, at that one's rate. As in the `ffmpeg` command, such a joint is a step back by more than 0.1 s or ahead by
    more than 10 s in formats whose clocks may start anew. MPEG-PS and MPEG-TS count in 33 bits. AVI has no presentation
    times: frames are shown in steps of the order in which they are stored.
    """

    def __init__(
        self,
        path: Path,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        first: av.VideoFrame | int,
    ) -> None:
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)  # FFmpeg's own last resort
        self.fps = float(rate)
        self._stored_order = shown_in_stored_order(container)
        self.first_pts = first if isinstance(first, int) else self._pts(first)
        self._path = path
        self._may_start_anew = clock_may_start_anew(container)
        self._wraps = container.format.name in ("mpeg", "mpegts")
        self._ticks = self.first_pts or 0
        self._period = self._step = 1 / rate
        self._offset = Fraction(0)  # what the joints so far have added to the times
        self._last: Fraction | None = None
        self._count = 0

    def seconds(self, frame: av.VideoFrame) -> float:
        """When a frame is shown.

        Raises:
            UserError: before the frame that precedes it, in a format in which that is no joint.
        """
        last, pts = self._last, self._pts(frame)
        if pts is None or self.first_pts is None or frame.time_base is None:
            time = Fraction(0) if last is None else last + (self._step if self._stored_order else self._period)
        else:
            step = pts - self._ticks
            self._ticks += (step + 2**32) % 2**33 - 2**32 if self._wraps else step
            time = (self._ticks - self.first_pts) * frame.time_base + self._offset
            if last is not None and (time < last - _BACK or (self._may_start_anew and time > last + AHEAD)):
                if not self._may_start_anew:
                    raise UserError(
                        f"{self._path}: frame {self._count} is shown {float(last - time):.2f} s before the frame that "
                        f"precedes it; {_REENCODE}"
                    )
                self._offset += last + self._step - time
                time = last + self._step
        if last is not None:
            time = max(time, last)
            self._step = time - last or self._step
        self._last = time
        self._count += 1
        return float(time)

    def _pts(self, frame: av.VideoFrame) -> int | None:
        return frame.dts if self._stored_order else frame.pts
