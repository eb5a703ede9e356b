"""Labelled videos in the simplest form that people have: a CSV file."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stabn.data.datasets import Sample, Table
from stabn.data.truth import ClipTruth
from stabn.errors import UserError
from stabn.files import read_json


@dataclass(frozen=True)
class Columns:
    """What the columns of a CSV file are called.

    Attributes:
        path: the column with the video's path, or a pattern over the table's columns such as 'videos/{id}.mp4'.
        label: the column with the class.
        split: the column with train, validation, or any other name that a verb's --split can ask for.
        id: the column with each clip's own name; by default id, if there is one. Where it is empty, the path is the
            name.
        start: the column with the frame, counted from 0, in which the labelled thing begins; it may be fractional, and
            is empty where that is unknown. By default relevant_start, if there is one.
        end: the column with the frame before which the labelled thing has ended; by default relevant_end.
    """

    path: str = "path"
    label: str = "label"
    split: str = "split"
    id: str | None = None
    start: str | None = None
    end: str | None = None

    def of(self, heading: Sequence[str], file: Path) -> "Columns":
        """The columns as a table has them: defaults filled in, `path` a pattern.

        Raises:
            UserError: one is not there, or there twice, or is one end of an interval without the other.
        """
        if not heading:
            raise UserError(f"{file}: is empty; the first line must name the columns, such as path,label,split")
        usual = {"id": "id", "start": "relevant_start", "end": "relevant_end"}
        there = {key: name for key, name in usual.items() if getattr(self, key) is None and name in heading}
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
        named = {"label": found.label, "split": found.split, "id": found.id, "start": found.start, "end": found.end}
        for key, name in (*(("path", name) for name in patterned), *named.items()):
            if name is not None and name not in heading:
                raise UserError(_no_column(file, name, key, heading))
            if name is not None and heading.count(name) > 1:
                raise UserError(f"{file}: has {heading.count(name)} columns {name!r}; rename or remove one of them")
        return found


FIELD = re.compile(r"\{([^{}]*)\}")
"""A column's name in a pattern for paths."""


def read_csv(file: Path | str, videos: Path | str | None = None, columns: Columns = Columns()) -> Table:
    """A CSV file with a heading line; commas or semicolons between the cells, UTF-8 with or without byte order mark.

    Args:
        file: which. Classes are numbered in alphabetical order. With semicolons, decimal commas are read too.
        videos: what paths are relative to; by default the folder of the file.
        columns: what the columns are called; others are ignored.

    Returns:
        The clips of all splits; their truth is when the labelled thing happens, where the table has it.

    Raises:
        UserError: a column is missing, a cell is empty or wrong, an id comes twice, or a video does not exist; file,
            line and value are named.
    """
    file = Path(file)
    root = file.parent if videos is None else Path(videos)
    heading, rows, decimal_sign = _read(file)
    named = columns.of(heading, file)
    if not rows:
        raise UserError(f"{file}: holds no clip; write one line per video under the heading")
    needed = tuple(dict.fromkeys((*FIELD.findall(named.path), named.label, named.split)))
    class_names = tuple(sorted({row[named.label] for _, row in rows} - {""}))
    samples: dict[str, Sample] = {}
    truth: dict[str, ClipTruth] = {}
    for line, row in rows:
        where = f"{file}, line {line}"
        for name in needed:
            if not row[name]:
                raise UserError(f"{where}: {name} is empty; every clip needs {', '.join(needed)}")
        relative = _filled(named.path, row)
        clip_id, path = (row[named.id] if named.id else "") or relative, root / relative
        if clip_id in samples:
            raise UserError(f"{where}: clip {clip_id!r} is there twice; remove one of them")
        if not path.is_file():
            raise UserError(f"{path}: no such video ({where}); correct the path, or give --data.videos")
        samples[clip_id] = Sample(clip_id, path, class_names.index(row[named.label]), row[named.split])
        if named.start is not None and named.end is not None:
            cells = {name: row[name].replace(decimal_sign, ".") for name in (named.start, named.end)}
            if any(cells.values()):
                truth[clip_id] = _interval(cells, where)
    return Table(class_names, tuple(samples.values()), truth)


def _read(file: Path) -> tuple[list[str], list[tuple[int, Mapping[str, str]]], str]:
    """The heading, the rows with the numbers of their lines, and the sign before decimals."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        # Spreadsheets of countries with a decimal comma put semicolons between the cells.
        sign = max(",;", key=lambda sign: len(next(csv.reader(io.StringIO(text, newline=""), delimiter=sign), ())))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=True, strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give a CSV file or an annotation folder") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: is not UTF-8 CSV ({error}); save it as CSV with a heading line") from None
    (_, heading), *rest = [(line, cells) for line, cells in lines if any(cells)] or [(1, [])]
    for line, cells in rest:
        if any(cells[len(heading) :]):
            raise UserError(
                f"{file}, line {line}: has {len(cells)} cells under {len(heading)} columns; "
                f"put quotes around what contains a {'comma' if sign == ',' else 'semicolon'}"
            )
    rows: list[tuple[int, Mapping[str, str]]] = [
        (line, dict(zip(heading, _padded(cells, len(heading)), strict=True))) for line, cells in rest
    ]
    return heading, rows, "." if sign == "," else ","


def _filled(pattern: str, row: Mapping[str, str]) -> str:
    return FIELD.sub(lambda field: row[field[1]], pattern)


def _padded(cells: Sequence[str], length: int) -> list[str]:
    return [*cells, *[""] * (length - len(cells))][:length]


def _interval(cells: Mapping[str, str], where: str) -> ClipTruth:
    """The truth in the cells of `start` and `end`, by column name."""
    for name, cell in cells.items():
        if not cell:
            other = next(other for other in cells if other != name)
            raise UserError(f"{where}: {name} is empty but {other} is {cells[other]}; fill both cells or none")
    numbers = []
    for name, cell in cells.items():
        try:
            numbers.append(float(cell))
        except ValueError:
            raise UserError(f"{where}: {name} is {cell!r}; write a frame as a number, such as 21.25") from None
    try:
        return ClipTruth(interval=(numbers[0], numbers[1]))
    except ValueError as error:
        raise UserError(f"{where}: {', '.join(cells)}: {error}; correct the cells") from None


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
