"""Which clips people should correct, and a simulated person for data whose truth is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from stabn.data.datasets import VideoDataset
from stabn.data.video import probe
from stabn.engine import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.predict import predict
from stabn.nn import STABN
from stabn.projects import Project, check_vacant, write_project
from stabn.records import now
from stabn.runs import Run, preprocessing_of


def collect(
    run: Run,
    out: Path,
    *,
    bound: float = 0.5,
    max_clips: int | None = None,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe | None = None,
) -> dict[str, Any]:
    """Make an edit project of the misrecognised training clips of the weak classes.

    Weak is a class whose top-1 on the *training* split is below `bound` (the paper asks this of the validation split
    too; asking it there would let the split that is reported choose the classes).

    Args:
        run: a finished run with attention.
        out: the new project.
        bound: in 0..1; the paper's is 0.5.
        max_clips: at most so many clips, spread evenly over the weak classes; None for all.
        batch_size: clips at once.
        workers: processes that decode.
        engine: on what it runs.

    Returns:
        {"train_top1", "bound", "classes": [{"name", "count", "top1", "collected"}], "collected": number of clips}.

    Raises:
        UserError: the run has no attention, no class is weak, or `out` is not empty.
    """
    if not 0 < bound <= 1:
        raise UserError(f"--bound: got {bound}, expected a share above 0 and at most 1; the paper's is 0.5")
    if max_clips is not None and max_clips < 1:
        raise UserError(f"--max_clips: got {max_clips}, expected at least 1")
    check_vacant(out)
    model = run.model()
    if not isinstance(model, STABN):
        raise UserError(f"{run.folder}: is the plain network, which has no attention to correct; train ST-ABN")
    table = run.table(model)
    names, samples = table.class_names, table.of_split("train")
    preprocessing = preprocessing_of(model, str(run.folder))
    dataset = VideoDataset(samples, preprocessing, class_names=names)
    answers = predict(model, dataset, batch_size=batch_size, workers=workers, engine=engine, keep_maps=True)
    right = answers.correct
    weak, rows = [], []
    for k, name in enumerate(names):
        of_class = answers.labels == k
        top1 = float(right[of_class].mean()) if of_class.any() else 1.0
        if top1 < bound:
            wrong = np.flatnonzero(of_class & ~right)
            rows.append(wrong)
            weak.append({"name": name, "count": int(of_class.sum()), "top1": round(top1, 6), "collected": len(wrong)})
    if not weak:
        raise UserError(
            f"--bound: got {bound}, but every class has at least that accuracy on the training split; raise the bound"
        )
    if max_clips is not None:
        chosen = _spread([wrong.tolist() for wrong in rows], max_clips)
        rows = [np.array(wrong, dtype=int) for wrong in chosen]
        for entry, wrong in zip(weak, rows, strict=True):
            entry["collected"] = len(wrong)
    records = []
    for row in sorted(int(r) for wrong in rows for r in wrong):
        path = samples[row].path
        size = probe(path)
        crop = preprocessing.crop_box(size.height, size.width)
        records.append(answers.record(row, path=str(path.resolve()), class_names=names, crop=crop))
    write_project(out, run.folder, weak, records, bound)
    return {
        "train_top1": round(float(right.mean()), 6),
        "bound": bound,
        "classes": weak,
        "collected": len(records),
    }


def _spread(groups: list[list[int]], count: int) -> list[list[int]]:
    """The first rows of each group in turn, until there are `count`."""
    taken = sorted((position, group) for group, rows in enumerate(groups) for position in range(len(rows)))[:count]
    return [[rows[p] for p, g in taken if g == group] for group, rows in enumerate(groups)]


def read_truth(path: Path) -> dict[str, tuple[float, ...]]:
    """Relevance per source frame, by clip id, from a file of JSON lines like Tabletop's truth.jsonl.

    Raises:
        UserError: the file is missing or a line lacks "id" or "relevance".
    """
    truth: dict[str, tuple[float, ...]] = {}
    number = 0
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            number += 1
            if not line.strip():
                continue
            entry = json.loads(line)
            truth[str(entry["id"])] = tuple(float(value) for value in entry["relevance"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file like Tabletop's truth.jsonl") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}, line {number}: lacks an id or relevance ({error!r}); correct the line") from None
    return truth


def simulate_edits(project: Project, truth: dict[str, tuple[float, ...]], author: str) -> int:
    """Edit every clip of a project that has no edit yet, as a person who knows the truth would.

    Args:
        project: its edits file is added to.
        truth: relevance per source frame by clip id.
        author: whose name the edits carry.

    Returns:
        How many edits were written.

    Raises:
        UserError: a clip has no truth, or truth for fewer frames than it has.
    """
    done, edits = project.edits(), []
    for clip in project.clips:
        if clip.clip_id in done:
            continue
        relevance = truth.get(clip.clip_id, ())
        if len(relevance) <= max(clip.frame_indices):
            raise UserError(
                f"clip {clip.clip_id}: truth has {len(relevance)} frames, expected over {max(clip.frame_indices)}; "
                "give the truth of the data set that the run was trained on"
            )
        scores = [relevance[index] for index in clip.frame_indices]
        edits.append(clip.edit(scores, author=author, time=now(), comment="from the generator's truth"))
    if edits:
        project.add(edits)
    return len(edits)
