"""Atomic files, texts, JSON, and locks of folders."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stabn.errors import UserError


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
    lock = FileLock(folder / ".lock")
    if is_first_process():
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{folder}: another command works in it; wait for it, or {remedy}") from None
        except NotImplementedError:
            pass  # a file system without locks, where two commands would only do the same work twice
    try:
        yield
    finally:
        if lock.is_locked:
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error.

    `path` always holds either its old content or the complete new one. The temporary name keeps the suffix of `path`,
    because encoders choose the container by it. In a distributed job only the first process's file is kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        if is_first_process():
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write indented UTF-8 JSON atomically; NaN and infinity are refused because other programs cannot read them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


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
