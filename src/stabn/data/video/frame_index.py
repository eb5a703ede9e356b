"""Number and time the frames of a video file by its packets, of which only the first ones are decoded.

A packet is one frame in most files, but not in all. So nothing is concluded where a codec, a time or the first decoded
frames contradict it; such files are decoded from their beginning. MP4 and MOV files say everything in their header; of
others all packets are read, which needs about a hundredth of the time of decoding.

Frames that are not shown: RFC 6386, section 9.1 (VP8); VP9 Bitstream Specification, section 7.2.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from stabn.data.video.decode import (
    AHEAD,
    SeekTarget,
    clock_may_start_anew,
    decode,
    open_video,
    packet_time,
    shown_in_stored_order,
)
from stabn.data.video.other_recordings import check_other_recordings
from stabn.data.video.sample_table import composition_offsets

_INTRA = ("mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "utvideo", "png", "rawvideo")
_CODECS = (*_INTRA, "h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4")
_TWO_FIELDS = ("h264", "hevc")
"""Codecs in which two packets may be the two fields of one frame."""
_SKIPPED = 10
"""Bytes; a packet of MPEG-4 that has fewer says that there is no frame."""
_DECODED = 32
"""Frames at the beginning of a file that are decoded and compared with the packets."""
_HEADER_CHECKED = 16  # packets that are compared with a header


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The frames of a file in the order in which they are shown.

    Attributes:
        pts: (N,) int64, ascending presentation times, in units of `time_base`.
        time_base: seconds.
        keys: (K,) int64, those of the key frames.
        by_reading: whether the file has to be read from its beginning to come to a key frame.
    """

    pts: np.ndarray
    time_base: Fraction
    keys: np.ndarray
    by_reading: bool

    @cached_property
    def seconds(self) -> np.ndarray:
        """(N,) float64, since the first frame: the same numbers as `decode` gives."""
        ticks = (self.pts - self.pts[0]) * self.time_base.numerator
        return ticks / np.float64(self.time_base.denominator)

    def frame_at(self, seconds: float) -> int | None:
        """The frame that appears at this time; None if there is none."""
        index = int(np.searchsorted(self.seconds, seconds))
        return index if index < len(self.pts) and self.seconds[index] == seconds else None

    def seek_target(self, index: int) -> SeekTarget:
        """Where to begin to decode in order to see a frame."""
        number = int(np.searchsorted(self.keys, self.pts[index], "right")) - 1
        return SeekTarget(int(self.pts[0]), float(self.seconds[index]), int(self.keys[max(number, 0)]), self.by_reading)


@dataclass(frozen=True, eq=False)
class _Packets:
    """The packets of a stream in the order in which they are stored, as (N,) arrays."""

    pts: np.ndarray
    dts: np.ndarray  # those that are known
    is_key: np.ndarray
    is_shown: np.ndarray


def index_frames(path: Path | str) -> FrameIndex | None:
    """Number and time the frames of a file; None where its packets do not say it for certain.

    Raises:
        UserError: as `stabn.data.video.decode.decode`, for the beginning of the file.
    """
    path = Path(path)
    with open_video(path) as (container, stream):
        kind = _kind(container, stream)
        time_base, is_matroska = stream.time_base, container.format.name.startswith("matroska")
        packets = _packets_by_header(path, container, stream, kind) if kind is not None else None
    if kind is None or time_base is None:
        return None
    by_reading = packets is None and not is_matroska
    if packets is None:
        with open_video(path) as (container, stream):
            packets = _read_packets(container, stream, kind)
            check_other_recordings(path, container.format.name, stream.id)
    if packets is None:
        return None
    with closing(decode(path)) as frames:
        first = list(islice(frames, _DECODED))
    pts = np.sort(packets.pts[packets.is_shown])
    pts = pts[pts >= (first[0].first_pts or 0)]  # those before it depend on frames that were cut off
    index = FrameIndex(pts, time_base, np.sort(packets.pts[packets.is_key]), by_reading)
    is_certain = (
        len(index.keys) > 0
        and (np.diff(packets.dts) > 0).all()
        and (np.diff(pts) > 0).all()
        and index.seconds[: len(first)].tolist() == [item.seconds for item in first]
        and not (kind.may_start_anew and (np.diff(index.seconds) > AHEAD).any())
        and not (kind.codec in _TWO_FIELDS and (_has_half_steps(pts) or any(i.frame.interlaced_frame for i in first)))
    )
    return index if is_certain else None


class _Kind(NamedTuple):
    """What decides how packets are read."""

    codec: str
    may_start_anew: bool


def _kind(container: av.container.InputContainer, stream: av.VideoStream) -> _Kind | None:
    """None for kinds of files whose packets do not say enough."""
    codec, stored_order = stream.codec_context.name, shown_in_stored_order(container)
    if codec not in _CODECS or (stored_order and stream.codec_context.has_b_frames):
        return None
    return _Kind(codec, clock_may_start_anew(container))


def _has_half_steps(pts: np.ndarray) -> bool:
    """Whether fields of interlaced frames may have times of their own."""
    steps = np.diff(pts)
    return len(steps) > 0 and bool(steps.min() < 0.6 * np.median(steps))


def _read_packets(container: av.container.InputContainer, stream: av.VideoStream, kind: _Kind) -> _Packets | None:
    """All packets of a stream; None if one has no time, is damaged or is not a frame."""
    shows = _SHOWN.get(kind.codec, lambda packet: True)
    rows: list[tuple[int, bool, bool]] = []
    stored: list[int] = []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        pts = packet_time(container, packet)
        if pts is None or packet.is_corrupt:
            return None
        if packet.dts is not None:  # Matroska has no decoding times, and FFmpeg does not guess all of them
            stored.append(packet.dts)
        if kind.codec == "mpeg4" and packet.size < _SKIPPED:
            return None
        rows.append((pts, packet.is_keyframe, not packet.is_discard and shows(packet)))
    if not rows:
        return None
    times, keys, shown = map(np.array, zip(*rows, strict=True))
    return _Packets(times, np.array(stored), keys, shown)


def _vp8_is_shown(packet: av.Packet) -> bool:
    return bool(memoryview(packet)[0] & 0x10)


def _vp9_is_shown(packet: av.Packet) -> bool:
    content = memoryview(packet)
    if content[-1] & 0xE0 == 0xC0:  # several frames, of which one is shown
        return True
    shift = 0 if content[0] & 0x30 == 0x30 else 1  # profile 3 has one bit more
    shows_earlier, is_shown = content[0] >> (2 + shift) & 1, content[0] >> shift & 1
    return bool(shows_earlier or is_shown)


_SHOWN: dict[str, Callable[[av.Packet], bool]] = {"vp8": _vp8_is_shown, "vp9": _vp9_is_shown}


def _packets_by_header(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, kind: _Kind
) -> _Packets | None:
    """The packets of an MP4 or MOV file by its sample table; None for other files and for those that have none.

    FFmpeg knows the decoding times, with the edit list applied; presentation times are those plus an offset each.
    """
    if not container.format.name.startswith("mov") or kind.codec in (*_SHOWN, "mpeg4"):
        return None
    offsets = composition_offsets(path, stream.id)
    entries = stream.index_entries
    if offsets is None or len(entries) != len(offsets) or not len(offsets):
        return None
    rows = np.array([(entry.timestamp, entry.is_keyframe, entry.is_discard) for entry in entries], np.int64)
    dts, is_key, is_hidden = rows[:, 0], rows[:, 1] > 0, rows[:, 2] > 0
    first = list(islice((packet for packet in container.demux(stream) if packet.size), _HEADER_CHECKED))
    pts = dts + offsets
    if first[0].pts is None:
        return None
    pts += first[0].pts - pts[0]
    is_same = all((p.pts, p.dts) == (pts[i], dts[i]) for i, p in enumerate(first))
    return _Packets(pts, dts, is_key, ~is_hidden) if is_same else None
