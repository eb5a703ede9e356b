"""Training a network from data to a finished run; fine-tuning shares the loop."""

import logging
import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from stabn.data.annotations.source import DataSource
from stabn.data.class_balance import (
    balanced_weights,
    baseline_notes,
    missing_class_notes,
    single_clip_notes,
    without_clips,
)
from stabn.data.dataset import Table, VideoDataset
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.engine.config import EngineRecipe
from stabn.engine.stop_signals import finish_step
from stabn.engine.trainer import StopBetweenSteps, build_trainer, progress_bar, silence_lightning
from stabn.errors import NotFiniteError, UserError, list_differences
from stabn.files import is_first_process, lock_folder
from stabn.nn import STABN, PlainNetwork, VideoNetwork, imagenet_state_dict, load_imagenet
from stabn.nn.backbones import backbone_class
from stabn.nn.fast_inference import supports_fast_inference
from stabn.nn.weights import start_from
from stabn.runs import read_run, write_run
from stabn.training.callbacks import LossCurves, ProgressFile, SkippedClips, TimedCheckpoint, TrainingClock
from stabn.training.datamodule import ClipDataModule, total_steps
from stabn.training.distributed import SyncBatchNorm, process_count
from stabn.training.kept_features import KeepFeatures, features_folder
from stabn.training.loggers import MetricsLogger, TrackingRecipe
from stabn.training.module import TrainingModule
from stabn.training.recipes import LoaderRecipe, NetworkRecipe, OptimizerRecipe

logger = logging.getLogger(__name__)

SAVE_EVERY = timedelta(minutes=2)
CHECKPOINTS = "checkpoints"
PROGRESS = "progress.json"
SKIPPED = "skipped.json"


def train(
    out: Path,
    data: DataSource,
    *,
    preprocessing: Preprocessing,
    network: NetworkRecipe,
    augmentation: Augmentation,
    optimizer: OptimizerRecipe,
    loader: LoaderRecipe,
    engine: EngineRecipe,
    seed: int,
    held_out: Collection[str] = (),
    class_names: Sequence[str] | None = None,
    keep: bool = False,
    tracking: TrackingRecipe = TrackingRecipe("none"),  # noqa: B008
) -> dict[str, Any]:
    """Train a network on the split "train" and write it to `out`, resuming an interrupted training of the same recipe.

    The network of the last epoch is kept: choosing an epoch by the validation split would bias the report's accuracy
    on that split.

    With `held_out`, ids of training clips, these are not trained on and replace the validation split. With
    `class_names` the network has these classes, of which the data may lack some. With `keep` a run that the same
    training has finished is left as it is.

    Returns:
        As `fit_run`; {} if a finished run was kept.

    Raises:
        UserError: data or settings are wrong, or `out` holds something else.
    """
    recipe = {
        "network": network.as_json(),
        "preprocessing": preprocessing.as_json(),
        **shared_recipe_as_json(augmentation, optimizer, loader, engine, tracking, seed),
    }
    if network.keeps_features:
        recipe["views"] = loader.views
    if held_out:
        recipe["held_out"] = sorted(held_out)
    if class_names is not None:
        recipe["class_names"] = list(class_names)
    if keep and (previous_run := read_run(out)) is not None and previous_run["complete"]:
        _check_same_training(out, previous_run, data, recipe)
        return {}
    table = data.table() if class_names is None else data.table().with_class_names(class_names)
    if len(table.class_names) < 2:
        raise UserError(f"{data.annotations}: has {len(table.class_names)} class, expected at least 2 to tell apart")
    tracking.check()
    check_can_train(engine, seed)
    seed_everything(seed, verbose=False)
    model = build_network(network, preprocessing, table.class_names)
    if model.backbone.format.flow and augmentation != Augmentation():
        raise UserError(
            f"augmentation: got {augmentation}, but {network.backbone} reads optical flow, whose pixels must not be "
            "mirrored or recoloured; give --augmentation.jitter 0 --augmentation.hue 0 --augmentation.flip false"
        )
    views = loader.views if network.keeps_features else 0
    training_set, validation_set = build_datasets(
        table, preprocessing, augmentation, loader, seed, held_out, stored_views=views
    )
    side = math.ceil(preprocessing.crop / 32)
    if min(optimizer.batch_size, len(training_set)) * preprocessing.sampling.frames * side**2 < 2:
        raise UserError("optimizer.batch_size: got one frame of one clip per step; batch norm needs more")
    module = build_module(model, network, training_set, optimizer, seed)
    data_module = build_data_module(training_set, validation_set, optimizer, loader)
    return fit_run(module, data_module, out, data, recipe, engine, tracking, keep_features=network.keeps_features)


def build_module(
    model: VideoNetwork,
    network: NetworkRecipe,
    training_set: VideoDataset,
    optimizer: OptimizerRecipe,
    seed: int,
    further_steps: int = 0,
) -> TrainingModule:
    """The training of a new network by a recipe, `further_steps` longer than the recipe says.

    Raises:
        UserError: as `frozen_modules`.
    """
    return TrainingModule(
        model,
        optimizer,
        total_steps=total_steps(len(training_set), optimizer) + further_steps,
        seed=seed,
        class_weights=class_weights(optimizer, training_set),
        frozen=frozen_modules(model, network),
        thaw=network.thaw,
    )


def frozen_modules(model: VideoNetwork, network: NetworkRecipe) -> tuple[nn.Module, ...]:
    """The modules that a recipe freezes.

    Raises:
        UserError: the base network has fewer stages.
    """
    if network.freeze == "none":
        return ()
    if network.freeze == "extractor":
        return model.extractor
    stages = model.backbone.stages()
    if network.freeze >= len(stages):
        raise UserError(
            f"network.freeze: got {network.freeze}, but {network.backbone} has the stages {', '.join(stages)}; leave "
            "at least the last one to train"
        )
    return tuple(module for modules in list(stages.values())[: network.freeze] for module in modules)


def build_datasets(
    table: Table,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    loader: LoaderRecipe,
    seed: int,
    held_out: Collection[str] = (),
    **edits: Any,
) -> tuple[VideoDataset, VideoDataset]:
    """The training set, to which `edits` are further arguments, and the validation set; arguments as for `train`.

    Raises:
        UserError: the table has no such split.
    """
    training, validation = table.of_split("train"), () if held_out else table.of_split("validation")
    if held_out:
        validation = tuple(sample for sample in training if sample.clip_id in held_out)
        training = tuple(sample for sample in training if sample.clip_id not in held_out)
    common: dict[str, Any] = {"class_names": table.class_names, "seed": seed, "cache": loader.cache}
    return (
        VideoDataset(training, preprocessing, augmentation=augmentation, **common, **edits),
        VideoDataset(validation, preprocessing, **common),
    )


def class_weights(optimizer: OptimizerRecipe, training_set: VideoDataset) -> np.ndarray | None:
    """(K,) factors of the recognition loss, if the recipe balances classes by weights."""
    return balanced_weights(training_set.class_counts) if optimizer.class_balance == "weights" else None


def build_data_module(
    training_set: VideoDataset, validation_set: VideoDataset, optimizer: OptimizerRecipe, loader: LoaderRecipe
) -> ClipDataModule:
    """The batches of a recipe."""
    balanced = optimizer.class_balance == "sampling"
    return ClipDataModule(training_set, validation_set, optimizer.batch_size, loader, balanced=balanced)


def build_network(network: NetworkRecipe, preprocessing: Preprocessing, class_names: tuple[str, ...]) -> VideoNetwork:
    """The recipe's network before training; seed torch before the call.

    Raises:
        UserError: there is no such base network, it does not take such clips, or its weights cannot be read.
    """
    family = backbone_class(network.backbone)
    arguments: dict[str, Any] = {
        "architecture": network.backbone,
        "num_classes": len(class_names),
        "frames": preprocessing.sampling.frames,
        "dropout": network.dropout,
        "class_names": class_names,
        "preprocessing": preprocessing.as_json(),
        "backbone_options": family.options_of_clips(
            network.backbone, network.weights, preprocessing.sampling.frames, preprocessing.crop
        ),
    }
    model: VideoNetwork
    try:
        model = STABN(**arguments, mechanism=network.mechanism) if network.attention else PlainNetwork(**arguments)
    except UserError as error:
        if not str(error).startswith("frames: "):
            raise
        raise UserError(f"--preprocessing.sampling.{error}") from None
    _check_clips(model, preprocessing)
    if network.weights is not None and network.inflation == "average":
        load_imagenet(model, imagenet_state_dict(network.weights), inflation="average")
    elif network.weights is not None:
        line = start_from(model, network.weights)
        if is_first_process():
            logger.warning("note: %s", line)
    return model


def _check_clips(model: VideoNetwork, preprocessing: Preprocessing) -> None:
    """Check that the base network takes the recipe's clips.

    Raises:
        UserError: it takes others.
    """
    wanted, frames, crop = model.backbone.format, preprocessing.sampling.frames, preprocessing.crop
    try:
        model.backbone.check_clip(torch.empty(1, 3, frames, crop, crop, device="meta"))
    except ValueError as error:
        expected = str(error).partition("expected ")[2]
        raise UserError(
            f"preprocessing: got clips of {frames} frames of {crop} x {crop}, but {model.architecture} expects "
            f"{expected}; give --preprocessing.sampling.frames {wanted.frames} --preprocessing.crop {wanted.size}, or "
            "leave both out"
        ) from None


def check_can_train(engine: EngineRecipe, seed: int) -> None:
    """Check engine and seed before anything is written.

    Raises:
        UserError: this machine has no such engine, or the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed: got {seed}, expected 0..{2**32 - 1}")
    with silence_lightning():
        build_trainer(engine)


def shared_recipe_as_json(
    augmentation: Augmentation,
    optimizer: OptimizerRecipe,
    loader: LoaderRecipe,
    engine: EngineRecipe,
    tracking: TrackingRecipe,
    seed: int,
) -> dict[str, Any]:
    """The parts of a recipe that training and fine-tuning share, as JSON values."""
    return {
        "augmentation": asdict(augmentation),
        "optimizer": optimizer.as_json(),
        "loader": asdict(loader) | ({"features": str(Path(loader.features).absolute())} if loader.features else {}),
        "engine": asdict(engine),
        "tracking": asdict(tracking),
        "seed": seed,
    }


def fit_run(
    module: TrainingModule,
    data_module: ClipDataModule,
    out: Path,
    data: DataSource,
    recipe: Mapping[str, Any],
    engine: EngineRecipe,
    tracking: TrackingRecipe,
    *,
    keep_features: bool = False,
    **origin: Any,
) -> dict[str, Any]:
    """Start or resume the training of a run, and mark the run as complete at the end; `origin` is as for `write_run`.

    Notes on missing classes and on figures that are not above a trivial network's are logged.

    Returns:
        As `fit_network`, and "no_validation_clips": names of the classes that the validation split lacks, and "notes":
        what was logged.

    Raises:
        UserError: `out` holds a finished run, or one with another recipe or other data; or as `fit_network`.
    """
    previous_run = read_run(out)
    if previous_run is not None:
        if previous_run["complete"]:
            raise UserError(f"{out}: holds a finished run; choose another --out, or remove it to train again")
        _check_same_training(out, previous_run, data, recipe)
    validation, names = data_module.validation_set.class_counts, data_module.validation_set.class_names
    counts = {"train": data_module.training_set.class_counts}
    if "held_out" not in recipe:  # whose folds are for predictions alone
        counts["validation"] = validation
    notes = missing_class_notes(counts, names) + single_clip_notes(counts, names)
    _log_notes(notes)
    write_run(out, data, recipe, complete=False, **origin)
    with lock_folder(out, remedy="choose another --out"), finish_step():
        metrics = fit_network(
            module, data_module, out, engine, MetricsLogger(tracking, out, recipe), keep_features=keep_features
        )
        write_run(out, data, recipe, complete=True, seconds=metrics.pop("seconds"), **origin)
        # Only now, so that an interrupted run can be resumed.
        if is_first_process():
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
            (out / PROGRESS).unlink(missing_ok=True)
    if "held_out" not in recipe:
        figures = (metrics["validation_top1"], metrics["validation_mean_class_accuracy"])
        trivial = baseline_notes("validation", *figures, validation, names)
        _log_notes(trivial)
        notes += trivial
    return metrics | {"no_validation_clips": without_clips(validation, names), "notes": notes}


def _log_notes(notes: Sequence[str]) -> None:
    if is_first_process():
        for note in notes:
            logger.warning("note: %s", note)


def _check_same_training(
    out: Path, previous_run: Mapping[str, Any], data: DataSource, recipe: Mapping[str, Any]
) -> None:
    """Check that a run.json is of the same data and recipe; engine, loader and tracking may differ.

    Raises:
        UserError: it is not.
    """
    state = "a finished run" if previous_run["complete"] else "an unfinished run"
    compared = {key: value for key, value in recipe.items() if key not in ("engine", "loader", "tracking")}
    differences = []
    for part, values, above in (("recipe", compared, ""), ("data", asdict(data.absolute()), "data")):
        previous = {key: previous_run[part].get(key) for key in values}
        if previous.get("held_out") != values.get("held_out"):
            differences.append("other clips held out")
            values["held_out"] = previous["held_out"]
        differences += list_differences(previous, values, above)
    if differences:
        raise UserError(
            f"{out}: holds {state} with other options: {'; '.join(differences)}; give its options, choose another "
            "--out, or remove it to train again"
        )


def fit_network(
    module: TrainingModule,
    data_module: ClipDataModule,
    out: Path,
    engine: EngineRecipe,
    metrics_logger: MetricsLogger | None = None,
    *,
    keep_features: bool = False,
) -> dict[str, Any]:
    """Run all epochs and save the network in `out`.

    A checkpoint is written every two minutes and at the end of each epoch; a training resumed from it ends with the
    same weights, on a CPU bit by bit. curves.json gets an entry per epoch, and progress.json the current step. Clips
    that cannot be read are left out and listed in skipped.json. With `keep_features` the frozen extractor runs once per
    clip and view (`KeepFeatures`).

    Returns:
        The last epoch's entry of curves.json, "skipped": how many clips were left out at any time, and "seconds" of
        training, without what was lost when it was interrupted.

    Raises:
        UserError: more clips cannot be read than the loader's recipe allows; training diverged; there are more
            processes than clips in a batch; or another process ended.
    """
    last = out / CHECKPOINTS / "last.ckpt"
    clips = {"train": len(data_module.training_set), "validation": len(data_module.validation_set)}
    skipped = SkippedClips(out / SKIPPED, clips, data_module.loader.broken)
    curves = LossCurves(out / "curves.json", skipped, metrics_logger)
    loader = data_module.loader
    store = features_folder(out, loader)
    callbacks: list[Callback] = [
        *([KeepFeatures(store, loader)] if keep_features and loader.views else []),
        skipped,
        curves,
        *([] if metrics_logger is None else [metrics_logger]),
        ProgressFile(out / PROGRESS),
        clock := TrainingClock(),
        StopBetweenSteps(last),
        TimedCheckpoint(last.parent, last.stem, enable_version_counter=False, train_time_interval=SAVE_EVERY),
        ModelCheckpoint(last.parent, last.stem, enable_version_counter=False, save_on_train_epoch_end=True),
        *progress_bar(),
    ]
    module.configure_engine(engine)
    engine.log_settings(can_fold=supports_fast_inference(module.model))
    if engine.precision == "64-true":
        module.double()  # Lightning does this only after it has read the checkpoint, whose weights would be rounded
    with silence_lightning():
        trainer = build_trainer(
            engine,
            plugins=[SyncBatchNorm()],
            accumulate_grad_batches=module.optimizer.accumulate,
            default_root_dir=out,
            max_epochs=module.optimizer.epochs,
            callbacks=callbacks,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
        )
        fewest = min(module.optimizer.batch_size, *clips.values())
        if trainer.world_size > fewest:
            raise UserError(
                f"engine.devices: got {trainer.world_size} processes in all, but a batch, or the validation split, has "
                f"only {fewest} clips to share; take fewer"
            )
        unsharded = deepcopy(module.model) if engine.strategy == "fsdp" else None
        checkpoint = last if last.exists() else None
        try:
            trainer.fit(module, datamodule=data_module, ckpt_path=checkpoint, weights_only=True)
        except NotFiniteError as error:
            raise UserError(
                f"{out}: training diverged in epoch {trainer.current_epoch + 1} ({error}); choose another --out and a "
                "smaller --optimizer.learning_rate"
            ) from error
        except RuntimeError as error:
            if "shared memory" in str(error):
                raise UserError(
                    "--loader.workers: they need more shared memory than there is; give fewer, or 0, or allow more (in "
                    "a container: --shm-size)"
                ) from error
            if process_count() == 1:
                raise
            raise UserError(
                f"{out}: another process of this training ended ({str(error).splitlines()[0]}); give the same command "
                "again to resume from the last checkpoint"
            ) from error
    model = module.model if unsharded is None else _load_checkpoint(unsharded, last)
    model.checkpoint_activations(False)
    model.checkpoint_norms(False)
    if trainer.is_global_zero:
        model.cpu().float().eval().save_pretrained(out)
    return curves.epochs[-1] | {"skipped": len(skipped.counter), "seconds": clock.seconds}


def _load_checkpoint(model: VideoNetwork, checkpoint: Path) -> VideoNetwork:
    """The network with the weights of a checkpoint: after FSDP, whose processes hold only pieces of them."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    )
    return model
