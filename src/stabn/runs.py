"""A run: the folder that training writes, with the network, where its data lies, and how it was trained.

RUN/config.json, model.safetensors   the network (`STABN.from_pretrained(RUN)`)
RUN/run.json                         data, recipe, origin, whether it is complete
RUN/curves.json                      loss and accuracy per epoch
RUN/checkpoints/last.ckpt            where an interrupted training resumes; removed at the end
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stabn.data.annotations.columns import Columns
from stabn.data.annotations.notes import note_once
from stabn.data.annotations.source import DataSource
from stabn.data.dataset import Table
from stabn.data.spelling import normalise_label
from stabn.data.transforms import Preprocessing
from stabn.errors import UserError
from stabn.files import read_json, write_json
from stabn.nn import VideoNetwork, load_pretrained

RUN_FORMAT = "stabn-run/1"
_PATHS = ("annotations", "videos", "exclude")
"""The fields of `DataSource` that are paths."""


@dataclass(frozen=True)
class Run:
    """A run as `open_run` reads it.

    Attributes:
        folder: the run's folder.
        source: the data it was trained on.
        recipe: how it was trained, as JSON values.
        origin: the run it was fine-tuned from, or None.
        edited: the ids of the clips whose edits it was fine-tuned with; empty for others.
        edited_classes: the names of their classes.
        seconds: what its training took; None for runs of versions that did not measure it.
    """

    folder: Path
    source: DataSource
    recipe: Mapping[str, Any]
    origin: str | None
    edited: tuple[str, ...]
    edited_classes: tuple[str, ...]
    seconds: float | None = None

    def model(self) -> VideoNetwork:
        """The network, in evaluation mode.

        Raises:
            UserError: a file is missing or damaged.
        """
        return load_pretrained(self.folder)

    def table(self, model: VideoNetwork) -> Table:
        """Read the labelled videos, with the class names and numbers of the network.

        A table with only some of the classes is accepted; labels are matched by name. A network without class names
        takes those of a table with as many classes.

        Raises:
            UserError: the data cannot be read, or has classes that the network lacks.
        """
        table = self.source.table()
        names = network_class_names(model)
        if table.class_names == names or (model.class_names is None and len(table.class_names) == len(names)):
            return table
        evened = {normalise_label(name) for name in names}
        if len(evened) < len(names):
            note_once(
                f"{self.folder}: its network has classes whose names differ in nothing that is visible, and an answer "
                "with one of them counts as wrong for clips of the other; train a new network"
            )
        unknown = [name for name in table.class_names if name not in evened | set(names)]
        if unknown:
            raise UserError(
                f"{self.source.annotations}: has class {unknown[0]!r}, which the network of {self.folder} lacks; give "
                "the data it was trained on, or train a new network"
            )
        return table.with_class_names(names)


def network_preprocessing(model: VideoNetwork, source: str) -> Preprocessing:
    """The preprocessing of a network's clips.

    Args:
        model: the network.
        source: its folder, for messages.

    Raises:
        UserError: its config.json has none.
    """
    if model.preprocessing is None:
        raise UserError(f"{source}/config.json: has no preprocessing; add it as docs/formats.md shows")
    return Preprocessing.from_json(model.preprocessing, source=f"{source}/config.json, preprocessing")


def network_class_names(model: VideoNetwork) -> tuple[str, ...]:
    """The class names of a network; "class 0", "class 1", ... where it has none."""
    return model.class_names or tuple(f"class {k}" for k in range(model.num_classes))


def relative_path(path: str, folder: Path) -> str | None:
    """A path relative to a folder, to find it when both move together; None if they share but the root."""
    absolute, base = os.path.abspath(path), os.path.abspath(folder)
    if os.path.dirname(os.path.commonpath((absolute, base))) == os.path.commonpath((absolute, base)):
        return None
    return os.path.relpath(absolute, base)


def moved_path(path: str, relative: str | None, folder: Path) -> str:
    """Where a file is that was written down as an absolute path and relative to a folder, which may have moved.

    The relative path decides if it exists: a copied project reads its own files. If the absolute one exists as well
    and is another file, that is noted.
    """
    candidate = None if relative is None else os.path.normpath(os.path.join(os.path.abspath(folder), relative))
    if candidate is None or candidate == path or not os.path.exists(candidate):
        return path
    if os.path.exists(path) and not os.path.samefile(path, candidate):
        note_once(f"{folder}: takes {candidate}, which has moved with it, and not {path}")
    return candidate


def write_run(
    folder: Path,
    source: DataSource,
    recipe: Mapping[str, Any],
    *,
    complete: bool,
    origin: str | None = None,
    edited: tuple[str, ...] = (),
    edited_classes: tuple[str, ...] = (),
    seconds: float | None = None,
) -> None:
    """Write run.json, atomically, with absolute paths and those relative to the run, so that a project may move."""
    data = asdict(source.absolute())
    paths = {name: data[name] for name in _PATHS} | {"origin": origin}
    write_json(
        folder / "run.json",
        {
            "format": RUN_FORMAT,
            "complete": complete,
            "data": data,
            "relative": {name: relative_path(path, folder) for name, path in paths.items() if path},
            "origin": origin,
            "edited_classes": list(edited_classes),
            "recipe": dict(recipe),
            "edited": list(edited),
            **({} if seconds is None else {"seconds": round(seconds, 1)}),
        },
    )


def read_run(folder: Path) -> dict[str, Any] | None:
    """Read run.json of a folder, with the names of today; None where there is none.

    Raises:
        UserError: the folder holds something else, or a run of another format.
    """
    file = folder / "run.json"
    if folder.exists() and not file.exists():
        other = not folder.is_dir() or any(not _is_half_written(entry) for entry in folder.iterdir())
        if other and not file.exists():  # another process may have written it meanwhile
            raise UserError(f"{folder}: exists and is no run; choose another folder for --out")
    if not file.exists():
        return None
    value = read_json(file, remedy="choose another folder for --out")
    if not isinstance(value, dict) or value.get("format") != RUN_FORMAT:
        raise UserError(f"{file}: is not of format {RUN_FORMAT!r}; choose another folder for --out")
    relative = value.get("relative", {})  # older runs have none
    data, recipe, origin = (value.get(name) for name in ("data", "recipe", "origin"))
    if isinstance(data, dict):
        data["columns"] = asdict(Columns()) | data.get("columns", {})  # older runs have fewer
        data |= {name: moved_path(data[name], relative.get(name), folder) for name in _PATHS if data.get(name)}
    if isinstance(recipe, dict):
        value["recipe"] = _with_current_names(recipe)
    if origin:
        value["origin"] = moved_path(origin, relative.get("origin"), folder)
        if isinstance(recipe, dict) and recipe.get("origin") == origin:
            value["recipe"]["origin"] = value["origin"]
    return value


RENAMED_FIELDS = {
    "optimiser": "optimizer",
    "start": "init",
    "frozen": "freeze",
    "recompute": "activation_checkpointing",
    "architecture": "backbone",
    "imagenet": "weights",
}
"""Fields of earlier versions' recipes -> their names now."""
RENAMED_VALUES = {
    "init": {"before": "checkpoint", "anew": "scratch"},
    "freeze": {"nothing": "none"},
}
"""Field -> values of earlier versions -> the values now."""


def _with_current_names(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of this or an earlier version with the field names and values of this one."""
    current: dict[str, Any] = {}
    for name, value in recipe.items():
        name = RENAMED_FIELDS.get(name, name)
        if isinstance(value, Mapping):
            value = _with_current_names(value)
        elif name in RENAMED_VALUES:
            value = RENAMED_VALUES[name].get(value, value)
        current[name] = value
    return current


def _is_half_written(entry: Path) -> bool:
    """Whether a file is run.json while it is written, or what its killed writer left."""
    return entry.name.startswith(".run-") and entry.suffix == ".json"


def is_finished_run(folder: Path) -> bool:
    """Whether a folder holds a run whose training is complete.

    Raises:
        UserError: as `read_run`.
    """
    value = read_run(folder)
    return value is not None and value["complete"]


def open_run(folder: Path | str, data: DataSource | None = None) -> Run:
    """Open a finished run, or any folder with a network if `data` says what to use it on.

    Args:
        folder: the run's folder.
        data: labelled videos in place of those that the run was trained on, or other options for these.

    Raises:
        UserError: there is no run, or its training is not finished.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        if not (folder / "config.json").exists():
            raise UserError(f"{folder}: is no run; `stabn train --out {folder}` makes one")
        if data is None or not data.annotations:
            raise UserError(f"{folder}: is a network without a run; give the data to use it on with --data.annotations")
        return Run(folder, data.absolute(), {}, None, (), ())
    value = read_run(folder)
    assert value is not None
    if not value["complete"]:
        raise UserError(f"{folder}: its training is not finished; repeat the command that started it to resume")
    try:
        return Run(
            folder=folder,
            source=(data or DataSource()).over(DataSource.from_json(value["data"])).absolute(),
            recipe=value["recipe"],
            origin=value["origin"],
            edited=tuple(value["edited"]),
            edited_classes=tuple(value["edited_classes"]),
            seconds=value.get("seconds"),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / 'run.json'}: lacks or misnames a field ({error}); restore the file") from None


def open_runs(runs: Sequence[Path], data: DataSource | None = None) -> list[Run]:
    """Open several runs on the same data, that of the first unless `data` is given.

    Raises:
        UserError: they were trained on different data and `data` is None, or as `open_run`.
    """
    first = open_run(runs[0], data)
    opened = [first, *(open_run(folder, data) for folder in runs[1:])]
    for run in opened[1:]:
        if run.source != first.source:
            ours, theirs = asdict(run.source), asdict(first.source)
            field = next(name for name in ours if ours[name] != theirs[name])
            option = "" if field == "annotations" else f"--data.{field} "
            raise UserError(
                f"{run.folder}: was trained on {option}{ours[field]}, but {first.folder} on {theirs[field]}; give the "
                "data to compare them on with --data.annotations"
            )
    return opened


def weights_digest(run: Path) -> str | None:
    """The SHA-256 of a run's weights, which identifies the run wherever its folder lies; None if there are none."""
    file = run / "model.safetensors"
    if not file.exists():
        return None
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
