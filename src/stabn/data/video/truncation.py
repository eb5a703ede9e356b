"""Detect video files that are cut short, by the length in their container, and damaged Matroska structure.

FFmpeg plays a cut file up to the cut and ends without an error, so an interrupted download would train a network on
half an action. Comparing the header's number of frames with the decoded ones does not help: WebM has none there, and
MP4 edit lists hide frames. In Matroska FFmpeg skips what it cannot parse, and the frames in there are lost.

Matroska: RFC 9559; its elements, and the CRC-32 of some: RFC 8794.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_CLUSTER = b"\x1f\x43\xb6\x75"
_CRC32 = b"\xbf"
_BLOCK_GROUP = b"\xa0"
_PARTS = (
    b"\x11\x4d\x9b\x74",  # SeekHead
    b"\x15\x49\xa9\x66",  # Info
    b"\x16\x54\xae\x6b",  # Tracks
    _CLUSTER,
    b"\x1c\x53\xbb\x6b",  # Cues
    b"\x19\x41\xa4\x69",  # Attachments
    b"\x10\x43\xa7\x70",  # Chapters
    b"\x12\x54\xc3\x67",  # Tags
    b"\xec",  # Void
    _CRC32,
)
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")


def missing_bytes(path: Path) -> int:
    """How many bytes an MP4, MOV, WebM or Matroska file lacks at its end; 0 for none and for other formats."""
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
    """The end of the last top-level box; 0 if it is unknown."""
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
            return 0  # "until the end of the file", or something that is no box: the length is unknown
        position += length
    return position


def damaged_cluster(path: Path) -> int | None:
    """The position of the first part of a Matroska or WebM file that does not fit, or whose checksum is wrong.

    None if there is none. What follows an element of unknown length, as in live recordings, is not examined, nor are
    other formats, which have neither such a structure around their frames nor checksums.
    """
    with path.open("rb") as file:
        if file.read(4) != _EBML:
            return None
        end = _matroska_end(file)
        for name, start, stop in _elements(file, file.tell(), end):
            if stop is None:
                return None
            if stop > end or name not in _PARTS or (name == _CLUSTER and not _is_whole(file, start, stop)):
                return start
    return None


def _is_whole(file: BinaryIO, start: int, end: int) -> bool:
    """Whether elements fill a cluster or group of blocks exactly, and match its checksum, which covers all after it."""
    for name, first, stop in _elements(file, start, end):
        if stop is None:
            return True
        if stop > end or (name == _BLOCK_GROUP and not _is_whole(file, first, stop)):
            return False
        if name == _CRC32:
            file.seek(first)
            if int.from_bytes(file.read(4), "little") != _crc32(file, end - first - 4):
                return False
    return True


def _elements(file: BinaryIO, position: int, end: int) -> Iterator[tuple[bytes, int, int | None]]:
    """Name, start and end of the content of each element; something that is no element ends beyond `end`."""
    while position < end:
        file.seek(position)
        name = file.read(1)
        name += file.read(8 - name[0].bit_length()) if name and name[0] >= 16 else b""
        length, width = _vint(file)
        start = position + len(name) + width
        if not name or name[0] < 16:
            yield b"", position, end + 1
            return
        yield name, start, None if length is None else start + length
        position = end if length is None else start + length


def _crc32(file: BinaryIO, length: int) -> int:
    checksum = 0
    while length > 0 and (chunk := file.read(min(length, 2**20))):
        checksum = zlib.crc32(chunk, checksum)
        length -= len(chunk)
    return checksum


def _matroska_end(file: BinaryIO) -> int:
    """The end of the segment, which holds everything after the EBML header; 0 if it is unknown."""
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
