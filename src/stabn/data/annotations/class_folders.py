"""One folder per class, with videos or frame folders inside; maybe all of it once per split."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from stabn.data.annotations.listing import Entry, Listing, listing
from stabn.data.annotations.paths import is_video, walk
from stabn.data.annotations.splits import UNSPLIT, known_split
from stabn.data.video.frame_folder import frame_numbers
from stabn.errors import UserError


def read_class_folders(folder: Path) -> Listing:
    """Every video or frame folder below a folder, of the class that the first folder on the way to it is called.

    Where the folders are called train, validation, test or the like, and at least train and another one are there or
    no other folder, they are splits, and the folders in them are classes.

    Raises:
        UserError: a folder cannot be listed, or there is no clip.
    """
    clips = list(_clips(folder))
    if not clips:
        raise UserError(f"{folder}: holds no videos and no folders of frames; give a folder with a folder per class")
    if all(len(clip.parts) == 1 for clip in clips):
        raise UserError(
            f"{folder}: holds {len(clips)} clips such as {clips[0]}, but no folders for classes; move them into a "
            "folder per class, or give a list or table of them"
        )
    tops = {clip.parts[0] for clip in clips if len(clip.parts) > 1}
    splits = {top for top in tops if known_split(top)}
    in_splits = bool(splits) and (splits == tops or {known_split(top) for top in splits} > {"train"})
    in_splits = in_splits and any(len(clip.parts) > 2 for clip in clips)
    entries = []
    for clip in clips:
        *above, _ = clip.parts
        split = (known_split(above[0]) or above[0]) if in_splits and above else UNSPLIT
        classes = above[in_splits:]
        label = classes[0].strip() if classes else ""
        entries.append(Entry(str(clip.parent), clip.as_posix(), folder / clip, label, split))
    notes = []
    counts = Counter(entry.label for entry in entries)
    if len(counts) > 2 and max(counts.values()) == 1:
        notes.append("every class has a single clip: are these folders of classes?")
    if len(counts) == 1:
        notes.append(f"all clips are in one folder, {next(iter(counts))!r}: give that one if it holds the classes")
    words = "a folder per class in a folder per split" if in_splits else "a folder per class"
    return listing(words, entries, None, notes)


def _clips(folder: Path) -> Iterator[Path]:
    """Videos, and folders with numbered images and no video, relative to the folder."""
    bar = tqdm(desc="looking for videos", unit=" files", delay=2, leave=False)
    for parent, _, files in walk(folder):
        bar.update(len(files))
        videos = [name for name in files if is_video(name)]
        inside = Path(os.path.relpath(parent, folder))
        yield from (inside / name for name in videos)
        if not videos and files and parent != folder and _has_frames(parent):
            yield inside
    bar.close()


def _has_frames(folder: Path) -> bool:
    try:
        return bool(frame_numbers(folder))
    except UserError:
        return True  # several series of images: a clip, of which the listing tells the problem
