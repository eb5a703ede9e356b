"""Edit projects: the misrecognised training clips of weak classes, for people to correct."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from stabn.data.video.reader import Reader
from stabn.edits.clip_files import describe_file
from stabn.edits.project import check_vacant, write_project
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.predict import Predictions, check_loader_options, predict, split_dataset
from stabn.nn import has_attention
from stabn.runs import Run


def collect_project(
    run: Run,
    out: Path,
    *,
    bound: float = 0.5,
    weakest: int | None = None,
    recognised: bool = False,
    max_clips: int | None = None,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe | None = None,
    get_predictions: Callable[[], Predictions] | None = None,
    folds: int = 0,
) -> dict[str, Any]:
    """Make an edit project of the misrecognised training clips of the weak classes.

    A class is weak if its top-1 on the *training* split is below `bound`. (The paper also requires this on the
    validation split; then the split that is reported would help to choose the classes.)

    Args:
        run: a finished run with attention.
        out: the new project.
        bound: in 0..1; the paper's is 0.5.
        weakest: number of classes with the lowest accuracy to take as weak, whatever the bound.
        recognised: take the recognised clips of the weak classes instead, as a control.
        max_clips: upper limit of clips, spread evenly over the weak classes; None for all.
        batch_size: clips at once.
        workers: processes that decode.
        engine: accelerator, devices and precision.
        get_predictions: gives predictions for the training split in its order, with maps; called after every other
            argument was checked. By default the run itself predicts.
        folds: number of cross-validation networks that made the predictions, kept in the project; 0 for the run's own.

    Returns:
        {"train_top1", "train_mean_class_accuracy", "measured": number of clips, "bound",
        "classes": [{"name", "count", "top1", "collected"}], "collected": number of clips,
        "skipped": [{"clip_id", "path", "reason"}] of those that could not be read}.

    Raises:
        UserError: the run has no attention, no class is weak, or `out` is not empty.
    """
    if not 0 < bound <= 1:
        raise UserError(f"--bound: got {bound}, expected a share above 0 and at most 1; the paper's is 0.5")
    if max_clips is not None and max_clips < 1:
        raise UserError(f"--max_clips: got {max_clips}, expected at least 1")
    if weakest is not None and weakest < 1:
        raise UserError(f"--weakest: got {weakest}, expected at least 1 class")
    check_loader_options(batch_size, workers)
    check_vacant(out)
    model, table, dataset = split_dataset(run, "train")
    if not has_attention(model):
        raise UserError(f"{run.folder}: is the plain network, which has no attention to correct; train ST-ABN")
    if get_predictions is None:
        options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "engine": engine}
        predictions = predict(model, dataset, keep_maps=True, **options)
    else:
        predictions = get_predictions()
    labels, correct = predictions.labels, predictions.correct
    accuracies = {k: float(correct[labels == k].mean()) for k in sorted(set(labels.tolist()))}
    weak = [k for k, top1 in accuracies.items() if top1 < bound]
    if weakest is not None:
        weak = sorted(sorted(accuracies, key=lambda k: accuracies[k])[:weakest])
    if not weak:
        raise UserError(
            f"--bound: got {bound}, but every class has at least that accuracy on the training split; raise the bound, "
            "or give --folds 5 to collect with networks that have not seen the clips"
        )
    names = table.class_names
    rows = [np.flatnonzero((labels == k) & (correct == recognised)).tolist() for k in weak]
    if not any(rows):
        kind = "recognised" if recognised else "misrecognised"
        raise UserError(f"{run.folder}: has no {kind} training clip in {', '.join(names[k] for k in weak)}")
    if max_clips is not None:
        rows = _spread(rows, max_clips)
    classes = [
        {
            "name": names[k],
            "count": int((labels == k).sum()),
            "top1": round(accuracies[k], 6),
            "collected": len(of_class),
        }
        for k, of_class in zip(weak, rows, strict=True)
    ]
    samples = predictions.samples(dataset.samples)
    records, files = [], {}
    assert predictions.frame_indices is not None
    with closing(Reader()) as reader:
        for row in sorted(row for of_class in rows for row in of_class):
            sample = samples[row]
            indices = predictions.frame_indices[row].tolist()
            file = describe_file(sample.path, indices, sample.segment, reader)
            files[sample.clip_id] = file
            crop = dataset.preprocessing.crop_box(file.height, file.width)
            records.append(predictions.record(row, path=str(sample.path.resolve()), class_names=names, crop=crop))
    write_project(out, run.folder, classes, records, bound, folds=folds, files=files)
    return {
        "train_top1": round(float(correct.mean()), 6),
        "train_mean_class_accuracy": round(float(np.mean(list(accuracies.values()))), 6),
        "measured": len(correct),
        "bound": bound,
        "classes": classes,
        "collected": len(records),
        "skipped": predictions.skipped_as_json,
    }


def _spread(groups: list[list[int]], count: int) -> list[list[int]]:
    """The first rows of each group in turn, `count` in all."""
    taken = sorted((position, group) for group, rows in enumerate(groups) for position in range(len(rows)))[:count]
    return [[rows[p] for p, g in taken if g == group] for group, rows in enumerate(groups)]
