"""What each verb of the command line does: its parameters and docstring are the verb's options and help.

Each returns what it reports, as JSON values, and prints the same for people.
"""

from pathlib import Path
from typing import Any, Literal

from stabn.data.sampling import Sampling
from stabn.data.tables import read_class_names
from stabn.data.tabletop import generate
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.data.video import probe
from stabn.engine import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.accuracy import accuracy
from stabn.evaluation.collect import collect as collect_project
from stabn.evaluation.collect import read_truth
from stabn.evaluation.comparison import Contestant, print_comparison
from stabn.evaluation.comparison import compare as compare_predictions
from stabn.evaluation.predict import predict_split
from stabn.explain.recording import distinct_names, write_files
from stabn.explain.recording import explain as explain_video
from stabn.nn import STABN, load_pretrained
from stabn.nn import import_official as read_official
from stabn.projects import open_project
from stabn.reporting import check_report, report_on
from stabn.runs import DataSource, class_names_of, open_run, open_runs, preprocessing_of
from stabn.tables import print_table
from stabn.training.finetune import finetune as finetune_run
from stabn.training.fit import train as train_run
from stabn.training.recipes import (
    GAMMA,
    SMALL_AUGMENTATION,
    SMALL_FINETUNING,
    SMALL_OPTIMISER,
    LoaderRecipe,
    NetworkRecipe,
    OptimiserRecipe,
)


def tabletop(
    out: Path, train: int = 770, validation: int = 280, seed: int = 0, workers: int | None = None
) -> dict[str, Any]:
    """Generate Tabletop, a benchmark of short videos in which only when and in which order things happen matters.

    Args:
        out: folder for videos, annotations in the format of Something-Something v2, and truth.jsonl.
        train: training clips.
        validation: validation clips.
        seed: another seed gives other clips with the same statistics.
        workers: processes; by default one per core.
    """
    generate(out, train=train, validation=validation, seed=seed, workers=workers)
    print(f"{out}: {train} training and {validation} validation clips")
    return {"folder": str(out), "train": train, "validation": validation, "seed": seed}


def train(
    out: Path,
    data: DataSource,
    preprocessing: Preprocessing = Preprocessing(Sampling("uniform", 16), resize=63, crop=56),  # noqa: B008
    network: NetworkRecipe = NetworkRecipe(dropout=0.1),  # noqa: B008
    augmentation: Augmentation = SMALL_AUGMENTATION,
    optimiser: OptimiserRecipe = SMALL_OPTIMISER,
    loader: LoaderRecipe = LoaderRecipe(),  # noqa: B008
    engine: EngineRecipe = EngineRecipe(),  # noqa: B008
    seed: int = 0,
) -> dict[str, Any]:
    """Train a network on labelled videos; give the same command again to go on after an interruption.

    Args:
        out: folder for the run.
        data: the labelled videos.
        preprocessing: how videos become clips.
        network: which network.
        augmentation: how training clips are varied.
        optimiser: how weights move.
        loader: how clips reach the network.
        engine: on what it runs.
        seed: of all chance.
    """
    reached = train_run(
        out,
        data,
        preprocessing=preprocessing,
        network=network,
        augmentation=augmentation,
        optimiser=optimiser,
        loader=loader,
        engine=engine,
        seed=seed,
    )
    print(f"{out}: trained for {reached['epoch']} epochs, validation top-1 {reached['validation_top1']:.1%}")
    return {"run": str(out), **reached}


def evaluate(
    run: Path,
    split: str = "validation",
    clips: int = 1,
    attention: Literal["as-is", "inverse-spatial", "inverse-temporal", "uniform-spatial", "uniform-temporal"] = "as-is",
    data: DataSource | None = None,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe = EngineRecipe(devices="1"),  # noqa: B008
) -> dict[str, Any]:
    """Measure a run: top-1 and top-5 of both branches, accuracy per class, confusion matrix.

    Args:
        run: the folder of a finished run.
        split: train or validation.
        clips: evenly placed windows per video, whose softmax scores are averaged.
        attention: what the perception branch is shown; inverse-spatial is Eq. 7 of the paper.
        data: other labelled videos with the same classes; by default those of the run.
        batch_size: videos at once.
        workers: processes that decode.
        engine: on what it runs.
    """
    options = {"attention": attention, "batch_size": batch_size, "workers": workers, "engine": engine}
    answers, names = predict_split(open_run(run, data), split, clips=clips, **options)
    figures = accuracy(answers, names)
    rows = [("perception branch", figures["perception"])]
    if figures["attention_branch"] is not None:
        rows.append(("attention branch", figures["attention_branch"]))
    print_table(("", "top-1", "top-5"), [(name, f"{v['top1']:.1%}", f"{v['top5']:.1%}") for name, v in rows])
    per_class = [(c["name"], c["count"], "-" if c["top1"] is None else f"{c['top1']:.1%}") for c in figures["classes"]]
    print_table(("class", "clips", "top-1"), per_class)
    return {
        "format": "stabn-evaluation/1",
        "run": str(run),
        "split": split,
        "clips": clips,
        "attention": attention,
        **figures,
    }


def explain(run: Path, videos: list[Path], out: Path, clips: int = 1) -> dict[str, Any]:
    """Show what a network recognises in videos, and when and where it looked.

    Writes per video NAME.json and NAME.npz for programs, NAME.mp4 and NAME.png (a contact sheet) for people; with
    several windows NAME-1, NAME-2, ...

    Args:
        run: a run, or any folder with config.json and model.safetensors.
        videos: video files.
        out: folder for the explanations.
        clips: evenly placed windows per video.
    """
    if clips < 1:
        raise UserError(f"--clips: got {clips}, expected at least 1")
    model = load_pretrained(run)
    if not isinstance(model, STABN):
        raise UserError(
            f"{run}: is the plain network, which has no attention to show; train with network.attention true"
        )
    names, preprocessing = class_names_of(model), preprocessing_of(model, str(run))
    for video in videos:
        probe(video)  # every mistake is found before the first file is written
    records = []
    for name, video in distinct_names(videos).items():
        for window in range(clips):
            stem = out / (name if clips == 1 else f"{name}-{window + 1}")
            record, clip = explain_video(model, preprocessing, video, names, window=window, windows=clips)
            write_files(stem, record, clip)
            records.append({"files": str(stem), **record.as_json()})
            print(f"{video}: {record.top(1)[0][0]} ({record.top(1)[0][1]:.0%}) -> {stem}.mp4, .png, .json, .npz")
    return {"format": "stabn-explanations/1", "run": str(run), "records": records}


def collect(
    run: Path,
    out: Path,
    bound: float = 0.5,
    max_clips: int | None = None,
    data: DataSource | None = None,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe = EngineRecipe(devices="1"),  # noqa: B008
) -> dict[str, Any]:
    """Collect the misrecognised training clips of the weak classes into an edit project.

    Args:
        run: a finished run.
        out: folder for the project.
        bound: classes with a training accuracy below this share are weak; the paper's is 0.5.
        max_clips: at most so many clips, evenly from the weak classes; by default all.
        data: the labelled videos; by default those of the run.
        batch_size: videos at once.
        workers: processes that decode.
        engine: on what it runs.
    """
    found = collect_project(
        open_run(run, data),
        out,
        bound=bound,
        max_clips=max_clips,
        batch_size=batch_size,
        workers=workers,
        engine=engine,
    )
    rows = [(c["name"], c["count"], f"{c['top1']:.1%}", c["collected"]) for c in found["classes"]]
    print_table(("weak class", "clips", "training top-1", "to correct"), rows)
    print(f"{out}: {found['collected']} clips to correct, listed in {out / 'clips.jsonl'}")
    print(
        f"To see one: stabn explain {run} {open_project(out).clips[0].path} --out {out.with_name(out.name + '-seen')}"
    )
    return {"project": str(out), **found}


def finetune(
    run: Path,
    edits: Path,
    out: Path,
    gamma: float = GAMMA,
    control: bool = False,
    use: str = "latest",
    data: DataSource | None = None,
    augmentation: Augmentation = SMALL_AUGMENTATION,
    optimiser: OptimiserRecipe = SMALL_FINETUNING,
    loader: LoaderRecipe = LoaderRecipe(),  # noqa: B008
    engine: EngineRecipe = EngineRecipe(),  # noqa: B008
    seed: int = 0,
) -> dict[str, Any]:
    """Put corrections into a network: both branches learn, the extractor stays as it is (Eqs. 5 and 6).

    Args:
        run: the run that the edits are about.
        edits: the folder of the edit project.
        out: folder for the fine-tuned run.
        gamma: weight of the agreement with the edits; docs/finetuning.md has the measurement behind the default.
        control: the same training without the agreement, to compare with.
        use: what becomes of several people's edits of a clip: latest, mean, median, or author:NAME for one person's.
        data: the labelled videos; by default those of the run.
        augmentation: how training clips are varied.
        optimiser: how weights move; recipes/paper-finetune.yaml has the paper's numbers.
        loader: how clips reach the network.
        engine: on what it runs.
        seed: of all chance.
    """
    reached = finetune_run(
        open_run(run, data),
        open_project(edits),
        out,
        gamma=gamma,
        control=control,
        use=use,
        augmentation=augmentation,
        optimiser=optimiser,
        loader=loader,
        engine=engine,
        seed=seed,
    )
    kind = "control without edits' loss" if control else f"fine-tuned on {reached['edits']} edits"
    print(f"{out}: {kind}, validation top-1 {reached['validation_top1']:.1%}")
    return {"run": str(out), **reached}


def compare(
    runs: list[Path],
    control: Path | None = None,
    split: str = "validation",
    truth: Path | None = None,
    data: DataSource | None = None,
) -> dict[str, Any]:
    """Set runs side by side on the same clips: the first is the starting point, the last the one in question.

    Args:
        runs: two or more finished runs; the edited classes are those of the last.
        control: the run, among them, that the last one is judged against; by default the first.
        split: train or validation.
        truth: JSON lines with "id" and "relevance" per source frame, to measure the temporal attention.
        data: the labelled videos; by default those of the first run.
    """
    if len(runs) < 2:
        raise UserError(f"compare: got {len(runs)} run, expected at least two")
    opened = open_runs(runs, data)
    if control is not None and control not in runs:
        raise UserError(f"--control: got {control}, expected one of {', '.join(map(str, runs))}")
    contestants = []
    names: tuple[str, ...] = ()
    for folder, run in zip(runs, opened, strict=True):
        answers, names = predict_split(run, split)
        contestants.append(Contestant(str(folder), answers))
    known = None if truth is None else read_truth(truth)
    chosen = None if control is None else str(control)
    found = compare_predictions(contestants, names, opened[-1].edited_classes, control=chosen, truth=known)
    print_comparison(found)
    return {"format": "stabn-comparison/1", "split": split, **found}


def report(
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
        truth: JSON lines with "id" and "relevance" per source frame, where the truth is known.
        split: train or validation.
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
    known = None if truth is None else read_truth(truth)
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
    print(f"{out}: written")
    return {"format": "stabn-comparison/1", "split": split, **found}


def import_official(
    checkpoint: Path,
    folder: Path,
    class_names: Path | None = None,
    sampling: Sampling | None = None,
    resize: int = 256,
    crop: int = 224,
    bgr: bool = False,
) -> dict[str, Any]:
    """Read a checkpoint of the official ST-ABN code and write it as our folder.

    Depth, classes and frames are read off the tensors. The checkpoint does not say how videos were prepared: the
    options do, with the paper's values as defaults.

    Args:
        checkpoint: a file that the official code's training wrote; nothing in it is executed.
        folder: the new folder, for `stabn explain` and `STABN.from_pretrained`.
        class_names: something-something-v2-labels.json, or a JSON list of names in the order of the outputs.
        sampling: which frames; by default consecutive ones, as many as the checkpoint reads.
        resize: shorter side in pixels.
        crop: side of the square view in pixels.
        bgr: the checkpoint was trained on frames in BGR order, as the official code reads them; exchanges the input
            channels of the first layer so that it answers the same for our RGB.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty; choose another folder")
    names = None if class_names is None else read_class_names(class_names)
    model = read_official(checkpoint, class_names=names)
    if sampling is not None and sampling.frames != model.frames:
        raise UserError(f"--sampling.frames: got {sampling.frames}, but {checkpoint} reads {model.frames} frames")
    if bgr:
        model.conv1.weight.data = model.conv1.weight.data.flip(1)
    preprocessing = Preprocessing(sampling or Sampling("dense", model.frames), resize=resize, crop=crop)
    model.preprocessing = preprocessing.as_json()
    model.save_pretrained(folder)
    print(f"{folder}: {model.architecture}, {model.num_classes} classes, {model.frames} frames")
    return {
        "folder": str(folder),
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "frames": model.frames,
    }
