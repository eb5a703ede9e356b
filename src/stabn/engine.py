"""Lightning, set up once for every verb: on what the work runs, and how much of it is told."""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.plugins.precision import DoublePrecision

from stabn.errors import UserError
from stabn.files import first_process
from stabn.nn.answering import Network
from stabn.pace import DTYPES, can_quicken, device_of, examine, keep_freed_memory, precision_of, quick, told


@dataclass(frozen=True)
class EngineRecipe:
    """On what the work runs; Lightning's own words.

    Attributes:
        accelerator: auto, cpu, gpu, ...
        devices: auto or how many; with more than one, as many processes work together.
        strategy: auto, ddp (each process has the whole network) or fsdp (it is cut into pieces; GPUs).
        nodes: machines; start the same command on each, by torchrun for instance, on a file system that they share.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true; auto is bf16-mixed where the device computes bfloat16
            itself and 32-true elsewhere, and 32-true for accuracies and other measurements.
        recompute: in training, compute activations again in place of keeping them: much less memory for a third more
            time, the same numbers.
        fast: False computes in the plain way: float32, PyTorch's own memory layout, every operation by itself. It is
            the reference for what True (docs/speed.md) gives faster.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    nodes: int = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"] = "auto"
    recompute: bool = False
    fast: bool = True

    def chosen_precision(self) -> str:
        """What `precision` means on this machine; never auto."""
        return precision_of(self.precision, self.accelerator, fast=self.fast)

    def announce(self) -> None:
        """Say on stderr, once, how it computes here, unless that is the plain way."""
        if self.fast:
            _say(told(examine(self.accelerator, self.precision)))

    def settled(self) -> "EngineRecipe":
        """The same with the precision that auto means on this machine, for whoever asks several machines."""
        precision: Any = self.chosen_precision()
        return replace(self, precision=precision)

    def measuring(self) -> "EngineRecipe":
        """The same for measurements, which bfloat16 enters only where somebody asks for it."""
        return replace(self, precision="32-true") if self.precision == "auto" else self


@cache
def _say(line: str) -> None:
    if first_process():
        print(line, file=sys.stderr, flush=True)


class _Double(DoublePrecision):
    """The network in double precision; batches of ours are converted where they are used, being frozen values."""

    def convert_input(self, data: Any) -> Any:
        return data


def build_trainer(engine: EngineRecipe, plugins: Sequence[Any] = (), **options: Any) -> Trainer:
    """A trainer on the engine.

    Raises:
        UserError: this machine has no such engine.
    """
    if engine.fast and device_of(engine.accelerator).type == "cpu":
        keep_freed_memory()
    double = [_Double()] if engine.precision == "64-true" else []
    try:
        return Trainer(
            accelerator=engine.accelerator,
            devices=int(engine.devices) if engine.devices.isdecimal() else engine.devices,
            strategy=engine.strategy,
            num_nodes=engine.nodes,
            **(
                {"plugins": [*plugins, _Double()]}
                if double
                else {"plugins": [*plugins], "precision": engine.chosen_precision()}
            ),
            use_distributed_sampler=False,  # the loaders give each process its part themselves, every clip once
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            **options,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise UserError(f"engine: got {asdict(engine)}, which is not to be had here ({error}); try auto") from None


def build_answerer(model: Network, engine: EngineRecipe, **options: Any) -> tuple[Network, Trainer]:
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
    within: Any = "32-true" if engine.fast and precision in DTYPES and can_quicken(model) else precision
    trainer = build_trainer(replace(engine, precision=within), **options)
    return quick(model, precision, trainer.strategy.root_device, fast=engine.fast), trainer


def share_of(trainer: Trainer | None, count: int) -> range:
    """Which of so many things, in order, this process takes; together the processes take each of them once."""
    rank, world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
    return range(count * rank // world, count * (rank + 1) // world)


def progress_bar() -> list[Callback]:
    """A bar where a person watches, nothing where a file does."""
    return [TQDMProgressBar(leave=False)] if sys.stderr.isatty() else []


@contextmanager
def quietly() -> Iterator[None]:
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
