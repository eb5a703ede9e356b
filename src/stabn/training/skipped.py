"""Clips that training had to leave out: named as they come, counted, and listed in the run's folder."""

from pathlib import Path
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from stabn.data.datasets import ClipBatch, Skipped
from stabn.data.skipping import Tally
from stabn.errors import UserError
from stabn.files import write_json


class SkippedClips(Callback):
    """Keeps a `Tally` over all epochs and processes; kept in checkpoints, too.

    Args:
        path: the file that lists the clips; written only where there are any.
        clips: how many the splits "train" and "validation" have.
        share: of them that may be broken, as for `Tally`.
    """

    def __init__(self, path: Path, clips: dict[str, int], share: float | None) -> None:
        self.path = path
        self.tally = Tally(clips, share)
        self._seen: list[tuple[str, Skipped]] = []  # in this epoch, by this process
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
        self._seen = [(split, Skipped(*skipped)) for split, *skipped in state["seen"]]
        self._learnt = state["learnt"]

    def _add(self, trainer: Trainer, split: str, skipped: tuple[Skipped, ...]) -> None:
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
