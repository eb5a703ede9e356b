"""Which format a data set has, from its files' names and content."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stabn.data.annotations.class_folders import read_class_folders
from stabn.data.annotations.class_names import is_class_file
from stabn.data.annotations.columns import Columns
from stabn.data.annotations.kinetics import is_kinetics, read_kinetics
from stabn.data.annotations.listing import LEFT_OUT, Listing
from stabn.data.annotations.named_columns import read_named_columns
from stabn.data.annotations.rows import JSON_LINES, PARQUET, csv_lines, read_rows
from stabn.data.annotations.something_something import (
    V1,
    is_something_v1,
    is_something_v2,
    read_something_v1,
    read_something_v2,
)
from stabn.data.annotations.splits import split_of_file
from stabn.data.annotations.table import CLASSES
from stabn.data.annotations.text_lists import LAYOUTS, looks_like_list, read_text_lists
from stabn.data.spelling import UNSPLIT
from stabn.errors import UserError
from stabn.files import read_text

Format = Literal[
    "auto", "something-v1", "something-v2", "videos-list", "frames-list", "segments-list", "kinetics", "class-folders",
    "table",
]  # fmt: skip
FORMATS: tuple[str, ...] = get_args(Format)[1:]
_ANNOTATION_FOLDERS = ("annotations", "labels", "annotation")
"""Folders in which data sets keep their lists, beside the videos."""
_OBJECTS = (*JSON_LINES, *PARQUET)
_LISTS = (".csv", ".tsv", ".txt", *_OBJECTS)


@dataclass(frozen=True)
class DetectedFormat:
    """What was found where a user pointed.

    Attributes:
        format: of `FORMATS`, or "list" for a list whose layout is not known yet.
        files: the lists, each with the split of clips whose row does not tell.
        folder: where it is.
    """

    format: str
    files: tuple[tuple[Path, str], ...]
    folder: Path


def detect_format(
    sources: Sequence[Path], columns: Columns, format: Format = "auto", out: Path | None = None
) -> DetectedFormat:
    """Which format files or a folder have.

    Args:
        sources: files of one format, or one folder.
        columns: what a table's columns are called, if it is one.
        format: the one that it is, so that only the files are looked for; or auto.
        out: what is going to be written, and may lie in the folder from the last time.

    Raises:
        UserError: a source does not exist, or is of no format that we know, or may be of several.
    """
    for path in sources:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give a folder of videos, or the files that list them")
        if path.is_dir() and len(sources) > 1:
            raise UserError(f"{path}: is a folder beside other sources; give one folder, or only files")
    chosen = None if format == "auto" else format
    if sources[0].is_dir():
        return _detect_in_folder(sources[0], columns, chosen, out)
    return _detect_files(sources, columns, chosen)


def _detect_files(files: Sequence[Path], columns: Columns, chosen: str | None) -> DetectedFormat:
    folder = files[0].parent
    if chosen is None and files[0].name.startswith("something-something"):
        chosen = "something-v1" if V1 in files[0].name else "something-v2"
    if chosen in ("something-v1", "something-v2"):
        return DetectedFormat(chosen, (), folder)
    if chosen == "class-folders":
        raise UserError(f"{files[0]}: is a file; give the folder that holds the folders of classes")
    formats = {}
    for file in files:
        format = chosen or _format_of_file(file, columns)
        if format is None:
            raise UserError(_unknown_format(file, columns))
        formats[file] = format
    if len(set(formats.values())) > 1:
        pairs = ", ".join(f"{file.name} ({format})" for file, format in formats.items())
        raise UserError(f"{folder}: the files are of different formats: {pairs}; give those of one, or say --format")
    return DetectedFormat(formats[files[0]], tuple((file, split_of_file(file) or UNSPLIT) for file in files), folder)


def _detect_in_folder(folder: Path, columns: Columns, chosen: str | None, out: Path | None) -> DetectedFormat:
    places = [folder, *(folder / name for name in _ANNOTATION_FOLDERS if (folder / name).is_dir())]
    somethings = {"something-v1": is_something_v1, "something-v2": is_something_v2}
    if chosen in somethings:
        return DetectedFormat(chosen, (), next(filter(somethings[chosen], places), folder))
    if chosen == "class-folders":
        return DetectedFormat(chosen, (), folder)
    for place in places:
        for name, is_there in somethings.items():
            if chosen is None and is_there(place):
                return DetectedFormat(name, (), place)
        lists = _lists_in(place, columns, chosen, out)
        if len(lists) > 1:
            formats = "; ".join(f"{format}: {', '.join(f.name for f in files)}" for format, files in lists.items())
            raise UserError(
                f"{place}: may be several data sets ({formats}); give the files that you mean, or say --format"
            )
        for format, files in lists.items():
            return DetectedFormat(format, _with_splits(place, files), folder)
    if chosen is not None:
        raise UserError(f"{folder}: holds no file of format {chosen}; give the files, or another --format")
    if any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir()):
        return DetectedFormat("class-folders", (), folder)
    raise UserError(
        f"{folder}: holds neither a list that we know nor a folder; give a data set of format {', '.join(FORMATS)}"
    )


def _lists_in(folder: Path, columns: Columns, chosen: str | None, out: Path | None) -> Mapping[str, Sequence[Path]]:
    """The files of a folder that list clips, by format."""
    lists: dict[str, list[Path]] = defaultdict(list)
    unknown = []
    layouts = (chosen, "list") if chosen in LAYOUTS else (chosen,)
    for file in sorted(folder.iterdir()):
        no_list = file.name.startswith(".") or is_class_file(file) or file.name.endswith((CLASSES, LEFT_OUT))
        written = out is not None and file.absolute() == out.absolute()
        if no_list or written or file.suffix.lower() not in _LISTS or not file.is_file():
            continue
        try:
            format = _format_of_file(file, columns)
        except UserError:  # not text: some other file
            format = None
        if format is not None and (chosen is None or format in layouts):
            lists[chosen or format].append(file)
        elif split_of_file(file) is not None:
            unknown.append(file)
    if lists and unknown:
        raise UserError(
            f"{unknown[0]}: has the name of a list, but is of another form than {next(iter(lists.values()))[0].name}; "
            "give the files that you mean"
        )
    return lists


def _with_splits(folder: Path, files: Sequence[Path]) -> tuple[tuple[Path, str], ...]:
    """The files with their splits, which all are different."""
    splits: dict[str, Path] = {}
    for file in files:
        split = split_of_file(file) or UNSPLIT
        if split in splits:
            which = "of no split" if split == UNSPLIT else f"of {split}"
            raise UserError(
                f"{folder}: {splits[split].name} and {file.name} are both {which}; give the files that you mean"
            )
        splits[split] = file
    return tuple((file, split) for split, file in splits.items())


def _format_of_file(file: Path, columns: Columns) -> str | None:
    """The format of one file: table, kinetics, list, or None if it is none of these."""
    is_text = file.suffix.lower() not in _OBJECTS
    heading = _heading(file)
    if is_text and is_kinetics(heading):
        return "kinetics"
    if columns.with_usual_names(heading).are_in(heading):
        return "table"
    return "list" if is_text and looks_like_list(_beginning(file)) else None


def _heading(file: Path) -> Sequence[str]:
    """The names of a file's columns, if it is a table."""
    if file.suffix.lower() in _OBJECTS:
        return read_rows(file).heading
    text = _beginning(file)
    try:
        return next((cells for _, cells in csv_lines(text)), [])
    except csv.Error:
        return text.splitlines()[:1]


def _beginning(file: Path) -> str:
    return read_text(file, "give a list or table", size=2**16)


def _unknown_format(file: Path, columns: Columns) -> str:
    heading = _heading(file)
    if not heading:
        return f"{file}: is empty; give a list or table with a line per clip"
    if len(heading) > 1:
        return (
            f"{file}: may be a table, but none of its columns ({', '.join(heading)[:200]}) is {columns.path!r} or "
            f"{columns.label!r}; say which are with --columns.path and --columns.label, or another --format"
        )
    return f"{file}: is neither a table with named columns nor a list; say with --format which of {', '.join(FORMATS)}"


def read_detected(
    source: DetectedFormat, videos: Path | None, columns: Columns, classes: Path | None = None, first_frame: int = 0
) -> Listing:
    """What a data set of a known format lists.

    Args:
        source: from `detect_format`.
        videos: the folder of the videos; by default where the format usually has them.
        columns: what a table's columns are called.
        classes: a file with names for a list's class numbers; by default one of a usual name beside the list.
        first_frame: the number of a folder's first frame in lists that say where a part begins.

    Raises:
        UserError: a file cannot be read or has another form, or an option is not for this format.
    """
    is_list = source.format == "list" or source.format in LAYOUTS
    for option, kind, is_wrong in (
        ("--classes", "lists", classes is not None and not is_list),
        ("--first-frame", "lists", first_frame != 0 and not is_list),
        ("--columns", "tables", columns != Columns() and source.format != "table"),
    ):
        if is_wrong:
            raise UserError(f"{option}: is for {kind}, but {source.folder} is of format {source.format}; leave it out")
    if is_list:
        layout = source.format if source.format in LAYOUTS else None
        return read_text_lists(source.files, videos, layout=layout, classes=classes, first_frame=first_frame)
    if source.format == "something-v1":
        return read_something_v1(source.folder, videos)
    if source.format == "something-v2":
        return read_something_v2(source.folder, videos)
    if source.format == "kinetics":
        return read_kinetics(source.files, videos or source.folder)
    if source.format == "class-folders":
        return read_class_folders(videos or source.folder)
    return read_named_columns(source.files, videos, columns)
