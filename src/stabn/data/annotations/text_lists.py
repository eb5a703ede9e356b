"""Lists of videos or frame folders, a line each, as TSM, MMAction2 and PySlowFast read them.

A line ends with the class; before it may stand how many frames there are, and before that at which the part begins:

    path label
    folder num_frames class
    folder start num_frames class

The cells are split from the right, so that paths may hold spaces; a comma may stand before the class.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stabn.data.annotations.class_names import class_file_in, numbered, read_classes
from stabn.data.annotations.listing import Entry, Listing, listing
from stabn.data.annotations.paths import finder, is_video, likeliest_root
from stabn.data.annotations.rows import read_text
from stabn.data.annotations.table import name_of
from stabn.data.segments import Segment
from stabn.errors import UserError

LAYOUTS = {"videos-list": 0, "frames-list": 1, "segments-list": 2}
"""How many numbers stand between path and class."""
WORDS = {
    "videos-list": "path label (MMAction2, PySlowFast)",
    "frames-list": "folder num_frames class (TSM, MMAction2)",
    "segments-list": "folder start num_frames class (MMAction2)",
}
_COMMA = re.compile(r".+\S\s*,\s*-?\d+")
_NUMBER = re.compile(r"-?\d+")
_NO_CLASS = re.compile(r"-\d+")
"""How lists for testing write that nobody knows the class."""


@dataclass(frozen=True)
class Line:
    """One line of a list, split.

    Attributes:
        where: file and line.
        split: of the file.
        root: what the path is relative to.
        path: as written.
        numbers: between path and class.
        label: as written; empty if there is none.
        problem: what is wrong with it.
    """

    where: str
    split: str
    root: Path
    path: str
    numbers: tuple[int, ...]
    label: str
    problem: str | None = None


def looks_like_list(text: str) -> bool:
    """Whether most lines of a text end with a class, a number or the only word after a video's name."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return sum(map(_is_line, lines)) > len(lines) / 2


def _is_line(line: str) -> bool:
    path, label = _split(line, 0)[::2]
    return bool(path) and (_NUMBER.fullmatch(label) is not None or is_video(path))


def _split(line: str, numbers: int) -> tuple[str, tuple[str, ...], str]:
    """Path, numbers and class of a line; what is not there is empty."""
    cells = [cell.strip() for cell in line.rsplit("," if _has_comma(line) else None, numbers + 1)]
    if len(cells) < numbers + 2 or is_video(f"name{cells[-1]}"):
        return _unquoted(line), (), ""  # a line without a class, as in UCF101's testlist01.txt
    return _unquoted(cells[0]), tuple(cells[1:-1]), cells[-1]


def _has_comma(line: str) -> bool:
    """Whether a comma stands between the cells: before a number, or before words after a video's name."""
    before, _, after = line.rpartition(",")
    words = is_video(_unquoted(before.strip())) and not any(map(is_video, after.split()))
    return bool(_COMMA.fullmatch(line)) or words


def _unquoted(cell: str) -> str:
    """A path without the quotes that writers of CSV put around one with a comma in it."""
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if quoted else cell


def read_lists(
    files: Sequence[tuple[Path, str]],
    videos: Path | None = None,
    *,
    layout: str | None = None,
    classes: Path | None = None,
    first_frame: int = 0,
) -> Listing:
    """Lists of clips, one file per split.

    Args:
        files: each with its split.
        videos: what paths are relative to; by default the folder of each file, or one beside it if that has none.
        layout: a key of `LAYOUTS`; by default the one that leaves the most paths that exist.
        classes: a file with class names by number; by default one of a usual name beside the lists, if these have
            numbers; without any, the numbers are the names.
        first_frame: the number that the lists give to a folder's first frame when they say where a part begins.

    Raises:
        UserError: a file cannot be read or is empty, two layouts are as likely, or two files may name the classes.
    """
    texts = {file: read_text(file, "give a list with a line per clip") for file, _ in files}
    if not any(text.strip() for text in texts.values()):
        raise UserError(f"{files[0][0]}: is empty; give a list with a line per clip")
    find = finder()
    roots = {file: videos or likeliest_root(file.parent, _first_paths(texts[file]), find) for file, _ in files}
    if layout is None:
        layout = _likeliest(files, texts, roots, find)
    lines = [_without_class(line, LAYOUTS[layout], find) for line in _lines(files, texts, roots, LAYOUTS[layout])]
    names, order, notes = _names([line.label for line in lines if line.label], classes, files[0][0].parent)
    told = [f"{file.name}: paths begin in {roots[file]}" for file in roots if roots[file] not in (videos, file.parent)]
    entries = [_entry(line, names, first_frame) for line in lines]
    return listing(f"list: {WORDS[layout]}", entries, order, [*told, *notes])


def _first_paths(text: str) -> list[list[str]]:
    """Of the first lines, what is the path in each layout."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [[_split(line, numbers)[0] for numbers in LAYOUTS.values()] for line in lines[:100]]


def _lines(
    files: Sequence[tuple[Path, str]], texts: Mapping[Path, str], roots: Mapping[Path, Path], numbers: int
) -> list[Line]:
    found = []
    for file, split in files:
        for number, line in enumerate(texts[file].splitlines(), start=1):
            if not line.strip():
                continue
            path, counts, label = _split(line.strip(), numbers)
            root = roots[file]
            where = f"{file.name}, line {number}"
            if _NO_CLASS.fullmatch(label):
                found.append(Line(where, split, root, path, (), ""))
            elif all(count.isdecimal() for count in counts):
                found.append(Line(where, split, root, path, tuple(map(int, counts)), label))
            else:
                wrong = f"has {' '.join(counts)} where {numbers} whole numbers should be"
                found.append(Line(where, split, root, line.strip(), (), "", wrong))
    return found


def _without_class(line: Line, numbers: int, find: Callable[[Path], Path | None]) -> Line:
    """The line, or one without class if more of it is the path of what exists: then a cell is lacking at its end."""
    if not line.label or find(line.root / line.path) is not None:
        return line
    whole = " ".join((line.path, *map(str, line.numbers), line.label))
    for after in range(numbers + 1):
        path = whole.rsplit(None, after)[0]
        if find(line.root / path) is not None:
            return replace(line, path=path, numbers=(), label="")
    return line


def _likeliest(
    files: Sequence[tuple[Path, str]],
    texts: Mapping[Path, str],
    roots: Mapping[Path, Path],
    find: Callable[[Path], Path | None],
) -> str:
    """The layout that explains the most lines by what exists, or else by their form.

    Raises:
        UserError: two explain as many.
    """
    existing, formed = {}, {}
    for layout, numbers in LAYOUTS.items():
        lines = _lines(files, texts, roots, numbers)
        existing[layout] = sum(bool(line.label) and find(line.root / line.path) is not None for line in lines)
        formed[layout] = all(line.label for line in lines)
    best = [layout for layout in LAYOUTS if existing[layout] == max(existing.values())]
    if max(existing.values()) == 0:
        # nothing exists: a path to a video ends like one; else as many numbers as every line has
        lines = _lines(files, texts, roots, 0)
        if any(is_video(line.path) for line in lines):
            return "videos-list"
        return [layout for layout in LAYOUTS if formed[layout]][-1] if any(formed.values()) else "videos-list"
    if len(best) > 1:
        raise UserError(
            f"{files[0][0]}: may be {' or '.join(WORDS[layout] for layout in best)}; say with --format "
            f"{' or '.join(best)}"
        )
    return best[0]


def _names(
    written: Sequence[str], file: Path | None, folder: Path
) -> tuple[Mapping[str, str], tuple[str, ...] | None, list[str]]:
    """From a label as written to a class name, the names in order if the source gives one, and notes."""
    decimal = [label for label in written if label.isdecimal()]
    # a word among numbers is no class: the end of a line that lacks its own
    numbers = {int(label) for label in decimal} if len(decimal) > len(written) / 2 else set()
    file = file or (class_file_in(folder) if numbers else None)
    classes = None if file is None else read_classes(file)
    if classes is None and not numbers:
        return {}, None, []
    if classes is None:
        notes = ["classes have no names, only numbers; add --classes FILE to name them"]
        if 0 not in numbers:
            notes.append("no clip is of class 0: the list counts classes from 1, or lacks one")
        return {label: str(int(label)) for label in decimal}, numbered(numbers), notes
    notes = [f"classes have their names and order from {file.name}"] if file else []
    if numbers and 0 in classes and 0 not in numbers:
        notes.append(
            "no clip is of class 0: if the list counts classes from 1, every name is one off; then give a --classes "
            "file with lines of number and name"
        )
    names = {str(label): classes.get(int(label), f"number {label}") for label in decimal if numbers}
    return names, tuple(classes.values()), notes


def _entry(line: Line, names: Mapping[str, str], first_frame: int) -> Entry:
    segment, num_frames, problem = None, None, line.problem
    if len(line.numbers) == 1:
        (num_frames,) = line.numbers
        problem = "says that it has 0 frames" if num_frames == 0 else problem
    elif line.numbers:
        start, num_frames = line.numbers[0] - first_frame, line.numbers[1]
        if start < 0 or num_frames < 1:
            problem = f"says that it begins at frame {line.numbers[0]} and has {num_frames} frames"
        else:
            segment = Segment(start, start + num_frames, "frames")
    label = names.get(line.label, line.label)
    return Entry(
        where=line.where,
        clip_id=name_of(line.path, segment),
        path=line.root / line.path,
        label=label,
        split=line.split,
        segment=segment,
        num_frames=num_frames,
        problem=problem,
    )
