"""Every change of an edit, kept as an appended event, so that no history is lost and undo has no limit.

An event holds the scores that are valid after it. So an author's current edit of a clip is their last event there,
whatever state a client assumed when it sent undo or redo, and only the history of one edit is ever replayed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any
from uuid import uuid4

from sqlalchemy import URL, ColumnElement, Executable, func, select
from sqlalchemy.orm import Session

from stabn.edits.merge import check_use
from stabn.records import Edit, utc_now
from stabn.studio.storage.database import Database
from stabn.studio.storage.schema import NO_CLIP, Event

Scores = tuple[float, ...] | None
"""T importances in 0..1, or None where there is no edit."""


@dataclass(frozen=True)
class EditChange:
    """One change of an author's edit of a clip.

    Attributes:
        request: a name that the client gives this change and no other.
        kind: paint, undo, redo, clear or import; paint, clear and import are steps that undo reverts.
        clip_id, frame_indices, timestamps: the clip, as in `Edit`.
        scores: T importances in 0..1 from this change on; None to withdraw the edit.
        author: 1 to 80 printable characters without surrounding spaces.
        time: ISO 8601 with time zone.
        comment: free text.

    Raises:
        ValueError: a field is out of range, or the scores do not fit the kind.
    """

    request: str
    kind: str
    clip_id: str
    frame_indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    scores: Scores
    author: str
    time: str
    comment: str = ""

    def __post_init__(self) -> None:
        if self.kind in ("paint", "import") and self.scores is None:
            raise ValueError(f"scores: got none for {self.kind}, expected one per frame")
        if self.kind == "clear" and self.scores is not None:
            raise ValueError("scores: got some for clear, expected none")
        check_author(self.author)
        scores = (0.0,) * len(self.frame_indices) if self.scores is None else self.scores
        Edit(self.clip_id, self.frame_indices, self.timestamps, scores, self.author, self.time, self.comment)

    @classmethod
    def importing(cls, edit: Edit) -> "EditChange":
        """The change that takes over an edit from elsewhere.

        Raises:
            ValueError: its author is not a valid name.
        """
        return cls(request=uuid4().hex, kind="import", **vars(edit))


@dataclass(frozen=True)
class History:
    """An author's edit of a clip, with its undo and redo steps.

    Attributes:
        scores: the current ones, or None.
        comment: that of the last event.
        done: the states that undo returns to, the next one last.
        undone: the states that redo returns to, the next one last.
        event: the last event's number; 0 if there is none.
    """

    scores: Scores = None
    comment: str = ""
    done: tuple[Scores, ...] = ()
    undone: tuple[Scores, ...] = ()
    event: int = 0


def check_author(author: str) -> str:
    """Return a valid author's name unchanged.

    Raises:
        ValueError: it is not 1 to 80 printable characters without surrounding spaces.
    """
    if not 1 <= len(author) <= 80 or author != author.strip() or not author.isprintable():
        raise ValueError(f"author: got {author!r}, expected a name of 1 to 80 printable characters")
    return author


def replay(events: Iterable[Event]) -> History:
    """Compute the history that results from an author's events of a clip, in their order.

    Each event's own scores are valid after it, even where a client undid a step that did not exist.
    """
    history = History()
    for event in events:
        done, undone = (*history.done, history.scores), history.undone
        if event.kind == "undo":
            done, undone = history.done[:-1], (*undone, history.scores)
        else:
            undone = undone[:-1] if event.kind == "redo" else ()
        history = History(event.scores, event.comment, done, undone, event.number)
    return history


class Store:
    """The events of one edit project; threads and servers may share a database.

    Args:
        url: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; a `sqlalchemy.URL` can name any file.
        project_id: `Project.id`.

    Attributes:
        kind: "sqlite" or "postgresql".

    Raises:
        UserError: the database cannot be opened, or was written by a newer version; every method raises it when the
            database becomes unavailable. No message contains the password.
    """

    def __init__(self, url: str | URL, project_id: str) -> None:
        self._database = Database(url)
        self._in_project = Event.project == project_id
        self._of_clips = self._in_project & (Event.clip_id != NO_CLIP)
        self._project_id = project_id
        self.kind = self._database.kind

    def append(self, change: EditChange) -> int:
        """Store a change and return its event's number; it is durable when this returns.

        A request that is stored already is not stored again: its number is returned.
        """
        return self.append_all([change])[0]

    def append_all(self, changes: Sequence[EditChange]) -> tuple[int, ...]:
        """Store several changes, all or none, and return their events' numbers."""
        with self._database.write_session(self._project_id) as session:
            return tuple(self._append(session, change) for change in changes)

    def import_edits(self, edits: Sequence[Edit]) -> int:
        """Store the edits of a file that are not stored yet, all or none, and return their number.

        An edit is stored if some event made exactly it. As in the file, an author's last edit of a clip is the current
        one: if that one is stored already, the new ones before it only become history.

        Raises:
            ValueError: an author's name is not valid.
        """
        with self._database.write_session(self._project_id) as session:
            is_stored = {edit: self._is_stored(session, edit) for edit in edits}
            last_edits = {(edit.clip_id, edit.author): edit for edit in edits}
            new_edits = [edit for edit in edits if not is_stored[edit]]
            pairs = dict.fromkeys((edit.clip_id, edit.author) for edit in new_edits)
            restored = [self._restore_current(session, *pair) for pair in pairs if is_stored[last_edits[pair]]]
            for change in (*map(EditChange.importing, new_edits), *restored):
                self._append(session, change)
            return len(new_edits)

    def current(self, clip_id: str | None = None) -> tuple[Edit, ...]:
        """Everybody's current edits, of one clip or all, in the order of their last event; without withdrawn ones."""
        clips = self._of_clips if clip_id is None else self._in_project & (Event.clip_id == clip_id)
        last = select(func.max(Event.number)).where(clips).group_by(Event.clip_id, Event.author)
        events = self._events(Event.number.in_(last), Event.scores.is_not(None))
        return tuple(Edit(**_edit_fields(event)) for event in events)

    def history(self, clip_id: str, author: str) -> History:
        """One author's edit of one clip, with its undo and redo steps."""
        return replay(self._events(Event.clip_id == clip_id, Event.author == author))

    def events(self, clip_id: str) -> tuple[Event, ...]:
        """All events of a clip, in order."""
        return self._events(Event.clip_id == clip_id)

    def people(self) -> tuple[str, ...]:
        """Everybody who has ever edited a clip, sorted by name."""
        rows = self._execute(select(Event.author).distinct().where(self._of_clips))
        return tuple(sorted((name for (name,) in rows), key=lambda name: (name.casefold(), name)))

    def use(self) -> str:
        """What fine-tuning makes of several people's edits: "latest" until somebody chooses."""
        # Few rows, so the maximum is found here; ordered by SQLite, the query would scan all events.
        choices = self._execute(select(Event.number, Event.use).where(self._in_project, Event.clip_id == NO_CLIP))
        return max(choices)[1] if choices else "latest"

    def set_use(self, use: str, author: str) -> None:
        """Choose what fine-tuning makes of several people's edits.

        Raises:
            UserError: `use` is not a valid choice.
        """
        check_use(use)
        choice = {"request": uuid4().hex, "kind": "use", "author": author, "time": utc_now(), "use": use}
        with self._database.write_session(self._project_id) as session:
            session.add(Event(project=self._project_id, **choice))

    def version(self) -> int:
        """The number of the project's last event; 0 if there is none."""
        [[number]] = self._execute(select(func.max(Event.number)).where(self._in_project))
        return number or 0

    def changed_clips(self, since: int) -> tuple[str, ...]:
        """The ids of the clips with events after number `since`, sorted."""
        query = select(Event.clip_id).distinct().where(self._of_clips, Event.number > since)
        return tuple(sorted(clip_id for (clip_id,) in self._execute(query)))

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def _execute(self, query: Executable) -> list[Any]:
        with self._database.read_session() as session:
            return list(session.execute(query))

    def _events(self, *conditions: ColumnElement[bool]) -> tuple[Event, ...]:
        query = select(Event).where(self._in_project, *conditions).order_by(Event.number)
        return tuple(event for (event,) in self._execute(query))

    def _append(self, session: Session, change: EditChange) -> int:
        query = select(Event.number).where(self._in_project, Event.request == change.request)
        number = session.scalar(query)
        if number is None:
            event = Event(project=self._project_id, **vars(change))
            session.add(event)
            session.flush()
            number = event.number
        return number

    def _is_stored(self, session: Session, edit: Edit) -> bool:
        query = select(Event.scores).where(self._in_project, Event.clip_id == edit.clip_id, Event.author == edit.author)
        return edit.scores in session.scalars(query.where(Event.time == edit.time, Event.comment == edit.comment))

    def _restore_current(self, session: Session, clip_id: str, author: str) -> EditChange:
        """The change that makes an author's current edit of a clip the last one again."""
        query = select(Event).where(self._in_project).filter_by(clip_id=clip_id, author=author)
        last = session.scalars(query.order_by(Event.number.desc()).limit(1)).one()
        kind = "clear" if last.scores is None else "import"
        return EditChange(request=uuid4().hex, kind=kind, **_edit_fields(last))


def _edit_fields(event: Event) -> dict[str, Any]:
    return {field.name: getattr(event, field.name) for field in fields(Edit)}
