"""The verbs that measure; as in `stabn.cli.train`, parameters and docstring are options and help."""

from pathlib import Path
from typing import Any, Literal

from stabn.cli.printing import print_accuracy, print_comparison, print_faithfulness, print_found, print_looks
from stabn.data.annotations.source import DataSource
from stabn.data.ground_truth import ClipTruth, truth_of
from stabn.edits.project import open_project
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.accuracy import accuracy, left_out
from stabn.evaluation.compare_runs import ask, judge, line_up, look, truth_for
from stabn.evaluation.faithfulness import faithfulness_of
from stabn.evaluation.perturbation import BASELINES
from stabn.evaluation.predict import predict_split
from stabn.report.comparison_report import write_comparison_page
from stabn.report.finetuning_report import check_report, report_on
from stabn.runs import Run, open_run, open_runs


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
    data: DataSource | None = None,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe = EngineRecipe(devices="1"),  # noqa: B008
) -> dict[str, Any]:
    """Measure a run: top-1 and top-5 of both branches, accuracy per class, confusion matrix; and its explanations.

    Args:
        run: the folder of a finished run.
        split: train, validation, or any other that the table of clips names.
        clips: evenly placed windows per video, whose softmax scores are averaged.
        crops: likewise, squares per window: the centre, or three as large as the shorter side of the resized frame, at
            both ends and in the middle of the longer one. 3 is finer, and slower.
        attention: what the perception branch is shown; inverse-spatial is Eq. 7 of the paper, shuffled is that of
            another clip of the split.
        faithfulness: measure, too, whether the network looks where and when its explanations say; docs/faithfulness.md.
        methods: of --faithfulness, with commas: attention, attention-branch, cam, grad-cam, random, centre, uniform; by
            default all that the network has.
        baselines: of --faithfulness, with commas: what stands in for removed frames and regions.
        steps: of --faithfulness: in how many steps a clip is taken away and put back.
        max_clips: of --faithfulness: take away and put back at most so many clips, chosen by --seed; null for all.
        truth: of --faithfulness: JSON lines with "id", and "relevance" or "boxes" per source frame or an "interval"; by
            default what the data itself says.
        seed: of all chance: whose attention is shown when it is shuffled, and which clips are chosen.
        data: other labelled videos with the same classes; by default those of the run.
        batch_size: videos at once.
        workers: processes that decode.
        engine: on what it runs.
    """
    for name, given in (("methods", methods), ("truth", truth)):
        if given is not None and not faithfulness:
            raise UserError(f"--{name}: got {given}, which is for --faithfulness; give both")
    if faithfulness and (attention != "as-is" or clips != 1 or crops != 1):
        raise UserError(
            "--faithfulness: looks at one window with the network's own attention; leave --attention, --clips and "
            "--crops out"
        )
    opened = open_run(run, data)
    common: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "engine": engine, "seed": seed}
    looked = None
    if faithfulness:
        looked = faithfulness_of(
            opened,
            split,
            truth=_truth_of(opened, split, truth),
            methods=None if methods is None else methods.split(","),
            baselines=baselines.split(","),
            steps=steps,
            max_clips=max_clips,
            **common,
        )
    answers, names = predict_split(opened, split, clips=clips, crops=crops, attention=attention, **common)
    figures = accuracy(answers, names)
    print_accuracy(figures)
    if looked is not None:
        print_faithfulness(looked)
        figures["faithfulness"] = looked
    return {
        "format": "stabn-evaluation/1",
        "run": str(run),
        "split": split,
        "clips": clips,
        "crops": crops,
        "attention": attention,
        **figures,
    }


def compare_command(
    runs: list[Path],
    control: Path | None = None,
    split: str = "validation",
    truth: Path | None = None,
    data: DataSource | None = None,
    methods: str | None = None,
    out: Path | None = None,
    faithfulness: bool = False,
    max_clips: int | None = 100,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe = EngineRecipe(devices="1"),  # noqa: B008
) -> dict[str, Any]:
    """Set runs side by side on the same clips: the first is the starting point, the last the one in question.

    Args:
        runs: two or more finished runs, with attention or without; the edited classes are those of the last.
        control: the run, among them, that the last one is judged against; by default the first. With --methods it is
            one of these.
        split: train, validation, or any other that the table of clips names.
        truth: JSON lines like Tabletop's truth.jsonl, to measure the temporal attention; by default what the data
            itself says.
        data: the labelled videos; by default those of the runs.
        methods: for several seeds, what each run is a repetition of, as in A,A,B,B; the first run of A and the first of
            B belong together, and the interval is that of the mean over seeds.
        out: an HTML file for tables and plots, which opens offline.
        faithfulness: measure the explanations, too, as `stabn evaluate --faithfulness` does; this takes a while.
        max_clips: perturb at most so many clips for that; null for all.
        batch_size: videos at once.
        workers: processes that decode.
        engine: on what it runs.
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out: got {out}, expected a file that ends in .html")
    named = None if methods is None else [name.strip() for name in methods.split(",")]
    lineup = line_up(runs, methods=named, control=control, data=data)
    options = {"batch_size": batch_size, "workers": workers, "engine": engine}
    known = None if truth is None else truth_for(lineup, split, truth)
    answers = ask(lineup, split, **options)
    found = judge(lineup, answers, known)
    print_found(found)
    if faithfulness:
        found["faithfulness"] = look(lineup, split, known, max_clips=max_clips, **options)
        if out is None:
            print_looks(found["faithfulness"])
    if out is not None:
        write_comparison_page(out, lineup, answers, found, split)
        print(f"{out}: written")
    return {"format": "stabn-comparison/1" if named is None else "stabn-seeds/1", "split": split, **found}


def report_command(
    before: Path,
    after: Path,
    out: Path,
    control: Path | None = None,
    edits: Path | None = None,
    truth: Path | None = None,
    split: str = "validation",
    examples: int = 6,
    data: DataSource | None = None,
) -> dict[str, Any]:
    """Write one HTML page that opens offline: curves, before / control / after, confusion, example clips.

    Args:
        before: the run that was corrected.
        after: the run that was fine-tuned on the corrections.
        out: the HTML file.
        control: the run that was fine-tuned without them.
        edits: the edit project, to show what people marked.
        truth: JSON lines like Tabletop's truth.jsonl; by default what the data itself says.
        split: train, validation, or any other that the table of clips names.
        examples: how many clips of the split to show.
        data: the labelled videos; by default those of the first run.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out: got {out}, expected a file that ends in .html")
    folders = {"before": before} | ({} if control is None else {"control": control}) | {"fine-tuned": after}
    if examples < 0:
        raise UserError(f"--examples: got {examples}, expected 0 or more")
    runs = dict(zip(folders, open_runs(list(folders.values()), data), strict=True))
    check_report(runs, None if control is None else "control")
    project = None if edits is None else open_project(edits)
    known = _truth_of(runs["before"], split, truth)
    answers = {name: predict_split(run, split)[0] for name, run in runs.items()}
    found = report_on(
        out,
        runs,
        answers,
        split,
        control=None if control is None else "control",
        project=project,
        truth=known,
        examples=examples,
        note=f"{before} was fine-tuned on corrected temporal attention; every row is measured on the same clips.",
    )
    print_comparison(found)
    measured = answers["before"]
    skipped = measured.skipped_as_json
    if skipped:
        print(left_out(skipped, len(measured.clip_ids)))
    print(f"{out}: written")
    return {"format": "stabn-comparison/1", "split": split, **found, "skipped": skipped}


def _truth_of(run: Run, split: str, path: Path | None) -> dict[str, ClipTruth] | None:
    """What a file, where one is given, says of the clips of a run's split."""
    if path is None:
        return None
    return truth_of(path, [sample.clip_id for sample in run.source.table().of_split(split)])
