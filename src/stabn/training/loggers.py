"""Metrics of a training by Lightning's loggers: TensorBoard, CSV, MLflow, Weights & Biases.

RUN/logs/csv/metrics.csv           a row per entry, and per epoch one more
RUN/logs/tensorboard               the same, for `tensorboard --logdir RUN/logs`
RUN/logs/runs.json                 the run's ids at MLflow and Weights & Biases
"""

import csv
import logging
import os
import secrets
from collections.abc import Callable, Mapping
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
COUNTS = ("clips", "top1", "class_right", "class_clips")
"""What a training step gives besides its losses."""
SERVERS = {"mlflow": "MLFLOW_TRACKING_URI", "wandb": "WANDB_BASE_URL"}
"""Optional libraries -> the environment variable with their server's address."""
KINDS = ("tensorboard", "csv", *SERVERS)


@dataclass(frozen=True)
class TrackingRecipe:
    """Where the metrics of a training are logged.

    Attributes:
        kind: loggers, separated by commas; tensorboard and csv write into the run's folder `logs`, mlflow and wandb
            (Weights & Biases) need their libraries. none logs nothing.
        project: the experiment of MLflow, the project of Weights & Biases.
        name: of the run there; by default that of its folder.
        address: of the server of MLflow or Weights & Biases; by default MLFLOW_TRACKING_URI or WANDB_BASE_URL, and
            without these for MLflow a database in the run's folder.
        every: steps between two entries of loss and learning rate, at least 1; each epoch has an entry, too.
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
        if self.address is not None and sum(kind in SERVERS for kind in self.kinds) != 1:
            raise UserError(
                f"tracking.address: got {self.address}, which is for one of mlflow and wandb; for both set "
                f"{' and '.join(SERVERS.values())}"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names in `kind`."""
        if self.kind.strip() in ("none", ""):
            return ()
        return tuple(dict.fromkeys(part.strip() for part in self.kind.split(",")))

    def check(self) -> None:
        """Check before anything is written that the libraries are there.

        Raises:
            UserError: a library is not installed.
        """
        for kind in self.kinds:
            if kind in SERVERS and find_spec(kind) is None:
                raise UserError(f"tracking.kind: got {self.kind}, but {kind} is not installed; pip install {kind}")


class MetricsLogger(Callback):
    """Creates the trainer's loggers and logs metrics; not part of checkpoints, so it changes nothing.

    A training resumed from a checkpoint continues the same files, and replaces in them what came after the checkpoint.
    MLflow and Weights & Biases cannot take steps back and have them twice.

    A logger that fails during training is named on stderr and left out; training goes on.

    Args:
        tracking: which loggers.
        out: the run's folder.
        recipe: the run's recipe, logged as hyperparameters.
    """

    def __init__(self, tracking: TrackingRecipe, out: Path, recipe: Mapping[str, Any]) -> None:
        self.tracking = tracking
        self.out = out
        self.recipe = {name: value for name, value in recipe.items() if name != "tracking"}
        self._rate = 0.0
        self._last_step = 0  # with an entry

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the loggers, now that the trainer knows how many steps are done.

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
                    f"tracking.kind: {kind} cannot be written to ({first_line_of(error)}); correct that, or leave it "
                    "out, and give the same command again"
                ) from None
        trainer.loggers = opened

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the learning rate of this step; at its end the scheduler has set the next one."""
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log loss and learning rate every few steps."""
        step = trainer.global_step
        if step % self.tracking.every or step == self._last_step or "clips" not in (outputs or ()):
            return
        self._last_step = step
        # Sums over the clips of all processes; outputs["loss"] is this process's alone.
        losses = [float(value) for name, value in outputs.items() if name not in ("loss", *COUNTS)]
        self.record(trainer, {"step_loss": sum(losses) / float(outputs["clips"]), "learning_rate": self._rate})

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write buffered entries to disk: a training resumed from this checkpoint does not log them again."""
        for logger in list(trainer.loggers):
            self._try(trainer, logger, logger.save)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """End the loggers with a failure."""
        self._finish(trainer, 1)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """End the loggers with success."""
        self._finish(trainer, 0)

    def record(self, trainer: Trainer, figures: Mapping[str, float]) -> None:
        """Log metrics at the current step."""
        step = trainer.global_step
        for logger in list(trainer.loggers):
            self._try(trainer, logger, lambda logger=logger: logger.log_metrics(dict(figures), step))

    def _try(self, trainer: Trainer, logger: Logger, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001 - each library has errors of its own
            logging.getLogger(__name__).warning(
                "tracking: %s failed (%s); training goes on without it", type(logger).__name__, first_line_of(error)
            )
            trainer.loggers = [other for other in trainer.loggers if other is not logger]

    def _finish(self, trainer: Trainer, status: int) -> None:
        # A run of Weights & Biases belongs to the process; the next training in it would continue the same run.
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=status)

    def _logger(self, kind: str, steps_done: int) -> Logger:
        logger: Logger
        if kind == "tensorboard":
            # Readers ignore entries of earlier files from `purge_step` on.
            purge_step = steps_done + 1
            logger = TensorBoardLogger(self.out, LOGS, version=kind, default_hp_metric=False, purge_step=purge_step)
        elif kind == "csv":
            logger = _csv_logger(self.out, steps_done)
        else:
            return self._server(kind)
        logger.log_hyperparams(self.recipe)
        return logger

    def _server(self, kind: str) -> Logger:
        """A logger of MLflow or Weights & Biases, of the run's earlier id if address and project are the same."""
        folder = self.out / LOGS
        folder.mkdir(exist_ok=True)
        address = self.tracking.address or os.environ.get(SERVERS[kind])
        if kind == "mlflow" and address is None:
            address = f"sqlite:///{folder.absolute()}/mlflow.db"
        project, name = self.tracking.project, self.tracking.name or self.out.absolute().name
        file = folder / "runs.json"
        runs = read_json(file, remedy="remove it") if file.exists() else {}
        previous = runs.get(kind, {})
        same = (previous.get("address"), previous.get("project")) == (address, project)
        run_id: str | None = previous["id"] if same else None
        logger: MLFlowLogger | WandbLogger
        if kind == "mlflow":
            logger = MLFlowLogger(project, name, address, run_id=run_id)
            new_id = logger.run_id
        else:
            new_id = run_id or secrets.token_hex(4)
            import wandb  # an optional dependency

            settings: dict[str, Any] = {} if address is None else {"settings": wandb.Settings(base_url=address)}
            logger = WandbLogger(name, folder, project=project, id=new_id, **settings)
            _ = logger.experiment  # connects
        if run_id is None:
            logger.log_hyperparams(self.recipe)
            write_json(file, runs | {kind: {"id": new_id, "address": address, "project": project}})
        return logger


def _csv_logger(out: Path, steps_done: int) -> CSVLogger:
    """A logger that begins with the rows of the steps that are done; Lightning's own begins empty."""
    file = out / LOGS / "csv" / "metrics.csv"
    previous = file.with_name("metrics-before.csv")
    # The previous file has another name until the new one has its rows, so that a power failure loses none.
    if file.exists() and not previous.exists():
        file.replace(previous)
    logger = CSVLogger(out, LOGS, version="csv", flush_logs_every_n_steps=1)
    if previous.exists():
        with previous.open(newline="", encoding="utf-8", errors="replace") as lines:
            # A killed process may have left its last row incomplete.
            complete = [row for row in csv.DictReader(lines) if None not in row and None not in row.values()]
        rows = [row for row in complete if row.get("step", "").isdecimal() and int(row["step"]) <= steps_done]
        logger.experiment.metrics = rows
        logger.save()
        previous.unlink()
    return logger
