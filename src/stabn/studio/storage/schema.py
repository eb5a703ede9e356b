"""The studio's one table. A change here needs a migration; a test compares the two."""

from sqlalchemy import JSON, BigInteger, Index, Integer, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

VERSION_TABLE = "stabn_version"
"""Where the migrations note how far they have come."""

NO_CLIP = ""
"""The clip id of events that are about no clip."""

_JSON = JSON(none_as_null=True)


class Base(DeclarativeBase):
    """What the migrations are compared with."""


class EventRow(Base):
    """Something that happened in a project. Rows are only ever added.

    Attributes:
        number: ascending in the order of commits within a project.
        project: whose; one database may serve many.
        request: the client's name of this change; it comes once in a project.
        kind: what `Change.kind` may be, or "use" for a choice of what fine-tuning uses.
        clip_id, frame_indices, timestamps: of which clip; empty for "use".
        scores: the person's scores from now on; None where the edit is withdrawn, and for "use".
        author, time, comment: as in `stabn.records.Edit`.
        use: the choice; None for all other kinds.
    """

    __tablename__ = "stabn_events"
    __table_args__ = (
        UniqueConstraint("project", "request", name="stabn_events_request"),
        Index("stabn_events_pair", "project", "clip_id", "author", "number"),
        Index("stabn_events_project", "project", "number"),
    )

    # SQLite counts only a column of type INTEGER by itself.
    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    project: Mapped[str]
    request: Mapped[str]
    kind: Mapped[str]
    clip_id: Mapped[str]
    frame_indices: Mapped[list[int]] = mapped_column(_JSON)
    timestamps: Mapped[list[float]] = mapped_column(_JSON)
    scores: Mapped[list[float] | None] = mapped_column(_JSON)
    author: Mapped[str]
    time: Mapped[str]
    comment: Mapped[str]
    use: Mapped[str | None]
