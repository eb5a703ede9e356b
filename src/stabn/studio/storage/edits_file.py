"""A project's edits.jsonl, kept in step with the store, so that the command line sees the edits of the page."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stabn.errors import UserError
from stabn.files import write_text
from stabn.records import Edit, format_edits, read_edits
from stabn.studio.storage.events import Store

DELAY = 0.4
"""Seconds from a change to the writing of the file, which collects what comes meanwhile."""
RETRY = 3.0
"""Seconds after which a file that could not be read or written is tried again."""


class EditsFile:
    """The current edits of a store as a file that other programs read, and may add lines to.

    A line that the store does not know becomes an event before the file is written. A line that is removed by hand
    comes back: the store remembers it, and only the page withdraws edits. A damaged file is never overwritten.

    Args:
        path: edits.jsonl; a missing one counts as empty.
        store: where the edits are.
        clips: gives the source frames that the network saw, per id of the clips that this project knows.

    Attributes:
        problem: why the last attempt in the background failed, or None.
        left_out: current edits that the file does not hold, because this project does not know their clip or has
            other frames of it; a colleague with the same database may.
    """

    def __init__(self, path: Path, store: Store, clips: Callable[[], Mapping[str, Sequence[int]]]) -> None:
        self.path = path
        self.problem: str | None = None
        self.left_out: tuple[Edit, ...] = ()
        self._store = store
        self._clips = clips
        self._seen: bytes | None = None
        self._turn = threading.RLock()
        self._asked = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="edits.jsonl", daemon=True)
        self._thread.start()

    def pull(self) -> int:
        """Make events of the lines that the store does not know, and give their count.

        Raises:
            UserError: a line is wrong, or the database cannot be used. Then nothing was taken in.
        """
        with self._turn:
            digest = self._digest()  # before reading: what is written meanwhile is then read again
            if digest == self._seen:
                return 0
            taken = 0
            if digest is not None:
                try:
                    taken = self._store.take_in(read_edits(self.path, self._clips()))
                except UserError:
                    raise
                except ValueError as error:
                    raise UserError(f"{self.path}: {error}; correct or remove that line") from None
            self._seen = digest
            return taken

    def push(self) -> None:
        """Take in what others wrote, then write everybody's current edits, one line per clip and person.

        Raises:
            UserError: as `pull`, or the file cannot be written. Then it is as it was.
        """
        with self._turn:
            while True:
                self.pull()
                text = format_edits(self._ours())
                if self._digest() == self._seen:
                    break  # else somebody wrote meanwhile
            digest = _digest(text.encode())
            if digest != self._seen:
                try:
                    write_text(self.path, text)
                except OSError as error:
                    raise UserError(
                        f"{self.path}: cannot be written ({error.strerror}); make its folder writable"
                    ) from None
                self._seen = digest

    def soon(self) -> None:
        """Let the background push within half a second; what goes wrong there becomes `problem`."""
        self._asked.set()

    def close(self) -> None:
        """End the background and push a last time; what goes wrong becomes `problem`."""
        self._closed.set()
        self._asked.set()
        self._thread.join()
        self._try()

    def _work(self) -> None:
        while not self._closed.is_set():
            self._asked.wait(RETRY if self.problem else None)
            self._closed.wait(DELAY)
            self._asked.clear()
            self._try()

    def _try(self) -> None:
        try:
            self.push()
            self.problem = None
        except UserError as error:
            self.problem = str(error)

    def _ours(self) -> list[Edit]:
        """The current edits that the file is to hold; sets `left_out` to the others."""
        clips = self._clips()
        ours: list[Edit] = []
        others: list[Edit] = []
        for edit in self._store.current():
            same = edit.frame_indices == tuple(clips.get(edit.clip_id, ()))
            (ours if same else others).append(edit)
        self.left_out = tuple(others)
        return ours

    def _digest(self) -> bytes | None:
        try:
            return _digest(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}); make it a readable file") from None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
