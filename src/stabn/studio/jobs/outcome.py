"""What fine-tuning changed, for the before / after page.

JOB/outcome.json            top-1 and mean class accuracy of each network; which mistakes are corrected, which are new
JOB/attention.safetensors   predictions and attention of each network for the clips that the page can open

The spatial attention of a whole validation split would not fit into memory and disk (25,000 clips of 32 x 14 x 14
numbers, three networks). So the split is predicted without it first; then the clips that the page can open, at most
`MAX_CLIPS` of each kind, are predicted again with it. It is stored as float16, whose error is below 0.0003.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from stabn.data.class_balance import count_classes, missing_class_notes
from stabn.data.dataset import FrameScores, Sample, VideoDataset
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import frame_size
from stabn.evaluation.comparison import compare_predictions
from stabn.evaluation.predict import Predictions, predict, predict_split
from stabn.files import atomic_write, read_json, write_json
from stabn.records import Edit
from stabn.runs import Run, network_preprocessing
from stabn.studio.not_found import NotFoundError
from stabn.studio.viewer import round_values, spatial_json

OUTCOME_FORMAT = "stabn-outcome/1"
SPLIT = "validation"
MAX_CLIPS = 100
"""Clips of a kind that can be opened: mended, newly wrong, edited."""
SIDES = {"before": "before", "after": "fine-tuned", "control": "control"}
"""The page's names of the networks, and the names of their runs."""


def has_outcome(folder: Path) -> bool:
    """Whether the job in this folder has its outcome."""
    return (folder / "outcome.json").exists()


def measure_outcome(
    folder: Path, runs: Mapping[str, Run], edits: Mapping[str, Edit], *, own_control: bool = False
) -> None:
    """Predict the validation split and the edited clips with every network, and write what changed.

    Args:
        folder: the job's.
        runs: "before", "control" if there is one, and "fine-tuned", in this order.
        edits: the edits that were learnt from, by clip id.
        own_control: whether "before" is the control: the same training without the edits' loss.

    Raises:
        UserError: a run's files are damaged, or a video cannot be read.
    """
    model = runs["before"].model()
    table = runs["before"].table(model)
    preprocessing = network_preprocessing(model, str(runs["before"].folder))
    split_predictions = {name: predict_split(run, SPLIT)[0] for name, run in runs.items()}
    control = "before" if own_control else "control" if "control" in runs else None
    comparison = compare_predictions(
        list(split_predictions.items()), table.class_names, runs["fine-tuned"].edited_classes, control=control
    )

    split = split_predictions["before"].samples(table.of_split(SPLIT))
    mended, newly_wrong = _changed_rows(split_predictions["before"], split_predictions["fine-tuned"])
    training = {sample.clip_id: sample for sample in table.of_split("train")}
    shown: dict[str, list[Sample]] = {
        "mended": [split[row] for row in mended[:MAX_CLIPS]],
        "newly_wrong": [split[row] for row in newly_wrong[:MAX_CLIPS]],
        "edited_clips": [training[clip_id] for clip_id in list(edits)[:MAX_CLIPS]],
    }
    samples = [sample for kind in shown.values() for sample in kind]
    scores = {clip_id: FrameScores(edit.frame_indices, edit.scores) for clip_id, edit in edits.items()}
    dataset = VideoDataset(samples, preprocessing, class_names=table.class_names, scores=scores)
    predictions = {name: predict(run.model(), dataset, keep_maps=True) for name, run in runs.items()}
    samples = list(predictions["before"].samples(samples))  # an edited clip may have become unreadable
    _write_arrays(folder / "attention.safetensors", predictions)

    clips = [_describe_clip(sample, table.class_names, preprocessing, edits) for sample in samples]
    rows = {clip["id"]: _describe_sides(predictions, row, clip, table.class_names) for row, clip in enumerate(clips)}
    value = {
        "format": OUTCOME_FORMAT,
        "class_names": list(table.class_names),
        "split": SPLIT,
        "notes": missing_class_notes(
            {SPLIT: count_classes(split_predictions["before"].labels, len(table.class_names))}, table.class_names
        ),
        "methods": [
            {name: entry[name] for name in ("name", "mean_class_accuracy", "mended", "newly_wrong")}
            | {**entry["all"], "edited": entry["edited classes"], "other": entry["other classes"]}
            for entry in comparison["methods"]
        ],
        # A difference to "before" would include the effect of any further training, so it needs the control.
        "difference": control
        and {**comparison["difference"]["all"], "against": control, "verdict": comparison["verdict"]},
        **{kind: [rows[s.clip_id] for s in of_kind if s in samples] for kind, of_kind in shown.items()},
        "clips": clips,
    }
    write_json(folder / "outcome.json", value)


def read_outcome(folder: Path) -> dict[str, Any]:
    """Read what `measure_outcome` wrote, for the page.

    Returns:
        {"split", "notes": sentences on classes without clips, "methods": [{"name", "top1", "low", "high", "count",
        "edited", "other", "mean_class_accuracy", "mended", "newly_wrong"}], "difference": {"points", "low", "high",
        "against", "verdict"} or None without a control, and the clips that can be opened: "mended", "newly_wrong",
        "edited_clips": [{"id", "label", "before", "after", "control"}], each side {"predicted", "confidence"}}. Shares
        are in 0..1. The clips that changed most come first; the methods' counts are those of the whole split. Earlier
        versions wrote neither "notes" nor "mean_class_accuracy".

    Raises:
        UserError: the file is missing or damaged.
    """
    outcome = read_json(folder / "outcome.json", remedy="start the job anew")
    return {key: value for key, value in outcome.items() if key not in ("format", "class_names", "clips")}


def read_clip_outcome(folder: Path, clip_id: str) -> dict[str, Any]:
    """Read one clip before and after.

    Returns:
        {"id", "label", "frame_indices": [T], "timestamps": [T], "crop", "edited": [T] or None, "before", "after",
        "control" or None}, each side {"predicted", "probabilities": [K], "temporal": [T], "spatial":
        `stabn.studio.viewer.spatial_json`}.

    Raises:
        NotFoundError: no clip of that id can be opened.
        UserError: a file is missing or damaged.
    """
    outcome = read_json(folder / "outcome.json", remedy="start the job anew")
    row = next((row for row, clip in enumerate(outcome["clips"]) if clip["id"] == clip_id), None)
    if row is None:
        raise NotFoundError("There is no such clip in this job's outcome.")
    with safe_open(folder / "attention.safetensors", "numpy") as file:
        arrays = {name: file.get_slice(name)[row] for name in file.keys()}  # noqa: SIM118
    sides: dict[str, Any] = dict.fromkeys(SIDES)
    for side, name in SIDES.items():
        if f"{name}.probabilities" in arrays:
            probabilities = arrays[f"{name}.probabilities"]
            sides[side] = {
                "predicted": outcome["class_names"][int(probabilities.argmax())],
                "probabilities": round_values(probabilities),
                "temporal": round_values(arrays[f"{name}.temporal"]),
                "spatial": spatial_json(arrays[f"{name}.spatial"], digits=4),
            }
    frames = {"frame_indices": arrays["frame_indices"].tolist(), "timestamps": round_values(arrays["timestamps"])}
    return {**outcome["clips"][row], **frames, **sides}


def _changed_rows(before: Predictions, after: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Rows of mended and of newly wrong clips, those whose class gained or lost most probability first."""
    rows = np.arange(len(before.labels))
    gain = after.probabilities[rows, before.labels] - before.probabilities[rows, before.labels]
    order = np.argsort(-gain, kind="stable")
    mended, newly_wrong = ~before.correct & after.correct, before.correct & ~after.correct
    return order[mended[order]], order[newly_wrong[order]][::-1]


def _describe_clip(
    sample: Sample, names: Sequence[str], preprocessing: Preprocessing, edits: Mapping[str, Edit]
) -> dict[str, Any]:
    width, height = frame_size(sample.path)
    edit = edits.get(sample.clip_id)
    return {
        "id": sample.clip_id,
        "label": names[sample.label],
        "crop": list(preprocessing.crop_box(height, width)),
        "edited": edit and list(edit.scores),
    }


def _describe_sides(
    predictions: Mapping[str, Predictions], row: int, clip: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    sides: dict[str, Any] = dict.fromkeys(SIDES)
    for side, name in SIDES.items():
        if name in predictions:
            probabilities = predictions[name].probabilities[row]
            best = int(probabilities.argmax())
            sides[side] = {"predicted": names[best], "confidence": round(float(probabilities[best]), 6)}
    return {"id": clip["id"], "label": clip["label"], **sides}


def _write_arrays(path: Path, predictions: Mapping[str, Predictions]) -> None:
    before = predictions["before"]
    assert before.frame_indices is not None
    assert before.timestamps is not None
    arrays = {"frame_indices": before.frame_indices, "timestamps": before.timestamps}
    for name, of_network in predictions.items():
        assert of_network.temporal is not None
        assert of_network.spatial is not None
        arrays[f"{name}.probabilities"] = of_network.probabilities
        arrays[f"{name}.temporal"] = of_network.temporal
        arrays[f"{name}.spatial"] = of_network.spatial.astype(np.float16)
    with atomic_write(path) as temporary:
        save_file(arrays, temporary)
