"""Verbs about this machine: what it offers, and where the time of a training goes here."""

from dataclasses import replace
from typing import Any

from lightning.pytorch import seed_everything

from stabn.cli.printing import print_table
from stabn.data.annotations.source import DataSource
from stabn.data.sampling import Sampling
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.engine.config import EngineRecipe
from stabn.engine.doctor import inspect_machine, machine_report
from stabn.errors import UserError
from stabn.training.recipes import SMALL_AUGMENTATION, SMALL_OPTIMIZER, LoaderRecipe, NetworkRecipe, OptimizerRecipe
from stabn.training.datamodule import ClipDataModule, total_steps
from stabn.training.loggers import TrackingRecipe
from stabn.training.module import TrainingModule
from stabn.training.profile import WARM_UP, advise, profile_context, time_clips, time_step, try_workers
from stabn.training.train import check_can_train, build_network, build_datasets


def doctor_command() -> dict[str, Any]:
    """Say what this machine offers: decoders, torch, GPUs, cores, encoders; and what could be installed."""
    found = inspect_machine()
    for line in machine_report(found):
        print(line)
    return found


_BAR = 40
"""Characters of a whole step."""


def profile_command(
    data: DataSource,
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
    """Tell where the time of a training step goes on this machine, and what to change.

    Give it the recipe and the options of `stabn train`, but for --out. It trains for a few steps with your clips on one
    device and forgets them, reads some clips one by one, and tries how many clips different numbers of workers prepare.
    Nothing is written.

    Args:
        data: the labelled videos.
        steps: how many are measured.
        preprocessing: how videos become clips.
        network: which network.
        augmentation: how training clips are varied.
        optimizer: how weights move.
        loader: how clips reach the network.
        engine: on what it runs.
        tracking: as for `stabn train`; says nothing here.
        seed: of all chance.
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
    table = data.table()
    seed_everything(seed, verbose=False)
    learnt, measured = build_datasets(table, preprocessing, augmentation, loader, seed)
    model = build_network(network, preprocessing, table.class_names)
    module = TrainingModule(model, optimizer, total_steps=total_steps(len(learnt), optimizer) + WARM_UP + steps, seed=seed)
    feeding = ClipDataModule(learnt, measured, optimizer.batch_size, loader)
    clip = time_clips(learnt, loader)
    rates = {} if loader.cache else try_workers(feeding)
    step = time_step(module, feeding, engine, steps)
    told = advise(step, clip, rates, profile_context(feeding, engine))
    print(f"a step of {step.clips} clips, the mean of {step.steps}:")
    rows = [
        (part, f"{1000 * spent:.1f}", f"{spent / step.total:.0%}", ("#" * round(_BAR * spent / step.total)).ljust(_BAR))
        for part, spent in step.seconds.items()
    ]
    print_table(("part", "ms", "share", ""), [*rows, ("together", f"{1000 * step.total:.1f}", "", "")])
    print(
        f"a clip, in the process that prepares it: {1000 * clip.reading:.1f} ms reading {clip.num_frames} frames of "
        f"{clip.short_side} pixels, {1000 * clip.fitting:.1f} ms resizing and cropping"
    )
    if rates:
        print(f"the network could take {step.wanted:.1f} clips/s; prepared are, where nothing else runs:")
        print_table(("workers", "clips/s"), [(str(workers), f"{rate:.1f}") for workers, rate in rates.items()])
    if step.peak_gib is not None:
        print(f"highest memory: {step.peak_gib:.2f} GiB")
    print("\n".join(["what to change:", *told] if told else ["nothing stands out: the network is what takes the time"]))
    return {
        "clips_per_step": step.clips,
        "steps": step.steps,
        "seconds_of_step": {part: round(spent, 6) for part, spent in step.seconds.items()},
        "seconds_of_clip": {"reading": round(clip.reading, 6), "fitting": round(clip.fitting, 6)},
        "clips_per_second_wanted": round(step.wanted, 3),
        "clips_per_second_by_workers": {str(workers): round(rate, 3) for workers, rate in rates.items()},
        "peak_gib": step.peak_gib and round(step.peak_gib, 3),
        "precision": engine.chosen_precision(),
        "advice": told,
    }
