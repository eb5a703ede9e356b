"""Something-Something v2 as it is distributed, and Tabletop, which has the same form."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stabn.data.datasets import Sample, Table
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
