"""Checks of a video file before FFmpeg opens it: that it can be read, is no text, and has not lost a part."""

import os
import shlex
import stat
from functools import lru_cache
from pathlib import Path

from stabn.data.video.truncation import damaged_cluster, missing_bytes
from stabn.errors import UserError

COPY_AGAIN = "download or copy it again"
"""The remedy for a file that has lost or changed a part."""
_WEBP_TO_PNG = (
    "import sys; from PIL import Image, ImageSequence as S; i = Image.open(sys.argv[1]); "
    "d = [(f.load(), f.info['duration'])[1] for f in S.Iterator(i)]; i.save(sys.argv[2], save_all=True, duration=d)"
)
"""Writes an animated PNG, which FFmpeg can read; Pillow forgets the first duration unless it is given."""
REMEMBERED_FILES = 2**18
"""How many files a process remembers as checked: about 60 MB of paths and numbers; the oldest are forgotten first."""


def file_status(path: Path | str) -> os.stat_result:
    """The `os.stat` result of a file that can be opened and has content.

    Raises:
        UserError: the file is missing, empty, not a regular file, or must not be read.
    """
    path = Path(path)
    try:
        status = path.stat()
        regular = stat.S_ISREG(status.st_mode)
        if regular:  # opening a pipe would wait for a writer, maybe for ever
            path.open("rb").close()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the name") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); check the name and its permissions") from None
    if not regular:
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise UserError(f"{path}: is {kind}; give a video file")
    if status.st_size == 0:
        raise UserError(f"{path}: is empty; {COPY_AGAIN}")
    return status


def check_file(path: Path | str) -> None:
    """Refuse a file that cannot be a whole video; a file of unchanged size and time is examined once per process.

    Raises:
        UserError: as `file_status`; or the file is a text, is cut short, or its Matroska structure is damaged.
    """
    status = file_status(path)
    _check_content(os.fspath(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=REMEMBERED_FILES)  # errors are not cached
def _check_content(name: str, size: int, mtime_ns: int) -> None:
    path = Path(name)
    if _is_text(path):
        raise UserError(f"{path}: is a text, not a video; give a video file")
    if _is_animated_webp(path):
        command = shlex.join(["python", "-c", _WEBP_TO_PNG, os.fspath(path), os.fspath(path.with_suffix(".png"))])
        raise UserError(f"{path}: is an animated WebP, which FFmpeg cannot read; convert it by {command}")
    missing = missing_bytes(path)
    if missing:
        raise UserError(f"{path}: is cut short, {missing} bytes are missing at its end; {COPY_AGAIN}")
    position = damaged_cluster(path)
    if position is not None:
        raise UserError(f"{path}: is damaged at byte {position}; {COPY_AGAIN}")


def _is_animated_webp(path: Path) -> bool:
    """Whether a file is a WebP container with the animation flag (RFC 9649, section 2.7.1)."""
    with path.open("rb") as file:
        head = file.read(21)
    return (head[:4], head[8:16]) == (b"RIFF", b"WEBPVP8X") and len(head) == 21 and bool(head[20] & 0x02)


def _is_text(path: Path) -> bool:
    """Whether a file begins as text: FFmpeg reads some texts as pictures, and others as playlists of other files."""
    with path.open("rb") as file:
        head = file.read(4096)
    if any(byte < 32 and byte not in b"\t\n\v\f\r\x1b" for byte in head):
        return False
    return "\ufffd" not in head[:-3].decode("utf-8", "replace")[:-1]
