"""Lightning, set up once for every verb that needs it, and how much of its work is told."""

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
    """The network in double precision; batches of ours are converted where they are used, being frozen values."""

    def convert_input(self, data: Any) -> Any:
        return data


class _KeptMemory(Callback):
    """Freed memory is kept from the end of the first step on."""

    def __init__(self) -> None:
        self._first: int | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._first = trainer.global_step + 1
        keep_freed_memory_later()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._first:
            self._first = None
            keep_freed_memory()


def build_trainer(
    engine: EngineRecipe, plugins: Sequence[Any] = (), callbacks: Sequence[Callback] = (), **options: Any
) -> Trainer:
    """A trainer on the engine.

    Raises:
        UserError: this machine has no such engine.
    """
    if engine.keeps_memory() and device_of(engine.accelerator).type == "cpu":
        keep_freed_memory()  # for whoever only asks
        callbacks = [*callbacks, _KeptMemory()]
    double = engine.precision == "64-true"
    try:
        return Trainer(
            accelerator=engine.accelerator,
            devices=int(engine.devices) if engine.devices.isdecimal() else engine.devices,
            strategy=engine.strategy,
            num_nodes=engine.nodes,
            plugins=[*plugins, _Double()] if double else [*plugins],
            callbacks=[*callbacks],
            precision=None if double else engine.chosen_precision(),  # type: ignore[arg-type]
            use_distributed_sampler=False,  # the loaders give each process its part themselves, every clip once
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            **options,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise UserError(f"engine: got {asdict(engine)}, which is not to be had here ({error}); try auto") from None


def build_predictor(model: Network, engine: EngineRecipe, **options: Any) -> tuple[Network, Trainer]:
    """A network that gives the model's answers by the engine's fastest way, and the trainer to run it.

    Returns:
        The network, in evaluation mode, still where the model is: the model itself or a copy; and a trainer under whose
        precision plugin clips have to be in the dtype of the network's first weights.

    Raises:
        UserError: this machine has no such engine.
    """
    engine.announce()
    precision = engine.chosen_precision()
    # A copy has its precision in its weights; autocast on top would only convert everything back and forth.
    within: Any = "32-true" if engine.fast and precision in DTYPES and supports_fast_inference(model) else precision
    trainer = build_trainer(replace(engine, precision=within), **options)
    return for_inference(model, precision, trainer.strategy.root_device, fast=engine.fast), trainer


def shard_indices(trainer: Trainer | None, count: int) -> range:
    """Which of so many things, in order, this process takes; together the processes take each of them once."""
    rank, world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
    return range(count * rank // world, count * (rank + 1) // world)


def progress_bar() -> list[Callback]:
    """A bar where a person watches, nothing where a file does."""
    return [TQDMProgressBar(leave=False)] if sys.stderr.isatty() else []


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Without Lightning's greetings and its advice to its own users."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
        # of several processes: about layouts, and one whose validation clips could not be read
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        warnings.filterwarnings("ignore", message=r"The ``compute`` method of metric .* was called before")
        try:
            yield
        except SystemExit as stopped:
            # Lightning answers Ctrl-C with an exit of its own; the command line wants to say how to go on.
            if isinstance(stopped.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            logger.setLevel(level)
