"""The verbs about this machine: doctor says what it offers, profile where the time of training goes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything

from stabn.cli.printing import print_profile
from stabn.data.annotations.source import DataSource
from stabn.data.sampling import Sampling
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.engine.config import EngineRecipe
from stabn.engine.doctor import inspect_machine, machine_report
from stabn.errors import UserError
from stabn.training.advice import advise
from stabn.training.datamodule import ClipDataModule, total_steps
from stabn.training.loggers import TrackingRecipe
from stabn.training.module import TrainingModule
from stabn.training.profile import WARM_UP, time_clips, time_step, try_workers
from stabn.training.recipes import SMALL_AUGMENTATION, SMALL_OPTIMIZER, LoaderRecipe, NetworkRecipe, OptimizerRecipe
from stabn.training.train import build_datasets, build_network, check_can_train


def doctor_command() -> dict[str, Any]:
    """Print what this machine offers (decoders, torch, GPUs, cores, encoders) and what could be installed."""
    machine = inspect_machine()
    for line in machine_report(machine):
        print(line)
    return machine


def profile_command(
    data: DataSource = DataSource(),  # noqa: B008
    table: Path | None = None,
    steps: int = 20,
    preprocessing: Preprocessing = Preprocessing(Sampling("uniform", 16), resize=63, crop=56),  # noqa: B008
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
        network: architecture and initial weights.
        augmentation: random changes of training clips.
        optimizer: optimizer, learning rate and batches.
        loader: how clips are read.
        engine: device, precision and number of processes.
        tracking: accepted so that recipes for `stabn train` fit; nothing is logged.
        seed: for initialisation, batch order, augmentation and dropout.
    """
    if steps < 1:
        raise UserError(f"--steps: got {steps}, expected at least 1")
    if engine.devices not in ("auto", "1") or engine.nodes > 1:
        raise UserError(
            f"--engine.devices: got {engine.devices} on {engine.nodes} nodes, but one device is measured; give 1 and "
            "nodes 1, and its share of optimizer.batch_size"
        )
    engine = replace(engine, devices="1")
    check_can_train(engine, seed)
    clips = data.with_positional(table).table()
    seed_everything(seed, verbose=False)
    training_clips, validation_clips = build_datasets(clips, preprocessing, augmentation, loader, seed)
    model = build_network(network, preprocessing, clips.class_names)
    total = total_steps(len(training_clips), optimizer) + WARM_UP + steps
    module = TrainingModule(model, optimizer, total_steps=total, seed=seed)
    data_module = ClipDataModule(training_clips, validation_clips, optimizer.batch_size, loader)
    clip = time_clips(training_clips, loader)
    rates = {} if loader.cache else try_workers(data_module)
    step = time_step(module, data_module, engine, steps)
    sizes = {"resize": preprocessing.resize, "clips": len(training_clips)}
    suggestions = advise(step, clip, rates, engine, workers=data_module.workers, **sizes)
    print_profile(step, clip, rates, suggestions)
    return {
        "clips_per_step": step.clips,
        "steps": step.steps,
        "seconds_of_step": {part: round(seconds, 6) for part, seconds in step.seconds.items()},
        "seconds_of_clip": {"reading": round(clip.reading, 6), "fitting": round(clip.fitting, 6)},
        "clips_per_second_wanted": round(step.wanted, 3),
        "clips_per_second_by_workers": {str(workers): round(rate, 3) for workers, rate in rates.items()},
        "peak_gib": step.peak_gib and round(step.peak_gib, 3),
        "precision": engine.resolved_precision(),
        "advice": suggestions,
    }
