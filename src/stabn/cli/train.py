"""What each verb of the command line does: its parameters and docstring are the verb's options and help.

Each returns what it reports, as JSON values, and prints the same for people.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stabn.data.annotations.source import DataSource
from stabn.data.ground_truth import read_truth
from stabn.data.sampling import Sampling
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.edits.project import open_project
from stabn.engine.config import EngineRecipe
from stabn.runs import open_run
from stabn.training.recipes import (
    GAMMA,
    SMALL_AUGMENTATION,
    SMALL_FINETUNING,
    SMALL_OPTIMIZER,
    CorrectionRecipe,
    LoaderRecipe,
    NetworkRecipe,
    OptimizerRecipe,
)
from stabn.training.finetune import finetune as finetune_run
from stabn.training.finetune import differences_from_run
from stabn.training.loggers import TrackingRecipe
from stabn.training.train import SKIPPED
from stabn.training.train import train as train_run


def train_command(
    out: Path,
    data: DataSource,
    preprocessing: Preprocessing = Preprocessing(Sampling("uniform", 16), resize=63, crop=56),  # noqa: B008
    network: NetworkRecipe = NetworkRecipe(dropout=0.1),  # noqa: B008
    augmentation: Augmentation = SMALL_AUGMENTATION,
    optimizer: OptimizerRecipe = SMALL_OPTIMIZER,
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
        optimizer: how weights move.
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
        optimizer=optimizer,
        loader=loader,
        engine=engine,
        tracking=tracking,
        seed=seed,
    )
    print(f"{out}: trained for {reached['epoch']} epochs, validation top-1 {_reached(out, reached)}")
    return {"run": str(out), **reached}


def finetune_command(
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
    optimizer: OptimizerRecipe = SMALL_FINETUNING,
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
        optimizer: how weights move; recipes/paper-finetune.yaml has the paper's numbers.
        loader: how clips reach the network.
        engine: on what it runs.
        tracking: where its course is written.
        seed: of all chance.
    """
    opened = open_run(run, data)
    other = differences_from_run(opened, correction=correction, augmentation=augmentation, optimizer=optimizer, seed=seed)
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
        optimizer=optimizer,
        loader=loader,
        engine=engine,
        tracking=tracking,
        seed=seed,
    )
    kind = "control without edits' loss" if control else f"fine-tuned on {reached['edits']} edits"
    print(f"{out}: {kind}, validation top-1 {_reached(out, reached)}")
    return {"run": str(out), **reached, "unlike": other}


def _reached(out: Path, reached: Mapping[str, Any]) -> str:
    """A training's last figures."""
    told = f"{reached['validation_top1']:.1%}"
    clips = reached["skipped"]
    return f"{told}; {clips} clip{'s' * (clips > 1)} could not be read, see {out / SKIPPED}" if clips else told
