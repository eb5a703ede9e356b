"""One folder per class, with videos or frame folders inside; maybe all of it once per split."""

from collections import Counter
from pathlib import Path

from stabn.data.annotations.listing import ListedClip, Listing, make_listing
from stabn.data.annotations.paths import other_files_note, walk_clips
from stabn.data.spelling import UNSPLIT, known_split
from stabn.errors import UserError


def read_class_folders(folder: Path) -> Listing:
    """Every video or frame folder below a folder, of the class that the first folder on the way to it is called.

    Where the folders are called train, validation, test or the like, and at least train and another one are there or
    no other folder, they are splits, and the folders in them are classes.

    Raises:
        UserError: a folder cannot be listed, or there is no clip.
    """
    paths: list[Path] = []
    others: list[str] = []
    for found, names in walk_clips(folder):
        paths += [path.relative_to(folder) for path in found]
        others += names
    if not paths:
        raise UserError(f"{folder}: holds no videos and no folders of frames; give a folder with a folder per class")
    if all(len(path.parts) == 1 for path in paths):
        raise UserError(
            f"{folder}: holds {len(paths)} clips such as {paths[0]}, but no folders for classes; move them into a "
            "folder per class, or give a list or table of them"
        )
    tops = {path.parts[0] for path in paths if len(path.parts) > 1}
    splits = {known_split(top) for top in tops}
    in_splits = any(len(path.parts) > 2 for path in paths) and (None not in splits or splits - {None} > {"train"})
    clips = []
    for path in paths:
        *above, _ = path.parts
        split = (known_split(above[0]) or above[0]) if in_splits and above else UNSPLIT
        classes = above[in_splits:]
        label = classes[0] if classes else ""
        clips.append(ListedClip(str(path.parent), path.as_posix(), folder / path, label, split))
    note = other_files_note(others)
    notes = [] if note is None else [note]
    counts = Counter(clip.label for clip in clips)
    if len(counts) > 2 and max(counts.values()) == 1:
        notes.append("every class has a single clip: are these folders of classes?")
    if len(counts) == 1:
        notes.append(f"all clips are in one folder, {next(iter(counts))!r}: give that one if it holds the classes")
    layout = "a folder per class in a folder per split" if in_splits else "a folder per class"
    return make_listing(layout, clips, None, notes)
