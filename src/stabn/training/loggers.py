"""The course of a training, written while it lasts: TensorBoard, CSV, MLflow, Weights & Biases; Lightning's loggers.

RUN/logs/csv/metrics.csv           a row per entry, and per epoch one more
RUN/logs/tensorboard               the same, for `tensorboard --logdir RUN/logs`
RUN/logs/runs.json                 the names that MLflow and Weights & Biases know the run by
"""

import csv
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from stabn.errors import UserError
from stabn.files import read_json, write_json
from stabn.nn.state_dict import first_line_of

LOGS = "logs"
INSTALLED_APART = ("mlflow", "wandb")
KINDS = ("tensorboard", "csv", *INSTALLED_APART)
ADDRESSES = {"mlflow": "MLFLOW_TRACKING_URI", "wandb": "WANDB_BASE_URL"}


@dataclass(frozen=True)
class TrackingRecipe:
    """Where the course of a training is written.

    Attributes:
        kind: with commas; tensorboard and csv write into the run's folder `logs`, mlflow and wandb (Weights & Biases)
            are libraries to be installed. none writes nothing.
        project: the experiment of MLflow, the project of Weights & Biases.
        name: what the run is called there; by default as its folder.
        address: of the server of MLflow or Weights & Biases; by default what MLFLOW_TRACKING_URI or WANDB_BASE_URL
            says, and else for MLflow a database in the run's folder.
        every: steps between two entries of loss and learning rate; there is one per epoch besides.
    """

    kind: str = "tensorboard,csv"
    project: str = "stabn"
    name: str | None = None
    address: str | None = None
    every: int = 10

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f"tracking.kind: got {kind!r}, expected none, or some of {','.join(KINDS)}")
        if self.every < 1:
            raise UserError(f"tracking.every: got {self.every}, expected at least 1 step")
        servers = [kind for kind in self.kinds if kind in ADDRESSES]
        if self.address is not None and len(servers) != 1:
            raise UserError(
                f"tracking.address: got {self.address}, which is for mlflow or wandb, one of them; "
                f"{' and '.join(ADDRESSES.values())} say both"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The parts of `kind`."""
        if self.kind.strip() in ("none", ""):
            return ()
        return tuple(dict.fromkeys(part.strip() for part in self.kind.split(",")))

    def check(self) -> None:
        """Find out before anything is written whether it can be.

        Raises:
            UserError: a library is not installed.
        """
        for kind in self.kinds:
            if kind in INSTALLED_APART and find_spec(kind) is None:
                raise UserError(f"tracking.kind: got {self.kind}, but {kind} is not installed; pip install {kind}")


class MetricsLogger(Callback):
    """Gives Lightning's trainer its loggers, and writes to them; kept in no checkpoint, so that it changes nothing.

    A training that goes on from a checkpoint goes on in the same files, in which what came after the checkpoint is
    replaced. MLflow and Weights & Biases take nothing back: they have these steps twice.

    A logger that fails during training is named on stderr and left out; training goes on.

    Args:
        tracking: where.
        out: the run's folder.
        recipe: how the run is trained; noted beside the figures.
    """

    def __init__(self, tracking: TrackingRecipe, out: Path, recipe: Mapping[str, Any]) -> None:
        self.tracking = tracking
        self.out = out
        self.recipe = {name: value for name, value in recipe.items() if name != "tracking"}
        self._rate = 0.0
        self._noted = 0  # the last step with an entry

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin, or go on; the trainer knows by now how many steps are done.

        Raises:
            UserError: MLflow or Weights & Biases cannot be reached.
        """
        if not trainer.is_global_zero:
            return
        opened = []
        for kind in self.tracking.kinds:
            try:
                opened.append(self._logger(kind, trainer.global_step))
            except Exception as error:  # noqa: BLE001 - each library has errors of its own
                raise UserError(
                    f"tracking.kind: {kind} cannot be written to ({first_line_of(error)}); see to that, or leave it out "
                    "and give the same command again"
                ) from None
        trainer.loggers = opened

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look at the learning rate while it is this step's."""
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write an entry now and then."""
        step = trainer.global_step
        if not trainer.loggers or step % self.tracking.every or step == self._noted or "clips" not in (outputs or ()):
            return
        self._noted = step
        # The sums are over the clips of all processes, the loss itself is not.
        losses = [float(value) for name, value in outputs.items() if name not in ("loss", "clips", "top1")]
        self.record(trainer, {"step_loss": sum(losses) / float(outputs["clips"]), "learning_rate": self._rate})

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have on disk whatever a training that goes on from here will not write again."""
        for logger in list(trainer.loggers):
            self._tried(trainer, logger, logger.save)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Let go."""
        self._part(trainer, 1)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Likewise."""
        self._part(trainer, 0)

    def record(self, trainer: Trainer, figures: Mapping[str, float]) -> None:
        """Write an entry for the steps that are done."""
        step = trainer.global_step
        for logger in list(trainer.loggers):
            self._tried(trainer, logger, lambda logger=logger: logger.log_metrics(dict(figures), step))

    def _tried(self, trainer: Trainer, logger: Logger, write: Any) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001 - each library has errors of its own
            told = f"{type(logger).__name__} failed ({first_line_of(error)}); training goes on without it"
            print(f"tracking: {told}", file=sys.stderr, flush=True)
            trainer.loggers = [other for other in trainer.loggers if other is not logger]

    def _part(self, trainer: Trainer, status: int) -> None:
        # A run of Weights & Biases belongs to the process; the next training in it would be taken for the same run.
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=status)

    def _logger(self, kind: str, done: int) -> Logger:
        logger: Logger
        if kind == "tensorboard":
            # Readers of the files leave out what earlier ones say of steps from `purge_step` on.
            logger = TensorBoardLogger(self.out, name=LOGS, version=kind, default_hp_metric=False, purge_step=done + 1)
        elif kind == "csv":
            logger = _csv_logger(self.out, done)
        else:
            return self._server(kind)
        logger.log_hyperparams(self.recipe)
        return logger

    def _server(self, kind: str) -> Logger:
        """A logger of MLflow or Weights & Biases: the one that the run had before, if it is there that it is wanted."""
        address = self.tracking.address or os.environ.get(ADDRESSES[kind])
        if kind == "mlflow" and address is None:
            address = f"sqlite:///{(self.out / LOGS).absolute()}/mlflow.db"
        there = {"address": address, "project": self.tracking.project}
        file = self.out / LOGS / "runs.json"
        noted = read_json(file, remedy="remove it") if file.exists() else {}
        before = noted.get(kind, {})
        known = before["id"] if all(before.get(key) == value for key, value in there.items()) else None
        name = self.tracking.name or self.out.absolute().name
        (self.out / LOGS).mkdir(exist_ok=True)
        logger: MLFlowLogger | WandbLogger
        if kind == "mlflow":
            logger = MLFlowLogger(self.tracking.project, name, address, run_id=known)
            run = logger.run_id
        else:
            run = known or secrets.token_hex(4)
            settings = {} if address is None else {"settings": _wandb_settings(address)}
            logger = WandbLogger(name, self.out / LOGS, project=self.tracking.project, id=run, **settings)
            _ = logger.experiment  # connects
        if known is None:
            logger.log_hyperparams(self.recipe)
            write_json(file, noted | {kind: {"id": run, **there}})
        return logger


def _wandb_settings(address: str) -> Any:
    import wandb  # installed where it is asked for

    return wandb.Settings(base_url=address)


def _csv_logger(out: Path, done: int) -> CSVLogger:
    """A logger that begins with the rows of the steps that are done; Lightning's own begins with none."""
    file = out / LOGS / "csv" / "metrics.csv"
    kept = file.with_name("metrics-before.csv")
    # The file of before has a name of its own until the new one has its rows, whenever the power fails.
    if file.exists() and not kept.exists():
        file.replace(kept)
    logger = CSVLogger(out, name=LOGS, version="csv", flush_logs_every_n_steps=1)
    logger.experiment.metrics = _rows_until(kept, done)
    logger.save()
    kept.unlink(missing_ok=True)
    return logger


def _rows_until(file: Path, done: int) -> list[dict[str, Any]]:
    """The complete rows of steps up to `done`."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8", errors="replace") as lines:
        rows = list(csv.DictReader(lines))
    complete = [row for row in rows if None not in row and None not in row.values() and row.get("step", "").isdecimal()]
    return [row for row in complete if int(row["step"]) <= done]
