"""Labelled videos in the simplest form that people have: a table with a row per clip."""

import csv
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stabn.data.annotations.rows import read_rows
from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import ClipTruth
from stabn.data.segments import Segment, Unit, plain
from stabn.errors import UserError
from stabn.files import read_json, replacing, write_json

CLASSES = ".classes.json"
"""What is added to a table's name for the file beside it that has the class names in order."""
_UNITS: tuple[Unit, ...] = ("seconds", "frames")


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called.

    Attributes:
        path: the column with the video's path, or a pattern over the table's columns such as 'videos/{id}.mp4'.
        label: the column with the class.
        split: the column with train, validation, or any other name that a verb's --split can ask for.
        id: the column with each clip's own name; by default id, if there is one. Where it is empty, the path is the
            name.
        start: the column with the frame, counted from 0, in which the labelled thing begins; it may be fractional, and
            is empty where that is unknown. By default relevant_start, if there is one.
        end: the column with the frame before which the labelled thing has ended; by default relevant_end.
        segment_start: the column with where in its video the clip begins, empty for the video's beginning; by default
            segment_start_seconds, segment_start_frames or segment_start, if there is one.
        segment_end: the column with where in its video the clip ends, empty for the video's end; by default
            segment_end_seconds, segment_end_frames or segment_end.
        segment_unit: seconds, or frames counted from 0; by default what the names of the two columns end with.
    """

    path: str = "path"
    label: str = "label"
    split: str = "split"
    id: str | None = None
    start: str | None = None
    end: str | None = None
    segment_start: str | None = None
    segment_end: str | None = None
    segment_unit: Unit | None = None

    def of(self, heading: Sequence[str], file: Path) -> "Columns":
        """The columns as a table has them: defaults filled in, `path` a pattern.

        Raises:
            UserError: one is not there, or there twice, or is one end of an interval without the other, or nobody says
                in which unit segments are.
        """
        if not heading:
            raise UserError(f"{file}: is empty; the first line must name the columns, such as path,label,split")
        usual = {
            "id": ("id",),
            "start": ("relevant_start",),
            "end": ("relevant_end",),
            "segment_start": ("segment_start_seconds", "segment_start_frames", "segment_start"),
            "segment_end": ("segment_end_seconds", "segment_end_frames", "segment_end"),
        }
        there: dict[str, Any] = {
            key: next((name for name in names if name in heading), None)
            for key, names in usual.items()
            if getattr(self, key) is None
        }
        found = replace(self, **there, path=f"{{{self.path}}}" if self.path in heading else self.path)
        if (found.start is None) != (found.end is None):
            given, lacking = ("start", "end") if found.end is None else ("end", "start")
            raise UserError(
                f"{file}: got column {getattr(found, given)!r} for the {given} of what is relevant and none for the "
                f"{lacking}; add --data.columns.{lacking}"
            )
        patterned = FIELD.findall(found.path)
        if not patterned:
            raise UserError(_no_column(file, self.path, "path", heading))
        keys = ("label", "split", "id", "start", "end", "segment_start", "segment_end")
        for key, name in (*(("path", name) for name in patterned), *((key, getattr(found, key)) for key in keys)):
            if name is not None and name not in heading:
                raise UserError(_no_column(file, name, key, heading))
            if name is not None and heading.count(name) > 1:
                raise UserError(f"{file}: has {heading.count(name)} columns {name!r}; rename or remove one of them")
        return replace(found, segment_unit=found._unit(file))

    def _unit(self, file: Path) -> Unit | None:
        """The unit of segments; None where there are none."""
        names = [name for name in (self.segment_start, self.segment_end) if name is not None]
        if self.segment_unit is not None or not names:
            return self.segment_unit
        units = {unit for name in names for unit in _UNITS if name.endswith(f"_{unit}")}
        if len(units) != 1:
            raise UserError(
                f"{file}: {' and '.join(names)} may be in seconds or in frames; add "
                "--data.columns.segment_unit seconds or frames"
            )
        return units.pop()


FIELD = re.compile(r"\{([^{}]*)\}")
"""A column's name in a pattern for paths."""


def read_table(
    file: Path | str,
    videos: Path | str | None = None,
    columns: Columns = Columns(),
    *,
    may_miss: Callable[[str], bool] = lambda clip_id: False,
) -> Table:
    """A table with a row per clip; see `stabn.data.annotations.rows` for the kinds of files.

    Args:
        file: which. Classes are numbered in alphabetical order, or in that of FILE.classes.json where there is one. In
            CSV with semicolons, decimal commas are read too.
        videos: what paths are relative to; by default the folder of the file.
        columns: what the columns are called; others are ignored.
        may_miss: is asked about clips whose video does not exist, by id, whether that is allowed.

    Returns:
        The clips of all splits; their truth is when the labelled thing happens, where the table has it.

    Raises:
        UserError: a column is missing, a cell is empty or wrong, an id comes twice, or a video does not exist; file,
            line and value are named.
    """
    file = Path(file)
    root = file.parent if videos is None else Path(videos)
    table = read_rows(file)
    named = columns.of(table.heading, file)
    if not table.rows:
        raise UserError(f"{file}: holds no clip; write one line per video under the heading")
    needed = tuple(dict.fromkeys((*FIELD.findall(named.path), named.label, named.split)))
    class_names = class_order(file) or tuple(sorted({row[named.label] for _, row in table.rows} - {""}))
    labels = {name: index for index, name in enumerate(class_names)}
    samples: dict[str, Sample] = {}
    truth: dict[str, ClipTruth] = {}
    for line, row in table.rows:
        where = f"{file}, {line}"
        for name in needed:
            if not row[name]:
                raise UserError(f"{where}: {name} is empty; every clip needs {', '.join(needed)}")
        relative = filled(named.path, row)
        try:
            segment, interval = segment_in(row, named, table.decimal_sign), interval_in(row, named, table.decimal_sign)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        clip_id, path = (row[named.id] if named.id else "") or name_of(relative, segment), root / relative
        if clip_id in samples:
            raise UserError(f"{where}: clip {clip_id!r} is there twice; remove one of them")
        if not os.path.exists(path) and not may_miss(clip_id):  # Path.exists raises where a name is too long
            raise UserError(
                f"{path}: no such video ({where}); correct the path, give --data.videos, or find all that are missing "
                "with `stabn check-data` and leave them out with --data.exclude"
            )
        if row[named.label] not in labels:
            raise UserError(
                f"{where}: {named.label} is {row[named.label]!r}, which is not in {file.name}{CLASSES}; add it there, "
                "or remove that file"
            )
        samples[clip_id] = Sample(clip_id, path, labels[row[named.label]], row[named.split], segment)
        if interval is not None:
            truth[clip_id] = ClipTruth(interval=interval)
    return Table(class_names, tuple(samples.values()), truth)


def write_table(file: Path, table: Table, *, ordered: bool) -> None:
    """Write clips as CSV for `read_table`, atomically; paths below the file's folder are relative to it.

    The columns are path, label, split and id; then, where a clip has any of it, segment_start_seconds and
    segment_end_seconds or the same in frames, relevant_start and relevant_end.

    Args:
        file: where to.
        table: of its truth, only intervals are written; all its segments are in one unit.
        ordered: also write the class names in their order, to FILE.classes.json; else such a file is removed.
    """
    unit = next((s.segment.unit for s in table.samples if s.segment), None)
    timed = any(truth.interval for truth in table.truth.values())
    heading = ["path", "label", "split", "id"]
    heading += [] if unit is None else [f"segment_start_{unit}", f"segment_end_{unit}"]
    heading += ["relevant_start", "relevant_end"] if timed else []
    folder = os.path.abspath(file.parent)
    beside = file.with_name(file.name + CLASSES)
    if not ordered:
        beside.unlink(missing_ok=True)
    with replacing(file) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as content:
            writer = csv.writer(content, lineterminator="\n")
            writer.writerow(heading)
            for sample in table.samples:
                path = os.path.abspath(sample.path)
                inside = os.path.commonpath((folder, path)) == folder
                cells = [os.path.relpath(path, folder) if inside else path]
                cells += [table.class_names[sample.label], sample.split, sample.clip_id]
                if unit is not None:
                    start, end = (sample.segment.start, sample.segment.end) if sample.segment else (None, None)
                    cells += ["" if value is None else plain(value) for value in (start, end)]
                if timed:
                    interval = table.truth[sample.clip_id].interval if sample.clip_id in table.truth else None
                    cells += ["", ""] if interval is None else [plain(value) for value in interval]
                writer.writerow(cells)
        if ordered:
            write_json(beside, list(table.class_names))


def name_of(relative: str, segment: Segment | None) -> str:
    """What a clip without an id is called: its path, and the segment where it is a part."""
    if segment is None:
        return relative
    return f"{relative}#{plain(segment.start)}-{'' if segment.end is None else plain(segment.end)}"


def filled(pattern: str, row: Mapping[str, str]) -> str:
    """A pattern for paths with a row's cells in it."""
    return FIELD.sub(lambda field: row[field[1]], pattern)


def segment_in(row: Mapping[str, str], columns: Columns, decimal_sign: str = ".") -> Segment | None:
    """Which part of its video a row is; None for all of it.

    Args:
        row: cells by column.
        columns: as `Columns.of` found them.
        decimal_sign: what stands before decimals.

    Raises:
        ValueError: a cell is wrong; the message names it and ends with the remedy.
    """
    names = {key: name for key in ("segment_start", "segment_end") if (name := getattr(columns, key)) is not None}
    cells = {key: row[name].replace(decimal_sign, ".") for key, name in names.items() if row[name]}
    if not cells or columns.segment_unit is None:
        return None
    kind = "time in seconds" if columns.segment_unit == "seconds" else "frame"
    numbers = {key: _number(names[key], cell, kind) for key, cell in cells.items()}
    try:
        return Segment(numbers.get("segment_start", 0), numbers.get("segment_end"), columns.segment_unit)
    except ValueError as error:
        raise ValueError(f"{', '.join(names.values())}: {error}; correct the cells") from None


def interval_in(row: Mapping[str, str], columns: Columns, decimal_sign: str = ".") -> tuple[float, float] | None:
    """When the labelled thing happens, in frames of the source; None where a row does not say.

    Args, raises: as `segment_in`.
    """
    if columns.start is None or columns.end is None:
        return None
    cells = {name: row[name].replace(decimal_sign, ".") for name in (columns.start, columns.end)}
    if not any(cells.values()):
        return None
    for name, cell in cells.items():
        if not cell:
            other = next(other for other in cells if other != name)
            raise ValueError(f"{name} is empty but {other} is {cells[other]}; fill both cells or none")
    start, end = (_number(name, cell, "frame") for name, cell in cells.items())
    try:
        return ClipTruth(interval=(start, end)).interval
    except ValueError as error:
        raise ValueError(f"{', '.join(cells)}: {error}; correct the cells") from None


def _number(name: str, cell: str, kind: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{name} is {cell!r}; write a {kind} as a number, such as 21.25") from None


def class_order(file: Path) -> tuple[str, ...] | None:
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


def _no_column(file: Path, name: str, key: str, heading: Iterable[str]) -> str:
    return f"{file}: has no column {name!r}, only {', '.join(heading)}; say with --data.columns.{key} which to take"


def read_class_names(path: Path) -> tuple[str, ...]:
    """Class names in the order of the outputs, from Something-Something v2's labels file or a JSON list of names.

    Raises:
        UserError: the file is neither.
    """
    value = read_json(path, remedy="give something-something-v2-labels.json or a JSON list of names")
    if isinstance(value, dict) and all(str(index).isdecimal() for index in value.values()):
        return tuple(sorted(value, key=lambda name: int(value[name])))
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UserError(f"{path}: is neither a list of names nor an object of name: index; correct it")
