"""Something-Something v2 as it is distributed, and Tabletop, which has the same form."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stabn.data.datasets import Sample, Table
from stabn.errors import UserError
from stabn.files import read_json


def read_something_something(
    annotations: Path | str, videos: Path | str, splits: Sequence[str] = ("train", "validation")
) -> Table:
    """Something-Something v2 as it is distributed.

    Args:
        annotations: folder with something-something-v2-labels.json, -train.json and -validation.json; the newer
            distribution's labels.json, train.json and validation.json are read too.
        videos: folder with <id>.webm or <id>.mp4 for every annotated id.
        splits: which splits to read; test has no labels.

    Raises:
        UserError: a file is missing or has another structure, a template is not among the labels, a video is missing,
            an id comes twice or would lead out of the folder.
    """
    annotations, videos = Path(annotations), Path(videos)
    class_names = _class_names(_annotation_file(annotations, "labels"))
    labels = {name: index for index, name in enumerate(class_names)}
    try:
        present = set(os.listdir(videos))  # once: asking for each of 220,000 files takes minutes on a network drive
    except OSError as error:
        raise UserError(f"{videos}: cannot be listed ({error.strerror}); give the folder with the videos") from None
    samples: dict[str, Sample] = {}
    missing = []
    for split in splits:
        file = _annotation_file(annotations, split)
        entries = read_json(file, remedy=_REDOWNLOAD)
        if not isinstance(entries, list):
            raise UserError(f"{file}: got {type(entries).__name__}, expected a list of clips; {_REDOWNLOAD}")
        for number, entry in enumerate(entries):
            clip_id, template = _id_and_template(file, number, entry)
            if clip_id in samples:
                where = "twice" if samples[clip_id].split == split else f"also in split {samples[clip_id].split!r}"
                raise UserError(f"{file}: clip {clip_id!r} is there {where}; remove one of them")
            if template not in labels:
                raise UserError(f"{file}: clip {clip_id!r} has template {template!r}, no such label; {_REDOWNLOAD}")
            name = next((n for n in (f"{clip_id}.webm", f"{clip_id}.mp4") if n in present), None)
            if name is None:
                missing.append(clip_id)
            samples[clip_id] = Sample(clip_id, videos / (name or f"{clip_id}.webm"), labels[template], split)
    if missing:
        tried = f"{videos / missing[0]}.webm and .mp4"
        raise UserError(
            f"{tried}: no such file for clip {missing[0]!r}, {len(missing)} of {len(samples)} videos are missing; "
            "unpack all parts of the archive or give the right folder"
        )
    return Table(class_names, tuple(samples.values()))


_REDOWNLOAD = "take the file as it was distributed"


def _annotation_file(folder: Path, name: str) -> Path:
    official, newer = folder / f"something-something-v2-{name}.json", folder / f"{name}.json"
    return newer if newer.exists() and not official.exists() else official


def _class_names(file: Path) -> tuple[str, ...]:
    """From {"Moving something up": "0", ...}: the names in the order of their indices."""
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
