"""Every change of an edit, kept as an appended event, so that history and undo survive whatever happens.

An event holds the scores that count after it. So the present is the last event of each person and clip, whatever a
client believed when it sent undo or redo, and only the history of one person's edit of one clip is ever folded.
"""

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import URL, ColumnElement, func, select
from sqlalchemy.orm import Session

from stabn.edits.merge import check_use
from stabn.records import Edit, now
from stabn.studio.storage.database import Database
from stabn.studio.storage.schema import NO_CLIP, EventRow

KINDS = ("paint", "undo", "redo", "clear", "import")
"""What can happen to an edit. Paint, clear and import are steps that undo takes back."""

Scores = tuple[float, ...] | None
"""T importances in 0..1, or None where there is no edit."""

_REQUEST = re.compile(r"[A-Za-z0-9_-]{8,64}")


@dataclass(frozen=True)
class Change:
    """What a person does to their edit of a clip.

    Attributes:
        request: a name that the client gives this change and no other: 8 to 64 of A-Z a-z 0-9 _ -.
        kind: one of `KINDS`.
        clip_id, frame_indices, timestamps: which clip, as in `Edit`.
        scores: T importances in 0..1 that count from now on; None to withdraw the edit.
        author: 1 to 80 printable characters, without spaces around them.
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
        if not _REQUEST.fullmatch(self.request):
            raise ValueError(f"request: got {self.request!r}, expected 8 to 64 of A-Z a-z 0-9 _ -")
        if self.kind not in KINDS:
            raise ValueError(f"kind: got {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.kind in ("paint", "import") and self.scores is None:
            raise ValueError(f"scores: got none to {self.kind}, expected one per frame")
        if self.kind == "clear" and self.scores is not None:
            raise ValueError("scores: got some to clear, expected none")
        check_author(self.author)
        scores = (0.0,) * len(self.frame_indices) if self.scores is None else self.scores
        Edit(self.clip_id, self.frame_indices, self.timestamps, scores, self.author, self.time, self.comment)

    @classmethod
    def importing(cls, edit: Edit) -> "Change":
        """Take an edit over from elsewhere.

        Raises:
            ValueError: its author is no name.
        """
        return cls(request=uuid4().hex, kind="import", **vars(edit))


@dataclass(frozen=True)
class Event:
    """A change that has happened.

    Attributes:
        number: ascending within a project.
        kind: one of `KINDS`.
        author, time, comment: whose change, when, and what they remarked.
        scores: T importances that counted from then on, or None.
    """

    number: int
    kind: str
    author: str
    time: str
    scores: Scores
    comment: str


@dataclass(frozen=True)
class History:
    """One person's edit of one clip, with the way there.

    Attributes:
        scores: what counts now, or None.
        comment: the remark of the last event.
        done: what undo goes back to, the next one last.
        undone: what redo goes forward to, the next one last.
        event: the last number; 0 if nothing has happened.
    """

    scores: Scores = None
    comment: str = ""
    done: tuple[Scores, ...] = ()
    undone: tuple[Scores, ...] = ()
    event: int = 0


def check_author(author: str) -> None:
    """Make sure that a person's name is one.

    Raises:
        ValueError: it is empty, longer than 80 characters, has spaces around it or characters that do not print.
    """
    if not 1 <= len(author) <= 80 or author != author.strip() or not author.isprintable():
        raise ValueError(f"author: got {author!r}, expected a name of 1 to 80 printable characters")


def folded(events: Iterable[Event]) -> History:
    """The history that events of one person and clip, in their order, amount to.

    Each event's own scores are what counts after it, also where a client undid what was not there to be undone.
    """
    done: list[Scores] = []
    undone: list[Scores] = []
    last = Event(0, "", "", "", None, "")
    for event in events:
        if event.kind == "undo":
            undone.append(last.scores)
            del done[-1:]
        else:
            done.append(last.scores)
            if event.kind == "redo":
                del undone[-1:]
            else:
                undone.clear()
        last = event
    return History(last.scores, last.comment, tuple(done), tuple(undone), last.number)


class Store:
    """The events of one edit project; threads and servers may share a database.

    Args:
        url: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; a `sqlalchemy.URL` can name any file.
        project_id: `Project.id`.

    Attributes:
        kind: "sqlite" or "postgresql".

    Raises:
        UserError: the database cannot be opened, or a newer program has written it. So do all methods when the
            database goes away. No message shows the password.
    """

    def __init__(self, url: str | URL, project_id: str) -> None:
        self._database = Database(url)
        self._mine = EventRow.project == project_id
        self._project = project_id
        self._turn = threading.Lock()  # a fair queue, where SQLite would have threads try again and again
        self.kind = self._database.kind

    def append(self, change: Change) -> int:
        """Keep a change and give its number; when this returns, the change survives the loss of power.

        A request that is there already is not kept twice: its number is given again.
        """
        return self.append_all([change])[0]

    def append_all(self, changes: Sequence[Change]) -> tuple[int, ...]:
        """Keep several changes, all or none, and give their numbers."""
        with self._writing() as session:
            return tuple(self._appended(session, change) for change in changes)

    def take_in(self, edits: Sequence[Edit]) -> int:
        """Keep those edits of a file that are not known, all or none, and give their count.

        An edit is known if some event made exactly it. As in the file, the last edit of a person and clip counts: where
        that one is known, the unknown ones before it become history, and what counted before still counts.

        Raises:
            ValueError: an author is no name.
        """
        with self._writing() as session:
            fresh, last_is_known = [], {}
            for edit in edits:
                known = self._knows(session, edit)
                last_is_known[edit.clip_id, edit.author] = known
                if not known:
                    fresh.append(edit)
            pairs = dict.fromkeys((edit.clip_id, edit.author) for edit in fresh)
            standing = [self._repeated(session, *pair) for pair in pairs if last_is_known[pair]]
            for change in (*map(Change.importing, fresh), *standing):
                self._appended(session, change)
            return len(fresh)

    def current(self) -> tuple[Edit, ...]:
        """Everybody's edits as they are now, in the order of their last event; withdrawn ones are absent."""
        return self._current(EventRow.clip_id != NO_CLIP)

    def current_of(self, clip_id: str) -> tuple[Edit, ...]:
        """Everybody's edits of one clip, as `current`."""
        return self._current(EventRow.clip_id == clip_id)

    def history(self, clip_id: str, author: str) -> History:
        """One person's edit of one clip, and the way there."""
        return folded(self._events(EventRow.clip_id == clip_id, EventRow.author == author))

    def events(self, clip_id: str) -> tuple[Event, ...]:
        """Everything that happened to a clip, in order."""
        return self._events(EventRow.clip_id == clip_id)

    def people(self) -> tuple[str, ...]:
        """Everybody who has ever edited a clip, by name."""
        query = select(EventRow.author).distinct().where(self._mine, EventRow.clip_id != NO_CLIP)
        with self._database.reading() as session:
            return tuple(sorted(session.scalars(query), key=lambda name: (name.casefold(), name)))

    def use(self) -> str:
        """What fine-tuning makes of several people's edits: "latest" until somebody chooses."""
        query = select(EventRow.number, EventRow.use).where(self._mine, EventRow.clip_id == NO_CLIP)
        with self._database.reading() as session:
            choices = session.execute(query).all()  # few; sorted by SQLite, all events would be read
            return max(choices, default=(0, None))[1] or "latest"

    def set_use(self, use: str, author: str) -> None:
        """Choose what fine-tuning makes of several people's edits.

        Raises:
            UserError: `use` is no such choice.
            ValueError: the author is no name.
        """
        check_use(use)
        check_author(author)
        with self._writing() as session:
            session.add(
                EventRow(
                    project=self._project,
                    request=uuid4().hex,
                    kind="use",
                    clip_id=NO_CLIP,
                    frame_indices=[],
                    timestamps=[],
                    author=author,
                    time=now(),
                    comment="",
                    use=use,
                )
            )

    def version(self) -> int:
        """The number of the project's last event; 0 if there is none."""
        with self._database.reading() as session:
            return session.scalar(select(func.max(EventRow.number)).where(self._mine)) or 0

    def changed(self, since: int) -> tuple[str, ...]:
        """The ids of the clips that have events after number `since`, sorted."""
        query = (
            select(EventRow.clip_id).distinct().where(self._mine, EventRow.number > since, EventRow.clip_id != NO_CLIP)
        )
        with self._database.reading() as session:
            return tuple(sorted(session.scalars(query)))

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._turn, self._database.writing(self._project) as session:
            yield session

    def _appended(self, session: Session, change: Change) -> int:
        known = session.scalar(select(EventRow.number).where(self._mine, EventRow.request == change.request))
        if known is not None:
            return known
        row = EventRow(project=self._project, **vars(change))
        session.add(row)
        session.flush()
        return row.number

    def _knows(self, session: Session, edit: Edit) -> bool:
        query = select(EventRow.scores).where(
            self._mine,
            EventRow.clip_id == edit.clip_id,
            EventRow.author == edit.author,
            EventRow.time == edit.time,
            EventRow.comment == edit.comment,
        )
        return list(edit.scores) in session.scalars(query)

    def _repeated(self, session: Session, clip_id: str, author: str) -> Change:
        """The change that makes what counts now count again."""
        query = select(EventRow).where(self._mine, EventRow.clip_id == clip_id, EventRow.author == author)
        row = session.scalars(query.order_by(EventRow.number.desc()).limit(1)).one()
        kind, scores = "clear" if row.scores is None else "import", _scores(row)
        frames, times = tuple(row.frame_indices), tuple(row.timestamps)
        return Change(uuid4().hex, kind, clip_id, frames, times, scores, author, row.time, row.comment)

    def _current(self, clips: ColumnElement[bool]) -> tuple[Edit, ...]:
        last = select(func.max(EventRow.number)).where(self._mine, clips).group_by(EventRow.clip_id, EventRow.author)
        query = select(EventRow).where(EventRow.number.in_(last), EventRow.scores.is_not(None))
        with self._database.reading() as session:
            return tuple(_edit(row) for row in session.scalars(query.order_by(EventRow.number)))

    def _events(self, *conditions: ColumnElement[bool]) -> tuple[Event, ...]:
        query = select(EventRow).where(self._mine, *conditions).order_by(EventRow.number)
        with self._database.reading() as session:
            return tuple(
                Event(row.number, row.kind, row.author, row.time, _scores(row), row.comment)
                for row in session.scalars(query)
            )


def _scores(row: EventRow) -> Scores:
    return None if row.scores is None else tuple(row.scores)


def _edit(row: EventRow) -> Edit:
    frames, times = tuple(row.frame_indices), tuple(row.timestamps)
    return Edit(row.clip_id, frames, times, tuple(row.scores or ()), row.author, row.time, row.comment)
