"""An edit project: the clips whose attention people should correct, and their corrections, in one folder.

PROJECT/project.json             which run, which classes and why
PROJECT/clips.jsonl              one record per clip: prediction, frames, times, temporal attention
PROJECT/attention.safetensors    the same clips' temporal and spatial attention, row by row
PROJECT/edits.jsonl              the corrections (`stabn.records.Edit`), one per line; the last one of a clip counts
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from stabn.errors import UserError
from stabn.files import read_json, replacing, write_json, write_text
from stabn.records import Edit, Record, read_edits, write_edits

PROJECT_FORMAT = "stabn-project/1"


@dataclass(frozen=True)
class ProjectClip:
    """One clip to correct.

    Attributes:
        clip_id: its name in the data set.
        path: the video file.
        label: the true class.
        predicted: what the network answered.
        frame_indices: the T source frames that the network saw.
        timestamps: their T times in seconds.
        temporal: T scores in 0..1, what the network found important.
    """

    clip_id: str
    path: str
    label: str
    predicted: str
    frame_indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    temporal: tuple[float, ...]

    def edit(self, scores: Sequence[float], *, author: str, time: str, comment: str = "") -> Edit:
        """The edit that gives this clip's frames these scores."""
        values = tuple(float(score) for score in scores)
        return Edit(self.clip_id, self.frame_indices, self.timestamps, values, author, time, comment)


@dataclass(frozen=True)
class Project:
    """An edit project as `open_project` reads it.

    Attributes:
        folder: where.
        run: the folder of the run whose mistakes these are.
        classes: names of the classes that need correction.
        clips: their misrecognised clips, in the order of the files.
    """

    folder: Path
    run: Path
    classes: tuple[str, ...]
    clips: tuple[ProjectClip, ...]

    @property
    def edits_file(self) -> Path:
        """Where the corrections are."""
        return self.folder / "edits.jsonl"

    def edits(self) -> dict[str, Edit]:
        """The last edit of each edited clip.

        Raises:
            UserError: a line is wrong, or of a clip or frames that are not this project's.
        """
        known = {clip.clip_id: clip.frame_indices for clip in self.clips}
        return {edit.clip_id: edit for edit in read_edits(self.edits_file, known)}

    def add(self, edits: Iterable[Edit]) -> None:
        """Append edits; earlier ones stay as history."""
        write_edits(self.edits_file, (*read_edits(self.edits_file), *edits))


def check_vacant(folder: Path) -> None:
    """Make sure that a new project overwrites nothing; what an interrupted `write_project` left may be replaced.

    Raises:
        UserError: the folder holds something.
    """
    left = {"clips.jsonl", "attention.safetensors", "edits.jsonl"}
    if not folder.exists():
        return
    if not folder.is_dir() or any(
        entry.name not in left and not entry.name.startswith(".") for entry in folder.iterdir()
    ):
        raise UserError(f"{folder}: is not empty; choose another --out, so that no edit is overwritten")
    if (folder / "edits.jsonl").exists() and (folder / "edits.jsonl").stat().st_size:
        raise UserError(f"{folder}: holds edits; choose another --out, so that none is overwritten")


def write_project(
    folder: Path, run: Path, classes: Sequence[dict[str, Any]], records: Sequence[Record], bound: float
) -> None:
    """Write a new project without edits; project.json comes last, so a folder without it is no project.

    Args:
        folder: must not hold a project yet.
        run: the run whose mistakes these are.
        classes: {"name", "count", "top1", "collected"} of the classes below the bound.
        records: the clips.
        bound: the accuracy below which a class was taken.

    Raises:
        UserError: the folder holds something.
    """
    check_vacant(folder)
    lines = (json.dumps(_line(record), ensure_ascii=False) + "\n" for record in records)
    write_text(folder / "clips.jsonl", "".join(lines))
    with replacing(folder / "attention.safetensors") as temporary:
        arrays = ("temporal", "spatial", "frame_indices", "timestamps", "probabilities")
        save_file({name: np.stack([getattr(r, name) for r in records]) for name in arrays}, temporary)
    write_text(folder / "edits.jsonl", "")
    described = {"format": PROJECT_FORMAT, "run": str(run.resolve()), "bound": bound, "classes": list(classes)}
    write_json(folder / "project.json", described)


def _line(record: Record) -> dict[str, Any]:
    return record.as_json() | {"predicted": record.class_names[record.predicted]}


def open_project(folder: Path | str) -> Project:
    """Read a project.

    Raises:
        UserError: there is none, or a file of it is damaged.
    """
    folder = Path(folder)
    file = folder / "project.json"
    value = read_json(file, remedy="`stabn collect` makes an edit project")
    if not isinstance(value, dict) or value.get("format") != PROJECT_FORMAT:
        raise UserError(f"{file}: is not of format {PROJECT_FORMAT!r}; `stabn collect` makes an edit project")
    clips, source = [], folder / "clips.jsonl"
    try:
        for line in source.read_text(encoding="utf-8").split("\n"):
            if not line:
                continue
            entry = json.loads(line)
            clips.append(
                ProjectClip(
                    clip_id=entry["clip_id"],
                    path=entry["path"],
                    label=entry["label"],
                    predicted=entry["predicted"],
                    frame_indices=tuple(entry["frame_indices"]),
                    timestamps=tuple(entry["timestamps"]),
                    temporal=tuple(entry["temporal_attention"]),
                )
            )
        classes = tuple(entry["name"] for entry in value["classes"])
        return Project(folder, Path(value["run"]), classes, tuple(clips))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: is damaged ({error}); collect the project again with `stabn collect`") from None
