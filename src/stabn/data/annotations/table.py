"""Labelled videos in the simplest form that people have: a table with a row per clip."""

import csv
import os
from pathlib import Path

from stabn.data.annotations.class_names import read_class_names
from stabn.data.annotations.columns import Columns, clips_in_rows, with_usual_splits
from stabn.data.annotations.listing import make_table
from stabn.data.annotations.rows import read_rows
from stabn.data.dataset import Table
from stabn.data.segments import format_number
from stabn.data.spelling import IGNORED
from stabn.errors import UserError
from stabn.files import atomic_write, write_json

CLASSES = ".classes.json"
"""What is added to a table's name for the file beside it that has the class names in order."""
HEADING = ("path", "label", "split", "id")
"""How the headings begin that `write_table` writes."""


def read_table(file: Path | str, videos: Path | str | None = None, columns: Columns | None = None) -> Table:
    """A table with a row per clip; see `stabn.data.annotations.rows` for the kinds of files.

    Args:
        file: which. Classes are numbered in alphabetical order, or in that of FILE.classes.json where there is one. In
            CSV with semicolons, decimal commas are read too.
        videos: what paths are relative to; by default the folder of the file.
        columns: what the columns are called; others are ignored.

    Returns:
        The clips of all splits but those that `IGNORED` leaves out, whose videos need not exist; their truth is when
        the labelled thing happens, where the table has it.

    Raises:
        UserError: a column is missing, a cell is empty or wrong, or an id comes twice; file, line and value are named.
    """
    file = Path(file)
    table = read_rows(file)
    named = (columns or Columns()).of(table.heading, file)
    if not table.rows:
        raise UserError(f"{file}: holds no clip; write one line per video under the heading")
    listed = clips_in_rows(table, named, file, None if videos is None else Path(videos))
    clips = [clip for clip in with_usual_splits(listed) if clip.split != IGNORED]
    if not clips:
        raise UserError(f"{file}: marks every row with split {IGNORED}; write train or validation for some")
    return make_table(clips, read_class_order(file), folder=file.parent, class_file=f"{file.name}{CLASSES}")


def read_class_order(file: Path) -> tuple[str, ...] | None:
    """The class names of a table in their order, from the file beside it; None where there is none.

    Raises:
        UserError: that file is no list of different names.
    """
    beside = file.with_name(file.name + CLASSES)
    if not beside.exists():
        return None
    names = read_class_names(beside)
    if not names or len(set(names)) < len(names):
        raise UserError(f"{beside}: has {'a class twice' if names else 'no class'}; correct or remove it")
    return names


def path_beside(path: Path, folder: str) -> str:
    """A path as a table in `folder` has it: relative below that folder or the one above, so that both move together.

    Other paths are absolute, since a table may move without them.
    """
    absolute, above = os.path.abspath(path), os.path.dirname(folder)
    near = folder if os.path.dirname(above) == above else above  # not from the root of the file system
    return os.path.relpath(absolute, folder) if os.path.commonpath((near, absolute)) == near else absolute


def write_table(file: Path, table: Table, *, ordered: bool) -> None:
    """Write clips as CSV for `read_table`, atomically; paths are as `path_beside` gives them.

    The columns are path, label, split and id; then, where a clip has any of it, segment_start_seconds and
    segment_end_seconds or the same in frames, relevant_start and relevant_end.

    Args:
        file: where to.
        table: of its truth, only intervals are written; all its segments are in one unit.
        ordered: also write the class names in their order, to FILE.classes.json; else such a file is removed.
    """
    unit = next((s.segment.unit for s in table.samples if s.segment), None)
    intervals = {clip_id: truth.interval for clip_id, truth in table.truth.items() if truth.interval}
    heading = [*HEADING]
    heading += [] if unit is None else [f"segment_start_{unit}", f"segment_end_{unit}"]
    heading += ["relevant_start", "relevant_end"] if intervals else []
    folder = os.path.abspath(file.parent)
    beside = file.with_name(file.name + CLASSES)
    if not ordered:
        beside.unlink(missing_ok=True)
    with atomic_write(file) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as content:
            writer = csv.writer(content, lineterminator="\n")
            writer.writerow(heading)
            for sample in table.samples:
                path = path_beside(sample.path, folder)
                numbers: list[float | None] = []
                if unit is not None:
                    numbers += [sample.segment.start, sample.segment.end] if sample.segment else [None, None]
                if intervals:
                    numbers += intervals.get(sample.clip_id, (None, None))
                cells = ["" if number is None else format_number(number) for number in numbers]
                writer.writerow([path, table.class_names[sample.label], sample.split, sample.clip_id, *cells])
        if ordered:
            write_json(beside, list(table.class_names))
