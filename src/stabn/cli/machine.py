"""The verbs about this machine: doctor says what it offers, profile where the time of training goes."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stabn.cli.printing import print_backbones, print_profile
from stabn.data.annotations.source import DataSource
from stabn.data.transforms import Augmentation
from stabn.engine.config import EngineRecipe
from stabn.engine.doctor import inspect_machine, machine_report
from stabn.errors import UserError
from stabn.training.advice import profile_training
from stabn.training.loggers import TrackingRecipe
from stabn.training.recipes import (
    SMALL_AUGMENTATION,
    SMALL_OPTIMIZER,
    LoaderRecipe,
    NetworkRecipe,
    OptimizerRecipe,
    PreprocessingRecipe,
)

logger = logging.getLogger(__name__)


def doctor_command() -> dict[str, Any]:
    """Print what this machine offers (decoders, torch, GPUs, cores, encoders) and what could be installed."""
    machine = inspect_machine()
    for line in machine_report(machine):
        print(line)
    return machine


def backbones_command(names: list[str] | None = None) -> dict[str, Any]:
    """List the base networks that --network.backbone takes: clips, size, cost, and published weights.

    "timm/NAME" takes any 2D network of timm with feature maps, frame by frame; "stabn backbones timm/NAME" describes
    it. Weights are given by name, or as a file, with --network.weights.

    Args:
        names: of the networks; by default those of all families.
    """
    from stabn.nn.backbones.description import LISTED, describe_backbone

    backbones, left_out = [], []
    with tqdm(names or LISTED, desc="backbones", unit="network", disable=None, leave=False) as bar:
        for name in bar:
            try:
                backbones.append(describe_backbone(name))
            except UserError as error:  # of those that nobody asked for, a library may not be installed
                if names:
                    raise
                left_out.append(error)
    print_backbones(backbones)
    for error in left_out:
        logger.warning("note: %s", error)
    return {
        "backbones": [
            {
                **asdict(backbone),
                "weights": [
                    {"name": one.name, "trained_on": one.trained_on, "file": str(one.file), "here": one.file.exists()}
                    for one in backbone.weights
                ],
            }
            for backbone in backbones
        ]
    }


def profile_command(
    data: DataSource = DataSource(),  # noqa: B008
    table: Path | None = None,
    steps: int = 20,
    preprocessing: PreprocessingRecipe = PreprocessingRecipe(),  # noqa: B008
    network: NetworkRecipe = NetworkRecipe(dropout=0.1),  # noqa: B008
    augmentation: Augmentation = SMALL_AUGMENTATION,
    optimizer: OptimizerRecipe = SMALL_OPTIMIZER,
    loader: LoaderRecipe = LoaderRecipe(),  # noqa: B008
    engine: EngineRecipe = EngineRecipe(),  # noqa: B008
    tracking: TrackingRecipe = TrackingRecipe(),  # noqa: B008
    seed: int = 0,
) -> dict[str, Any]:
    """Measure where the time of a training step goes on this machine, and suggest what to change.

    Give it the recipe and options of `stabn train` without --out. It trains for a few steps on one device and forgets
    them, reads some clips one by one, and measures how many clips per second different numbers of workers prepare.
    Nothing is written.

    Args:
        data: the labelled videos.
        table: the table or folder of annotations; or give --data.annotations.
        steps: how many training steps are measured.
        preprocessing: how videos become clips.
        network: base network and initial weights.
        augmentation: random changes of training clips.
        optimizer: optimizer, learning rate and batches.
        loader: how clips are read.
        engine: device, precision and number of processes.
        tracking: accepted so that recipes for `stabn train` fit; nothing is logged.
        seed: for initialisation, batch order, augmentation and dropout.
    """
    measured = profile_training(
        data.with_positional(table),
        steps,
        preprocessing=preprocessing.resolve(network),
        network=network,
        augmentation=augmentation,
        optimizer=optimizer,
        loader=loader,
        engine=engine,
        seed=seed,
    )
    print_profile(measured.step, measured.clip, measured.rates, measured.advice)
    return measured.as_json()
