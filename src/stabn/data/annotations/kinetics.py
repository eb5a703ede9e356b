"""Kinetics: a CSV file per split with parts of YouTube videos, and videos under the names of those who fetched them.

    label,youtube_id,time_start,time_end,split,is_cc
    air drumming,--_S9IDQPLg,134,144,train,0

A file ID_000134_000144.mp4 is the part, cut out already; a file ID.mp4 is the whole video, of which the part is taken.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from stabn.data.annotations.listing import ListedClip, Listing, make_listing
from stabn.data.annotations.paths import is_video, other_files_note, walk_clips
from stabn.data.annotations.rows import read_rows
from stabn.data.segments import Segment
from stabn.data.spelling import known_split, normalise_label, normalise_split
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
    videos_by_stem: dict[str, list[Path]] = defaultdict(list)
    others: list[str] = []
    for paths, names in walk_clips(videos):
        others += names
        for path in paths:
            videos_by_stem[path.stem if is_video(path.name) else path.name].append(path)
    clips: list[ListedClip] = []
    notes = []
    for file, split in files:
        table = read_rows(file)
        if not is_kinetics(table.heading):
            raise UserError(f"{file}: lacks one of the columns {', '.join(COLUMNS)}; give a CSV file of Kinetics")
        if "label" in table.heading:
            clips += [_clip(f"{file.name}, {line}", row, split, videos, videos_by_stem) for line, row in table.rows]
        else:
            notes.append(f"{file.name} has no labels and is left out")
    note = other_files_note(name for name in others if name not in {file.name for file, _ in files})
    notes += [] if note is None else [note]
    parts = sum(clip.segment is not None for clip in clips)
    if parts:
        notes.append(f"{parts} clips are cut out of whole videos, by their times in seconds")
    return make_listing("Kinetics CSV", clips, None, notes)


def _clip(
    where: str, row: Mapping[str, str], split: str, videos: Path, videos_by_stem: Mapping[str, Sequence[Path]]
) -> ListedClip:
    name, label = row["youtube_id"], normalise_label(row["label"])
    split = normalise_split(row.get("split", "")) or split
    clip_id, path, segment, problem = name or where, videos / f"{name}.mp4", None, None
    try:
        start, end = float(row["time_start"]), float(row["time_end"])
        part = Segment(start, end, "seconds")
    except ValueError:
        problem = f"has the times {row['time_start']!r} and {row['time_end']!r}; expected seconds, start before end"
    else:
        clip_id = f"{name}_{int(start):06}_{int(end):06}"
        cut, whole = (_best_matches(videos_by_stem.get(stem, ()), label, split) for stem in (clip_id, name))
        segment = part if whole and not cut else None
        matches = cut or whole or [videos / f"{clip_id}.mp4"]
        path = matches[0]
        if len(matches) > 1:
            problem = f"may be {matches[0]} or {matches[1]}"
    if not name:
        problem = "has no youtube_id"
    return ListedClip(where, clip_id, path, label, split, segment, problem=problem)


def _best_matches(paths: Sequence[Path], label: str, split: str) -> Sequence[Path]:
    """Of videos of the same name, those in a folder of the clip's class or else its split, if there are any."""
    if len(paths) < 2:
        return paths
    of_class = [
        path for path in paths if any(normalise_label(folder.replace("_", " ")) == label for folder in path.parts[:-1])
    ]
    of_split = [path for path in paths if any(known_split(folder) == split for folder in path.parts[:-1])]
    return of_class or of_split or paths
