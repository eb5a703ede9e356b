"""Something-Something v2 as it is distributed, and Tabletop, which has the same form."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stabn.data.annotations.listing import Entry, Listing, listing
from stabn.data.annotations.paths import finder
from stabn.data.annotations.rows import read_text
from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import read_truth
from stabn.errors import UserError
from stabn.files import read_json


def read_something_something(
    annotations: Path | str,
    videos: Path | str,
    splits: Sequence[str] = ("train", "validation"),
    *,
    may_miss: Callable[[str], bool] = lambda clip_id: False,
) -> Table:
    """Something-Something v2 as it is distributed.

    Args:
        annotations: folder with something-something-v2-labels.json, -train.json and -validation.json; the newer
            distribution's labels.json, train.json and validation.json are read too.
        videos: folder with <id>.webm, <id>.mp4 or a folder of frames <id> for every annotated id.
        splits: which splits to read; test has no labels.
        may_miss: is asked about clips whose video does not exist, by id, whether that is allowed.

    Raises:
        UserError: a file is missing or has another structure, a template is not among the labels, a video is missing,
            an id comes twice or would lead out of the folder.
    """
    annotations, videos = Path(annotations), Path(videos)
    class_names = label_names(annotation_file(annotations, "labels"))
    labels = {name: index for index, name in enumerate(class_names)}
    try:
        present = set(os.listdir(videos))  # once: asking for each of 220,000 files takes minutes on a network drive
    except OSError as error:
        raise UserError(f"{videos}: cannot be listed ({error.strerror}); give the folder with the videos") from None
    samples: dict[str, Sample] = {}
    missing = []
    for split in splits:
        file = annotation_file(annotations, split)
        for clip_id, template in annotated(file):
            if clip_id in samples:
                where = "twice" if samples[clip_id].split == split else f"also in split {samples[clip_id].split!r}"
                raise UserError(f"{file}: clip {clip_id!r} is there {where}; remove one of them")
            if template not in labels:
                raise UserError(f"{file}: clip {clip_id!r} has template {template!r}, no such label; {_REDOWNLOAD}")
            name = next((n for n in (f"{clip_id}.webm", f"{clip_id}.mp4", clip_id) if n in present), None)
            if name is None and not may_miss(clip_id):
                missing.append(clip_id)
            samples[clip_id] = Sample(clip_id, videos / (name or f"{clip_id}.webm"), labels[template], split)
    if missing:
        tried = f"{videos / missing[0]}.webm and .mp4"
        raise UserError(
            f"{tried}: no such file for clip {missing[0]!r}, {len(missing)} of {len(samples)} videos are missing; "
            "unpack all parts of the archive, give the right folder, or find them with `stabn check-data` and leave "
            "them out with --data.exclude"
        )
    return Table(class_names, tuple(samples.values()))


_REDOWNLOAD = "take the file as it was distributed"


def annotation_file(folder: Path, name: str) -> Path:
    """The file of labels, train, validation or test, under the name of the older or the newer distribution."""
    official, newer = folder / f"something-something-v2-{name}.json", folder / f"{name}.json"
    return newer if newer.exists() and not official.exists() else official


def annotated(file: Path) -> Iterator[tuple[str, str]]:
    """Each clip of an annotation file: its id, and its template without brackets, as labels are written.

    Raises:
        UserError: the file is missing or has another structure.
    """
    entries = read_json(file, remedy=_REDOWNLOAD)
    if not isinstance(entries, list):
        raise UserError(f"{file}: got {type(entries).__name__}, expected a list of clips; {_REDOWNLOAD}")
    for number, entry in enumerate(entries):
        yield _id_and_template(file, number, entry)


def label_names(file: Path) -> tuple[str, ...]:
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
    return tuple(by_index[index] for index in range(len(labels)))


def _id_and_template(file: Path, number: int, entry: Any) -> tuple[str, str]:
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


V1 = "something-something-v1"
SPLITS = ("train", "validation")
_REDOWNLOAD = "take the file as it was distributed"


def is_v1(folder: Path) -> bool:
    """Whether a folder holds the lists of version 1."""
    return (folder / f"{V1}-labels.csv").is_file()


def is_v2(folder: Path) -> bool:
    """Whether a folder holds the annotations of version 2."""
    return all(annotation_file(folder, name).is_file() for name in ("labels", "train"))


def read_v1(folder: Path, videos: Path | None = None) -> Listing:
    """Version 1: something-something-v1-labels.csv with a class per line, -train.csv and -validation.csv with id;class.

    Args:
        folder: of the lists.
        videos: with a folder of frames per id; by default 20bn-something-something-v1 or a folder of another usual name
            beside the lists, or that of the lists.

    Raises:
        UserError: a list is missing or empty, or a class is there twice.
    """
    labels = folder / f"{V1}-labels.csv"
    classes = [line.strip() for line in read_text(labels, _REDOWNLOAD).splitlines() if line.strip()]
    if not classes or len(set(classes)) < len(classes):
        raise UserError(f"{labels}: holds {'a class twice' if classes else 'no class'}; {_REDOWNLOAD}")
    listed = [
        (f"{V1}-{split}.csv, line {number}", split, *_cells(line))
        for split in SPLITS
        for number, line in enumerate(read_text(folder / f"{V1}-{split}.csv", _REDOWNLOAD).splitlines(), start=1)
        if line.strip()
    ]
    root = videos or _likeliest(folder, V1, [clip_id for _, _, clip_id, _ in listed])
    entries = [Entry(where, clip_id, root / clip_id, label, split) for where, split, clip_id, label in listed]
    return listing("Something-Something v1", entries, classes, list(_left_out(folder / f"{V1}-test.csv")))


def read_v2(folder: Path, videos: Path | None = None) -> Listing:
    """Version 2, whose indices of classes are strings; videos are <id>.webm, <id>.mp4, or frame folders <id>.

    Args:
        folder: of the JSON files.
        videos: by default `videos` or 20bn-something-something-v2 beside the files, or their folder.

    Raises:
        UserError: a file is missing or has another form.
    """
    classes = label_names(annotation_file(folder, "labels"))
    listed = []
    for split in SPLITS:
        file = annotation_file(folder, split)
        listed += [(f"{file.name}, entry {n}", split, *found) for n, found in enumerate(annotated(file))]
    root = videos or _likeliest(folder, "20bn-something-something-v2", [clip_id for _, _, clip_id, _ in listed])
    find, truth = finder(), {}
    if (folder / "truth.jsonl").exists():
        truth = read_truth(folder / "truth.jsonl")
    entries = []
    for where, split, clip_id, label in listed:
        candidates = [root / name for name in _file_names(clip_id)]
        path = next((path for path in candidates if find(path) is not None), candidates[0])
        entries.append(Entry(where, clip_id, path, label, split, truth=truth.get(clip_id)))
    return listing("Something-Something v2", entries, classes, list(_left_out(annotation_file(folder, "test"))))


def _file_names(clip_id: str) -> tuple[str, ...]:
    return (f"{clip_id}.webm", f"{clip_id}.mp4", clip_id)


def _cells(line: str) -> tuple[str, str]:
    clip_id, _, label = line.partition(";")
    return clip_id.strip(), label.strip()


def _likeliest(folder: Path, distributed: str, clip_ids: Sequence[str]) -> Path:
    """Of the folders in which the videos usually are, the one with the most of the first clips."""
    names = (f"20bn-{V1}" if distributed == V1 else distributed, "videos", "frames", "rawframes", "")
    find = finder()

    def count(root: Path) -> int:
        return sum(any(find(root / name) for name in _file_names(clip_id)) for clip_id in clip_ids[:100])

    roots = [parent / name for parent in (folder, folder.parent) for name in names]
    return max(roots, key=count)  # the first of equals


def _left_out(file: Path) -> Iterator[str]:
    if file.exists():
        yield f"{file.name} has no labels and is left out"
