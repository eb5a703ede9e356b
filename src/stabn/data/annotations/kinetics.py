"""Kinetics: a CSV file per split with parts of YouTube videos, and videos under the names of those who fetched them.

    label,youtube_id,time_start,time_end,split,is_cc
    air drumming,--_S9IDQPLg,134,144,train,0

A file ID_000134_000144.mp4 is the part, cut out already; a file ID.mp4 is the whole video, of which the part is taken.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from stabn.data.annotations.listing import Entry, Listing, listing
from stabn.data.annotations.paths import is_video, walk
from stabn.data.annotations.rows import read_rows
from stabn.data.annotations.splits import UNSPLIT, known_split, split_named
from stabn.data.segments import Segment
from stabn.errors import UserError

COLUMNS = ("youtube_id", "time_start", "time_end")


def is_kinetics(heading: Sequence[str]) -> bool:
    """Whether these are the columns of Kinetics."""
    return set(COLUMNS) <= set(heading)


def read_kinetics(files: Sequence[tuple[Path, str]], videos: Path) -> Listing:
    """Kinetics as its CSV files list it.

    Args:
        files: each with the split of its clips, for rows that do not tell.
        videos: the folder of the videos, flat or with folders for classes or splits inside.

    Raises:
        UserError: a file or folder cannot be read, or the files have other columns.
    """
    present = _videos_by_name(videos)
    entries, notes, whole = [], [], 0
    for file, split in files:
        table = read_rows(file)
        if not is_kinetics(table.heading):
            raise UserError(f"{file}: lacks one of the columns {', '.join(COLUMNS)}; give a CSV file of Kinetics")
        if "label" not in table.heading:
            notes.append(f"{file.name} has no labels and is left out")
            continue
        for where, row in table.rows:
            entry = _entry(f"{file.name}, {where}", row, split, videos, present)
            whole += entry.segment is not None
            entries.append(entry)
    if whole:
        notes.append(f"{whole} clips are cut out of whole videos, by their times in seconds")
    return listing("Kinetics CSV", entries, None, notes)


def _entry(
    where: str, row: Mapping[str, str], split: str, videos: Path, present: Mapping[str, Sequence[Path]]
) -> Entry:
    name, label = row["youtube_id"], row["label"]
    split = split_named(row.get("split", "")) or split
    segment, problem, path = None, None, videos / f"{name}.mp4"
    try:
        start, end = float(row["time_start"]), float(row["time_end"])
        part = Segment(start, end, "seconds")
        clip_id = f"{name}_{int(start):06}_{int(end):06}"
        path = videos / f"{clip_id}.mp4"
    except ValueError:
        clip_id = name or where
        problem = f"has the times {row['time_start']!r} and {row['time_end']!r}; expected seconds, start before end"
    else:
        cut, uncut = (_fitting(present.get(stem, ()), label, split) for stem in (clip_id, name))
        segment = part if uncut and not cut else None
        found = cut or uncut
        if len(found) > 1:
            problem = f"may be {found[0]} or {found[1]}"
        elif found:
            path = found[0]
    if not name:
        problem = "has no youtube_id"
    return Entry(where, clip_id, path, label, split or UNSPLIT, segment, problem=problem)


def _fitting(found: Sequence[Path], label: str, split: str) -> Sequence[Path]:
    """Of videos of the same name, those in a folder of the clip's class or else its split, if there are any."""
    if len(found) < 2:
        return found
    tests = (lambda folder: folder.replace("_", " ") == label, lambda folder: known_split(folder) == split)
    for fits in tests:
        fitting = [path for path in found if any(fits(folder) for folder in path.parts[:-1])]
        if fitting:
            return fitting
    return found


def _videos_by_name(videos: Path) -> Mapping[str, Sequence[Path]]:
    """Every video and every frame folder below a folder, by name without suffix."""
    found: dict[str, list[Path]] = defaultdict(list)
    with tqdm(desc="looking for videos", unit=" files", delay=2, leave=False) as bar:
        for parent, folders, files in walk(videos):
            bar.update(len(files))
            for name in files:
                if is_video(name):
                    found[os.path.splitext(name)[0]].append(parent / name)
            if not folders and files and parent != videos and not any(map(is_video, files)):
                found[parent.name].append(parent)
    return found
