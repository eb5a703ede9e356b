"""Atomic files, texts, JSON, short names, and locks of folders."""

import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stabn.errors import UserError

NAME_BYTES = 200
"""Bytes of a name from which other names are made; file systems allow 255, of which endings and numbers need some."""
NO_LOCKS = {getattr(errno, name) for name in ("ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS") if hasattr(errno, name)}
"""Errors by which a file system says that it has no locks."""

log = logging.getLogger(__name__)


def is_first_process() -> bool:
    """Whether this is the first process of a distributed job, by torchrun's and Lightning's environment variables."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("NODE_RANK", "LOCAL_RANK"))


@contextmanager
def lock_folder(folder: Path, *, remedy: str) -> Iterator[None]:
    """Lock a folder against other commands within the block; the processes of a distributed job are one command.

    Args:
        folder: an existing folder.
        remedy: what else the user can do, for the message.

    Raises:
        UserError: another command holds the lock.
    """
    if not is_first_process():
        yield
        return
    try:
        with lock_file(folder / ".lock", remove=True):
            yield
    except Timeout:
        raise UserError(f"{folder}: another command works in it; wait for it, or {remedy}") from None


@contextmanager
def lock_file(path: Path, *, timeout: float = 0.0, remove: bool = False) -> Iterator[None]:
    """Hold a lock file within the block.

    A file system without locks, as some network disks are, is used without; one line says so, once for each folder.

    Args:
        path: the file, in an existing folder.
        timeout: seconds to wait for another process that holds it.
        remove: remove the file at the end.

    Raises:
        filelock.Timeout: another process holds it.
    """
    lock = FileLock(path, fallback_to_soft=False) if _HAS_SOFT_FALLBACK else FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except NotImplementedError:
        _warn_without_locks(path.parent.absolute())
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
            raise
        _warn_without_locks(path.parent.absolute())
    try:
        yield
    finally:
        if remove and lock.is_locked:
            path.unlink(missing_ok=True)
        lock.release()


_HAS_SOFT_FALLBACK = "fallback_to_soft" in signature(FileLock.__init__).parameters
"""Where it can fall back by itself, a lock that a killed process has left would stay."""


@cache
def _warn_without_locks(folder: Path) -> None:
    log.warning(
        "note: %s: its file system has no locks, so nothing stops a second command from writing there at the same time",
        folder,
    )


def has_locks(folder: Path) -> bool:
    """Whether the file system of a folder has the locks that databases need (fcntl); one line says it if not."""
    try:
        import fcntl
    except ImportError:
        return True  # Windows locks otherwise
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            _warn_without_locks(folder.absolute())
            return False
    return True  # or nothing can be written there, which the database says


def short_name(name: str, most: int = NAME_BYTES) -> str:
    """A name of at most `most` bytes: itself, or its beginning and eight digits of its SHA-256, the same every time."""
    encoded = os.fsencode(name)
    if len(encoded) <= most:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    beginning = name
    while len(os.fsencode(beginning)) > most - len(digest) - 1:
        beginning = beginning[:-1]
    return f"{beginning}-{digest}"


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error.

    `path` always holds either its old content or the complete new one. The temporary name keeps the suffix of `path`,
    because encoders choose the container by it. In a distributed job only the first process's file is kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        suffix = path.suffix if len(path.suffix) < NAME_BYTES // 10 else ""
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{short_name(path.stem)}-", suffix=suffix)
    except OSError as error:
        error.filename = str(path)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        if is_first_process():
            temporary.replace(path)
    except OSError as error:
        # writing has no name, and nobody knows the temporary one
        if error.errno is not None and error.filename in (None, name):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):  # a disk that fails now would hide why
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write indented UTF-8 JSON atomically; NaN and infinity are refused because other programs cannot read them.

    Bytes of a file name that are no text are escaped as Python escapes them, so that `read_json` gives the name back.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text.encode("utf-8", "backslashreplace").decode())


def read_text(file: Path, remedy: str, *, size: int = -1) -> str:
    """The text of a UTF-8 file with or without byte order mark; line ends stay as they are.

    Args:
        file: which.
        remedy: how the message ends if it cannot be read.
        size: bytes after which no further line is read; -1 for all lines.

    Raises:
        UserError: it cannot be read, or is no such text.
    """
    try:
        with file.open("rb") as content:
            return b"".join(content.readlines(size)).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text ({error}); save it as UTF-8, or {remedy}") from None


def read_json(path: Path | str, *, remedy: str) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, unreadable or not JSON; the message ends with `remedy`.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not JSON ({error}); {remedy}") from None
