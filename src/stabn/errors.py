"""Exceptions of the package; `UserError` is addressed to the user."""

from collections.abc import Sequence


class UserError(ValueError):
    """A mistake in the user's input: one line that names the file or option, the value and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


class NotFiniteError(ValueError):
    """NaN or infinity in a network's output: its training diverged, or its precision is too low."""


def join_names(names: Sequence[str], most: int = 3) -> str:
    """The first few names and how many more there are, for a message."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
