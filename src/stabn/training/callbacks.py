"""Callbacks of training: clips that cannot be read, timed checkpoints, progress.json and curves.json."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from stabn.data.clip_batch import ClipBatch, SkippedClip
from stabn.data.quality.unreadable import SkipCounter
from stabn.errors import NotFiniteError, UserError
from stabn.files import write_json
from stabn.training.loggers import MetricsLogger

PROGRESS_INTERVAL = 0.5
"""Seconds between two writings of progress.json."""
STEPS_PER_READING = 100
"""Steps between two readings of the losses, each of which waits for the GPU."""


class SkippedClips(Callback):
    """Counts clips that cannot be read, over all epochs and processes; its counts are part of checkpoints.

    Args:
        path: the file that lists the clips; written only if there are any.
        clips: number of clips in the splits "train" and "validation".
        share: of them that may be broken, as for `SkipCounter`.

    Attributes:
        count: clips that the last epoch went without, in all processes.
    """

    def __init__(self, path: Path, clips: dict[str, int], share: float | None) -> None:
        self.path = path
        self.counter = SkipCounter(clips, share)
        self.count = 0
        self._skipped: list[tuple[str, SkippedClip]] = []  # (split, clip) of this epoch and process
        self._any_read = False  # whether this process read a training clip in this epoch

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        """Count the skipped clips of a training batch.

        Raises:
            UserError: there are too many.
        """
        self._any_read |= len(batch.clip_ids) > 0
        self._add(trainer, "train", batch.skipped)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: ClipBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the skipped clips of a validation batch; errors as for training."""
        self._add(trainer, "validation", batch.skipped)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Gather the counts of all processes.

        Raises:
            UserError: there are too many, or no training clip could be read in any process.
        """
        gathered = [(self._skipped, self._any_read)]
        if trainer.world_size > 1:
            gathered = [([], False)] * trainer.world_size
            torch.distributed.all_gather_object(gathered, (self._skipped, self._any_read))
        for rank, (of_process, _) in enumerate(gathered):
            if rank != trainer.global_rank:
                for split, clip in of_process:
                    self.counter.add(split, [clip], tell=False)
        self.count = len({(split, clip.clip_id) for of_process, _ in gathered for split, clip in of_process})
        self._skipped, self._any_read = [], False
        self._write(trainer)
        if not any(any_read for _, any_read in gathered):
            raise UserError(f"epoch {trainer.current_epoch + 1}: no training clip could be read; see {self.path}")

    def state_dict(self) -> dict[str, Any]:
        """The counts so far, for a checkpoint."""
        seen = [[split, clip.clip_id, clip.path, clip.reason] for split, clip in self._skipped]
        return {"clips": self.counter.as_json(), "seen": seen, "learnt": self._any_read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts of a checkpoint."""
        self.counter.load(state["clips"])
        self._skipped = [(split, SkippedClip(*clip)) for split, *clip in state["seen"]]
        self._any_read = state["learnt"]

    def _add(self, trainer: Trainer, split: str, skipped: tuple[SkippedClip, ...]) -> None:
        if not skipped:
            return
        self._skipped += [(split, clip) for clip in skipped]
        try:
            self.counter.add(split, skipped)
        finally:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and len(self.counter):
            write_json(self.path, {"format": "stabn-skipped/1", "clips": self.counter.as_json()})


class TimedCheckpoint(ModelCheckpoint):
    """Saves every so often between two steps, but not at the last batch of an epoch.

    A training resumed there would miss the epoch's validation; the checkpoint at the end of the epoch follows at once.
    """

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if it is time and the gradients of all accumulated batches have been applied."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)


class ProgressFile(Callback):
    """Writes epoch and step to a file for other processes; not part of checkpoints, so it changes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = -math.inf

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the file unless that was done less than `PROGRESS_INTERVAL` ago."""
        if not trainer.is_global_zero or time.monotonic() < self._written + PROGRESS_INTERVAL:
            return
        self._written = time.monotonic()
        progress = {
            "epoch": trainer.current_epoch + 1,
            "epochs": trainer.max_epochs,
            "step": batch_idx + 1,
            "steps": int(trainer.num_training_batches),
        }
        write_json(self.path, progress)


class TrainingClock(Callback):
    """Measures how long a training took over all its processes one after another; part of checkpoints."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """Since the training began, without the time in which it was interrupted."""
        return self._before + time.monotonic() - self._begun

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the seconds of a checkpoint."""
        self._before = state["seconds"]


def _finite(name: str, value: float) -> float:
    """The value of a loss or a measure.

    Raises:
        NotFiniteError: it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise NotFiniteError(f"{name}: got {value}, expected a finite number")
    return value


class LossCurves(Callback):
    """Writes curves.json and logs a line per epoch; its sums are part of checkpoints, also in the middle of an epoch.

    Attributes:
        epochs: an entry of curves.json per complete epoch.
    """

    def __init__(self, path: Path, skipped: SkippedClips, metrics_logger: MetricsLogger | None) -> None:
        self.path = path
        self.skipped = skipped
        self.metrics_logger = metrics_logger
        self.epochs: list[dict[str, Any]] = []
        self._sums: dict[str, Any] = {}  # numbers, and of the counts by class (K,) float64 on the CPU
        self._unread: list[dict[str, Any]] = []  # outputs of steps, perhaps still on a GPU

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints; the class was called so in earlier versions."""
        return "_Curves"

    def state_dict(self) -> dict[str, Any]:
        """The complete epochs, and the sums of the current one."""
        self._read()
        return {"epochs": self.epochs, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.epochs, self._sums = list(state["epochs"]), dict(state["sums"])

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep a step's sums.

        Raises:
            NotFiniteError: a loss is NaN or infinite.
        """
        if outputs and "clips" in outputs:
            self._unread.append({name: value.detach() for name, value in outputs.items()})
        if len(self._unread) == STEPS_PER_READING:
            self._read()

    def _read(self) -> None:
        for outputs in self._unread:
            for name, value in outputs.items():
                read = value.double().cpu() if value.ndim else _finite(name, float(value))
                self._sums[name] = self._sums.get(name, 0.0) + read
        self._unread = []

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the epoch's entry.

        Raises:
            NotFiniteError: a loss or a measure is NaN or infinite.
        """
        self._read()
        sums, self._sums = self._sums, {}
        clips = sums.pop("clips")
        sums["loss"] = sums.pop("recognition")  # Eq. 4 alone, so that it compares with the validation loss
        right, class_clips = (sums.pop(name, torch.zeros(1)) for name in ("class_right", "class_clips"))
        validation = {n: float(value) for n, value in trainer.callback_metrics.items() if n.startswith("validation_")}
        means = {f"train_{name}": value / clips for name, value in sums.items()}
        if class_clips.sum() == clips:  # not in an epoch that a version without these counts began
            means["train_mean_class_accuracy"] = float((right / class_clips)[class_clips > 0].mean())
        means |= validation
        entry: dict[str, Any] = {"epoch": trainer.current_epoch + 1}
        entry |= {name: round(_finite(name, value), 6) for name, value in means.items()}
        if self.skipped.count:
            entry["skipped"] = self.skipped.count
        self.epochs.append(entry)
        if trainer.is_global_zero:
            write_json(self.path, {"format": "stabn-curves/1", "epochs": self.epochs})
            if self.metrics_logger is not None:
                self.metrics_logger.record(trainer, entry)
            figures = (f"{name} {value:.3f}" for name, value in entry.items() if isinstance(value, float))
            skipped = f"  skipped {self.skipped.count}" if self.skipped.count else ""
            line = f"epoch {entry['epoch']}/{trainer.max_epochs}  {'  '.join(figures)}{skipped}"
            logging.getLogger(__name__).info(line)
