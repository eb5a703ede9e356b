"""What becomes of freed memory; without torch, for processes that only decode."""

import ctypes
import platform
import sys
from collections.abc import Callable

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's malloc.h."""
_KEPT = 2**31 - 1
"""Bytes of the largest block that is kept, which is what an int holds: 0.4 GiB per clip take ST-ABN-50's largest."""
_KEPT_BEFORE = 2**25
"""The same for a glibc before 2.35."""
_APART = 2**20
"""Bytes from which on a block lies apart, where freed memory is kept later only."""
_NEVER = -1
"""To trim, in glibc's manual."""
KEPT_BY_READERS = 2**26
"""Bytes that a process which reads clips keeps in all: 32 frames of 320 x 240 several times over."""


def keep_freed_memory(most: int | None = None) -> bool:
    """Let the process keep freed memory for what it needs next, where it is glibc that hands memory out.

    By default glibc gives every large freed block back to the system, which then has to clear its pages for the next
    one: a training step on a CPU spends up to half of its time so, reading a small clip a third. Memory that once was
    used stays with the process, so its size does not fall between two steps, and the heap's gaps add to its peak. A
    user's own MALLOC_ variables are overruled.

    Args:
        most: bytes above which freed memory goes back all the same; by default only blocks from 2 GiB on do.

    Returns:
        Whether it is so now.
    """
    set_option = mallopt()
    if set_option is None:
        return False
    # Both return 1 when they are understood, and end glibc's own adjustment of the first threshold. An old glibc
    # refuses more than 32 MiB there, and the second without the first would leave it at its lowest.
    block, rest = (_KEPT, _NEVER) if most is None else (most, most)
    understood = set_option(_MMAP_THRESHOLD, block) or set_option(_MMAP_THRESHOLD, _KEPT_BEFORE)
    return bool(understood and set_option(_TRIM_THRESHOLD, rest))


def keep_freed_memory_later() -> None:
    """Until `keep_freed_memory`, let every large block lie apart, and go back to the system.

    Of what a first step leaves behind for good, such as what the optimizer remembers and how a convolution is computed,
    pieces would otherwise lie all over the heap, and large blocks would not fit between them.
    """
    set_option = mallopt()
    if set_option is not None and set_option(_MMAP_THRESHOLD, _APART):
        set_option(_TRIM_THRESHOLD, _NEVER)


def mallopt() -> Callable[[int, int], int] | None:
    """glibc's function, where it is glibc."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return None
    try:
        found = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return None
    found.argtypes, found.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return found
