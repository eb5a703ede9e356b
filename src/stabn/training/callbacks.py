"""Clips that training had to leave out: named as they come, counted, and listed in the run's folder."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from stabn.data.dataset import ClipBatch, SkippedClip
from stabn.data.quality.unreadable import SkipCounter
from stabn.errors import NotFiniteError, UserError
from stabn.files import write_json
from stabn.training.loggers import MetricsLogger


class SkippedClips(Callback):
    """Keeps a `SkipCounter` over all epochs and processes; kept in checkpoints, too.

    Args:
        path: the file that lists the clips; written only where there are any.
        clips: how many the splits "train" and "validation" have.
        share: of them that may be broken, as for `SkipCounter`.
    """

    def __init__(self, path: Path, clips: dict[str, int], share: float | None) -> None:
        self.path = path
        self.tally = SkipCounter(clips, share)
        self._seen: list[tuple[str, SkippedClip]] = []  # in this epoch, by this process
        self._learnt = False  # whether any clip was, in this epoch
        self.count = 0

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        """Count those of a batch.

        Raises:
            UserError: there are too many.
        """
        self._learnt |= len(batch.clip_ids) > 0
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
        """Likewise."""
        self._add(trainer, "validation", batch.skipped)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Bring the processes' counts together; `count` is then how many clips the epoch went without.

        Raises:
            UserError: there are too many, or not one clip could be learnt.
        """
        everyone = [(self._seen, self._learnt)]
        if trainer.world_size > 1:
            everyone = [([], False)] * trainer.world_size
            torch.distributed.all_gather_object(everyone, (self._seen, self._learnt))
        for rank, (seen, _) in enumerate(everyone):
            if rank != trainer.global_rank:
                for split, skipped in seen:
                    self.tally.add(split, [skipped], tell=False)
        self.count = len({(split, skipped.clip_id) for seen, _ in everyone for split, skipped in seen})
        learnt = any(learnt for _, learnt in everyone)
        self._seen, self._learnt = [], False
        self._write(trainer)
        if not learnt:
            raise UserError(f"epoch {trainer.current_epoch + 1}: no training clip could be read; see {self.path}")

    def state_dict(self) -> dict[str, Any]:
        """What was counted."""
        seen = [[split, skipped.clip_id, skipped.path, skipped.reason] for split, skipped in self._seen]
        return {"clips": self.tally.as_json(), "seen": seen, "learnt": self._learnt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.tally.load(state["clips"])
        self._seen = [(split, SkippedClip(*skipped)) for split, *skipped in state["seen"]]
        self._learnt = state["learnt"]

    def _add(self, trainer: Trainer, split: str, skipped: tuple[SkippedClip, ...]) -> None:
        if not skipped:
            return
        self._seen += [(split, one) for one in skipped]
        try:
            self.tally.add(split, skipped)
        finally:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and len(self.tally):
            write_json(self.path, {"format": "stabn-skipped/1", "clips": self.tally.as_json()})


TELL_EVERY = 0.5
"""Seconds between two writings of progress.json."""


READ_EVERY = 100
"""Steps between two readings of the losses, for which a GPU has to be waited for."""


class TimedCheckpoint(ModelCheckpoint):
    """Saves from time to time, between two steps, but not at an epoch's last batch.

    Resumed there, the epoch's validation would be lost; the epoch's own checkpoint follows at once.
    """

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)


class ProgressFile(Callback):
    """For whoever watches from outside; kept in no checkpoint, so that watching changes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told = -math.inf

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero or time.monotonic() < self.told + TELL_EVERY:
            return
        self.told = time.monotonic()
        progress = {
            "epoch": trainer.current_epoch + 1,
            "epochs": trainer.max_epochs,
            "step": batch_idx + 1,
            "steps": int(trainer.num_training_batches),
        }
        write_json(self.path, progress)


def _finite(name: str, value: float) -> float:
    """The value of a loss or a measure.

    Raises:
        NotFiniteError: it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise NotFiniteError(f"{name}: got {value}, expected a finite number")
    return value


class LossCurves(Callback):
    """One entry per epoch: a line for the reader and a row of curves.json; kept in checkpoints, mid-epoch included."""

    def __init__(self, path: Path, skipped: SkippedClips, recorder: MetricsLogger | None) -> None:
        self.path = path
        self.skipped = skipped
        self.recorder = recorder
        self.epochs: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}
        self._told: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        self._add_up()
        return {"epochs": self.epochs, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs, self.sums = list(state["epochs"]), dict(state["sums"])

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if outputs and "clips" in outputs:
            self._told.append({name: value.detach() for name, value in outputs.items()})
        if len(self._told) == READ_EVERY:
            self._add_up()

    def _add_up(self) -> None:
        for told in self._told:
            for name, value in told.items():
                self.sums[name] = self.sums.get(name, 0.0) + _finite(name, float(value))
        self._told = []

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._add_up()
        sums, self.sums = self.sums, {}
        clips = sums.pop("clips")
        entry: dict[str, Any] = {"epoch": trainer.current_epoch + 1}
        sums["loss"] = sums.pop("recognition")  # Eq. 4 alone, so that it compares with the validation loss
        entry |= {f"train_{name}": round(value / clips, 6) for name, value in sums.items()}
        entry |= {
            name: round(_finite(name, float(value)), 6)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation_")
        }
        if self.skipped.count:
            entry["skipped"] = self.skipped.count
        self.epochs.append(entry)
        if trainer.is_global_zero:
            write_json(self.path, {"format": "stabn-curves/1", "epochs": self.epochs})
            if self.recorder is not None:
                self.recorder.record(trainer, entry)
            figures = {name: f"{value:.3f}" for name, value in entry.items() if isinstance(value, float)}
            if self.skipped.count:
                figures["skipped"] = str(self.skipped.count)
            shown = "  ".join(f"{name} {value}" for name, value in figures.items())
            print(f"epoch {entry['epoch']}/{trainer.max_epochs}  {shown}", file=sys.stderr, flush=True)
