"""Before, control and after as one page: runs the comparison, renders example clips, and fills the report."""

import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from tqdm import tqdm

from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import ClipTruth
from stabn.edits.project import Project
from stabn.errors import UserError
from stabn.evaluation.accuracy import accuracy
from stabn.evaluation.comparison import GROUPS, NamedPredictions, compare_predictions
from stabn.evaluation.predict import Predictions
from stabn.explain.explain_video import explain_video
from stabn.explain.render import write_comparison
from stabn.files import read_json
from stabn.nn import STABN, ResNet3D
from stabn.records import Edit
from stabn.report.page import Cell, Comparison, Confusion, Curve, Example, Report, Row, write_report
from stabn.runs import Run, network_class_names, network_preprocessing


def write_finetuning_report(
    out: Path,
    runs: Mapping[str, Run],
    answers: Mapping[str, Predictions],
    split: str,
    *,
    control: str | None,
    project: Project | None,
    truth: Mapping[str, ClipTruth] | None,
    examples: int,
    note: str,
) -> dict[str, Any]:
    """Write the report of runs that were measured on the same clips.

    Args:
        out: the HTML file.
        runs: by name; the first is the starting point, the last the one in question.
        answers: of each run for `split`.
        split: which was measured.
        control: name of the control among the runs.
        project: the edit project; its clips are shown with what people marked.
        truth: what is known of clips, by their id; None for what the data itself says.
        examples: how many clips to show.
        note: one or two sentences for the top of the page.

    Returns:
        The comparison, as in `stabn.evaluation.comparison.compare_predictions`.

    Raises:
        UserError: a run's files are damaged, or a video cannot be read.
    """
    models = {name: run.model() for name, run in runs.items()}
    first, last = next(iter(runs)), list(runs)[-1]
    table = runs[first].table(models[first])
    names = table.class_names
    truth = table.truth if truth is None else truth
    contestants = [NamedPredictions(name, answers[name]) for name in runs]
    found = compare_predictions(contestants, names, runs[last].edited_classes, control=control, truth=truth)
    with tempfile.TemporaryDirectory() as films:
        shown = _examples(Path(films), models, table, split, answers, examples, truth)
        if project is not None:
            use = runs[last].recipe.get("use", "latest")
            shown += _edited_examples(Path(films), models, table, project.edits(use), count=2)
        page = Report(
            title="Did correcting it help?",
            intro=note,
            curves=tuple(_curve(name, run) for name, run in runs.items()),
            comparison=_comparison(found, split, control),
            confusions=tuple(
                Confusion(name, names, np.array(accuracy(answers[name], names)["confusion"])) for name in (first, last)
            ),
            examples=tuple(shown),
            facts=_facts(runs, table, split, len(answers[first].clip_ids)),
            caveats=(*_moved(runs), *_CAVEATS, *([] if control is None else [_ABOUT_THE_CONTROL])),
        )
        write_report(out, page)
    return found


_CAVEATS = (
    "The intervals resample the measured clips; they do not contain the chance of training. One run per row proves "
    "little: repeat with several seeds before you believe a difference.",
    "Frame AP is the average precision with which temporal attention ranks a clip's decisive frames above the others, "
    "where the truth is known; mended and newly wrong count clips against the first row.",
    "Clips for correction were chosen by their accuracy on the training split; the split measured here chose nothing.",
)


_ABOUT_THE_CONTROL = (
    "The control had the same clips, frames, steps and learning rates, and no loss on temporal attention; only the "
    "difference to it is due to the edits."
)


def check_report(runs: Mapping[str, Run], control: str | None) -> None:
    """Make sure that the page will not claim what is not so.

    Raises:
        UserError: a run has no attention or curves, was fine-tuned from another run than the first, or the control
            differs from the last run in more than L_temp.
    """
    for run in runs.values():
        if not isinstance(run.model(), STABN):
            raise UserError(f"{run.folder}: is the plain network, which has no attention to show; use `stabn compare`")
        if not run.recipe:
            raise UserError(f"{run.folder}: is a network without a run, so without curves; use `stabn compare`")
    first, last = next(iter(runs.values())), list(runs.values())[-1]
    for run in (last, *([] if control is None else [runs[control]])):
        if run.origin is None:
            raise UserError(f"{run.folder}: was not fine-tuned, so no correction is in it; use `stabn compare`")
        if Path(run.origin) != first.folder.resolve() and Path(run.origin).exists():
            raise UserError(
                f"{run.folder}: was fine-tuned from {run.origin} and not from {first.folder}; give that one as before, "
                "or use `stabn compare`"
            )
    if control is None:
        return
    ours = runs[control]
    ignored = ("engine", "loader")
    for key in sorted(({*ours.recipe, *last.recipe}) - {*ignored, "control"}):
        if ours.recipe.get(key) != last.recipe.get(key):
            raise UserError(
                f"{ours.folder}: is no control of {last.folder}: {key} is {ours.recipe.get(key)} and not "
                f"{last.recipe.get(key)}; fine-tune both with the same options"
            )
    if not ours.recipe.get("control"):
        raise UserError(f"{ours.folder}: was fine-tuned with the edits; make a control with `stabn finetune --control`")


def _moved(runs: Mapping[str, Run]) -> list[str]:
    """What to say of runs whose origin is not where it was, so that nobody can tell whether it is the first run."""
    first = next(iter(runs.values())).folder
    return [
        f"{name} names as its origin {run.origin}, which is no longer there: whether that is {first} was not checked."
        for name, run in list(runs.items())[1:]
        if run.origin is not None and not Path(run.origin).exists()
    ]


def _curve(name: str, run: Run) -> Curve:
    value = read_json(run.folder / "curves.json", remedy="train the run again")
    return Curve(name, tuple(value["epochs"]))


def _comparison(found: Mapping[str, Any], split: str, control: str | None) -> Comparison:
    columns = [name for name in GROUPS if found["methods"][0][name] is not None]
    rows = []
    for number, method in enumerate(found["methods"]):
        cells = tuple(
            Cell(c["top1"], min(c["low"], c["top1"]), max(c["high"], c["top1"]), c["count"])
            for c in (method[name] for name in columns)
        )
        extra = [("mended", str(method["mended"])), ("newly wrong", str(method["newly_wrong"]))] if number else []
        if method["frame_average_precision"] is not None:
            extra.append(("frame AP", f"{method['frame_average_precision']:.3f}"))
        is_control = method["name"] == control
        what = "starting point" if number == 0 else "the same without edits' loss" if is_control else "with the edits"
        rows.append(Row(method["name"], what, cells, extra=tuple(extra), control=is_control))
    return Comparison(
        split=split,
        edited_classes=tuple(found["edited_classes"]),
        rows=tuple(rows),
        verdict=found["verdict"],
        columns=tuple(columns),
    )


def _examples(
    folder: Path,
    models: Mapping[str, STABN | ResNet3D],
    table: Table,
    split: str,
    answers: Mapping[str, Predictions],
    count: int,
    truth: Mapping[str, ClipTruth],
) -> list[Example]:
    """Films of measured clips: half of them mended, then newly wrong ones, then whatever comes first."""
    first, last = next(iter(models)), list(models)[-1]
    samples = answers[first].samples(table.of_split(split))
    before, after = answers[first].correct, answers[last].correct
    kinds = {
        "mended": np.flatnonzero(~before & after),
        "newly wrong": np.flatnonzero(before & ~after),
        "right both times": np.flatnonzero(before & after),
        "wrong both times": np.flatnonzero(~before & ~after),
    }
    wanted = {"mended": (count + 1) // 2, "newly wrong": count // 4}
    chosen = [(kind, int(row)) for kind, most in wanted.items() for row in kinds[kind][:most]]
    rest = [(kind, int(row)) for kind, rows in kinds.items() for row in rows if (kind, int(row)) not in chosen]
    chosen += rest[: count - len(chosen)]
    shown = []
    for kind, row in tqdm(chosen, desc="films", unit="clip", disable=None):
        sample = samples[row]
        known = truth.get(sample.clip_id)
        film = folder / f"measured-{row}.mp4"
        scores = known.scores if known is not None and known.says_when else None
        _film(film, models, (first, last), sample, scores, "truth")
        caption = f"{kind}: {first} on the left, {last} on the right"
        shown.append(Example(sample.clip_id, table.class_names[sample.label], film, caption))
    return shown


def _edited_examples(
    folder: Path, models: Mapping[str, STABN | ResNet3D], table: Table, edits: Mapping[str, Edit], count: int
) -> list[Example]:
    """Films of training clips that people corrected, with what they marked."""
    by_id = {sample.clip_id: sample for sample in table.samples if sample.split == "train"}
    first, last = next(iter(models)), list(models)[-1]
    shown = []
    for number, edit in enumerate(list(edits.values())[:count]):
        if edit.clip_id not in by_id:
            raise UserError(f"--edits: clip {edit.clip_id!r} is no training clip of {first}; give its project")
        film, sample = folder / f"edited-{number}.mp4", by_id[edit.clip_id]
        _film(film, models, (first, last), sample, _marked(edit), "marked by people")
        caption = f"a corrected training clip: {first} on the left, {last} on the right"
        shown.append(Example(edit.clip_id, table.class_names[sample.label], film, caption))
    return shown


def _marked(edit: Edit) -> Callable[[Sequence[int]], list[float]]:
    """The scores of an edit at source frames; 0.0 at frames that it does not have."""
    marked = dict(zip(edit.frame_indices, edit.scores, strict=True))
    return lambda frame_indices: [marked.get(index, 0.0) for index in frame_indices]


def _film(
    path: Path,
    models: Mapping[str, STABN | ResNet3D],
    shown: Sequence[str],
    sample: Sample,
    scores: Callable[[Sequence[int]], Sequence[float] | np.ndarray] | None,
    scores_name: str,
) -> None:
    records = []
    for name in shown:
        model = models[name]
        assert isinstance(model, STABN)
        preprocessing = network_preprocessing(model, name)
        names = network_class_names(model)
        record, clip = explain_video(
            model, preprocessing, sample.path, names, label=sample.label, segment=sample.segment
        )
        records.append((name, record))
    relevance = None if scores is None else [float(score) for score in scores(clip.frame_indices.tolist())]
    write_comparison(path, records, clip, relevance, relevance_name=scores_name)


def _facts(runs: Mapping[str, Run], table: Table, split: str, count: int) -> tuple[tuple[str, str], ...]:
    first, last = next(iter(runs.values())), list(runs.values())[-1]
    training = sum(sample.split == "train" for sample in table.samples)
    facts = [
        ("data", f"{first.source.annotations}, {training} training clips"),
        ("measured on", f"{count} clips of split {split}"),
        ("edits", f"{len(last.edited)} clips of {len(last.edited_classes)} classes"),
    ]
    return (*facts, *((name, training_settings(run)) for name, run in runs.items()), *machine_facts())


def training_settings(run: Run) -> str:
    """How a run was trained, in a line."""
    if not run.recipe:
        return "a network without a recipe"
    optimizer = run.recipe["optimizer"]
    gamma = f", gamma {run.recipe['gamma']:g}" if "gamma" in run.recipe and not run.recipe["control"] else ""
    return (
        f"{optimizer['name']}, learning rate {optimizer['learning_rate']:g}, {optimizer['epochs']} epochs, "
        f"batch {optimizer['batch_size']}{gamma}, seed {run.recipe['seed']}"
    )


def machine_facts() -> tuple[tuple[str, str], ...]:
    """On what this was measured, as facts of a page."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, lightning {lightning.__version__}"
    return (
        ("machine", f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"),
        ("versions", versions),
    )
