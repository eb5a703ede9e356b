"""The clips of an archive: labels are optional, and missing files stay in the list."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from stabn.data.annotations.columns import Columns, clips_in_rows
from stabn.data.annotations.listing import ListedClip
from stabn.data.annotations.paths import PathFinder, other_files_note, walk_clips
from stabn.data.annotations.rows import read_rows
from stabn.data.annotations.something_something import annotated_clips, is_something_v2, with_videos
from stabn.data.segments import Segment
from stabn.data.spelling import normalise_split
from stabn.errors import UserError


@dataclass(frozen=True)
class ArchiveSource:
    """How to read the table of an archive.

    Attributes:
        videos: the folder that paths are relative to; by default that of the table, or `videos` inside the folder of
            Something-Something's annotations.
        columns: what the columns of the table are called. Labels and splits may be missing.
        annotations: the table itself, for the command line, where --batch names it as well.
    """

    videos: str | None = None
    columns: Columns = Columns()  # noqa: RUF009
    annotations: str | None = None


@dataclass(frozen=True, slots=True)
class ArchiveClip:
    """One clip of an archive, whether its file can be read or not.

    Attributes:
        clip_id: its name, unique in its archive.
        path: of the video file or the folder of its frames, absolute.
        label: the name of its class, which the network need not know; None where the table has none.
        split: None where the table has none.
        segment: the part of the source that is the clip; None for all of it.
        first_path: the path when the archive was first explained, where its videos have moved since.
    """

    clip_id: str
    path: str
    label: str | None = None
    split: str | None = None
    segment: Segment | None = None
    first_path: str | None = None


@dataclass(frozen=True)
class ArchiveListing:
    """The clips of an archive.

    Attributes:
        clips: in the order of the table, or of the files' names.
        notes: for the user, a line each.
    """

    clips: tuple[ArchiveClip, ...]
    notes: tuple[str, ...] = ()


def list_clips(table: Path, source: ArchiveSource = ArchiveSource(), split: str | None = None) -> ArchiveListing:
    """List the clips of an archive; no video is opened.

    Args:
        table: CSV, JSON Lines or Parquet with a row per clip; a folder with the annotations of Something-Something v2;
            or any other folder, whose videos and frame folders are the clips.
        source: how to read the table.
        split: only the clips of this split.

    Raises:
        UserError: the table cannot be read, a row has no path or an id that was there before, or no file exists.
    """
    if not table.exists():
        raise UserError(f"{table}: no such file or folder; give a table of clips or a folder of videos")
    videos = None if source.videos is None else Path(source.videos)
    if table.is_file():
        listing = _of_table(table, videos, source.columns)
    elif source.columns != Columns():
        raise UserError(f"{table}: is a folder, but --data.columns is for tables; leave it out")
    elif is_something_v2(table):
        listing = ArchiveListing(tuple(_of_something(table, videos or table / "videos")))
    else:
        listing = _of_folder(table if videos is None else videos)
    if split is not None:
        wanted = normalise_split(split)
        chosen = tuple(clip for clip in listing.clips if normalise_split(clip.split or "") == wanted)
        if not chosen:
            splits = ", ".join(sorted({clip.split for clip in listing.clips if clip.split})) or "none"
            raise UserError(f"--split: got {split!r}, but {table} has only: {splits}")
        listing = replace(listing, clips=chosen)
    if not listing.clips:
        raise UserError(f"{table}: holds no clip; write one line per video under the heading")
    return _with_existing_paths(table, listing)


def clips_digest(clips: Iterable[ArchiveClip]) -> str:
    """SHA-256 of a list of clips: names, first paths, labels, splits, segments and their order."""
    digest = hashlib.sha256()
    for clip in clips:
        segment = clip.segment and (clip.segment.start, clip.segment.end, clip.segment.unit)
        digest.update(
            json.dumps((clip.clip_id, clip.first_path or clip.path, clip.label, clip.split, segment)).encode()
        )
    return digest.hexdigest()


def videos_folder(clips: Iterable[ArchiveClip]) -> str:
    """The folder below which all videos of at least one clip lie, by their first paths."""
    folders = {os.path.dirname(clip.first_path or clip.path) for clip in clips}
    return os.path.commonpath((min(folders), max(folders)))


def moved_clips(clips: Sequence[ArchiveClip], folder: str, first_folder: str) -> tuple[ArchiveClip, ...]:
    """The clips with the first paths that those below a folder had when it was another one."""
    return tuple(
        replace(clip, first_path=os.path.join(first_folder, os.path.relpath(clip.path, folder)))
        if os.path.commonpath((clip.path, folder)) == folder
        else clip
        for clip in clips
    )


def _of_table(file: Path, videos: Path | None, columns: Columns) -> ArchiveListing:
    table = read_rows(file)
    usual = columns.with_usual_names(table.heading)
    present = usual.of(table.heading, file, optional=("label", "split"))
    clips: dict[str, ArchiveClip] = {}
    for listed in clips_in_rows(table, replace(present, start=None, end=None), file, videos):
        where = file.parent / listed.where
        if listed.problem is not None:
            raise UserError(f"{where}: {listed.problem}")
        if listed.clip_id in clips:
            raise UserError(f"{where}: clip {listed.clip_id!r} is there twice; remove one of them")
        clips[listed.clip_id] = _archive_clip(listed)
    return ArchiveListing(tuple(clips.values()), tuple(f"{file}: {change}" for change in usual.changes(columns)))


def _of_something(annotations: Path, videos: Path) -> Iterator[ArchiveClip]:
    splits: dict[str, str] = {}
    for listed in with_videos(annotated_clips(annotations), videos):
        if listed.clip_id in splits:
            raise UserError(
                f"{annotations / listed.where}: clip {listed.clip_id!r} is also in split {splits[listed.clip_id]!r}; "
                "remove one of them"
            )
        splits[listed.clip_id] = listed.split
        yield _archive_clip(listed)


def _archive_clip(listed: ListedClip) -> ArchiveClip:
    path = os.path.abspath(listed.path)
    return ArchiveClip(listed.clip_id, path, listed.label or None, listed.split or None, listed.segment)


def _of_folder(folder: Path) -> ArchiveListing:
    """Videos, and folders with numbered images and no video, with their paths inside the folder as names."""
    clips: list[ArchiveClip] = []
    others: list[str] = []
    for paths, other_names in walk_clips(folder):
        clips += [ArchiveClip(path.relative_to(folder).as_posix(), os.path.abspath(path)) for path in paths]
        others += other_names
    if not clips:
        raise UserError(f"{folder}: holds no videos and no folders of frames; give another folder, or a table of clips")
    note = other_files_note(others)
    return ArchiveListing(tuple(clips), () if note is None else (f"{folder}: {note}",))


def _with_existing_paths(table: Path, listing: ArchiveListing) -> ArchiveListing:
    """Correct the spelling of paths to existing ones, and note how many do not exist."""
    finder, clips, missing = PathFinder(), [], 0
    for clip in tqdm(listing.clips, desc="looking for videos", unit=" clips", delay=2, leave=False):
        path = finder.find(Path(clip.path))
        missing += path is None
        clips.append(clip if path is None else replace(clip, path=str(path)))
    if missing == len(clips):
        raise UserError(f"{clips[0].path}: no such video, and {table} has none that exists; correct --data.videos")
    notes = (f"{missing} of {len(clips)} videos do not exist; their rows have an error",) if missing else ()
    return replace(listing, clips=tuple(clips), notes=(*listing.notes, *notes))
