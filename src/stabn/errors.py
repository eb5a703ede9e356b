"""The one exception that is addressed to the person at the keyboard."""


class UserError(ValueError):
    """A mistake in what the user gave: one line that names the file, the value and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """
