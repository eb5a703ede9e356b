"""Lists of videos or frame folders, a line each, as TSM, MMAction2 and PySlowFast read them.

A line ends with the class; before it may stand how many frames there are, and before that at which the part begins:

    path label
    folder num_frames class
    folder start num_frames class

The cells are split from the right, so that paths may hold spaces; a comma may stand before the class.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stabn.data.annotations.class_names import find_class_file, names_from_numbers, read_class_numbers
from stabn.data.annotations.columns import default_clip_id
from stabn.data.annotations.listing import ListedClip, Listing, make_listing
from stabn.data.annotations.paths import PathFinder, is_video, likeliest_root
from stabn.data.segments import Segment
from stabn.errors import UserError
from stabn.files import read_text

LAYOUTS = {"videos-list": 0, "frames-list": 1, "segments-list": 2}
"""How many numbers stand between path and class."""
DESCRIPTIONS = {
    "videos-list": "path label (MMAction2, PySlowFast)",
    "frames-list": "folder num_frames class (TSM, MMAction2)",
    "segments-list": "folder start num_frames class (MMAction2)",
}
_COMMA = re.compile(r".+\S\s*,\s*-?\d+")
_NUMBER = re.compile(r"-?\d+")
_NO_CLASS = re.compile(r"-\d+")
"""How lists for testing write that nobody knows the class."""


class _Line(NamedTuple):
    """One line of a list, not yet cut into cells; its path is relative to `root`."""

    where: str
    split: str
    root: Path
    text: str


def looks_like_list(text: str) -> bool:
    """Whether most lines of a text end with a class, a number or the only word after a video's name."""
    cells = [_cells(line, 0) for _, line in _numbered_lines(text)]
    with_class = [bool(path) and (bool(_NUMBER.fullmatch(label)) or is_video(path)) for path, _, label in cells]
    return sum(with_class) > len(cells) / 2


def _numbered_lines(text: str) -> list[tuple[int, str]]:
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _cells(line: str, numbers: int) -> tuple[str, tuple[str, ...], str]:
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


def read_text_lists(
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
    finder = PathFinder()
    lines: list[_Line] = []
    notes = []
    for file, split in files:
        numbered = _numbered_lines(read_text(file, "give a list with a line per clip"))
        # of the first lines, what is the path in each layout
        paths = [[_cells(line, numbers)[0] for numbers in LAYOUTS.values()] for _, line in numbered[:100]]
        root = videos or likeliest_root(file.parent, paths, finder)
        if root not in (videos, file.parent):
            notes.append(f"{file.name}: paths begin in {root}")
        lines += [_Line(f"{file.name}, line {number}", split, root, line) for number, line in numbered]
    if not lines:
        raise UserError(f"{files[0][0]}: is empty; give a list with a line per clip")
    layout = layout or _likeliest_layout(files[0][0], lines, finder)
    numbers = LAYOUTS[layout]
    clips = [_without_class(_clip(line, numbers, first_frame), line, numbers, finder) for line in lines]
    labels = [clip.label for clip in clips if clip.label]
    names, order, class_notes = _class_names(labels, classes, files[0][0].parent)
    clips = [replace(clip, label=names.get(clip.label, clip.label)) for clip in clips]
    return make_listing(f"list: {DESCRIPTIONS[layout]}", clips, order, [*notes, *class_notes])


def _clip(line: _Line, numbers: int, first_frame: int) -> ListedClip:
    """The clip of a line, in the layout with so many numbers between path and class."""
    path, counts, label = _cells(line.text, numbers)
    segment, num_frames, problem = None, None, None
    if _NO_CLASS.fullmatch(label):
        counts, label = (), ""
    elif not all(map(str.isdecimal, counts)):
        problem = f"has {' '.join(counts)} where {numbers} whole numbers should be"
        path, counts, label = line.text, (), ""
    if counts:
        num_frames = int(counts[-1])
    if len(counts) == 1 and num_frames == 0:
        problem = "says that it has 0 frames"
    elif num_frames is not None and len(counts) == 2:
        start = int(counts[0]) - first_frame
        if start < 0 or num_frames < 1:
            problem = f"says that it begins at frame {int(counts[0])} and has {num_frames} frames"
        else:
            segment = Segment(start, start + num_frames, "frames")
    clip_id = default_clip_id(path, segment)
    return ListedClip(line.where, clip_id, line.root / path, label, line.split, segment, num_frames, problem=problem)


def _without_class(clip: ListedClip, line: _Line, numbers: int, finder: PathFinder) -> ListedClip:
    """The clip, or one without class if more of its line is the path of what exists: then a cell is lacking."""
    if not clip.label or finder.find(clip.path) is not None:
        return clip
    paths = (line.text.rsplit(None, omitted)[0] for omitted in range(numbers + 1))
    path = next((path for path in paths if finder.find(line.root / path) is not None), None)
    return clip if path is None else ListedClip(line.where, path, line.root / path, "", line.split)


def _likeliest_layout(file: Path, lines: Sequence[_Line], finder: PathFinder) -> str:
    """The layout that explains the most lines by what exists, or else by their form."""
    clips = {layout: [_clip(line, numbers, 0) for line in lines] for layout, numbers in LAYOUTS.items()}
    existing = {
        layout: sum(bool(clip.label) and finder.find(clip.path) is not None for clip in clips[layout])
        for layout in LAYOUTS
    }
    most = max(existing.values())
    best = [layout for layout in LAYOUTS if existing[layout] == most]
    if most == 0:
        # nothing exists: a path to a video ends like one; else as many numbers as every line has
        complete = [layout for layout in LAYOUTS if all(clip.label for clip in clips[layout])]
        has_videos = any(is_video(clip.path.name) for clip in clips["videos-list"])
        return "videos-list" if has_videos or not complete else complete[-1]
    if len(best) > 1:
        descriptions = " or ".join(DESCRIPTIONS[layout] for layout in best)
        raise UserError(f"{file}: may be {descriptions}; say with --format {' or '.join(best)}")
    return best[0]


def _class_names(
    labels: Sequence[str], file: Path | None, folder: Path
) -> tuple[Mapping[str, str], Sequence[str] | None, list[str]]:
    """From a label as written to a class name, the names in order if the source gives one, and notes."""
    decimal = [label for label in labels if label.isdecimal()]
    # a word among numbers is no class: the end of a line that lacks its own
    numbers = {int(label) for label in decimal} if len(decimal) > len(labels) / 2 else set()
    file = file or (find_class_file(folder) if numbers else None)
    if file is None and not numbers:
        return {}, None, []
    if file is None:
        notes = ["classes have no names, only numbers; add --classes FILE to name them"]
        if 0 not in numbers:
            notes.append("no clip is of class 0: the list counts classes from 1, or lacks one")
        return {label: str(int(label)) for label in decimal}, names_from_numbers(numbers), notes
    classes = read_class_numbers(file)
    notes = [f"classes have their names and order from {file.name}"]
    if numbers and 0 in classes and 0 not in numbers:
        notes.append(
            "no clip is of class 0: if the list counts classes from 1, every name is one off; then give a --classes "
            "file with lines of number and name"
        )
    names = {label: classes.get(int(label), f"number {label}") for label in decimal if numbers}
    return names, tuple(classes.values()), notes
