"""The verbs that train: train and finetune.

As in every module of this package, a verb's parameters and docstring are its options and help; it returns what it
reports as JSON values and prints the same for people.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stabn.data.annotations.source import DataSource
from stabn.data.ground_truth import read_truth
from stabn.data.transforms import Augmentation
from stabn.edits.changed_files import Changed
from stabn.edits.project import open_project
from stabn.engine.config import EngineRecipe
from stabn.runs import open_run
from stabn.training.correction import choose_finetuning
from stabn.training.finetune import differences_from_run, finetune
from stabn.training.kept_features import loader_of
from stabn.training.loggers import TrackingRecipe
from stabn.training.recipes import (
    SMALL_AUGMENTATION,
    SMALL_FINETUNING,
    SMALL_OPTIMIZER,
    CorrectionRecipe,
    LoaderRecipe,
    NetworkRecipe,
    OptimizerRecipe,
    PreprocessingRecipe,
)
from stabn.training.train import SKIPPED, train


def train_command(
    out: Path,
    data: DataSource = DataSource(),  # noqa: B008
    table: Path | None = None,
    preprocessing: PreprocessingRecipe = PreprocessingRecipe(),  # noqa: B008
    network: NetworkRecipe = NetworkRecipe(dropout=0.1),  # noqa: B008
    augmentation: Augmentation = SMALL_AUGMENTATION,
    optimizer: OptimizerRecipe = SMALL_OPTIMIZER,
    loader: LoaderRecipe = LoaderRecipe(),  # noqa: B008
    engine: EngineRecipe = EngineRecipe(),  # noqa: B008
    tracking: TrackingRecipe = TrackingRecipe(),  # noqa: B008
    seed: int = 0,
) -> dict[str, Any]:
    """Train a network on labelled videos; repeat the command to resume after an interruption.

    Args:
        out: folder for the run.
        data: the labelled videos.
        table: the table or folder of annotations; or give --data.annotations.
        preprocessing: how videos become clips.
        network: base network and initial weights.
        augmentation: random changes of training clips.
        optimizer: optimizer, learning rate and batches.
        loader: how clips are read.
        engine: device, precision and number of processes.
        tracking: where loss and accuracy are logged.
        seed: for initialisation, batch order, augmentation and dropout.
    """
    result = train(
        out,
        data.with_positional(table),
        preprocessing=preprocessing.resolve(network),
        network=network,
        augmentation=augmentation,
        optimizer=optimizer,
        loader=loader,
        engine=engine,
        tracking=tracking,
        seed=seed,
    )
    print(f"{out}: trained for {result['epoch']} epochs, {_validation_note(out, result)}")
    return {"run": str(out), **result}


def finetune_command(
    run: Path,
    edits: Path,
    out: Path,
    gamma: float | None = None,
    control: bool = False,
    use: str = "latest",
    correction: CorrectionRecipe = CorrectionRecipe(),  # noqa: B008
    where: Path | None = None,
    changed: Changed = "fail",
    data: DataSource = DataSource(),  # noqa: B008
    augmentation: Augmentation = SMALL_AUGMENTATION,
    optimizer: OptimizerRecipe = SMALL_FINETUNING,
    loader: LoaderRecipe = LoaderRecipe(),  # noqa: B008
    engine: EngineRecipe = EngineRecipe(),  # noqa: B008
    tracking: TrackingRecipe = TrackingRecipe(),  # noqa: B008
    seed: int = 0,
) -> dict[str, Any]:
    """Train a network with people's edits: again from its start where that takes minutes, else on from its weights.

    What is not given is as in the run's own training; --correction.init checkpoint is the paper's form (Eqs. 5 and 6).

    Args:
        run: the run that was edited.
        edits: the folder of the edit project.
        out: folder for the fine-tuned run.
        gamma: weight of the loss between temporal attention and edits; by default 10 with the balanced loss, else 5.
        control: train the same without that loss, to compare with.
        use: which edit of a clip counts when several people edited it: latest, mean, median, or author:NAME.
        correction: how the network learns from edits.
        where: JSON lines with "id" and "boxes" per source frame, to learn where to look as well (our extension).
        changed: what becomes of clips whose video is another file than was edited: fail; skip, to leave them out; or
            keep, to use their edits as they are.
        data: the labelled videos; by default those of the run.
        augmentation: random changes of training clips; by default those of the run.
        optimizer: optimizer, learning rate and batches; by default those of the run, for fewer epochs where it goes on
            from the run's weights. recipes/paper-finetune.yaml has the paper's numbers.
        loader: how clips are read.
        engine: device, precision and number of processes.
        tracking: where loss and accuracy are logged.
        seed: for initialisation, batch order, augmentation and dropout; by default the run's.
    """
    opened = open_run(run, data)
    how = replace(
        choose_finetuning(opened, correction, gamma), augmentation=augmentation, optimizer=optimizer, seed=seed
    )
    print(f"{out}: {how.reason}", flush=True)
    differences = differences_from_run(opened, how)
    if differences and not control:
        print(
            f"{run} is no control for it: other {', '.join(differences)}; train one by the same with --control",
            flush=True,
        )
    result = finetune(
        opened,
        open_project(edits),
        out,
        how,
        control=control,
        use=use,
        where=None if where is None else read_truth(where),
        changed=changed,
        loader=loader,
        engine=engine,
        tracking=tracking,
    )
    kind = "control without the loss of edits" if control else f"fine-tuned on {result['edits']} edits"
    if result.get("spread"):
        kind += f", spread to {result['spread']} clips that are alike"
    print(f"{out}: {kind}, {_validation_note(out, result)}")
    return {"run": str(out), **result, "unlike": differences}


def finetune_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that `finetune` takes from the run, by their dotted names.

    Args:
        options: what the command line says, by the names of `finetune_command`'s parameters.

    Raises:
        UserError: there is no such run.
    """
    run = open_run(options["run"], DataSource.from_json(options["data"]))
    how = choose_finetuning(run, CorrectionRecipe(init=options["correction"]["init"]))
    parts = {"augmentation": asdict(how.augmentation), "optimizer": asdict(how.optimizer)}
    defaults = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    loader = loader_of(run)  # with other views of its clips the run would not be the control
    defaults |= {"loader.views": loader.views, "loader.features_precision": loader.features_precision}
    return defaults | {"seed": how.seed}


def _validation_note(out: Path, result: Mapping[str, Any]) -> str:
    """The final accuracy of a training, which classes it leaves out, and how many clips were skipped."""
    note = f"validation top-1 {result['validation_top1']:.1%}"
    note += f", mean class accuracy {result['validation_mean_class_accuracy']:.1%}"
    if missing := len(result["no_validation_clips"]):
        note += f" (without {missing} class{'es' * (missing > 1)} of which there are no clips)"
    clips = result["skipped"]
    return f"{note}; {clips} clip{'s' * (clips > 1)} could not be read, see {out / SKIPPED}" if clips else note
