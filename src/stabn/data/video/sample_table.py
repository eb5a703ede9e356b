"""Read from the header of an MP4 or MOV file when its samples are shown.

The boxes: ISO 14496-12, sections 4.2 (boxes), 8.3.2 (tkhd), 8.6.1.3 (ctts), 8.7.3 (stsz), 8.8.1 (mvex).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

_MOST_BYTES = 2**28
"""Of a header; one hour at 60 frames per second takes less than 10 MB."""


def composition_offsets(path: Path, track: int) -> np.ndarray | None:
    """By how much later than it is decoded each sample of a track is shown.

    Args:
        path: an MP4 or MOV file.
        track: its id.

    Returns:
        (N,) int64, in units of the track's time scale, in the order in which the samples are stored. None where the
        header does not list all of them.
    """
    header = _header(path)
    if header is None or _find(header, b"mvex") is not None:
        return None
    for table in _find_all(header, b"trak"):
        track_header = _find(table, b"tkhd")
        if track_header is None or _track_id(track_header) != track:
            continue
        samples = _find(table, b"mdia", b"minf", b"stbl")
        sizes = None if samples is None else _find(samples, b"stsz")
        if samples is None or sizes is None:
            return None
        count, offsets = int.from_bytes(sizes[8:12], "big"), _find(samples, b"ctts")
        if offsets is None:
            return np.zeros(count, np.int64)
        runs = np.frombuffer(offsets[8 : 8 + 8 * int.from_bytes(offsets[4:8], "big")], ">i4").reshape(-1, 2)
        if runs[:, 0].sum(dtype=np.int64) != count or (runs[:, 0] < 0).any():
            return None
        return np.repeat(runs[:, 1].astype(np.int64), runs[:, 0])
    return None


def _header(path: Path) -> bytes | None:
    """The content of the file's only moov box."""
    headers = []
    with path.open("rb") as file:
        size = file.seek(0, 2)
        for name, start, stop in _file_boxes(file, size):
            if name == b"moov" and stop - start <= _MOST_BYTES:
                file.seek(start)
                headers.append(file.read(stop - start))
    return headers[0] if len(headers) == 1 else None


def _file_boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box of a file."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        name, start, length = _box(file.read(16))
        stop = size if length == 0 else position + length
        if stop < position + start:
            return
        yield name, position + start, stop
        position = stop


def _box(head: bytes) -> tuple[bytes, int, int]:
    """Name of a box, length of its head, and length of all of it, 0 up to the end."""
    length = int.from_bytes(head[:4], "big")
    return (head[4:8], 16, int.from_bytes(head[8:16], "big")) if length == 1 else (head[4:8], 8, length)


def _find_all(content: bytes, name: bytes) -> Iterator[bytes]:
    """The contents of the boxes of a name that lie in another box."""
    position = 0
    while position + 8 <= len(content):
        found, start, length = _box(content[position : position + 16])
        stop = len(content) if length == 0 else position + length
        if stop < position + start:
            return
        if found == name:
            yield content[position + start : stop]
        position = stop


def _find(content: bytes, *names: bytes) -> bytes | None:
    """The content of the first box of a name, within the first of the name before, and so on; None if there is none."""
    for name in names:
        found = next(_find_all(content, name), None)
        if found is None:
            return None
        content = found
    return content


def _track_id(track_header: bytes) -> int:
    start = 20 if track_header[0] == 1 else 12  # version 1 has times of 64 bits before it
    return int.from_bytes(track_header[start : start + 4], "big")
