"""Synchronises a project's edits.jsonl with the store, so that the command line and the page see the same edits."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from stabn.errors import UserError, describe_os_error
from stabn.files import write_text
from stabn.records import Edit, format_edits, read_edits
from stabn.studio.storage.events import Store

DELAY = 0.4
"""Seconds from a change until the file is written, so that several changes are written at once."""
RETRY = 3.0
"""Seconds after which a failed attempt to read or write the file is repeated."""


class EditsFile:
    """The current edits of a store as a file that other programs read and may append lines to.

    Lines that are not in the store are imported before the file is written. A line that is removed by hand comes back
    from the store: edits are withdrawn on the page only. A damaged file is never overwritten.

    Args:
        path: edits.jsonl; a missing file counts as empty.
        store: holds the edits.
        frame_indices: returns the source frames of each clip of this project, by clip id.

    Attributes:
        problem: why the last background attempt failed, or None.
        left_out: current edits that are not in the file, because their clip or its frames are not this project's; they
            come from a colleague with the same database.
    """

    def __init__(self, path: Path, store: Store, frame_indices: Callable[[], Mapping[str, tuple[int, ...]]]) -> None:
        self.path = path
        self.problem: str | None = None
        self.left_out: tuple[Edit, ...] = ()
        self._store = store
        self._frame_indices = frame_indices
        self._synced_content: bytes | None = None
        self._lock = threading.RLock()
        self._push_requested = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._push_in_background, name="edits.jsonl", daemon=True)
        self._thread.start()

    def pull(self) -> int:
        """Import the lines that are not in the store, and return their number.

        Raises:
            UserError: a line is wrong, or the database cannot be used; nothing is imported then.
        """
        with self._lock:
            content = self._read_content()  # before reading, so that a concurrent write is read next time
            if content == self._synced_content:
                return 0
            imported = 0
            if content is not None:
                try:
                    imported = self._store.import_edits(read_edits(self.path, self._frame_indices()))
                except UserError:
                    raise
                except ValueError as error:
                    raise UserError(f"{self.path}: {error}; correct or remove that line") from None
            self._synced_content = content
            return imported

    def push(self) -> None:
        """Import what others wrote, then write everybody's current edits, one line per clip and author.

        Raises:
            UserError: as `pull`, or the file cannot be written; it is unchanged then.
        """
        with self._lock:
            while True:
                self.pull()
                text = format_edits(self._project_edits())
                if self._read_content() == self._synced_content:
                    break  # otherwise another program wrote in the meantime
            if text.encode() != self._synced_content:
                try:
                    write_text(self.path, text)
                except OSError as error:
                    raise UserError(describe_os_error(error, self.path)) from None
                self._synced_content = text.encode()

    def request_push(self) -> None:
        """Push in the background within half a second; an error there becomes `problem`."""
        self._push_requested.set()

    def close(self) -> None:
        """Stop the background thread and push a last time; an error becomes `problem`."""
        self._closed.set()
        self._push_requested.set()
        self._thread.join()
        self._try_push()

    def _push_in_background(self) -> None:
        while not self._closed.is_set():
            self._push_requested.wait(RETRY if self.problem else None)
            self._closed.wait(DELAY)
            self._push_requested.clear()
            self._try_push()

    def _try_push(self) -> None:
        try:
            self.push()
            self.problem = None
        except UserError as error:
            self.problem = str(error)

    def _project_edits(self) -> list[Edit]:
        """The current edits that belong in the file; sets `left_out` to the others."""
        frame_indices = self._frame_indices()
        belongs = {edit: edit.frame_indices == frame_indices.get(edit.clip_id) for edit in self._store.current()}
        self.left_out = tuple(edit for edit, is_ours in belongs.items() if not is_ours)
        return [edit for edit, is_ours in belongs.items() if is_ours]

    def _read_content(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}); make it a readable file") from None
