"""Any table with named columns: CSV, JSON Lines or Parquet."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stabn.data.annotations.listing import Entry, Listing, listing
from stabn.data.annotations.rows import Rows, read_rows
from stabn.data.annotations.splits import split_named
from stabn.data.annotations.table import FIELD, Columns, class_order, filled, interval_in, name_of, segment_in
from stabn.data.ground_truth import ClipTruth
from stabn.errors import UserError

_USUAL = {
    "path": ("path", "video", "video_path", "videopath", "file", "filename", "file_name", "filepath", "file_path",
             "clip", "frames"),
    "label": ("label", "class", "class_name", "label_name", "category", "action"),
    "split": ("split", "subset", "partition", "set", "fold"),
}  # fmt: skip


def columns_of(heading: Sequence[str], columns: Columns) -> Columns:
    """The columns with the usual names in place of those that a table lacks and nobody named.

    Only where exactly one of them is there, in any case of letters.
    """
    found: dict[str, Any] = {}
    for key, names in _USUAL.items():
        if getattr(columns, key) == getattr(Columns(), key) and getattr(columns, key) not in heading:
            there = [name for name in heading if name.strip().lower() in names]
            if len(there) == 1:
                found[key] = there[0]
    return replace(columns, **found)


def is_named(heading: Sequence[str], columns: Columns) -> bool:
    """Whether a table has columns for path and label."""
    columns = columns_of(heading, columns)
    paths = FIELD.findall(columns.path) or [columns.path]
    return {*paths, columns.label} <= set(heading)


def read_named(
    files: Sequence[tuple[Path, str]], videos: Path | None = None, columns: Columns | None = None
) -> Listing:
    """Tables with a row per clip.

    Args:
        files: each with the split of its clips, for tables that do not tell.
        videos: what paths are relative to; by default the folder of each file.
        columns: what the columns are called, if not as usual.

    Raises:
        UserError: a file cannot be read or is empty, or lacks a column.
    """
    entries, notes, columns = [], [], columns or Columns()
    for file, split in files:
        table = read_rows(file)
        asked = columns_of(table.heading, columns)
        has_split = asked.split in table.heading
        if not has_split and asked.split == Columns().split:
            asked = replace(asked, split=asked.label)  # which is there; it is not asked for its value
        try:
            named = asked.of(table.heading, file)
        except UserError as error:
            raise UserError(str(error).replace("--data.columns", "--columns")) from None
        changed = [(key, getattr(asked, key)) for key in _USUAL if getattr(asked, key) != getattr(columns, key)]
        changed = [(key, name) for key, name in changed if key != "split" or has_split]
        if changed:
            notes.append(f"{file.name}: " + ", ".join(f"{key} from column {name!r}" for key, name in changed))
        entries += _entries(file, table, named, split, has_split, file.parent if videos is None else videos)
    if not entries:
        raise UserError(f"{files[0][0]}: holds no clip; write one line per video under the heading")
    order = class_order(files[0][0]) if len(files) == 1 else None
    return listing("table with named columns", entries, order, notes)


def _entries(file: Path, table: Rows, named: Columns, split: str, has_split: bool, root: Path) -> list[Entry]:
    entries = []
    for where, row in table.rows:
        relative = filled(named.path, row)
        segment, interval, problem = None, None, None
        try:
            segment = segment_in(row, named, table.decimal_sign)
            interval = interval_in(row, named, table.decimal_sign)
        except ValueError as error:
            problem = str(error)
        if not all(row[name] for name in FIELD.findall(named.path)):
            problem = "has no path"
        entry = Entry(
            where=f"{file.name}, {where}",
            clip_id=(row[named.id] if named.id else "") or name_of(relative, segment) or where,
            path=root / relative,
            label=row[named.label],
            split=(split_named(row[named.split]) if has_split else "") or split,
            segment=segment,
            truth=None if interval is None else ClipTruth(interval=interval),
            problem=problem,
        )
        entries.append(entry)
    return entries
