"""The command line: one verb per job, explained by `stabn VERB --help`.

The parser and the verbs (`verbs.py`) are imported when signals are handled already: loading them takes a moment.
"""

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from stabn.engine.stop_signals import StopSignal, end_children, stop_line, stop_requested, stop_signals
from stabn.errors import UserError, describe_os_error
from stabn.files import is_first_process

MAX_MESSAGE = 600
"""Characters of an error message, which may quote a whole file."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; the exit status is 0, 2 for a user's mistake, or 128 + the number of the signal that ended it."""
    _open_closed_streams()
    _show_notes()
    words = sys.argv[1:] if arguments is None else arguments
    program = " ".join(("stabn", *words[:1]))
    with _robust_output() as output, stop_signals(program):
        try:
            from stabn.cli.verbs import run_verb

            run_verb(words)
        except KeyboardInterrupt as stopped:
            _stop(program, stopped)
        except Exception as error:
            if (number := stop_requested()) is not None:
                _stop(program, StopSignal(number))  # the signal has also ended a process that this one needs
            if isinstance(error, UserError):
                fail(program, one_line(str(error)))
            if isinstance(error, OSError):
                fail(program, one_line(describe_os_error(error)))
            raise
        output.flush()
        if output.error is not None:
            fail(program, describe_os_error(output.error, "standard output"))
        if (number := stop_requested()) is not None:  # too late to stop anything, but not for `train && evaluate`
            _stop(program, StopSignal(number, "all its work is done"))


_RESUMED = ("demo", "tabletop", "check-data", "train", "finetune", "explain")
"""Verbs whose repetition goes on with what was finished before."""


def _stop(program: str, stopped: KeyboardInterrupt) -> NoReturn:
    """Say what a command that was told to end has kept, and end."""
    number = getattr(stopped, "number", signal.SIGINT)
    if program.removeprefix("stabn ") in _RESUMED:
        kept = "what was finished is kept; give the same command again to go on"
    else:
        kept = "what was there before is unchanged; give the same command again"
    if is_first_process():
        print(stop_line(program, number, getattr(stopped, "kept", "") or kept), file=sys.stderr)
    end_children()
    raise SystemExit(128 + number)


class _Output:
    """A standard stream that stops no work: what cannot be written is dropped, what it cannot encode is escaped.

    Attributes:
        error: why it could not be written; None while it can, and where its reader went away, as in `| head`.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._broken = False
        self.error: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write a text."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        self._try(self._stream.flush)

    def _try(self, function: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            function()
        except OSError as error:
            self._broken = True
            self.error = None if error.errno == errno.EPIPE else error
            with suppress(OSError, ValueError):  # Python would complain once more while it closes the stream
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _robust_output() -> Iterator[_Output]:
    """Within the block the standard streams stop no work; only the first process of several has an output.

    Yields:
        The standard output.
    """
    before = sys.stdout, sys.stderr
    if not is_first_process():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  until the process ends
    output = _Output(sys.stdout)
    sys.stdout, sys.stderr = output, _Output(sys.stderr)
    try:
        yield output
    finally:
        output.flush()
        sys.stdout, sys.stderr = before


def _open_closed_streams() -> None:
    """Open the standard streams that the shell has closed (`>&-`): otherwise a data file would take their place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def one_line(message: str) -> str:
    """A message without line breaks; of the traceback of a decoding process only its last line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) > 1 and "Traceback" in message:
        return lines[-1].partition(": ")[2] or lines[-1]
    message = " ".join(lines)
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} ..."


def fail(program: str, message: str) -> NoReturn:
    """Say what is wrong in one line on stderr, and end with status 2."""
    print(f"{program}: error: {message}", file=sys.stderr)
    raise SystemExit(2)


class _NoteHandler(logging.Handler):
    """Prints log messages as plain lines on the standard error of the moment, which tests and notebooks replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _show_notes() -> None:
    """Show what the package logs from level INFO on; calling it again changes nothing."""
    logger = logging.getLogger("stabn")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _NoteHandler) for handler in logger.handlers):
        logger.addHandler(_NoteHandler())
