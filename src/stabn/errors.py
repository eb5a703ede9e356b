"""Exceptions of the package; `UserError` is addressed to the user."""

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOM, _PERMISSION, _DISK = "make room there", "make it accessible to you, or give another place", "check the disk"
_NETWORK = "check the network disk and give the same command again"
_OS_REMEDIES = {
    "ENOSPC": _ROOM,
    "EDQUOT": f"{_ROOM}, or ask for a larger quota",
    "EFBIG": "give a place whose file system takes larger files",
    "EACCES": _PERMISSION,
    "EPERM": _PERMISSION,
    "EROFS": "give a place that can be written to",
    "ENOENT": "check its spelling, and that its disk is mounted",
    "EEXIST": "remove it or give another name",
    "ENOTDIR": "a part of its path is a file; give another path",
    "EISDIR": "give a file",
    "ENOTEMPTY": "empty it or give another folder",
    "ENAMETOOLONG": "give a shorter name or path",
    "EINVAL": "give a name that the file system can have",
    "EILSEQ": "give a name that the file system can have",
    "ELOOP": "mend the links in its path",
    "EMFILE": "too many files are open; take fewer workers, or allow more with ulimit -n",
    "ENFILE": "too many files are open on this machine; end other programs",
    "ENOMEM": "free some memory, or take fewer workers",
    "EIO": f"{_DISK} and its cable, or copy the data elsewhere",
    "ENXIO": _DISK,
    "ENODEV": _DISK,
    "ESTALE": _NETWORK,
    "ETIMEDOUT": _NETWORK,
    "ENOTCONN": _NETWORK,
    "ECONNRESET": _NETWORK,
    "ECONNREFUSED": _NETWORK,
    "EHOSTDOWN": _NETWORK,
    "EHOSTUNREACH": _NETWORK,
    "ENETUNREACH": _NETWORK,
    "EREMOTEIO": _NETWORK,
    "EBUSY": "close the program that uses it",
    "ETXTBSY": "close the program that uses it",
    "ENOLCK": "its file system has no locks; give a place on another one",
    "EOPNOTSUPP": "its file system cannot do this; give a place on another one",
    "ENOSYS": "its file system cannot do this; give a place on another one",
    "EXDEV": "give a place on the same file system",
}


class UserError(ValueError):
    """A mistake in the user's input: one line that names the file or option, the value and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


class IncompleteError(UserError):
    """A part of the work could not be done; the rest was.

    Attributes:
        report: what the command reports of the rest, as JSON values.
    """

    def __init__(self, message: str, report: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.report = dict(report)


class NotFiniteError(ValueError):
    """NaN or infinity in a network's output: its training diverged, or its precision is too low."""


def join_names(names: Sequence[str], most: int = 3) -> str:
    """The first few names and how many more there are, for a message."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def describe_os_error(error: OSError, name: Path | str | None = None) -> str:
    """One line for an error of the operating system: the file, what is wrong, and a remedy for that.

    Args:
        error: which; one of writing or reading has no file name of its own.
        name: the file or folder, where the error has none.
    """
    file = error.filename if isinstance(error.filename, str | bytes) and error.filename else name
    if isinstance(file, bytes):
        file = file.decode(errors="backslashreplace")
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    remedy = _OS_REMEDIES.get(errno.errorcode.get(error.errno or 0, ""), "give another place, or check the disk")
    return f"{file}: {reason}; {remedy}" if file else f"{reason}; {remedy}"


def list_differences(previous: Any, now: Any, option: str = "") -> list[str]:
    """What differs between two sets of options, nested as in a recipe: `OPTION = OLD, now NEW` each.

    An option that only one of them has counts as None.
    """
    if isinstance(previous, Mapping) and isinstance(now, Mapping):
        names = [*previous, *(name for name in now if name not in previous)]
        return [
            difference
            for name in names
            for difference in list_differences(previous.get(name), now.get(name), f"{option}.{name}".lstrip("."))
        ]
    return [] if previous == now else [f"{option} = {previous}, now {now}"]
