"""Which format a source has, from its files' names and what they say."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stabn.data.annotations.class_folders import read_class_folders
from stabn.data.annotations.class_names import is_class_file
from stabn.data.annotations.kinetics import is_kinetics, read_kinetics
from stabn.data.annotations.listing import LEFT_OUT, Listing
from stabn.data.annotations.named_columns import is_named, read_named
from stabn.data.annotations.rows import JSON_LINES, PARQUET, read_rows, separator
from stabn.data.annotations.something_something import V1, is_v1, is_v2, read_v1, read_v2
from stabn.data.annotations.splits import UNSPLIT, split_of_file
from stabn.data.annotations.table import CLASSES, Columns
from stabn.data.annotations.text_lists import LAYOUTS, looks_like_list, read_lists
from stabn.errors import UserError

Format = Literal[
    "auto",
    "something-v1",
    "something-v2",
    "videos-list",
    "frames-list",
    "segments-list",
    "kinetics",
    "class-folders",
    "table",
]
FORMATS: tuple[str, ...] = get_args(Format)[1:]
_INSIDE = ("annotations", "labels", "annotation")
"""Folders in which data sets keep their lists, beside the videos."""
_LISTS = (".csv", ".tsv", ".txt", *JSON_LINES, *PARQUET)


@dataclass(frozen=True)
class Source:
    """What a user points at, recognised.

    Attributes:
        format: of `FORMATS`, or "list" for a list whose layout is not known yet.
        files: the lists, each with the split of clips whose row does not tell.
        folder: where it is.
    """

    format: str
    files: tuple[tuple[Path, str], ...]
    folder: Path


def recognise(sources: Sequence[Path], columns: Columns, format: Format = "auto", out: Path | None = None) -> Source:
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
    asked = None if format == "auto" else format
    folders = [path for path in sources if path.is_dir()]
    if folders and len(sources) > 1:
        raise UserError(f"{folders[0]}: is a folder beside other sources; give one folder, or only files")
    if folders:
        return _in_folder(sources[0], columns, asked, out)
    return _of_files(sources, columns, asked)


def _of_files(files: Sequence[Path], columns: Columns, format: str | None) -> Source:
    folder = files[0].parent
    if format in ("something-v1", "something-v2") or (
        format is None and files[0].name.startswith("something-something")
    ):
        version = format or ("something-v1" if V1 in files[0].name else "something-v2")
        return Source(version, (), folder)
    if format == "class-folders":
        raise UserError(f"{files[0]}: is a file; give the folder that holds the folders of classes")
    kinds = {file: format or _kind(file, columns) for file in files}
    unknown = [file for file, kind in kinds.items() if kind is None]
    if unknown:
        raise UserError(_unknown(unknown[0], columns))
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{file.name} ({kind})" for file, kind in kinds.items())
        raise UserError(f"{folder}: the files are of different formats: {told}; give those of one, or say --format")
    kind = next(iter(kinds.values()))
    assert kind is not None
    return Source(kind, tuple((file, split_of_file(file) or UNSPLIT) for file in files), folder)


def _in_folder(folder: Path, columns: Columns, format: str | None, out: Path | None) -> Source:
    places = [folder, *(folder / name for name in _INSIDE if (folder / name).is_dir())]
    for place in places:
        for name, is_it in (("something-v1", is_v1), ("something-v2", is_v2)):
            if format == name or (format is None and is_it(place)):
                there = place if is_it(place) else next((p for p in places if is_it(p)), place)
                return Source(name, (), there)
        if format == "class-folders":
            return Source(format, (), folder)
        lists = _lists_in(place, columns, format, out)
        if len(lists) > 1:
            told = "; ".join(f"{kind}: {', '.join(f.name for f in files)}" for kind, files in lists.items())
            raise UserError(
                f"{place}: may be several data sets ({told}); give the files that you mean, or say --format"
            )
        for kind, files in lists.items():
            return Source(kind, _by_split(place, files), folder)
    if format is not None:
        raise UserError(f"{folder}: holds no file of format {format}; give the files, or another --format")
    if any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir()):
        return Source("class-folders", (), folder)
    raise UserError(
        f"{folder}: holds neither a list that we know nor a folder; give a data set of format {', '.join(FORMATS)}"
    )


def _lists_in(folder: Path, columns: Columns, format: str | None, out: Path | None) -> Mapping[str, Sequence[Path]]:
    """The files of a folder that list clips, by format."""
    found: dict[str, list[Path]] = defaultdict(list)
    unknown = []
    written = None if out is None else out.absolute()
    for file in sorted(folder.iterdir()):
        other = file.name.startswith(".") or is_class_file(file) or file.name.endswith((CLASSES, LEFT_OUT))
        other = other or file.absolute() == written
        if other or file.suffix.lower() not in _LISTS or not file.is_file():
            continue
        try:
            kind = _kind(file, columns)
        except UserError:  # it is no text: something else that lies there
            kind = None
        layouts = (format, "list") if format in LAYOUTS else (format,)
        if kind is not None and (format is None or kind in layouts):
            found[format or kind].append(file)
        elif split_of_file(file) is not None:
            unknown.append(file)
    if found and unknown:
        raise UserError(
            f"{unknown[0]}: has the name of a list, but is of another form than {next(iter(found.values()))[0].name}; "
            "give the files that you mean"
        )
    return found


def _by_split(folder: Path, files: Sequence[Path]) -> tuple[tuple[Path, str], ...]:
    """The files with their splits, which all are different."""
    if len(files) == 1:
        return ((files[0], split_of_file(files[0]) or UNSPLIT),)
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


def _kind(file: Path, columns: Columns) -> str | None:
    """The format of one file: table, kinetics, list, or None if it is none of these.

    Raises:
        UserError: it cannot be read.
    """
    if file.suffix.lower() in (*JSON_LINES, *PARQUET):
        return "table" if is_named(read_rows(file).heading, columns) else None
    text = read_beginning(file)
    heading = _heading(text)
    if is_kinetics(heading):
        return "kinetics"
    if is_named(heading, columns):
        return "table"
    return "list" if looks_like_list(text) else None


def read_beginning(file: Path) -> str:
    """The first lines of a text, all of them whole.

    Raises:
        UserError: it cannot be read, or is no UTF-8 text.
    """
    try:
        with file.open("rb") as content:
            lines = content.readlines(2**16)
        return b"".join(lines).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text ({error}); save the list or table as UTF-8") from None


def _heading(text: str) -> list[str]:
    lines = csv.reader(
        io.StringIO(text.lstrip(), newline=""), delimiter=separator(text.lstrip()), skipinitialspace=True
    )
    return [cell.strip() for cell in next(lines, [])]


def _unknown(file: Path, columns: Columns) -> str:
    heading = list(read_rows(file).heading) if file.suffix.lower() in (*JSON_LINES, *PARQUET) else None
    heading = heading or _heading(read_beginning(file))
    if not heading:
        return f"{file}: is empty; give a list or table with a line per clip"
    if len(heading) > 1:
        told = ", ".join(heading)[:200]
        return (
            f"{file}: may be a table, but none of its columns ({told}) is {columns.path!r} or {columns.label!r}; say "
            "which are with --columns.path and --columns.label, or another --format"
        )
    return f"{file}: is neither a table with named columns nor a list; say with --format which of {', '.join(FORMATS)}"


def read_source(
    source: Source,
    videos: Path | None = None,
    *,
    columns: Columns | None = None,
    classes: Path | None = None,
    first_frame: int = 0,
) -> Listing:
    """What a recognised source lists.

    Args:
        source: from `recognise`.
        videos: the folder of the videos; by default where the format usually has them.
        columns: what a table's columns are called.
        classes: a file with names for a list's class numbers; by default one of a usual name beside the list.
        first_frame: the number of a folder's first frame in lists that say where a part begins.

    Raises:
        UserError: a file cannot be read or has another form, or an option is not for this format.
    """
    is_list = source.format == "list" or source.format in LAYOUTS
    for option, given in (("--classes", classes is not None), ("--first-frame", first_frame != 0)):
        if given and not is_list:
            raise UserError(f"{option}: is for lists, but {source.folder} is of format {source.format}; leave it out")
    if columns not in (None, Columns()) and source.format != "table":
        raise UserError(f"--columns: is for tables, but {source.folder} is of format {source.format}; leave it out")
    if is_list:
        layout = source.format if source.format in LAYOUTS else None
        return read_lists(source.files, videos, layout=layout, classes=classes, first_frame=first_frame)
    if source.format == "something-v1":
        return read_v1(source.folder, videos)
    if source.format == "something-v2":
        return read_v2(source.folder, videos)
    if source.format == "kinetics":
        return read_kinetics(source.files, videos or source.folder)
    if source.format == "class-folders":
        return read_class_folders(videos or source.folder)
    return read_named(source.files, videos, columns)
