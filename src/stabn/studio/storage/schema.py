"""The studio's one table. A change here needs a migration; a test compares the two."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Dialect, Index, Integer, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

VERSION_TABLE = "stabn_version"
"""Where Alembic records the revision of the database."""

NO_CLIP = ""
"""The clip id of events that belong to no clip."""


class JsonTuple(TypeDecorator[tuple[Any, ...]]):
    """A tuple of numbers as a JSON list; None is NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_result_value(self, value: list[Any] | None, dialect: Dialect) -> tuple[Any, ...] | None:
        """Convert the list that the database returns."""
        return None if value is None else tuple(value)


class Base(DeclarativeBase):
    """The metadata that the migrations are compared with."""


class Event(Base):
    """Something that happened in a project. Rows are only ever added.

    Attributes:
        number: ascending in the order of commits within a project.
        project: `Project.id`; one database may serve many projects.
        request: the client's name of this change; unique within a project.
        kind: a kind of `EditChange`, or "use" for a choice of what fine-tuning uses.
        clip_id, frame_indices, timestamps: the clip, as in `stabn.records.Edit`; empty for "use".
        scores: the author's scores from this event on; None where the edit is withdrawn, and for "use".
        author, time, comment: as in `stabn.records.Edit`.
        use: the choice; None for all other kinds.
    """

    __tablename__ = "stabn_events"
    __table_args__ = (
        UniqueConstraint("project", "request", name="stabn_events_request"),
        Index("stabn_events_pair", "project", "clip_id", "author", "number"),
        Index("stabn_events_project", "project", "number"),
    )

    # SQLite numbers rows automatically only in a column of type INTEGER.
    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    project: Mapped[str]
    request: Mapped[str]
    kind: Mapped[str]
    clip_id: Mapped[str] = mapped_column(default=NO_CLIP)
    frame_indices: Mapped[tuple[int, ...]] = mapped_column(JsonTuple, default=())
    timestamps: Mapped[tuple[float, ...]] = mapped_column(JsonTuple, default=())
    scores: Mapped[tuple[float, ...] | None] = mapped_column(JsonTuple)
    author: Mapped[str]
    time: Mapped[str]
    comment: Mapped[str] = mapped_column(default="")
    use: Mapped[str | None]
