"""What fine-tuning changed, for the before / after page.

JOB/outcome.json            top-1 of each network with intervals; which mistakes are mended, which are new
JOB/attention.safetensors   what the networks answered for the clips that can be opened, and where they looked

The maps of a whole validation split would fill memory and disk (25,000 clips of 32 x 14 x 14 numbers, three networks).
So the split is answered without maps, and then the clips that the page opens are answered again with them, at most
`SHOWN` of each kind. Maps are kept as float16: they are off by less than 0.0003, which no colour shows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from stabn.data.dataset import FrameScores, Sample, VideoDataset
from stabn.data.transforms import Preprocessing
from stabn.data.video.clip import probe
from stabn.evaluation.comparison import Contestant, compare
from stabn.evaluation.predict import Predictions, predict, predict_split
from stabn.files import read_json, replacing, write_json
from stabn.records import Edit
from stabn.runs import Run, preprocessing_of

OUTCOME_FORMAT = "stabn-outcome/1"
SPLIT = "validation"
SHOWN = 100
"""Clips of a kind that can be opened: mended, newly wrong, edited."""
SIDES = {"before": "before", "after": "fine-tuned", "control": "control"}
"""What the page calls the networks, and what the runs are called."""


def measured(folder: Path) -> bool:
    """Whether the job in this folder has its outcome."""
    return (folder / "outcome.json").exists()


def measure(folder: Path, runs: Mapping[str, Run], edits: Mapping[str, Edit]) -> None:
    """Ask all networks about the validation split and the edited clips, and write what changed.

    Args:
        folder: the job's.
        runs: "before", "control" where there is one, and "fine-tuned", in this order.
        edits: what was learnt, by clip id.

    Raises:
        UserError: a run's files are damaged, or a video cannot be read.
    """
    model = runs["before"].model()
    table = runs["before"].table(model)
    preprocessing = preprocessing_of(model, str(runs["before"].folder))
    answers = {name: predict_split(run, SPLIT)[0] for name, run in runs.items()}
    control = "control" if "control" in runs else None
    contestants = [Contestant(name, predictions) for name, predictions in answers.items()]
    found = compare(contestants, table.class_names, runs["fine-tuned"].edited_classes, control=control)

    split = answers["before"].samples(table.of_split(SPLIT))
    mended, newly_wrong = _changed(answers["before"], answers["fine-tuned"])
    training = {sample.clip_id: sample for sample in table.of_split("train")}
    shown: dict[str, list[Sample]] = {
        "mended": [split[row] for row in mended[:SHOWN]],
        "newly_wrong": [split[row] for row in newly_wrong[:SHOWN]],
        "edited_clips": [training[clip_id] for clip_id in list(edits)[:SHOWN]],
    }
    samples = [sample for kind in shown.values() for sample in kind]
    scores = {clip_id: FrameScores(edit.frame_indices, edit.scores) for clip_id, edit in edits.items()}
    dataset = VideoDataset(samples, preprocessing, class_names=table.class_names, scores=scores)
    seen = {name: predict(run.model(), dataset, keep_maps=True) for name, run in runs.items()}
    samples = list(seen["before"].samples(samples))  # an edited clip may have become unreadable
    shown = {kind: [sample for sample in chosen if sample in samples] for kind, chosen in shown.items()}
    _write_arrays(folder / "attention.safetensors", seen)

    clips = [_clip(sample, table.class_names, preprocessing, edits) for sample in samples]
    rows = {clip["id"]: _row(seen, number, clip, table.class_names) for number, clip in enumerate(clips)}
    value = {
        "format": OUTCOME_FORMAT,
        "class_names": list(table.class_names),
        "split": SPLIT,
        "methods": [_method(entry) for entry in found["methods"]],
        # Against "before" it would count what any further training does, too; without a control nothing is claimed.
        "difference": control and {**found["difference"]["all"], "against": control, "verdict": found["verdict"]},
        **{kind: [rows[sample.clip_id] for sample in chosen] for kind, chosen in shown.items()},
        "clips": clips,
    }
    write_json(folder / "outcome.json", value)


def read_outcome(folder: Path) -> dict[str, Any]:
    """What `measure` found, for the page.

    Returns:
        {"split", "methods": [{"name", "top1", "low", "high", "count", "edited", "other", "mended", "newly_wrong"}],
        "difference": {"points", "low", "high", "against", "verdict"} or None without a control, and the clips that can
        be opened: "mended", "newly_wrong", "edited_clips": [{"id", "label", "before", "after", "control"}], each side
        {"predicted", "confidence"}}. Shares are in 0..1. The clips that changed most come first; the methods' counts
        are those of the whole split.

    Raises:
        UserError: the file is missing or damaged.
    """
    value = _read(folder)
    return {key: part for key, part in value.items() if key not in ("format", "class_names", "clips")}


def read_clip(folder: Path, clip_id: str) -> dict[str, Any]:
    """One clip before and after.

    Returns:
        {"id", "label", "frame_indices": [T], "timestamps": [T], "crop", "edited": [T] or None, "before", "after",
        "control" or None}, each side {"predicted", "probabilities": [K], "temporal": [T], "spatial": {"frames",
        "height", "width", "values": T h w numbers, frame by frame and row by row}}.

    Raises:
        KeyError: no clip of that id can be opened.
        UserError: a file is missing or damaged.
    """
    value = _read(folder)
    clips = value.pop("clips")
    row = {clip["id"]: number for number, clip in enumerate(clips)}[clip_id]
    with safe_open(folder / "attention.safetensors", "numpy") as file:
        of = {name: file.get_slice(name)[row] for name in file.keys()}  # noqa: SIM118
    sides: dict[str, Any] = {}
    for side, name in SIDES.items():
        if f"{name}.probabilities" not in of:
            sides[side] = None
            continue
        probabilities, spatial = of[f"{name}.probabilities"], of[f"{name}.spatial"]
        frames, height, width = spatial.shape
        sides[side] = {
            "predicted": value["class_names"][int(probabilities.argmax())],
            "probabilities": _numbers(probabilities),
            "temporal": _numbers(of[f"{name}.temporal"]),
            "spatial": {"frames": frames, "height": height, "width": width, "values": _numbers(spatial, 4)},
        }
    indices = [int(index) for index in of["frame_indices"]]
    return {**clips[row], "frame_indices": indices, "timestamps": _numbers(of["timestamps"]), **sides}


def _changed(before: Predictions, after: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Rows of mended and of newly wrong clips, those whose class gained or lost most probability first."""
    rows = np.arange(len(before.labels))
    gain = after.probabilities[rows, before.labels] - before.probabilities[rows, before.labels]
    order = np.argsort(-gain, kind="stable")
    mended, newly_wrong = ~before.correct & after.correct, before.correct & ~after.correct
    return order[mended[order]], order[newly_wrong[order]][::-1]


def _method(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A contestant's entry of `compare`, as the page reads it."""
    counts = {name: entry[name] for name in ("name", "mended", "newly_wrong")}
    return counts | entry["all"] | {"edited": entry["edited classes"], "other": entry["other classes"]}


def _clip(
    sample: Sample, names: Sequence[str], preprocessing: Preprocessing, edits: Mapping[str, Edit]
) -> dict[str, Any]:
    size = probe(sample.path)
    edit = edits.get(sample.clip_id)
    return {
        "id": sample.clip_id,
        "label": names[sample.label],
        "crop": list(preprocessing.crop_box(size.height, size.width)),
        "edited": edit and list(edit.scores),
    }


def _row(seen: Mapping[str, Predictions], number: int, clip: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": clip["id"], "label": clip["label"]}
    for side, name in SIDES.items():
        row[side] = None
        if name in seen:
            probabilities = seen[name].probabilities[number]
            best = int(probabilities.argmax())
            row[side] = {"predicted": names[best], "confidence": round(float(probabilities[best]), 6)}
    return row


def _write_arrays(path: Path, seen: Mapping[str, Predictions]) -> None:
    first = seen["before"]
    assert first.frame_indices is not None
    assert first.timestamps is not None
    arrays = {"frame_indices": first.frame_indices, "timestamps": first.timestamps}
    for name, predictions in seen.items():
        assert predictions.temporal is not None
        assert predictions.spatial is not None
        arrays[f"{name}.probabilities"] = predictions.probabilities
        arrays[f"{name}.temporal"] = predictions.temporal
        arrays[f"{name}.spatial"] = predictions.spatial.astype(np.float16)
    with replacing(path) as temporary:
        save_file(arrays, temporary)


def _numbers(values: np.ndarray, digits: int = 6) -> list[float]:
    return [round(float(value), digits) for value in values.ravel()]


def _read(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = read_json(folder / "outcome.json", remedy="start the job anew")
    return value
