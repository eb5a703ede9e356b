"""Which clips an archive has: nobody needs to say their labels, and a file that is missing stays in the list."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stabn.data.annotations.named_columns import columns_of
from stabn.data.annotations.paths import finder, is_video, walk
from stabn.data.annotations.rows import read_rows
from stabn.data.annotations.something_something import annotated, annotation_file, is_v2
from stabn.data.annotations.table import FIELD, Columns, filled, name_of, segment_in
from stabn.data.segments import Segment
from stabn.data.video.frame_folder import SUFFIXES as IMAGES
from stabn.data.video.frame_folder import frame_numbers
from stabn.errors import UserError


@dataclass(frozen=True)
class ArchiveSource:
    """What the table of an archive does not say itself.

    Attributes:
        videos: the folder that paths are relative to; by default that of the table, or `videos` inside the folder of
            Something-Something's annotations.
        columns: what the columns of the table are called. Labels and splits may be missing.
    """

    videos: str | None = None
    columns: Columns = Columns()  # noqa: RUF009


@dataclass(frozen=True, slots=True)
class ArchiveClip:
    """One clip of an archive, whether its file can be read or not.

    Attributes:
        clip_id: its name, unique in its archive.
        path: of the video file or the folder of its frames, absolute.
        label: the name of its class, which the network need not know; None where nobody says.
        split: None where nobody says.
        segment: the part of the source that is the clip; None for all of it.
    """

    clip_id: str
    path: str
    label: str | None = None
    split: str | None = None
    segment: Segment | None = None

    def __post_init__(self) -> None:
        if not self.clip_id:
            raise ValueError("clip_id: got an empty string, expected a name")
        if not os.path.isabs(self.path):
            raise ValueError(f"path: got {self.path!r}, expected an absolute one")


@dataclass(frozen=True)
class Listed:
    """The clips of an archive.

    Attributes:
        clips: in the order of the table, or of the files' names.
        notes: what a person should know, a line each.
    """

    clips: tuple[ArchiveClip, ...]
    notes: tuple[str, ...] = ()


def list_clips(table: Path, source: ArchiveSource = ArchiveSource(), split: str | None = None) -> Listed:
    """The clips of an archive; no video is opened.

    Args:
        table: CSV, JSON Lines or Parquet with a row per clip; a folder with the annotations of Something-Something v2;
            or any other folder, whose videos and frame folders are the clips.
        source: what the table does not say itself.
        split: only the clips of this split.

    Raises:
        UserError: the table cannot be read, a row has no path or an id that was there before, or no file exists.
    """
    if not table.exists():
        raise UserError(f"{table}: no such file or folder; give a table of clips or a folder of videos")
    videos = None if source.videos is None else Path(source.videos)
    if table.is_file():
        listed = _of_table(table, videos, source.columns)
    elif source.columns != Columns():
        raise UserError(f"{table}: is a folder, but --data.columns is for tables; leave it out")
    elif is_v2(table):
        listed = Listed(tuple(_of_something(table, videos or table / "videos")))
    else:
        listed = _of_folder(table if videos is None else videos)
    if split is not None:
        listed = replace(listed, clips=_of_split(table, listed.clips, split))
    if not listed.clips:
        raise UserError(f"{table}: holds no clip; write one line per video under the heading")
    return _looked_for(table, listed)


def digest(clips: Iterable[ArchiveClip]) -> str:
    """What tells lists of clips apart: names, paths, labels, splits, segments and their order."""
    found = hashlib.sha256()
    for clip in clips:
        part = clip.segment and (clip.segment.start, clip.segment.end, clip.segment.unit)
        found.update(json.dumps((clip.clip_id, clip.path, clip.label, clip.split, part)).encode())
    return found.hexdigest()


def _of_table(file: Path, videos: Path | None, columns: Columns) -> Listed:
    table = read_rows(file)
    asked = columns_of(table.heading, columns)
    usual = Columns()
    absent = {
        key
        for key in ("label", "split")
        if getattr(asked, key) == getattr(usual, key) and getattr(asked, key) not in table.heading
    }
    # any column that is there stands for one that is not, and is not asked for its value
    present: dict[str, Any] = dict.fromkeys(absent, next(iter(table.heading), usual.path))
    named = replace(asked, **present).of(table.heading, file)
    root = file.parent if videos is None else videos
    clips: list[ArchiveClip] = []
    lines: dict[str, str] = {}
    for where, row in table.rows:
        if not all(row[name] for name in FIELD.findall(named.path)):
            raise UserError(f"{file}, {where}: {', '.join(FIELD.findall(named.path))} is empty; every clip needs it")
        relative = filled(named.path, row)
        try:
            segment = segment_in(row, named, table.decimal_sign)
        except ValueError as error:
            raise UserError(f"{file}, {where}: {error}") from None
        clip = ArchiveClip(
            clip_id=(row[named.id] if named.id else "") or name_of(relative, segment),
            path=os.path.abspath(root / relative),
            label=None if "label" in absent else row[named.label] or None,
            split=None if "split" in absent else row[named.split] or None,
            segment=segment,
        )
        former = lines.setdefault(clip.clip_id, where)
        if former != where:
            raise UserError(f"{file}, {where}: clip {clip.clip_id!r} was in {former}; remove one of them")
        clips.append(clip)
    taken = {key: getattr(asked, key) for key in ("path", "label", "split") if key not in absent}
    guessed = [f"{key} from column {name!r}" for key, name in taken.items() if name != getattr(columns, key)]
    return Listed(tuple(clips), tuple(f"{file}: {told}" for told in guessed))


def _of_something(annotations: Path, videos: Path) -> Iterator[ArchiveClip]:
    try:
        present = set(os.listdir(videos))
    except OSError as error:
        raise UserError(f"{videos}: cannot be listed ({error.strerror}); give the folder with --data.videos") from None
    seen: dict[str, str] = {}
    for split in ("train", "validation"):
        file = annotation_file(annotations, split)
        for clip_id, template in annotated(file):
            if clip_id in seen:
                raise UserError(f"{file}: clip {clip_id!r} was in split {seen[clip_id]!r}; remove one of them")
            seen[clip_id] = split
            name = next((n for n in (f"{clip_id}.webm", f"{clip_id}.mp4", clip_id) if n in present), f"{clip_id}.webm")
            yield ArchiveClip(clip_id, os.path.abspath(videos / name), template, split)


def _of_folder(folder: Path) -> Listed:
    """Videos, and folders with numbered images and no video, with their paths inside the folder as names."""
    clips, others = [], []
    with tqdm(desc="looking for videos", unit=" files", delay=2, leave=False) as bar:
        for parent, _, files in walk(folder):
            bar.update(len(files))
            found = [parent / name for name in files if is_video(name)]
            if not found and parent != folder and _has_frames(parent, files):
                found, files = [parent], []
            clips += [ArchiveClip(path.relative_to(folder).as_posix(), os.path.abspath(path)) for path in found]
            others += [name for name in files if not is_video(name)]
    if not clips:
        raise UserError(f"{folder}: holds no videos and no folders of frames; give another folder, or a table of clips")
    endings = Counter(os.path.splitext(name)[1].lower() or name for name in others)
    told = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
    return Listed(
        tuple(clips), (f"{folder}: files that are no videos by their names were left out: {told}",)[: len(others)]
    )


def _has_frames(folder: Path, names: Iterable[str]) -> bool:
    if not any(os.path.splitext(name)[1].lower() in IMAGES for name in names):
        return False
    try:
        return bool(frame_numbers(folder))
    except UserError:
        return True  # several series of images: a clip whose row will tell the problem


def _of_split(table: Path, clips: tuple[ArchiveClip, ...], split: str) -> tuple[ArchiveClip, ...]:
    chosen = tuple(clip for clip in clips if clip.split == split)
    if not chosen:
        known = ", ".join(sorted({clip.split for clip in clips if clip.split})) or "none"
        raise UserError(f"--split: got {split!r}, but {table} has only: {known}")
    return chosen


def _looked_for(table: Path, listed: Listed) -> Listed:
    """The clips with the paths that exist, and a note of how many do not.

    Raises:
        UserError: not one exists.
    """
    find, clips, missing = finder(), [], 0
    for clip in tqdm(listed.clips, desc="looking for videos", unit=" clips", delay=2, leave=False):
        path = find(Path(clip.path))
        missing += path is None
        clips.append(clip if path is None else replace(clip, path=str(path)))
    if missing == len(clips):
        raise UserError(f"{clips[0].path}: no such video, and {table} has none that exists; correct --data.videos")
    notes = (f"{missing} of {len(clips)} videos do not exist; their rows say so",)[:missing]
    return replace(listed, clips=tuple(clips), notes=(*listed.notes, *notes))
