"""Which clips people should correct."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stabn.data.dataset import VideoDataset
from stabn.data.video.clip import probe
from stabn.edits.project import check_vacant, write_project
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.predict import Predictions, check_loader_options, predict
from stabn.nn import STABN
from stabn.runs import Run, network_preprocessing


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
    answer: Callable[[], Predictions] | None = None,
    folds: int = 0,
) -> dict[str, Any]:
    """Make an edit project of the misrecognised training clips of the weak classes.

    Weak is a class whose top-1 on the *training* split is below `bound` (the paper asks this of the validation split
    too; asking it there would let the split that is reported choose the classes).

    Args:
        run: a finished run with attention.
        out: the new project.
        bound: in 0..1; the paper's is 0.5.
        weakest: so many classes of the lowest accuracy are weak, whatever the bound.
        recognised: take the recognised clips of the weak classes instead: a control for what editing mistakes is worth.
        max_clips: at most so many clips, spread evenly over the weak classes; None for all.
        batch_size: clips at once.
        workers: processes that decode.
        engine: on what it runs.
        answer: gives answers for the training split in its order, with maps, without clips that cannot be read; asked
            when all else is known to be right. By default the run's own.
        folds: number of cross-validation networks these answers come from, kept in the project; 0 for the run's own.

    Returns:
        {"train_top1", "measured": number of clips, "bound", "classes": [{"name", "count", "top1", "collected"}],
        "collected": number of clips, "skipped": [{"clip_id", "path", "reason"}] of those that could not be read}.

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
    model = run.model()
    if not isinstance(model, STABN):
        raise UserError(f"{run.folder}: is the plain network, which has no attention to correct; train ST-ABN")
    table = run.table(model)
    names, samples = table.class_names, table.of_split("train")
    preprocessing = network_preprocessing(model, str(run.folder))
    if answer is None:
        dataset = VideoDataset(samples, preprocessing, class_names=names)
        answers = predict(model, dataset, batch_size=batch_size, workers=workers, engine=engine, keep_maps=True)
    else:
        answers = answer()
    samples = answers.samples(samples)
    right = answers.correct
    accuracies = {k: float(right[answers.labels == k].mean()) for k in sorted(set(answers.labels.tolist()))}
    chosen = [k for k, top1 in accuracies.items() if top1 < bound]
    if weakest is not None:
        chosen = sorted(sorted(accuracies, key=lambda k: accuracies[k])[:weakest])
    weak, rows = [], []
    for k in chosen:
        of_class = answers.labels == k
        rows.append(np.flatnonzero(of_class & (right == recognised)))
        top1 = round(accuracies[k], 6)
        weak.append({"name": names[k], "count": int(of_class.sum()), "top1": top1, "collected": len(rows[-1])})
    if not weak:
        raise UserError(
            f"--bound: got {bound}, but every class has at least that accuracy on the training split; raise the bound, "
            "or give --folds 5 to collect with networks that have not seen the clips"
        )
    if not any(map(len, rows)):
        kind = "recognised" if recognised else "misrecognised"
        raise UserError(f"{run.folder}: has no {kind} training clip in {', '.join(e['name'] for e in weak)}")
    if max_clips is not None:
        rows = [np.array(group, dtype=int) for group in _spread([group.tolist() for group in rows], max_clips)]
        for entry, group in zip(weak, rows, strict=True):
            entry["collected"] = len(group)
    records = []
    for row in sorted(int(r) for group in rows for r in group):
        path = samples[row].path
        size = probe(path)
        crop = preprocessing.crop_box(size.height, size.width)
        records.append(answers.record(row, path=str(path.resolve()), class_names=names, crop=crop))
    write_project(out, run.folder, weak, records, bound, folds=folds)
    return {
        "train_top1": round(float(right.mean()), 6),
        "measured": len(right),
        "bound": bound,
        "classes": weak,
        "collected": len(records),
        "skipped": answers.skipped_as_json,
    }


def _spread(groups: list[list[int]], count: int) -> list[list[int]]:
    """The first rows of each group in turn, until there are `count`."""
    taken = sorted((position, group) for group, rows in enumerate(groups) for position in range(len(rows)))[:count]
    return [[rows[p] for p, g in taken if g == group] for group, rows in enumerate(groups)]
