"""Is a video file all there? Its container announces its length, and a cut file is shorter than that.

FFmpeg plays a cut file up to the cut and ends without an error, so an interrupted download would train a network on
half an action. Comparing announced frames with decoded ones does not help: WebM announces none, and MP4 edit lists
hide frames rightfully.
"""

from pathlib import Path
from typing import BinaryIO

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")


def missing_bytes(path: Path) -> int:
    """How many bytes an MP4, MOV, WebM or Matroska file lacks at its end; 0 if none, or if the format cannot tell."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        if start[:4] == _EBML:
            return max(_matroska_end(file) - size, 0)
        if start[4:8] in _FIRST_BOXES:
            return max(_mp4_end(file, size) - size, 0)
    return 0


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Where the last of the top-level boxes ends."""
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            return 0  # a few bytes of padding after the last box
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isalnum():
            return 0  # "until the end of the file", or something that is no box: nothing is announced
        position += length
    return position


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends, which holds everything after the EBML header."""
    file.seek(4)
    length, _ = _vint(file)
    if length is None:
        return 0
    file.seek(length, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length, _ = _vint(file)
    return 0 if length is None else file.tell() + length  # None: a live recording that never learned its length


def _vint(file: BinaryIO) -> tuple[int | None, int]:
    """An EBML number and its width in bytes; None where all bits are set, which means unknown, or at the file's end."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None, 1
    width = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(width - 1), "big") & ((1 << (7 * width)) - 1)
    return (None if value == (1 << (7 * width)) - 1 else value), width
