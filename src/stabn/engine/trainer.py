"""Lightning's trainer, set up in one place for training, prediction and measurement, without its notes."""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.plugins.precision import DoublePrecision

from stabn.engine.config import EngineRecipe
from stabn.engine.device import device_of
from stabn.engine.stop_signals import StopSignal, seconds_since_request, stop_requested, take_stop_signals
from stabn.errors import UserError
from stabn.memory import keep_freed_memory, keep_freed_memory_later
from stabn.nn.fast_inference import DTYPES, Network, for_inference, supports_fast_inference


class _Double(DoublePrecision):
    """The network in double precision; batches, which are frozen values, are converted where they are used."""

    def convert_input(self, data: Any) -> Any:
        return data


class _KeepFreedMemory(Callback):
    """Keeps freed memory from the end of the first optimizer step on."""

    def __init__(self) -> None:
        self._first_step: int | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._first_step = trainer.global_step + 1
        keep_freed_memory_later()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._first_step:
            self._first_step = None
            keep_freed_memory()


class _OurSignals(Callback):
    """Lets SIGTERM stop a trainer like Ctrl-C; Lightning's own handler would end with status 0."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        take_stop_signals()

    def on_predict_start(self, trainer: Trainer, module: LightningModule) -> None:
        take_stop_signals()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        # Lightning kills the other processes, too, but then its observer kills this one because they have died.
        processes = getattr(trainer.strategy.launcher, "procs", None)
        if isinstance(exception, KeyboardInterrupt) and processes:
            for process in processes:
                process.kill()
                process.wait()
            processes.clear()


class StopBetweenSteps(Callback):
    """Saves a checkpoint after the step in which the process was told to end, and ends the training.

    All processes stop after the same step. Validation is finished first, because a training that is resumed there would
    miss it; what one process validates alone is given up after `VALIDATION_PATIENCE`.

    Args:
        checkpoint: the file from which the training is resumed.
    """

    VALIDATION_PATIENCE = 20.0
    """Seconds from the signal on; then the training goes on from the last checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """End the training if a signal has come; the last epoch is saved.

        Raises:
            StopSignal: always then.
        """
        if (number := self._number(trainer)) is not None:
            epochs = f"{trainer.current_epoch} of {trainer.max_epochs} epochs are saved"
            raise StopSignal(number, f"{epochs}; give the same command again to go on")

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end the training if a signal has come; after the last step of an epoch validation comes first.

        Raises:
            StopSignal: always then.
        """
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if is_last or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if (number := self._number(trainer)) is not None:
            trainer.save_checkpoint(self.checkpoint)
            done = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs} is saved up to step {batch_idx + 1}"
            raise StopSignal(number, f"{done}; give the same command again to go on")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End a validation that takes long.

        Raises:
            StopSignal: always then.
        """
        number = stop_requested()
        if number is not None and trainer.world_size == 1 and seconds_since_request() > self.VALIDATION_PATIENCE:
            raise StopSignal(number, "the last checkpoint is kept; give the same command again to go on")

    def _number(self, trainer: Trainer) -> int | None:
        """The signal that any process has received; a collective call of all processes."""
        number = stop_requested() or 0
        if trainer.world_size > 1:
            most = torch.tensor(number, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
            number = int(most)
        return number or None


def build_trainer(
    engine: EngineRecipe, plugins: Sequence[Any] = (), callbacks: Sequence[Callback] = (), **options: Any
) -> Trainer:
    """A trainer on the engine.

    Args:
        engine: device, processes and precision.
        plugins: of Lightning.
        callbacks: of Lightning.
        **options: further arguments of `Trainer`.

    Raises:
        UserError: this machine has no such engine.
    """
    if engine.keeps_memory() and device_of(engine.accelerator).type == "cpu":
        keep_freed_memory()  # for prediction, which has no steps
        callbacks = [*callbacks, _KeepFreedMemory()]
    double = engine.precision == "64-true"
    try:
        return Trainer(
            accelerator=engine.accelerator,
            devices=int(engine.devices) if engine.devices.isdecimal() else engine.devices,
            strategy=engine.strategy,
            num_nodes=engine.nodes,
            plugins=[*plugins, _Double()] if double else [*plugins],
            callbacks=[_OurSignals(), *callbacks],
            precision=None if double else engine.resolved_precision(),  # type: ignore[arg-type]
            use_distributed_sampler=False,  # our loaders shard clips themselves, each exactly once
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            **options,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise UserError(f"engine: got {asdict(engine)}, which this machine lacks ({error}); try auto") from None


def build_predictor(model: Network, engine: EngineRecipe, **options: Any) -> tuple[Network, Trainer]:
    """The network in the form that predicts fastest on the engine, and a trainer to run it.

    Returns:
        The network, the model itself or a copy, in evaluation mode and on the model's device; and a trainer under whose
        precision plugin clips have to be in the dtype of the network's first weights.

    Raises:
        UserError: this machine has no such engine.
    """
    can_fold = supports_fast_inference(model)
    engine.log_settings(can_fold=can_fold)
    precision = engine.resolved_precision()
    # A copy has its precision in its weights; autocast would only convert everything back and forth.
    autocast: Any = "32-true" if engine.fast and precision in DTYPES and can_fold else precision
    trainer = build_trainer(replace(engine, precision=autocast), **options)
    return for_inference(model, precision, trainer.strategy.root_device, fast=engine.fast), trainer


def shard_indices(trainer: Trainer | None, count: int) -> range:
    """This process's contiguous share of 0..count-1; together the processes have each index once."""
    rank, world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
    return range(count * rank // world, count * (rank + 1) // world)


def progress_bar() -> list[Callback]:
    """A progress bar on a terminal, and none in a file."""
    return [TQDMProgressBar(leave=False)] if sys.stderr.isatty() else []


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Suppress Lightning's greetings and advice, and let signals raise KeyboardInterrupt instead of SystemExit."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
        # with several processes: about memory layout, and for one without a readable validation clip
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        warnings.filterwarnings("ignore", message=r"The ``compute`` method of metric .* was called before")
        try:
            yield
        except SystemExit as stopped:
            # Lightning exits on signals; the command line says how to resume.
            if isinstance(stopped.__context__, KeyboardInterrupt):
                raise stopped.__context__ from None
            if (number := stop_requested()) is not None:
                raise StopSignal(number) from None
            raise
        finally:
            logger.setLevel(level)
