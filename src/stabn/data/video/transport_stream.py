"""Tell where MPEG-TS recordings were joined from where packets were lost: FFmpeg calls both damage.

Packets of each stream count from 0 to 15 and begin again (ISO 13818-1, continuity_counter). Where two recordings were
joined the count breaks, but nothing is lost: the next recording begins with its program association table, and its
first packet of the stream begins a frame.
"""

from functools import cached_property
from pathlib import Path

import av
import numpy as np

_SYNC = 0x47
_LAYOUTS = ((188, 0), (192, 4), (204, 0))
"""Length of a packet in a file, and where the transport packet begins in it: plain, with times (.m2ts), with parity."""
_CHUNK = 2**17  # packets


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
    content = np.memmap(path, np.uint8, "r")
    layout = next((layout for layout in _LAYOUTS if _fits(content, *layout)), None)
    if layout is None:
        return False
    length, first = layout
    packets = content[: len(content) // length * length].reshape(-1, length)
    count, table_seen = None, False
    for start in range(0, len(packets), _CHUNK):
        flags, low, control = packets[start : start + _CHUNK, first + 1 : first + 4].T.astype(np.int16)
        identifiers = (flags & 0x1F) << 8 | low
        tables, mine = (identifiers == 0) & (flags & 0x40 > 0), identifiers == stream_id
        if (flags[mine] & 0x80).any():
            return False
        tables_before = np.cumsum(tables)
        mine &= control & 0x10 > 0  # with a payload; others are not counted
        counts, begins, seen = control[mine] & 15, flags[mine] & 0x40 > 0, tables_before[mine]
        if not len(counts):
            table_seen |= bool(tables.any())
            continue
        before = np.concatenate(([counts[0] - 1 if count is None else count], counts[:-1]))
        is_next = (counts == (before + 1) % 16) | (counts == before)
        follows_table = np.diff(seen, prepend=0) > 0
        follows_table[0] |= table_seen
        if not (is_next | (begins & follows_table)).all():
            return False
        count, table_seen = int(counts[-1]), bool(tables_before[-1] > seen[-1])
    return True


def _fits(content: np.ndarray, length: int, first: int) -> bool:
    """Whether every packet of this layout begins with the sync byte."""
    return len(content) >= length and bool((content[first::length] == _SYNC).all())
