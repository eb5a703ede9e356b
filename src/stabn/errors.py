"""The one exception that is addressed to the person at the keyboard."""

from collections.abc import Sequence


class UserError(ValueError):
    """A mistake in what the user gave: one line that names the file, the value and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


class NotFiniteError(ValueError):
    """NaN or infinity where a network's numbers are expected: its training diverged, or its precision is too coarse."""


def join_names(names: Sequence[str], most: int) -> str:
    """The first few of many names, for a message."""
    return ", ".join([*names[:most], *["..."][: len(names) > most]])
