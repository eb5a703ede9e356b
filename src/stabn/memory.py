"""glibc's handling of freed memory; without torch, for processes that only decode."""

import ctypes
import platform
import sys
from collections.abc import Callable

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of mallopt in glibc's malloc.h."""
_KEPT = 2**31 - 1
"""Bytes of the largest block that is kept, the largest int; ST-ABN-50's largest takes 0.4 GiB per clip."""
_KEPT_BY_OLD_GLIBC = 2**25
"""The same before glibc 2.35."""
_APART = 2**20
"""Bytes from which on a block is mapped separately until `keep_freed_memory`."""
_NEVER = -1
"""Disables trimming."""
KEPT_BY_READERS = 2**26
"""Bytes that a process which reads clips keeps: several times 32 frames of 320 x 240."""


def keep_freed_memory(most: int | None = None) -> bool:
    """Make glibc keep freed memory in the process for later allocations.

    By default glibc returns every large freed block to the system, which has to clear its pages for the next one: up to
    half of the time of a training step on a CPU, a third of reading a small clip. With this the size of the process
    does not fall between two steps, and the heap's gaps add to its peak. It overrules the user's MALLOC_ variables.

    Args:
        most: bytes above which freed memory is returned all the same; by default only blocks from 2 GiB on are.

    Returns:
        Whether glibc accepted it; False elsewhere.
    """
    set_option = mallopt()
    if set_option is None:
        return False
    # Both return 1 on success, and end glibc's own adjustment of the first threshold. An old glibc refuses more than
    # 32 MiB there, and the second without the first would leave the first at its lowest.
    block, total = (_KEPT, _NEVER) if most is None else (most, most)
    accepted = set_option(_MMAP_THRESHOLD, block) or set_option(_MMAP_THRESHOLD, _KEPT_BY_OLD_GLIBC)
    return bool(accepted and set_option(_TRIM_THRESHOLD, total))


def keep_freed_memory_later() -> None:
    """Map every large block separately, and return it to the system, until `keep_freed_memory` is called.

    For the first training step: otherwise its permanent blocks, such as the optimizer's state, would be scattered over
    the heap, and large blocks would not fit between them.
    """
    set_option = mallopt()
    if set_option is not None and set_option(_MMAP_THRESHOLD, _APART):
        set_option(_TRIM_THRESHOLD, _NEVER)


def mallopt() -> Callable[[int, int], int] | None:
    """The C library's mallopt, if it is glibc's."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return None
    try:
        function = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return None
    function.argtypes, function.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return function
