"""Any table with named columns: CSV, JSON Lines or Parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stabn.data.annotations.columns import Columns, clips_in_rows, with_usual_splits
from stabn.data.annotations.listing import Listing, make_listing
from stabn.data.annotations.rows import read_rows
from stabn.data.annotations.table import read_class_order
from stabn.errors import UserError


def read_named_columns(files: Sequence[tuple[Path, str]], videos: Path | None, columns: Columns) -> Listing:
    """Tables with a row per clip.

    Args:
        files: each with the split of its clips, for tables that do not tell.
        videos: what paths are relative to; by default the folder of each file.
        columns: what the columns are called, if not as usual.

    Raises:
        UserError: a file cannot be read or is empty, or lacks a column.
    """
    clips: list[Any] = []
    notes: list[str] = []
    for file, split in files:
        table = read_rows(file)
        usual = columns.with_usual_names(table.heading)
        try:
            named = usual.of(table.heading, file, optional=("split",))
        except UserError as error:
            raise UserError(str(error).replace("--data.columns", "--columns")) from None
        changes = usual.changes(columns)
        notes += [f"{file.name}: {', '.join(changes)}"] if changes else []
        clips += with_usual_splits(clips_in_rows(table, named, file, videos), split)
    if not clips:
        raise UserError(f"{files[0][0]}: holds no clip; write one line per video under the heading")
    order = read_class_order(files[0][0]) if len(files) == 1 else None
    return make_listing("table with named columns", clips, order, notes)
