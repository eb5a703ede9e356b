"""The page of `stabn report`: before, control and after fine-tuning, with films of example clips."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stabn.data.class_balance import count_classes, missing_class_notes
from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import ClipTruth
from stabn.edits.project import Project
from stabn.errors import UserError
from stabn.evaluation.accuracy import confusion_matrix
from stabn.evaluation.comparison import GROUPS, compare_predictions
from stabn.evaluation.predict import Predictions
from stabn.explain.explain_video import explain_video
from stabn.explain.render import write_comparison
from stabn.files import read_json
from stabn.nn import VideoNetwork, has_attention
from stabn.records import Edit
from stabn.report.comparison_report import comparison_table, machine_facts, training_settings
from stabn.report.content import Confusion, Curve, Example, Page
from stabn.report.page import write_page
from stabn.runs import Run, network_class_names, network_preprocessing

Models = Mapping[str, VideoNetwork]

_READING = (
    "Each number is the percentage of clips of “{split}” whose first answer is right, with its 95 % interval and the "
    "number of clips; where two intervals overlap, look at the verdict, which rests on the same clips in both networks."
)
_CAVEATS = (
    "The intervals resample the measured clips; they do not contain the chance of training. One run per row proves "
    "little: repeat with several seeds before you believe a difference.",
    "Frame AP is the average precision with which temporal attention ranks a clip's decisive frames above the others, "
    "where the truth is known; mended and newly wrong count clips against the first row.",
    "Clips for correction were chosen by their accuracy on the training split; the split measured here chose nothing.",
)
_CONTROL_CAVEAT = (
    "The control had the same clips, frames, steps and learning rates, and no loss on temporal attention; only the "
    "difference to it is due to the edits."
)


def write_finetuning_report(
    out: Path,
    runs: Mapping[str, Run],
    predictions: Mapping[str, Predictions],
    split: str,
    *,
    control: str | None,
    project: Project | None,
    truth: Mapping[str, ClipTruth] | None,
    examples: int,
    note: str,
) -> dict[str, Any]:
    """Compare runs before and after fine-tuning, and write the page.

    Args:
        out: the HTML file.
        runs: by name; the first is the starting point, the last the one in question.
        predictions: of each run for `split`.
        split: which was measured.
        control: name of the control among the runs.
        project: the edit project; two of its clips are shown with what people marked.
        truth: by clip id, in place of the data's own.
        examples: number of clips to show.
        note: one or two sentences for the top of the page.

    Returns:
        The comparison, as in `stabn.evaluation.comparison.compare_predictions`, and "notes": sentences on classes
        without clips.

    Raises:
        UserError: a run's files are damaged, or a video cannot be read.
    """
    models = {name: run.model() for name, run in runs.items()}
    first, last = next(iter(runs)), list(runs)[-1]
    table = runs[first].table(models[first])
    class_names = table.class_names
    truth = table.truth if truth is None else truth
    comparison = compare_predictions(
        [(name, predictions[name]) for name in runs],
        class_names,
        runs[last].edited_classes,
        control=control,
        truth=truth,
    )
    counts = {split: count_classes(predictions[first].labels, len(class_names))}
    comparison["notes"] = missing_class_notes(counts, class_names)
    descriptions = dict.fromkeys(runs, "with the edits") | {first: "starting point"}
    if control is not None:
        descriptions[control] = ("starting point, and " if control == first else "") + "the same without edits' loss"
    with tempfile.TemporaryDirectory() as films:
        shown = _examples(Path(films), models, table, split, predictions, examples, truth)
        if project is not None:
            use = runs[last].recipe.get("use", "latest")
            shown += _edited_examples(Path(films), models, table, project.edits(use), count=2)
        page = Page(
            title="Did correcting it help?",
            intro=note,
            reading=_READING.format(split=split),
            comparison=comparison_table(
                "top-1 accuracy", comparison["methods"], GROUPS, {name: name for name in runs}, control, descriptions
            ),
            verdict=comparison["verdict"],
            edited_classes=tuple(comparison["edited_classes"]),
            examples=tuple(shown),
            confusions=tuple(
                Confusion(name, class_names, confusion_matrix(predictions[name], len(class_names)))
                for name in (first, last)
            ),
            curves=tuple(
                Curve(name, tuple(read_json(run.folder / "curves.json", remedy="train the run again")["epochs"]))
                for name, run in runs.items()
            ),
            caveats=(
                *comparison["notes"],
                *_missing_origins(runs),
                *_CAVEATS,
                *([] if control is None else [_CONTROL_CAVEAT]),
            ),
            facts=_facts(runs, table, split, len(predictions[first].clip_ids)),
        )
        write_page(out, page)
    return comparison


def check_report(runs: Mapping[str, Run], control: str | None) -> None:
    """Check that the runs belong together, so that the page claims nothing wrong.

    Raises:
        UserError: a run has no attention or curves, was fine-tuned from another run than the first, or the control
            differs from the last run in more than L_temp.
    """
    for run in runs.values():
        if not has_attention(run.model()):
            raise UserError(f"{run.folder}: is the plain network, which has no attention to show; use `stabn compare`")
        if not run.recipe:
            raise UserError(f"{run.folder}: is a network without a run, so without curves; use `stabn compare`")
    first, last = next(iter(runs.values())), list(runs.values())[-1]
    if control is not None and runs[control] is first:
        control = None  # it is the run's own training
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
    for key in sorted({*ours.recipe, *last.recipe} - {"engine", "loader", "control"}):
        if ours.recipe.get(key) != last.recipe.get(key):
            raise UserError(
                f"{ours.folder}: is no control of {last.folder}: {key} is {ours.recipe.get(key)} and not "
                f"{last.recipe.get(key)}; fine-tune both with the same options"
            )
    if not ours.recipe.get("control"):
        raise UserError(f"{ours.folder}: was fine-tuned with the edits; make a control with `stabn finetune --control`")


def _missing_origins(runs: Mapping[str, Run]) -> list[str]:
    """Caveats on runs whose origin no longer exists, so that it cannot be checked to be the first run."""
    first = next(iter(runs.values())).folder
    return [
        f"{name} names as its origin {run.origin}, which is no longer there: whether that is {first} was not checked."
        for name, run in list(runs.items())[1:]
        if run.origin is not None and not Path(run.origin).exists()
    ]


def _examples(
    folder: Path,
    models: Models,
    table: Table,
    split: str,
    predictions: Mapping[str, Predictions],
    count: int,
    truth: Mapping[str, ClipTruth],
) -> list[Example]:
    """Films of measured clips: half of them mended, then newly wrong ones, then the others in their order."""
    first, last = next(iter(models)), list(models)[-1]
    samples = predictions[first].samples(table.of_split(split))
    before, after = predictions[first].correct, predictions[last].correct
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
    examples = []
    for kind, row in tqdm(chosen, desc="films", unit="clip", disable=None):
        clip_truth = truth.get(samples[row].clip_id)
        scores = clip_truth.scores if clip_truth is not None and clip_truth.has_timing else None
        film = folder / f"measured-{row}.mp4"
        examples.append(_example(film, models, table, samples[row], scores, "truth", kind))
    return examples


def _edited_examples(
    folder: Path, models: Models, table: Table, edits: Mapping[str, Edit], count: int
) -> list[Example]:
    """Films of training clips that people corrected, with what they marked."""
    by_id = {sample.clip_id: sample for sample in table.samples if sample.split == "train"}
    examples = []
    for number, edit in enumerate(list(edits.values())[:count]):
        if edit.clip_id not in by_id:
            first = next(iter(models))
            raise UserError(f"--edits: clip {edit.clip_id!r} is no training clip of {first}; give its project")
        film = folder / f"edited-{number}.mp4"
        kind = "a corrected training clip"
        examples.append(_example(film, models, table, by_id[edit.clip_id], _marked(edit), "marked by people", kind))
    return examples


def _marked(edit: Edit) -> Callable[[Sequence[int]], list[float]]:
    """The scores of an edit at source frames; 0.0 at frames that it does not have."""
    scores = dict(zip(edit.frame_indices, edit.scores, strict=True))
    return lambda frame_indices: [scores.get(index, 0.0) for index in frame_indices]


def _example(
    film: Path,
    models: Models,
    table: Table,
    sample: Sample,
    scores: Callable[[Sequence[int]], Sequence[float] | np.ndarray] | None,
    scores_name: str,
    kind: str,
) -> Example:
    """Write a film of a clip as the first and the last network saw it."""
    names = (next(iter(models)), list(models)[-1])
    records = []
    for name in names:
        model = models[name]
        assert has_attention(model)
        options: dict[str, Any] = {"label": sample.label, "segment": sample.segment}
        preprocessing, class_names = network_preprocessing(model, name), network_class_names(model)
        record, clip = explain_video(model, preprocessing, sample.path, class_names, **options)
        records.append((name, record))
    relevance = None if scores is None else [float(score) for score in scores(clip.frame_indices.tolist())]
    write_comparison(film, records, clip, relevance, relevance_name=scores_name)
    caption = f"{kind}: {names[0]} on the left, {names[1]} on the right"
    return Example(sample.clip_id, table.class_names[sample.label], film, caption)


def _facts(runs: Mapping[str, Run], table: Table, split: str, count: int) -> tuple[tuple[str, str], ...]:
    first, last = next(iter(runs.values())), list(runs.values())[-1]
    training = sum(sample.split == "train" for sample in table.samples)
    facts = [
        ("data", f"{first.source.annotations}, {training} training clips"),
        ("measured on", f"{count} clips of split {split}"),
        ("edits", f"{len(last.edited)} clips of {len(last.edited_classes)} classes"),
    ]
    return (*facts, *((name, training_settings(run)) for name, run in runs.items()), *machine_facts())
