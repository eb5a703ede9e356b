"""A run: the folder that training writes, with a network, where its data lies, and how it was trained.

RUN/config.json, model.safetensors   the network (`STABN.from_pretrained(RUN)`)
RUN/run.json                         data, recipe, origin, whether it is complete
RUN/curves.json                      loss and accuracy per epoch
RUN/checkpoints/last.ckpt            what an interrupted training goes on from; removed at the end
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stabn.data.annotations.source import DataSource
from stabn.data.annotations.table import Columns
from stabn.data.dataset import Table
from stabn.data.transforms import Preprocessing
from stabn.errors import UserError
from stabn.files import read_json, write_json
from stabn.nn import STABN, ResNet3D, load_pretrained

RUN_FORMAT = "stabn-run/1"


@dataclass(frozen=True)
class Run:
    """What `open_run` found.

    Attributes:
        folder: where.
        source: the data it was trained on.
        recipe: how it was trained, as JSON values.
        origin: the run it was fine-tuned from, or None.
        edited: the ids of the clips whose edits it was fine-tuned with; empty for others.
        edited_classes: the names of their classes.
    """

    folder: Path
    source: DataSource
    recipe: Mapping[str, Any]
    origin: str | None
    edited: tuple[str, ...]
    edited_classes: tuple[str, ...]

    def model(self) -> STABN | ResNet3D:
        """The network, in evaluation mode.

        Raises:
            UserError: a file is missing or damaged.
        """
        return load_pretrained(self.folder)

    def table(self, model: ResNet3D) -> Table:
        """The labelled videos, with the class names and numbers of the network.

        A table with only some of the classes is taken; labels are matched by name. A network that knows no names takes
        those of a table with as many classes.

        Raises:
            UserError: the data cannot be read, or has classes that the network does not know.
        """
        table = self.source.table()
        known = network_class_names(model)
        if table.class_names == known or (model.class_names is None and len(table.class_names) == len(known)):
            return table
        strangers = [name for name in table.class_names if name not in known]
        if strangers:
            raise UserError(
                f"{self.source.annotations}: has class {strangers[0]!r}, which the network of {self.folder} does not "
                "know; give the data it was trained on, or train anew"
            )
        return table.numbered(known)


def network_preprocessing(model: ResNet3D, source: str) -> Preprocessing:
    """How videos are prepared for a network.

    Raises:
        UserError: its config.json does not say.
    """
    if model.preprocessing is None:
        raise UserError(f"{source}/config.json: has no preprocessing; give it there, docs/formats.md shows how")
    return Preprocessing.from_json(model.preprocessing, source=f"{source}/config.json, preprocessing")


def network_class_names(model: ResNet3D) -> tuple[str, ...]:
    """The class names of a network; numbers where it knows none."""
    return model.class_names or tuple(f"class {k}" for k in range(model.num_classes))


def write_run(
    folder: Path,
    source: DataSource,
    recipe: Mapping[str, Any],
    *,
    complete: bool,
    origin: str | None = None,
    edited: tuple[str, ...] = (),
    edited_classes: tuple[str, ...] = (),
) -> None:
    """Write run.json, atomically with absolute paths, so that later verbs find the data from anywhere."""
    write_json(
        folder / "run.json",
        {
            "format": RUN_FORMAT,
            "complete": complete,
            "data": asdict(source.absolute()),
            "origin": origin,
            "edited_classes": list(edited_classes),
            "recipe": dict(recipe),
            "edited": list(edited),
        },
    )


def read_run(folder: Path) -> dict[str, Any] | None:
    """What run.json of a folder says, or None where there is none.

    Raises:
        UserError: the folder holds something else, or a run of another format.
    """
    file = folder / "run.json"
    if folder.exists() and not file.exists():
        other = not folder.is_dir() or any(not _half_written(entry) for entry in folder.iterdir())
        if other and not file.exists():  # another process may have written it meanwhile
            raise UserError(f"{folder}: exists and is no run; choose another folder for --out")
    if not file.exists():
        return None
    value = read_json(file, remedy="choose another folder for --out")
    if not isinstance(value, dict) or value.get("format") != RUN_FORMAT:
        raise UserError(f"{file}: is not of format {RUN_FORMAT!r}; choose another folder for --out")
    if isinstance(value.get("data"), dict):
        value["data"]["columns"] = asdict(Columns()) | value["data"].get("columns", {})  # runs of before noted fewer
    return value


def _half_written(entry: Path) -> bool:
    """Whether a file is what becomes run.json, or would have if its writer had not been killed."""
    return entry.name.startswith(".run-") and entry.suffix == ".json"


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a run whose training came to its end.

    Raises:
        UserError: as `read_run`.
    """
    value = read_run(folder)
    return value is not None and value["complete"]


def open_run(folder: Path | str, data: DataSource | None = None) -> Run:
    """A finished run, or any folder with a network if `data` says what to use it on.

    Args:
        folder: where.
        data: labelled videos in place of those the run was trained on.

    Raises:
        UserError: there is none, or its training is not finished.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        if not (folder / "config.json").exists():
            raise UserError(f"{folder}: no run there; `stabn train --out {folder}` makes one")
        if data is None:
            raise UserError(f"{folder}: is a network without a run; say with --data.annotations what to use it on")
        return Run(folder, data.absolute(), {}, None, (), ())
    value = read_run(folder)
    assert value is not None
    if not value["complete"]:
        raise UserError(f"{folder}: its training is not finished; repeat the command that started it to go on")
    try:
        return Run(
            folder=folder,
            source=data.absolute() if data else DataSource.from_json(value["data"]),
            recipe=value["recipe"],
            origin=value["origin"],
            edited=tuple(value["edited"]),
            edited_classes=tuple(value["edited_classes"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'run.json'}: lacks or misnames a field ({error}); take the file as it was"
        ) from None


def open_runs(runs: Sequence[Path], data: DataSource | None = None) -> list[Run]:
    """Several runs on the same data, that of the first unless `data` says otherwise.

    Raises:
        UserError: they were trained on different data and `data` is None, or as `open_run`.
    """
    first = open_run(runs[0], data)
    opened = [first, *(open_run(folder, data) for folder in runs[1:])]
    for run in opened[1:]:
        if run.source != first.source:
            ours, theirs = asdict(run.source), asdict(first.source)
            part = next(name for name in ours if ours[name] != theirs[name])
            told = "" if part == "annotations" else f"--data.{part} "
            raise UserError(
                f"{run.folder}: was trained on {told}{ours[part]}, but {first.folder} on {theirs[part]}; say with "
                "--data.annotations on what to compare them"
            )
    return opened


def weights_digest(run: Path) -> str | None:
    """A digest of a run's weights, which tells runs apart wherever their folders lie; None if there are none."""
    file = run / "model.safetensors"
    if not file.exists():
        return None
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
