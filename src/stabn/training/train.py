"""From data to a run: `train`, and the loop that `finetune` shares with it."""

import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from stabn.data.annotations.source import DataSource
from stabn.data.dataset import Table, VideoDataset
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.engine.config import EngineRecipe
from stabn.engine.trainer import build_trainer, progress_bar, silence_lightning
from stabn.errors import NotFiniteError, UserError
from stabn.files import lock_folder, is_first_process
from stabn.nn import STABN, ResNet3D, imagenet_state_dict, load_imagenet
from stabn.runs import read_run, write_run
from stabn.training.callbacks import SkippedClips, LossCurves, ProgressFile, TimedCheckpoint
from stabn.training.recipes import LoaderRecipe, NetworkRecipe, OptimizerRecipe
from stabn.training.datamodule import ClipDataModule, total_steps
from stabn.training.distributed import SyncBatchNorm, process_count
from stabn.training.loggers import MetricsLogger, TrackingRecipe
from stabn.training.module import TrainingModule

SAVE_EVERY = timedelta(minutes=2)
CHECKPOINTS = "checkpoints"
PROGRESS = "progress.json"
SKIPPED = "skipped.json"
ELSEWHERE = "choose another --out"


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
    """Train a network on the split "train" and write it to `out`; goes on where an interrupted training stopped.

    The network of the last epoch is kept: choosing an epoch by the validation split would spoil that split for the
    report. With `held_out`, ids of training clips, these are not learnt but take the place of the validation split.
    With `class_names` the network has these classes, of which the data may lack some; else those of the data. With
    `keep` a run that the same training has finished already is left as it is.

    Returns:
        What was reached: the last epoch's entry of curves.json, and "skipped" as for `fit_network`; nothing where it was kept.

    Raises:
        UserError: data or settings are wrong, or `out` holds something else.
    """
    recipe = {
        "network": asdict(network),
        "preprocessing": preprocessing.as_json(),
        "augmentation": asdict(augmentation),
        "optimizer": optimizer_as_json(optimizer),
        "loader": asdict(loader),
        "engine": asdict(engine),
        "tracking": asdict(tracking),
        "seed": seed,
    }
    if held_out:
        recipe["held_out"] = sorted(held_out)
    if class_names is not None:
        recipe["class_names"] = list(class_names)
    if keep and (before := read_run(out)) is not None and before["complete"]:
        _check_same(out, before, data, recipe)
        return {}
    table = data.table() if class_names is None else data.table().numbered(class_names)
    if len(table.class_names) < 2:
        raise UserError(f"{data.annotations}: has {len(table.class_names)} class, expected at least 2 to tell apart")
    tracking.check()
    check_can_train(engine, seed)
    seed_everything(seed, verbose=False)
    model = build_network(network, preprocessing, table.class_names)
    training_set, validation_set = build_datasets(table, preprocessing, augmentation, loader, seed, held_out)
    side = math.ceil(preprocessing.crop / 32)
    if min(optimizer.batch_size, len(training_set)) * preprocessing.sampling.frames * side**2 < 2:
        raise UserError("optimizer.batch_size: got one frame of one clip per step; batch norm needs more")
    claim_run_folder(out, data, recipe)
    module = TrainingModule(model, optimizer, total_steps=total_steps(len(training_set), optimizer), seed=seed)
    feeding = ClipDataModule(training_set, validation_set, optimizer.batch_size, loader)
    with lock_folder(out, remedy=ELSEWHERE):
        reached = fit_network(module, feeding, out, engine, MetricsLogger(tracking, out, recipe))
        complete_run(out, data, recipe)
    return reached


def build_datasets(
    table: Table,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    loader: LoaderRecipe,
    seed: int,
    held_out: Collection[str] = (),
) -> tuple[VideoDataset, VideoDataset]:
    """What `train` learns, and what it measures after each epoch.

    Raises:
        UserError: the table has no such split.
    """
    learnt, measured = table.of_split("train"), () if held_out else table.of_split("validation")
    if held_out:
        measured = tuple(sample for sample in learnt if sample.clip_id in held_out)
        learnt = tuple(sample for sample in learnt if sample.clip_id not in held_out)
    training_set, validation_set = (
        VideoDataset(
            samples, preprocessing, class_names=table.class_names, augmentation=varied, seed=seed, cache=loader.cache
        )
        for samples, varied in ((learnt, augmentation), (measured, None))
    )
    return training_set, validation_set


def build_network(network: NetworkRecipe, preprocessing: Preprocessing, class_names: tuple[str, ...]) -> ResNet3D:
    """The recipe's network as it is before training: random but for inflated weights; seed before."""
    shape: Any = (
        network.architecture,
        len(class_names),
        preprocessing.sampling.frames,
        network.dropout,
        class_names,
        preprocessing.as_json(),
    )
    model = STABN(*shape, mechanism=network.mechanism) if network.attention else ResNet3D(*shape)
    if network.imagenet is not None:
        load_imagenet(model, imagenet_state_dict(network.imagenet), inflation=network.inflation)
    return model


def check_can_train(engine: EngineRecipe, seed: int) -> None:
    """Find out before anything is written whether training can start.

    Raises:
        UserError: the engine is not to be had, or the seed is negative.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed: got {seed}, expected 0..{2**32 - 1}")
    with silence_lightning():
        build_trainer(engine)


def optimizer_as_json(optimizer: OptimizerRecipe) -> dict[str, Any]:
    """A recipe's part as JSON gives it back."""
    return asdict(optimizer) | {"milestones": list(optimizer.milestones)}


def optimizer_from_json(value: Mapping[str, Any]) -> OptimizerRecipe:
    """The recipe that `optimizer_as_json` wrote."""
    return OptimizerRecipe(**{**value, "milestones": tuple(value["milestones"])})


def claim_run_folder(out: Path, data: DataSource, recipe: Mapping[str, Any], **origin: Any) -> None:
    """Claim `out` for a run with this recipe, new or interrupted.

    Raises:
        UserError: `out` holds a finished run, or one with another recipe or other data.
    """
    before = read_run(out)
    if before is not None:
        if before["complete"]:
            raise UserError(f"{out}: holds a finished run; choose another --out, or remove it to train anew")
        _check_same(out, before, data, recipe)
    write_run(out, data, recipe, complete=False, **origin)


def _check_same(out: Path, before: Mapping[str, Any], data: DataSource, recipe: Mapping[str, Any]) -> None:
    """Find out whether the run in `out`, whose run.json is `before`, learns from this data what this recipe says.

    On what it runs, with how many workers, and who is told may be different.

    Raises:
        UserError: it does not.
    """
    state = "a finished run" if before["complete"] else "an unfinished run"
    learnt = {key: value for key, value in recipe.items() if key not in ("engine", "loader", "tracking")}
    for part, wanted in (("recipe", learnt), ("data", asdict(data.absolute()))):
        for key, value in wanted.items():
            known = before[part].get(key)
            if known != value:
                differ = f"{key} = {known}, now asked for {value}"
                if key == "held_out":
                    differ = "other clips held out"
                raise UserError(f"{out}: holds {state} with {differ}; choose another --out, or remove it to train anew")


def complete_run(out: Path, data: DataSource, recipe: Mapping[str, Any], **origin: Any) -> None:
    """Note that a run is complete, and only then remove what an interrupted one would go on from."""
    write_run(out, data, recipe, complete=True, **origin)
    if is_first_process():
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        (out / PROGRESS).unlink(missing_ok=True)


def fit_network(
    module: TrainingModule, feeding: ClipDataModule, out: Path, engine: EngineRecipe, recorder: MetricsLogger | None = None
) -> dict[str, Any]:
    """Run all epochs and save the network in `out`.

    Every two minutes and at each epoch's end a checkpoint is written; an interrupted run that goes on from it ends
    with the same weights, on a CPU bit by bit. curves.json gets an entry per epoch; progress.json says how far it is.
    Clips that cannot be read are left out; skipped.json lists them. A recorder writes loss and accuracy, too, for
    whoever watches.

    Raises:
        UserError: more clips cannot be read than the loader's recipe allows.

    Returns:
        The last epoch's entry of curves.json, and "skipped": how many clips were left out at any time.
    """
    last = out / CHECKPOINTS / "last.ckpt"
    clips = {"train": len(feeding.training_set), "validation": len(feeding.validation_set)}
    skipped = SkippedClips(out / SKIPPED, clips, feeding.loader.broken)
    curves = LossCurves(out / "curves.json", skipped, recorder)
    callbacks: list[Callback] = [
        skipped,
        curves,
        *([] if recorder is None else [recorder]),
        ProgressFile(out / PROGRESS),
        TimedCheckpoint(last.parent, last.stem, enable_version_counter=False, train_time_interval=SAVE_EVERY),
        ModelCheckpoint(last.parent, last.stem, enable_version_counter=False, save_on_train_epoch_end=True),
        *progress_bar(),
    ]
    module.suit(engine)
    engine.announce()
    if engine.precision == "64-true":
        module.double()  # before Lightning does, which reads an interrupted run's weights first and would round them
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
        bare = deepcopy(module.model) if engine.strategy == "fsdp" else None
        try:
            trainer.fit(module, datamodule=feeding, ckpt_path=last if last.exists() else None, weights_only=True)
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
                "again to go on from the last checkpoint"
            ) from error
    model = module.model if bare is None else _gathered(bare, last)
    model.activation_checkpointing = False
    model.checkpoint_norms(False)
    if trainer.is_global_zero:
        model.cpu().float().eval().save_pretrained(out)
    return curves.epochs[-1] | {"skipped": len(skipped.tally)}


def _gathered(bare: ResNet3D, last: Path) -> ResNet3D:
    """The network whose pieces lie on many devices, from the whole of it in the last epoch's checkpoint."""
    state = torch.load(last, map_location="cpu", weights_only=True)["state_dict"]
    bare.load_state_dict(
        {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    )
    return bare
