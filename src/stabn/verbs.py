"""What each verb of the command line does: its parameters and docstring are the verb's options and help.

Each returns what it reports, as JSON values, and prints the same for people.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stabn.data.sampling import Sampling
from stabn.data.tables import read_class_names
from stabn.data.tabletop import Shortcut, generate
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.data.truth import read_truth
from stabn.errors import UserError
from stabn.evaluation.accuracy import left_out
from stabn.evaluation.collect import collect as collect_project
from stabn.nn import import_official as read_official
from stabn.outoffold import answer_out_of_fold
from stabn.pace import EngineRecipe
from stabn.projects import open_project
from stabn.runs import DataSource, open_run
from stabn.tables import print_table
from stabn.tracking import TrackingRecipe
from stabn.training.finetune import finetune as finetune_run
from stabn.training.finetune import unlike
from stabn.training.fit import SKIPPED
from stabn.training.fit import train as train_run
from stabn.training.recipes import (
    GAMMA,
    SMALL_AUGMENTATION,
    SMALL_FINETUNING,
    SMALL_OPTIMISER,
    CorrectionRecipe,
    LoaderRecipe,
    NetworkRecipe,
    OptimiserRecipe,
)


def tabletop(
    out: Path,
    train: int = 770,
    validation: int = 280,
    seed: int = 0,
    shortcut: Literal["none", "time", "space"] = "none",
    shortcut_strength: float = 1.0,
    workers: int | None = None,
) -> dict[str, Any]:
    """Generate Tabletop, a benchmark of short videos in which only when and in which order things happen matters.

    With a shortcut, a mark's colour gives the class of training clips away and misleads in validation clips; OUT/clean
    has the validation clips without it. docs/tabletop.md tells more.

    Args:
        out: folder for videos, annotations in the format of Something-Something v2, and truth.jsonl.
        train: training clips.
        validation: validation clips.
        seed: another seed gives other clips with the same statistics.
        shortcut: where the mark is: time, in frames that do not matter; space, away from the handled object.
        shortcut_strength: share of training clips whose mark tells their class; the others' is of a random class.
        workers: processes; by default one per core.
    """
    if not 0 <= shortcut_strength <= 1:
        raise UserError(f"--shortcut_strength: got {shortcut_strength}, expected a share in 0..1")
    if shortcut == "none" and shortcut_strength != 1:
        raise UserError(f"--shortcut_strength: got {shortcut_strength} and no shortcut; add --shortcut time or space")
    planted = None if shortcut == "none" else Shortcut(shortcut, shortcut_strength)
    generate(out, train=train, validation=validation, seed=seed, shortcut=planted, workers=workers)
    told = {"folder": str(out), "train": train, "validation": validation, "seed": seed}
    print(f"{out}: {train} training and {validation} validation clips")
    if planted is None:
        return told
    print(f"{out / 'clean'}: the same {validation} validation clips without marks")
    return told | {"shortcut": planted.where, "shortcut_strength": planted.strength, "clean": str(out / "clean")}


def train(
    out: Path,
    data: DataSource,
    preprocessing: Preprocessing = Preprocessing(Sampling("uniform", 16), resize=63, crop=56),  # noqa: B008
    network: NetworkRecipe = NetworkRecipe(dropout=0.1),  # noqa: B008
    augmentation: Augmentation = SMALL_AUGMENTATION,
    optimiser: OptimiserRecipe = SMALL_OPTIMISER,
    loader: LoaderRecipe = LoaderRecipe(),  # noqa: B008
    engine: EngineRecipe = EngineRecipe(),  # noqa: B008
    tracking: TrackingRecipe = TrackingRecipe(),  # noqa: B008
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
        tracking: where its course is written.
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
        tracking=tracking,
        seed=seed,
    )
    print(f"{out}: trained for {reached['epoch']} epochs, validation top-1 {_reached(out, reached)}")
    return {"run": str(out), **reached}


def collect(
    run: Path,
    out: Path,
    bound: float = 0.5,
    weakest: int | None = None,
    recognised: bool = False,
    max_clips: int | None = None,
    folds: int = 0,
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
        weakest: so many classes of the lowest accuracy are weak, whatever the bound; for data with few classes.
        recognised: collect the recognised clips of the weak classes instead, to compare what editing them is worth.
        max_clips: at most so many clips, evenly from the weak classes; by default all.
        folds: on small data a network knows its training clips by heart; 5 trains five networks by the run's recipe,
            each on four fifths of the clips, and collects what they get wrong in the fifth they have not seen. They
            are kept in a folder beside the project, OUT-folds; an interrupted command goes on.
        data: the labelled videos; by default those of the run.
        batch_size: videos at once.
        workers: processes that decode.
        engine: on what it runs.
    """
    opened = open_run(run, data)
    between = out.with_name(out.name + "-folds")
    out_of_fold = partial(answer_out_of_fold, opened, between, folds=folds, batch_size=batch_size, engine=engine)
    found = collect_project(
        opened,
        out,
        bound=bound,
        weakest=weakest,
        recognised=recognised,
        max_clips=max_clips,
        batch_size=batch_size,
        workers=workers,
        engine=engine,
        answer=out_of_fold if folds else None,
        folds=folds,
    )
    rows = [(c["name"], c["count"], f"{c['top1']:.1%}", c["collected"]) for c in found["classes"]]
    measured = "training top-1" if not folds else "out-of-fold top-1"
    print_table(("weak class", "clips", measured, "to correct"), rows)
    if found["skipped"]:
        print(left_out(found["skipped"], found["measured"]))
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
    correction: CorrectionRecipe = CorrectionRecipe(),  # noqa: B008
    where: Path | None = None,
    data: DataSource | None = None,
    augmentation: Augmentation = SMALL_AUGMENTATION,
    optimiser: OptimiserRecipe = SMALL_FINETUNING,
    loader: LoaderRecipe = LoaderRecipe(),  # noqa: B008
    engine: EngineRecipe = EngineRecipe(),  # noqa: B008
    tracking: TrackingRecipe = TrackingRecipe(),  # noqa: B008
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
        correction: how corrections enter the network; the defaults are the paper's way.
        where: JSON lines with "id" and "boxes" per source frame: also where to look, not only when (our extension).
        data: the labelled videos; by default those of the run.
        augmentation: how training clips are varied.
        optimiser: how weights move; recipes/paper-finetune.yaml has the paper's numbers.
        loader: how clips reach the network.
        engine: on what it runs.
        tracking: where its course is written.
        seed: of all chance.
    """
    opened = open_run(run, data)
    other = unlike(opened, correction=correction, augmentation=augmentation, optimiser=optimiser, seed=seed)
    if other and not control:
        told = f"{run} is no control for it: other {', '.join(other)}; train one by the same with --control"
        print(told, flush=True)
    reached = finetune_run(
        opened,
        open_project(edits),
        out,
        gamma=gamma,
        control=control,
        use=use,
        correction=correction,
        where=None if where is None else read_truth(where),
        augmentation=augmentation,
        optimiser=optimiser,
        loader=loader,
        engine=engine,
        tracking=tracking,
        seed=seed,
    )
    kind = "control without edits' loss" if control else f"fine-tuned on {reached['edits']} edits"
    print(f"{out}: {kind}, validation top-1 {_reached(out, reached)}")
    return {"run": str(out), **reached, "unlike": other}


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


def _reached(out: Path, reached: Mapping[str, Any]) -> str:
    """A training's last figures."""
    told = f"{reached['validation_top1']:.1%}"
    clips = reached["skipped"]
    return f"{told}; {clips} clip{'s' * (clips > 1)} could not be read, see {out / SKIPPED}" if clips else told
