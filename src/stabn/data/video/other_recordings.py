"""Find recordings in joined MPEG-TS and MPEG-PS files that FFmpeg leaves out: their video has another number.

FFmpeg reads one stream, so a recording whose video has another packet identifier or stream number than that of the
recording before it in the file has no frame, without an error. Programs that were recorded at the same time alternate
in the file, recordings that were joined do not.

Headers of packets of video: ISO 13818-1, stream_id 1110 xxxx.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from stabn.data.video.transport_stream import transport_packets
from stabn.errors import UserError

_VIDEO = re.compile(rb"\x00\x00\x01([\xe0-\xef])")
_PACK = b"\x00\x00\x01\xba"
_TABLE = 0
"""Packet identifier of the program association table, with which a recording begins."""


def check_other_recordings(path: Path, container: str, stream_id: int) -> None:
    """Refuse an MPEG-TS or MPEG-PS file with recordings beside the one that is read; other formats pass.

    Args:
        path: the file.
        container: FFmpeg's name of the format.
        stream_id: FFmpeg's number of the stream that is read.

    Raises:
        UserError: there are such recordings; the message says how to take the file apart.
    """
    find = {"mpegts": _joint_in_transport_stream, "mpeg": _joint_in_program_stream}.get(container)
    joint = None if find is None else find(path, stream_id)
    if joint is not None:
        raise UserError(
            f"{path}: has two recordings whose videos have different stream numbers, of which only one can be read; "
            f"take them apart: head -c {joint} FILE > FIRST{path.suffix}; tail -c +{joint + 1} FILE > "
            f"SECOND{path.suffix}"
        )


def _joint_in_transport_stream(path: Path, stream_id: int) -> int | None:
    packets = transport_packets(path)
    if packets is None:
        return None
    flags, low, control = (packets[:, i] for i in (1, 2, 3))
    identifiers = (flags & 0x1F).astype(np.uint16) << 8 | low
    starts = np.flatnonzero((flags & 0x40 > 0) & (control & 0x10 > 0))
    content = np.where(control[starts] & 0x20 > 0, packets[starts, 4].astype(int) + 5, 4)
    starts, content = (array[content < 184] for array in (starts, content))
    heads = [packets[starts, content + i] for i in range(4)]
    videos = starts[(heads[0] == 0) & (heads[1] == 0) & (heads[2] == 1) & (heads[3] & 0xF0 == 0xE0)]
    first = _joint(videos.tolist(), identifiers[videos].tolist(), stream_id)
    if first is None:
        return None
    tables = np.flatnonzero(identifiers[:first] == _TABLE)
    return int(tables[-1] if len(tables) else first) * packets.strides[0]


def _joint_in_program_stream(path: Path, stream_id: int) -> int | None:
    content = np.memmap(path, np.uint8, "r").data
    starts = [(match.start(), 0x100 + match[1][0]) for match in _VIDEO.finditer(content)]
    first = _joint([position for position, _ in starts], [stream for _, stream in starts], stream_id)
    return None if first is None else max(bytes(content[:first]).rfind(_PACK), 0)


def _joint(positions: Sequence[int], streams: Sequence[int], mine: int) -> int | None:
    """Where the second of two recordings begins, one of them of stream `mine`; None if there is one recording.

    Args:
        positions: of the beginnings of packets of video, ascending.
        streams: their streams.
        mine: the stream that is read.
    """
    for other in set(streams) - {mine}:
        pair = [
            (position, stream) for position, stream in zip(positions, streams, strict=True) if stream in (mine, other)
        ]
        changes = [position for (_, before), (position, stream) in pairwise(pair) if before != stream]
        length = sum(stream == other for _, stream in pair)
        runs = (len(changes) + (pair[0][1] == other) + (pair[-1][1] == other)) // 2
        if changes and length > 1 and (runs == 1 or runs < length / 10):  # videos of the same time alternate
            return changes[0]
    return None
