"""An edit project: the clips whose attention people should correct, and their corrections, in one folder.

PROJECT/project.json             which run, which classes and why
PROJECT/clips.jsonl              one record per clip: prediction, frames, times, temporal attention
PROJECT/attention.safetensors    the same clips' temporal and spatial attention, row by row
PROJECT/edits.jsonl              the corrections (`stabn.records.Edit`); of a person's lines for a clip the last counts
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from stabn.data.annotations.source import DataSource
from stabn.edits.clip_files import ClipFile
from stabn.edits.merge import latest_edits, merge_edits
from stabn.errors import UserError
from stabn.files import atomic_write, read_json, write_json, write_text
from stabn.records import Edit, Record, read_edits, write_edits
from stabn.runs import moved_path, open_run, relative_path, weights_digest

PROJECT_FORMAT = "stabn-project/1"
ARRAYS = ("temporal", "spatial", "frame_indices", "timestamps", "probabilities")
"""What attention.safetensors holds of each record."""
REMEDY = "`stabn collect` makes an edit project"


@dataclass(frozen=True)
class ProjectClip:
    """One clip to correct.

    Attributes:
        clip_id: its name in the data set.
        path: the video file.
        label: the true class.
        predicted: the network's prediction.
        frame_indices: T source frames, the network's input.
        timestamps: their T times in seconds.
        temporal: T scores in 0..1, the network's temporal attention.
        crop: (left, top, right, bottom) of the network's view, fractions of the frame's width and height.
        file: what the video file was; None for clips of early versions.
    """

    clip_id: str
    path: str
    label: str
    predicted: str
    frame_indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    temporal: tuple[float, ...]
    crop: tuple[float, float, float, float]
    file: ClipFile | None = None

    def edit(self, scores: Sequence[float], *, author: str, time: str, comment: str = "") -> Edit:
        """An edit of this clip with one score per frame."""
        values = tuple(float(score) for score in scores)
        return Edit(self.clip_id, self.frame_indices, self.timestamps, values, author, time, comment)


@dataclass(frozen=True)
class Project:
    """An edit project as `open_project` reads it.

    Attributes:
        folder: the project's folder.
        id: identifies the project wherever its folder lies.
        run: the folder of the run whose mistakes these are.
        weights: the run's `weights_digest`; None in projects of early versions.
        classes: names of the classes that need correction.
        clips: their misrecognised clips, in the order of the files, then those that people added.
    """

    folder: Path
    id: str
    run: Path
    weights: str | None
    classes: tuple[str, ...]
    clips: tuple[ProjectClip, ...]

    @property
    def edits_file(self) -> Path:
        """The file with the corrections."""
        return self.folder / "edits.jsonl"

    def history(self) -> tuple[Edit, ...]:
        """Every line of the edits file.

        Raises:
            UserError: a line is wrong, or of a clip or frames that are not this project's.
        """
        return read_edits(self.edits_file, {clip.clip_id: clip.frame_indices for clip in self.clips})

    def latest_edits(self) -> tuple[Edit, ...]:
        """The last edit of each person for each clip, in the order of the file.

        Raises:
            UserError: as `history`.
        """
        return latest_edits(self.history())

    def edits(self, use: str = "latest") -> dict[str, Edit]:
        """One edit per edited clip, merged by `stabn.edits.merge.merge_edits`.

        Args:
            use: latest, mean, median or author:NAME.

        Raises:
            UserError: as `history`, or `use` is none of these or names a person without edits.
        """
        return merge_edits(self.history(), use)

    def add(self, edits: Iterable[Edit]) -> None:
        """Append edits; earlier ones stay as history."""
        write_edits(self.edits_file, (*read_edits(self.edits_file), *edits))


def check_vacant(folder: Path) -> None:
    """Check that a new project would overwrite nothing; what an interrupted `write_project` left may be replaced.

    Raises:
        UserError: the folder holds something.
    """
    replaceable = {"clips.jsonl", "attention.safetensors", "edits.jsonl"}
    if not folder.exists():
        return
    if not folder.is_dir() or any(
        entry.name not in replaceable and not entry.name.startswith(".") for entry in folder.iterdir()
    ):
        raise UserError(f"{folder}: is not empty; choose another --out, so that no edit is overwritten")
    if (folder / "edits.jsonl").exists() and (folder / "edits.jsonl").stat().st_size:
        raise UserError(f"{folder}: holds edits; choose another --out, so that none is overwritten")


def write_project(
    folder: Path,
    run: Path,
    classes: Sequence[dict[str, Any]],
    records: Sequence[Record],
    bound: float,
    folds: int = 0,
    files: Mapping[str, ClipFile] = MappingProxyType({}),
) -> None:
    """Write a new project without edits; project.json comes last, so a folder without it is no project.

    Args:
        folder: must not hold a project yet.
        run: the run whose mistakes these are.
        classes: {"name", "count", "top1", "collected"} of the classes below the bound.
        records: the clips.
        bound: the accuracy below which a class was taken.
        folds: number of cross-validation folds whose networks made the records; 0 for the run's own network.
        files: what the records' files are, by clip id.

    Raises:
        UserError: the folder holds something.
    """
    check_vacant(folder)
    write_text(folder / "clips.jsonl", "".join(_line(record, files.get(record.clip_id)) for record in records))
    with atomic_write(folder / "attention.safetensors") as temporary:
        save_file({name: np.stack([getattr(r, name) for r in records]) for name in ARRAYS}, temporary)
    write_text(folder / "edits.jsonl", "")
    description = {
        "format": PROJECT_FORMAT,
        "id": secrets.token_hex(16),
        "run": str(run.resolve()),
        "relative": {"run": relative_path(str(run.resolve()), folder.resolve())},
        "weights": weights_digest(run),
        "bound": bound,
        "folds": folds,
        "classes": list(classes),
    }
    write_json(folder / "project.json", description)


def add_clip(project: Project, record: Record, file: ClipFile | None = None) -> Project:
    """Add a training clip that was not collected, so that it can be edited; a clip of the project is left as it is.

    The arrays are written first: after a crash between the two files there is one row more than lines, which is
    ignored. Only one process at a time may call this.

    Args:
        project: the project to extend.
        record: of a labelled clip, made by the project's run.
        file: what the clip's file is.

    Returns:
        The extended project.

    Raises:
        ValueError: the record has no label, or other sizes than those of the project.
        UserError: a file of the project is damaged.
    """
    project = open_project(project.folder)
    if any(clip.clip_id == record.clip_id for clip in project.clips):
        return project
    if record.label is None:
        raise ValueError(f"record: clip {record.clip_id!r} has no label, expected a labelled clip")
    source = project.folder / "attention.safetensors"
    try:
        arrays = {name: array[: len(project.clips)] for name, array in load_file(source).items()}
        for name in ARRAYS:
            row = getattr(record, name)
            if row.shape != arrays[name].shape[1:]:
                raise ValueError(f"record: {name} has shape {row.shape}, expected {arrays[name].shape[1:]}")
            arrays[name] = np.concatenate([arrays[name], row[None].astype(arrays[name].dtype)])
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{source}: is damaged ({error}); collect the project again with `stabn collect`") from None
    with atomic_write(source) as temporary:
        save_file(arrays, temporary)
    lines = project.folder / "clips.jsonl"
    write_text(lines, lines.read_text(encoding="utf-8") + _line(record, file))
    return replace(project, clips=(*project.clips, _clip(json.loads(_line(record, file)))))


def write_snapshot(folder: Path, project: Project, edits: Sequence[Edit]) -> None:
    """Write a copy of a project with exactly these edits, for a job that later changes must not affect.

    The copy has what `open_project` and fine-tuning read, which excludes the attention maps.

    Args:
        folder: of the copy; project.json comes last, so a folder without it is no project.
        project: the project to copy, id included.
        edits: the content of the copy's edits file.
    """
    write_text(folder / "clips.jsonl", (project.folder / "clips.jsonl").read_text(encoding="utf-8"))
    write_edits(folder / "edits.jsonl", edits)
    description = read_json(project.folder / "project.json", remedy=REMEDY)
    run = {"run": str(project.run), "relative": {"run": relative_path(str(project.run), folder.resolve())}}
    write_json(folder / "project.json", description | {"id": project.id, **run})


def project_data(project: Project, data: DataSource | None = None) -> DataSource:
    """The labelled videos of a project: those of its run, with the options that are given, or others.

    Raises:
        UserError: the run is not there, and nothing says where the videos are.
    """
    if data is not None and data.annotations:
        return data.absolute()
    if not (project.run / "run.json").exists():
        raise UserError(
            f"{project.folder}: its run, {project.run}, is no longer there; give the labelled videos with "
            "--data.annotations"
        )
    return open_run(project.run, data).source


def _line(record: Record, file: ClipFile | None) -> str:
    value = record.as_json() | {"predicted": record.class_names[record.predicted]}
    if file is not None:
        value["file"] = file.as_json()
    return json.dumps(value, ensure_ascii=False) + "\n"


def _clip(entry: Mapping[str, Any]) -> ProjectClip:
    return ProjectClip(
        clip_id=entry["clip_id"],
        path=entry["path"],
        label=entry["label"],
        predicted=entry["predicted"],
        frame_indices=tuple(entry["frame_indices"]),
        timestamps=tuple(entry["timestamps"]),
        temporal=tuple(entry["temporal_attention"]),
        crop=tuple(entry["crop"]),
        file=ClipFile.from_json(entry["file"]) if "file" in entry else None,
    )


def open_project(folder: Path | str) -> Project:
    """Read a project.

    Raises:
        UserError: there is none, or a file of it is damaged.
    """
    folder = Path(folder)
    file = folder / "project.json"
    value = read_json(file, remedy=REMEDY)
    if not isinstance(value, dict) or value.get("format") != PROJECT_FORMAT:
        raise UserError(f"{file}: is not of format {PROJECT_FORMAT!r}; {REMEDY}")
    source = folder / "clips.jsonl"
    try:
        lines = source.read_text(encoding="utf-8").split("\n")
        clips = tuple(_clip(json.loads(line)) for line in lines if line)
        classes = tuple(entry["name"] for entry in value["classes"])
        # Projects of early versions have no id; their project.json never changes.
        project_id = str(value["id"]) if "id" in value else hashlib.sha256(file.read_bytes()).hexdigest()[:32]
        run = Path(moved_path(value["run"], value.get("relative", {}).get("run"), folder.resolve()))
        return Project(folder, project_id, run, value.get("weights"), classes, clips)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: is damaged ({error}); collect the project again with `stabn collect`") from None
