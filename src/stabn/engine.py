"""Lightning, set up once for every verb: on what the work runs, and how much of it is told."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from stabn.errors import UserError


@dataclass(frozen=True)
class EngineRecipe:
    """On what the work runs; Lightning's own words.

    Attributes:
        accelerator: auto, cpu, gpu, ...
        devices: auto or how many.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"


def build_trainer(engine: EngineRecipe, **options: Any) -> Trainer:
    """A trainer on the engine.

    Raises:
        UserError: this machine has no such engine.
    """
    try:
        return Trainer(
            accelerator=engine.accelerator,
            devices=int(engine.devices) if engine.devices.isdecimal() else engine.devices,
            precision=engine.precision,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            **options,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise UserError(f"engine: got {asdict(engine)}, which is not to be had here ({error}); try auto") from None


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
        try:
            yield
        except SystemExit as stopped:
            # Lightning answers Ctrl-C with an exit of its own; the command line wants to say how to go on.
            if isinstance(stopped.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            logger.setLevel(level)
