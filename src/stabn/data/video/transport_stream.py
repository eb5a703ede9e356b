"""Tell where MPEG-TS recordings were joined from where packets were lost: FFmpeg calls both damage.

Packets of each stream count from 0 to 15 and begin again (ISO 13818-1, continuity_counter). Where two recordings were
joined the count breaks, but nothing is lost: the next recording begins with its program association table, and its
first packet of the stream begins a frame; the counts of the table and of other streams break, too.
"""

from functools import cached_property
from pathlib import Path

import av
import numpy as np

_SYNC = 0x47
_LAYOUTS = ((188, 0), (192, 4), (204, 0))
"""Length of a packet in a file, and where the transport packet begins in it: plain, with times (.m2ts), with parity."""


class TransportStreamJoints:
    """Explains packets that FFmpeg marks as damaged by joints, where all breaks of the stream are joints.

    Args:
        path: the file.
        container: the file as FFmpeg reads it.
        stream: its video.
    """

    def __init__(self, path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self._path = path
        self._is_transport_stream = container.format.name == "mpegts"
        self._stream_id = stream.id

    def explain(self, packet: av.Packet) -> bool:
        """Whether nothing is missing in a marked packet; then the mark is taken away."""
        if not self._is_transport_stream or not self._only_joints:
            return False
        packet.is_corrupt = False
        return True

    @cached_property
    def _only_joints(self) -> bool:
        return only_joints(self._path, self._stream_id)


def only_joints(path: Path, stream_id: int) -> bool:
    """Whether the packets of a stream are counted without a gap but for joints of recordings, and none has an error.

    Args:
        path: an MPEG-TS file.
        stream_id: the packet identifier (PID) of the stream.
    """
    packets = transport_packets(path)
    if packets is None:
        return False
    flags, low, control = (packets[:, i] for i in (1, 2, 3))
    identifiers = (flags & 0x1F).astype(np.uint16) << 8 | low
    mine = np.flatnonzero((identifiers == stream_id) & (control & 0x10 > 0))  # with a payload; others are not counted
    if (flags[mine] & 0x80).any():
        return False
    counts = control[mine] & 15
    breaks = np.flatnonzero((np.diff(counts) & 15) > 1) + 1  # a packet may come twice
    return all(_is_joint(identifiers, flags, control, int(mine[i - 1]), int(mine[i])) for i in breaks)


def transport_packets(path: Path) -> np.ndarray | None:
    """The packets of an MPEG-TS file, mapped as (N, 188) uint8; None where its bytes are not such packets."""
    content = np.memmap(path, np.uint8, "r")
    for length, first in _LAYOUTS:
        if len(content) >= length and (content[first::length] == _SYNC).all():
            return content[: len(content) // length * length].reshape(-1, length)[:, first : first + 188]
    return None


def _is_joint(identifiers: np.ndarray, flags: np.ndarray, control: np.ndarray, last: int, first: int) -> bool:
    """Whether a recording ends with packet `last` of a stream and another begins before packet `first`.

    Then `first` begins a frame, the table comes before it, and the count of at least one other stream breaks, too.
    """
    others = range(last + 1, first)
    if not flags[first] & 0x40 or not any(identifiers[i] == 0 for i in others):
        return False
    for i in others:
        before = np.flatnonzero(identifiers[: last + 1] == identifiers[i])
        if len(before) and control[i] & 0x10 and (int(control[i] & 15) - int(control[before[-1]] & 15)) % 16 > 1:
            return True
    return False
