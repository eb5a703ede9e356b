"""The table of events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Change the database."""
    op.create_table(
        "stabn_events",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("clip_id", sa.String(), nullable=False),
        sa.Column("frame_indices", sa.JSON(), nullable=False),
        sa.Column("timestamps", sa.JSON(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=True),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("time", sa.String(), nullable=False),
        sa.Column("comment", sa.String(), nullable=False),
        sa.Column("use", sa.String(), nullable=True),
        sa.UniqueConstraint("project", "request", name="stabn_events_request"),
    )
    op.create_index("stabn_events_pair", "stabn_events", ["project", "clip_id", "author", "number"])
    op.create_index("stabn_events_project", "stabn_events", ["project", "number"])
