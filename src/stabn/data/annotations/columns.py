"""Which column of a table holds what, and what a row says of its clip."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stabn.data.annotations.listing import ListedClip
from stabn.data.annotations.notes import note_once
from stabn.data.annotations.paths import PathFinder, moved_parts
from stabn.data.annotations.rows import Rows
from stabn.data.ground_truth import ClipTruth
from stabn.data.segments import Segment, Unit, format_number
from stabn.data.spelling import normalise_split
from stabn.errors import UserError

_FIELD = re.compile(r"\{([^{}]*)\}")
"""A column's name in a pattern for paths."""
_SYNONYMS = {
    "path": ("path", "video", "video_path", "videopath", "file", "filename", "file_name", "filepath", "file_path",
             "clip", "frames"),
    "label": ("label", "class", "class_name", "label_name", "category", "action"),
    "split": ("split", "subset", "partition", "set", "fold"),
}  # fmt: skip
"""Usual names of the columns that every table has."""
_DEFAULTS = {
    "id": ("id",),
    "start": ("relevant_start",),
    "end": ("relevant_end",),
    "segment_start": ("segment_start_seconds", "segment_start_frames", "segment_start"),
    "segment_end": ("segment_end_seconds", "segment_end_frames", "segment_end"),
}
"""Names of the optional columns, which are used where they are in the table."""
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

    def with_usual_names(self, heading: Sequence[str]) -> "Columns":
        """The columns with usual names, such as video or class, for those that a table lacks and the user did not name.

        Only where exactly one of the usual names is there, in any case of letters.
        """
        names: dict[str, Any] = {}
        for key, synonyms in _SYNONYMS.items():
            candidates = [name for name in heading if name.strip().lower() in synonyms]
            if self._is_absent_default(key, heading) and len(candidates) == 1:
                names[key] = candidates[0]
        return replace(self, **names)

    def are_in(self, heading: Sequence[str]) -> bool:
        """Whether a table has the columns of path and label."""
        return {*(_FIELD.findall(self.path) or [self.path]), self.label} <= set(heading)

    def changes(self, before: "Columns") -> list[str]:
        """Which of path, label and split have another name than before, in words."""
        keys = [key for key in _SYNONYMS if getattr(self, key) != getattr(before, key)]
        return [f"{key} from column {getattr(self, key)!r}" for key in keys]

    def of(self, heading: Sequence[str], file: Path, *, optional: Collection[str] = ()) -> "Columns":
        """The columns as a table has them: defaults filled in, `path` a pattern.

        Args:
            heading: the names of the table's columns.
            file: for messages.
            optional: of "label" and "split", those that the table may lack if the user did not name them; the name is
                empty then.

        Raises:
            UserError: a column is not there, or there twice, or is one end of an interval without the other, or nobody
                says in which unit segments are.
        """
        if not heading:
            raise UserError(f"{file}: is empty; the first line must name the columns, such as path,label,split")
        names: dict[str, Any] = {key: getattr(self, key) for key in ("label", "split", *_DEFAULTS)}
        for key, defaults in _DEFAULTS.items():
            names[key] = names[key] or next((name for name in defaults if name in heading), None)
        names |= {key: "" for key in optional if self._is_absent_default(key, heading)}
        if (names["start"] is None) != (names["end"] is None):
            present, absent = ("start", "end") if names["end"] is None else ("end", "start")
            raise UserError(
                f"{file}: got column {names[present]!r} for the {present} of what is relevant and none for the "
                f"{absent}; add --data.columns.{absent}"
            )
        path = f"{{{self.path}}}" if self.path in heading else self.path
        needed = [("path", name) for name in _FIELD.findall(path) or [self.path]]
        for key, name in (*needed, *((key, name) for key, name in names.items() if name)):
            if name not in heading:
                raise UserError(
                    f"{file}: has no column {name!r}, only {', '.join(heading)}; say with --data.columns.{key} which "
                    "to take"
                )
            if heading.count(name) > 1:
                raise UserError(f"{file}: has {heading.count(name)} columns {name!r}; rename or remove one of them")
        unit = self.segment_unit or _unit([names["segment_start"], names["segment_end"]], file)
        return Columns(path=path, **names, segment_unit=unit)

    def _is_absent_default(self, key: str, heading: Sequence[str]) -> bool:
        name = getattr(self, key)
        return name == getattr(Columns(), key) and name not in heading


def _unit(columns: Sequence[str | None], file: Path) -> Unit | None:
    """The unit of segments, from the names of their columns; None where there are none."""
    names = [name for name in columns if name is not None]
    units = {unit for name in names for unit in _UNITS if name.endswith(f"_{unit}")}
    if names and len(units) != 1:
        raise UserError(
            f"{file}: {' and '.join(names)} may be in seconds or in frames; add "
            "--data.columns.segment_unit seconds or frames"
        )
    return units.pop() if names else None


def clips_in_rows(table: Rows, columns: Columns, file: Path, videos: Path | None) -> Iterator[ListedClip]:
    """The clips of a table, with label and split as written.

    Args:
        table: a row per clip; a row with a wrong or missing cell is a clip with a problem.
        columns: from `Columns.of`.
        file: the table's.
        videos: what paths are relative to; by default the folder of the file. Where no path exists as it is written,
            but all do without the folders that they have in common, those are left out, with a note.
    """
    path_columns = _FIELD.findall(columns.path)
    cells = [_FIELD.sub(lambda field, row=row: row[field[1]], columns.path) for _, row in table.rows]
    root = videos or file.parent
    moved = moved_parts([cell for cell in cells if cell], root, PathFinder())
    if moved:
        before = Path(*Path(cells[0].replace("\\", "/")).parts[:moved])
        note_once(f"{file}: no path exists as it is written; they do in {root} without {before}")
    for (line, row), path in zip(table.rows, cells, strict=True):
        segment, truth = None, None
        problem = next((f"{name} is empty" for name in path_columns if not row[name]), None)
        try:
            segment = _segment(row, columns, table.decimal_sign)
            truth = _truth(row, columns, table.decimal_sign)
        except ValueError as error:
            problem = problem or str(error)
        yield ListedClip(
            where=f"{file.name}, {line}",
            clip_id=(row[columns.id] if columns.id else "") or default_clip_id(path, segment) or line,
            path=root.joinpath(*Path(path.replace("\\", "/")).parts[moved:]) if moved else root / path,
            label=row[columns.label] if columns.label else "",
            split=row[columns.split] if columns.split else "",
            segment=segment,
            truth=truth,
            problem=problem,
        )


def with_usual_splits(clips: Iterable[ListedClip], default: str = "") -> Iterator[ListedClip]:
    """The clips with their splits as `normalise_split` spells them, and `default` where a row does not say."""
    return (replace(clip, split=normalise_split(clip.split) or default) for clip in clips)


def _segment(row: Mapping[str, str], columns: Columns, decimal_sign: str) -> Segment | None:
    """Which part of its video a row is; None for all of it. A wrong cell is a ValueError that ends with the remedy."""
    names = [name for name in (columns.segment_start, columns.segment_end) if name is not None]
    kind = "time in seconds" if columns.segment_unit == "seconds" else "frame"
    start = _number(row, columns.segment_start, decimal_sign, kind)
    end = _number(row, columns.segment_end, decimal_sign, kind)
    if columns.segment_unit is None or (start is None and end is None):
        return None
    try:
        return Segment(start or 0, end, columns.segment_unit)
    except ValueError as error:
        raise ValueError(f"{', '.join(names)}: {error}; correct the cells") from None


def _truth(row: Mapping[str, str], columns: Columns, decimal_sign: str) -> ClipTruth | None:
    """When the labelled thing happens, as an interval in frames of the source; None where a row does not say."""
    start, end = (_number(row, name, decimal_sign, "frame") for name in (columns.start, columns.end))
    if start is None and end is None:
        return None
    if start is None or end is None:
        raise ValueError(f"{columns.start if start is None else columns.end} is empty; fill both cells or none")
    try:
        return ClipTruth(interval=(start, end))
    except ValueError as error:
        raise ValueError(f"{columns.start}, {columns.end}: {error}; correct the cells") from None


def _number(row: Mapping[str, str], name: str | None, decimal_sign: str, kind: str) -> float | None:
    cell = row[name].replace(decimal_sign, ".") if name else ""
    try:
        return float(cell) if cell else None
    except ValueError:
        raise ValueError(f"{name} is {cell!r}; write a {kind} as a number, such as 21.25") from None


def default_clip_id(path: str, segment: Segment | None) -> str:
    """The name of a clip without an id: its path, and the segment where it is a part."""
    if segment is None:
        return path
    return f"{path}#{format_number(segment.start)}-{'' if segment.end is None else format_number(segment.end)}"
