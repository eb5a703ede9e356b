"""Lightning's trainer, set up in one place for training, prediction and measurement, without its notes."""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.plugins.precision import DoublePrecision

from stabn.engine.config import EngineRecipe
from stabn.engine.device import device_of
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
            callbacks=[*callbacks],
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
    engine.log_settings()
    precision = engine.resolved_precision()
    # A copy has its precision in its weights; autocast would only convert everything back and forth.
    autocast: Any = "32-true" if engine.fast and precision in DTYPES and supports_fast_inference(model) else precision
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
    """Suppress Lightning's greetings and advice, and let Ctrl-C raise KeyboardInterrupt."""
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
            # Lightning exits on Ctrl-C; the command line says how to resume.
            if isinstance(stopped.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            logger.setLevel(level)
