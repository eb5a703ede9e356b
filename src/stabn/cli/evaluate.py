"""The verbs that measure: evaluate one run, compare several, report on a fine-tuning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stabn.cli.printing import print_accuracy, print_comparison, print_faithfulness, print_skipped
from stabn.data.annotations.source import DataSource
from stabn.data.class_balance import count_classes
from stabn.data.ground_truth import ClipTruth, read_truth_for
from stabn.edits.project import open_project
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.accuracy import accuracy
from stabn.evaluation.compare_runs import (
    compare_runs,
    comparison_truth,
    plan_comparison,
    predict_runs,
    runs_faithfulness,
)
from stabn.evaluation.faithfulness import run_faithfulness
from stabn.evaluation.perturbation import BASELINES
from stabn.evaluation.predict import predict_split
from stabn.report.comparison_report import write_comparison_report
from stabn.report.finetuning_report import check_report, write_finetuning_report
from stabn.runs import Run, open_run, open_runs
from stabn.training.finetune import is_control_of


def evaluate_command(
    run: Path,
    split: str = "validation",
    clips: int = 1,
    crops: Literal[1, 3] = 1,
    attention: Literal[
        "as-is",
        "inverse-spatial",
        "inverse-temporal",
        "uniform-spatial",
        "uniform-temporal",
        "shuffled-spatial",
        "shuffled-temporal",
    ] = "as-is",
    faithfulness: bool = False,
    methods: str | None = None,
    baselines: str = ",".join(BASELINES),
    steps: int = 8,
    max_clips: int | None = 100,
    truth: Path | None = None,
    seed: int = 0,
    data: DataSource = DataSource(),  # noqa: B008
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe = EngineRecipe(devices="1"),  # noqa: B008
) -> dict[str, Any]:
    """Measure a run: accuracy of both branches, also averaged over classes and per class, and its explanations.

    Args:
        run: the folder of a finished run.
        split: train, validation, or another split of the table of clips.
        clips: evenly placed windows per video, whose softmax scores are averaged.
        crops: squares per window, averaged likewise: 1 is the centre; 3 are as large as the shorter side of the resized
            frame, at both ends and in the middle of the longer side, which is slower.
        attention: what the perception branch sees; inverse-spatial is Eq. 7 of the paper, shuffled is the attention of
            another clip of the split.
        faithfulness: also measure whether the network looks where and when its explanations say (docs/faithfulness.md).
        methods: with --faithfulness: attention, attention-branch, cam, grad-cam, random, centre, uniform, separated by
            commas; by default all that the network has.
        baselines: with --faithfulness: what replaces removed frames and regions, separated by commas.
        steps: with --faithfulness: in how many steps a clip is removed and put back.
        max_clips: with --faithfulness: largest number of clips to perturb, drawn by --seed; null for all.
        truth: with --faithfulness: JSON lines with "id", and "relevance" or "boxes" per source frame or an "interval";
            by default from the data itself.
        seed: for shuffled attention and the choice of clips.
        data: other labelled videos with the same classes; by default those of the run.
        batch_size: videos per batch.
        workers: processes that decode.
        engine: device, precision and number of processes.
    """
    for name, value in (("methods", methods), ("truth", truth)):
        if value is not None and not faithfulness:
            raise UserError(f"--{name}: got {value}, which needs --faithfulness; give both")
    if faithfulness and (attention != "as-is" or clips != 1 or crops != 1):
        raise UserError(
            "--faithfulness: measures one window with the network's own attention; leave --attention, --clips and "
            "--crops out"
        )
    opened = open_run(run, data)
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "engine": engine, "seed": seed}
    measured: dict[str, Any] = {}
    if faithfulness:
        measured["faithfulness"] = run_faithfulness(
            opened,
            split,
            truth=_split_truth(opened, split, truth),
            methods=None if methods is None else methods.split(","),
            baselines=baselines.split(","),
            steps=steps,
            max_clips=max_clips,
            **options,
        )
    predictions, class_names = predict_split(opened, split, clips=clips, crops=crops, attention=attention, **options)
    training = None if data.annotations else _training_counts(opened, class_names)
    evaluation = accuracy(predictions, class_names, split=split, training=training)
    print_accuracy(evaluation)
    if faithfulness:
        print_faithfulness(measured["faithfulness"])
    return {
        "format": "stabn-evaluation/1",
        "run": str(run),
        "split": split,
        "clips": clips,
        "crops": crops,
        "attention": attention,
        **evaluation,
        **measured,
    }


def compare_command(
    runs: list[Path],
    control: Path | None = None,
    split: str = "validation",
    truth: Path | None = None,
    data: DataSource = DataSource(),  # noqa: B008
    methods: str | None = None,
    out: Path | None = None,
    faithfulness: bool = False,
    max_clips: int | None = 100,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe = EngineRecipe(devices="1"),  # noqa: B008
) -> dict[str, Any]:
    """Compare runs on the same clips: the first is the starting point, the last the one in question.

    Args:
        runs: two or more finished runs, with attention or without; the edited classes are those of the last.
        control: which of the runs the last one is judged against; by default the first. With --methods it is one of
            these.
        split: train, validation, or another split of the table of clips.
        truth: JSON lines like Tabletop's truth.jsonl, to measure the temporal attention; by default from the data
            itself.
        data: the labelled videos; by default those of the runs.
        methods: for several seeds, the method of each run, as in A,A,B,B; the first run of A and the first of B have
            the same seed, and intervals are those of the mean over seeds.
        out: an HTML file for tables and plots, which opens offline.
        faithfulness: also measure the explanations, as `stabn evaluate --faithfulness` does; takes a while.
        max_clips: with --faithfulness: largest number of clips to perturb; null for all.
        batch_size: videos per batch.
        workers: processes that decode.
        engine: device, precision and number of processes.
    """
    if out is not None:
        _check_html(out)
    names = None if methods is None else [name.strip() for name in methods.split(",")]
    plan = plan_comparison(runs, methods=names, control=control, data=data)
    options = {"batch_size": batch_size, "workers": workers, "engine": engine}
    clip_truth = None if truth is None else comparison_truth(plan, split, truth)
    predictions = predict_runs(plan, split, **options)
    comparison = compare_runs(plan, predictions, split, clip_truth)
    print_comparison(comparison)
    if faithfulness:
        comparison["faithfulness"] = runs_faithfulness(plan, split, clip_truth, max_clips=max_clips, **options)
    if out is not None:
        write_comparison_report(out, plan, predictions, comparison, split)
        print(f"{out}: written")
    elif faithfulness:
        for measured in comparison["faithfulness"]:
            print(f"\n{measured['run']}\n")
            print_faithfulness(measured)
    return {"format": "stabn-comparison/1" if names is None else "stabn-seeds/1", "split": split, **comparison}


def report_command(
    before: Path,
    after: Path,
    out: Path,
    control: Path | None = None,
    edits: Path | None = None,
    truth: Path | None = None,
    split: str = "validation",
    examples: int = 6,
    data: DataSource = DataSource(),  # noqa: B008
) -> dict[str, Any]:
    """Write one HTML page that opens offline: curves, before / control / after, confusion, example clips.

    Args:
        before: the run that was edited.
        after: the run that was fine-tuned on the edits.
        out: the HTML file.
        control: the run that was fine-tuned without the loss of the edits; not needed where the first run is what
            that would be, which `stabn finetune` says.
        edits: the edit project, to show what people marked.
        truth: JSON lines like Tabletop's truth.jsonl; by default from the data itself.
        split: train, validation, or another split of the table of clips.
        examples: number of clips of the split to show.
        data: the labelled videos; by default those of the first run.
    """
    _check_html(out)
    if examples < 0:
        raise UserError(f"--examples: got {examples}, expected 0 or more")
    folders = {"before": before} | ({} if control is None else {"control": control}) | {"fine-tuned": after}
    runs = dict(zip(folders, open_runs(list(folders.values()), data), strict=True))
    if control is None and is_control_of(runs["before"], runs["fine-tuned"]):
        runs = {"control": runs["before"], "fine-tuned": runs["fine-tuned"]}
    first, control_name = next(iter(runs)), "control" if "control" in runs else None
    check_report(runs, control_name)
    project = None if edits is None else open_project(edits)
    clip_truth = _split_truth(runs[first], split, truth)
    predictions = {name: predict_split(run, split)[0] for name, run in runs.items()}
    comparison = write_finetuning_report(
        out,
        runs,
        predictions,
        split,
        control=control_name,
        project=project,
        truth=clip_truth,
        examples=examples,
        note=f"{before} was fine-tuned on corrected temporal attention; every row is measured on the same clips.",
    )
    print_comparison(comparison)
    skipped = predictions[first].skipped_as_json
    print_skipped(skipped, len(predictions[first].clip_ids))
    print(f"{out}: written")
    return {"format": "stabn-comparison/1", "split": split, **comparison, "skipped": skipped}


def _check_html(out: Path) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out: got {out}, expected a file that ends in .html")


def _training_counts(run: Run, class_names: Sequence[str]) -> np.ndarray | None:
    """Training clips of each class of a run; None for a network without a recipe, whose training is unknown."""
    if not run.recipe:
        return None
    labels = [sample.label for sample in run.table(run.model()).samples if sample.split == "train"]
    return count_classes(labels, len(class_names))


def _split_truth(run: Run, split: str, path: Path | None) -> dict[str, ClipTruth] | None:
    """The truth of a run's split in a file; None without a file."""
    if path is None:
        return None
    return read_truth_for(path, [sample.clip_id for sample in run.source.table().of_split(split)])
