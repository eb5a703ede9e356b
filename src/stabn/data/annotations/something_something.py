"""Something-Something v1 and v2 as they are distributed, and Tabletop, which has the form of v2."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stabn.data.annotations.listing import ListedClip, Listing, make_listing, make_table
from stabn.data.annotations.paths import VIDEO_SUFFIXES, PathFinder
from stabn.data.dataset import Table
from stabn.data.ground_truth import read_truth
from stabn.data.spelling import normalise_label
from stabn.errors import UserError
from stabn.files import read_json, read_text

V1 = "something-something-v1"
LABELLED_SPLITS = ("train", "validation")
_REDOWNLOAD = "take the file as it was distributed"


def is_something_v1(folder: Path) -> bool:
    """Whether a folder holds the lists of version 1."""
    return (folder / f"{V1}-labels.csv").is_file()


def is_something_v2(folder: Path) -> bool:
    """Whether a folder holds the annotations of version 2."""
    return all(annotation_file(folder, name).is_file() for name in ("labels", "train"))


def annotation_file(folder: Path, name: str) -> Path:
    """The file of labels, train, validation or test, under the name of the older or the newer distribution."""
    official, newer = folder / f"something-something-v2-{name}.json", folder / f"{name}.json"
    return newer if newer.exists() and not official.exists() else official


def annotated_clips(folder: Path, splits: Sequence[str] = LABELLED_SPLITS) -> list[ListedClip]:
    """The clips of version 2, split by split; the path of each is its id, for `with_videos`.

    Raises:
        UserError: a file is missing or has another structure.
    """
    clips = []
    for split in splits:
        file = annotation_file(folder, split)
        entries = read_json(file, remedy=_REDOWNLOAD)
        if not isinstance(entries, list):
            raise UserError(f"{file}: got {type(entries).__name__}, expected a list of clips; {_REDOWNLOAD}")
        for number, entry in enumerate(entries):
            clip_id, label = _id_and_label(file, number, entry)
            clips.append(ListedClip(f"{file.name}, entry {number}", clip_id, Path(clip_id), label, split))
    return clips


def _id_and_label(file: Path, number: int, entry: Any) -> tuple[str, str]:
    """The id, and the template without the brackets around its placeholders, which the labels do not have."""
    if not isinstance(entry, dict):
        raise UserError(f"{file}: entry {number} is {entry!r}, expected an object; {_REDOWNLOAD}")
    clip_id, template = entry.get("id"), entry.get("template")
    if isinstance(clip_id, bool) or not isinstance(clip_id, int | str) or not isinstance(template, str):
        raise UserError(f"{file}: entry {number} has id {clip_id!r} and template {template!r}; {_REDOWNLOAD}")
    clip_id = str(clip_id)
    if clip_id in ("", ".", "..") or any(c in "/\\" or not c.isprintable() for c in clip_id):
        raise UserError(f"{file}: entry {number} has id {clip_id!r}, which is no file name; {_REDOWNLOAD}")
    return clip_id, template.replace("[", "").replace("]", "")


def read_label_names(file: Path) -> tuple[str, ...]:
    """From {"Moving something up": "0", ...}: the names in the order of their indices.

    Raises:
        UserError: the file is missing, or the indices are not 0, 1, ... as strings or numbers.
    """
    labels = read_json(file, remedy="give the folder with the annotations")
    if not isinstance(labels, dict) or not labels:
        raise UserError(f"{file}: got {type(labels).__name__}, expected an object of template: index; {_REDOWNLOAD}")
    by_index: dict[int, str] = {}
    for name, value in labels.items():
        if not str(value).isdecimal() or int(value) >= len(labels) or int(value) in by_index:
            raise UserError(
                f"{file}: label {name!r} has index {value!r}, expected each of 0..{len(labels) - 1} once; {_REDOWNLOAD}"
            )
        by_index[int(value)] = name
    return tuple(normalise_label(by_index[index]) for index in range(len(labels)))


def with_videos(clips: Sequence[ListedClip], videos: Path, *, missing: str = ".webm") -> list[ListedClip]:
    """The clips with the paths of their videos.

    Args:
        clips: the path of each is its id.
        videos: folder with <id>.webm, <id>.mp4 or a folder of frames <id>.
        missing: what follows the id in the path of a clip without any of them.
    """
    finder = PathFinder()
    return [replace(clip, path=_find_video(videos, clip, finder) or videos / f"{clip.path}{missing}") for clip in clips]


def _find_video(videos: Path, clip: ListedClip, finder: PathFinder) -> Path | None:
    candidates = (videos / f"{clip.path}{suffix}" for suffix in (".webm", ".mp4", "", *sorted(VIDEO_SUFFIXES)))
    return next(filter(finder.exists, candidates), None)


def read_something_something(
    annotations: Path | str, videos: Path | str, splits: Sequence[str] = LABELLED_SPLITS
) -> Table:
    """Something-Something v2 as it is distributed, and truth.jsonl where the folder has one, as Tabletop's has.

    Args:
        annotations: folder with something-something-v2-labels.json, -train.json and -validation.json; the newer
            distribution's labels.json, train.json and validation.json are read too.
        videos: folder with <id>.webm, <id>.mp4 or a folder of frames <id> for the annotated ids.
        splits: which splits to read; test has no labels.

    Raises:
        UserError: a file is missing or has another structure, a template is not among the labels, the videos cannot be
            listed, or an id comes twice or would lead out of the folder.
    """
    annotations, videos = Path(annotations), Path(videos)
    labels = annotation_file(annotations, "labels")
    class_names = read_label_names(labels)
    try:
        os.scandir(videos).close()
    except OSError as error:
        raise UserError(
            f"{videos}: cannot be listed ({error.strerror}); give the videos' folder with --data.videos"
        ) from None
    clips = _with_truth(with_videos(annotated_clips(annotations, splits), videos), annotations)
    return make_table(clips, class_names, folder=annotations, class_file=labels.name)


def read_something_v1(folder: Path, videos: Path | None = None) -> Listing:
    """Version 1: something-something-v1-labels.csv with a class per line, -train.csv and -validation.csv with id;class.

    Args:
        folder: of the lists.
        videos: with a folder of frames per id; by default 20bn-something-something-v1 or a folder of another usual name
            beside the lists, or that of the lists.

    Raises:
        UserError: a list is missing or empty, or a class is there twice.
    """
    labels = folder / f"{V1}-labels.csv"
    classes = [normalise_label(line) for line in read_text(labels, _REDOWNLOAD).splitlines() if line.strip()]
    if not classes or len(set(classes)) < len(classes):
        raise UserError(f"{labels}: holds {'a class twice' if classes else 'no class'}; {_REDOWNLOAD}")
    clips = []
    for split in LABELLED_SPLITS:
        file = folder / f"{V1}-{split}.csv"
        for number, line in enumerate(read_text(file, _REDOWNLOAD).splitlines(), start=1):
            clip_id, _, label = (part.strip() for part in line.partition(";"))
            if line.strip():
                clips.append(ListedClip(f"{file.name}, line {number}", clip_id, Path(clip_id), label, split))
    videos = videos or _likeliest_videos(folder, f"20bn-{V1}", clips)
    notes = _test_notes(folder / f"{V1}-test.csv")
    return make_listing("Something-Something v1", with_videos(clips, videos, missing=""), classes, notes)


def read_something_v2(folder: Path, videos: Path | None = None) -> Listing:
    """Version 2, whose indices of classes are strings; videos are <id>.webm, <id>.mp4, or frame folders <id>.

    Args:
        folder: of the JSON files.
        videos: by default `videos` or 20bn-something-something-v2 beside the files, or their folder.

    Raises:
        UserError: a file is missing or has another form.
    """
    classes = read_label_names(annotation_file(folder, "labels"))
    clips = annotated_clips(folder)
    videos = videos or _likeliest_videos(folder, "20bn-something-something-v2", clips)
    clips = _with_truth(with_videos(clips, videos), folder)
    return make_listing("Something-Something v2", clips, classes, _test_notes(annotation_file(folder, "test")))


def _with_truth(clips: list[ListedClip], folder: Path) -> list[ListedClip]:
    file = folder / "truth.jsonl"
    if not file.exists():
        return clips
    truth = read_truth(file)
    return [replace(clip, truth=truth.get(clip.clip_id)) for clip in clips]


def _likeliest_videos(folder: Path, distributed: str, clips: Sequence[ListedClip]) -> Path:
    """Of the folders in which the videos usually are, the one with the most of the first clips."""
    finder = PathFinder()
    names = (distributed, "videos", "frames", "rawframes", "")
    roots = [parent / name for parent in (folder, folder.parent) for name in names]
    return max(roots, key=lambda root: sum(_find_video(root, clip, finder) is not None for clip in clips[:100]))


def _test_notes(file: Path) -> tuple[str, ...]:
    return (f"{file.name} has no labels and is left out",) if file.exists() else ()
