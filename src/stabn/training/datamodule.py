"""Batches whose order depends only on the seed and the epoch, and which can be resumed from any batch.

A clip that cannot be read is missing from its batch (`stabn.data.quality.unreadable`); the number of batches stays.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Sampler

from stabn.data.class_balance import balanced_weights
from stabn.data.clip_batch import ClipBatch, collate
from stabn.data.dataset import VideoDataset
from stabn.data.feature_store import KeptDataset
from stabn.data.quality.unreadable import SkipUnreadable
from stabn.data.video.reader import Reader, init_reader_process
from stabn.engine.device import core_count
from stabn.engine.trainer import shard_indices
from stabn.training.recipes import LoaderRecipe, OptimizerRecipe

_MOST_WORKERS = 8
_EPOCHS_APART = 2**32


class _EpochBatches(Sampler[list[tuple[int, int]]]):
    """This process's shards of the shuffled batches of one epoch, without the first `skip` and an incomplete last one.

    Items are (epoch, index of the clip). With `probabilities`, (length,), clips are drawn by these, with repetitions;
    a clip's repetitions have the number of a distant epoch, so that each is augmented in another way.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        epoch: int,
        trainer: Trainer | None,
        probabilities: np.ndarray | None = None,
    ) -> None:
        self.rows = shard_indices(trainer, min(batch_size, length))
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.probabilities = probabilities
        self.skip = 0

    def __len__(self) -> int:
        return steps_per_epoch(self.length, self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        items = self._order()
        for start in range(self.skip * self.batch_size, len(self) * self.batch_size, self.batch_size):
            yield [items[start + row] for row in self.rows]

    def _order(self) -> list[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.probabilities is None:
            return [(self.epoch, index) for index in rng.permutation(self.length).tolist()]
        draws = Counter[int]()
        items = []
        for index in rng.choice(self.length, self.length, p=self.probabilities).tolist():
            items.append((self.epoch + draws[index] * _EPOCHS_APART, index))
            draws[index] += 1
        return items


def total_steps(length: int, optimizer: OptimizerRecipe) -> int:
    """Optimizer steps of a whole training on `length` clips; an epoch's last step may accumulate fewer batches."""
    return math.ceil(steps_per_epoch(length, optimizer.batch_size) / optimizer.accumulate) * optimizer.epochs


def steps_per_epoch(length: int, batch_size: int) -> int:
    """Whole batches of an epoch; a data set smaller than a batch is one batch."""
    return max(1, length // batch_size)


class ResumableLoader(DataLoader[ClipBatch]):
    """A loader of one epoch after another, whose state is the position in the current epoch.

    Lightning saves and restores the state. Worker processes persist from epoch to epoch. If `balanced`, all classes
    that have clips are equally likely at every place of a batch.
    """

    def __init__(
        self,
        dataset: VideoDataset | KeptDataset,
        batch_size: int,
        workers: int,
        trainer: Trainer | None = None,
        *,
        balanced: bool = False,
    ) -> None:
        probabilities = None
        if balanced:
            labels = [sample.label for sample in dataset.samples]
            probabilities = balanced_weights(dataset.class_counts)[labels] / len(labels)
        self.batches = _EpochBatches(len(dataset), batch_size, dataset.seed, dataset.epoch, trainer, probabilities)
        super().__init__(
            SkipUnreadable(dataset),
            batch_sampler=self.batches,
            persistent_workers=workers > 0,  # their readers remember which files are intact
            **loader_options(workers, trainer),
        )
        self.position = 0

    def at_epoch(self, epoch: int) -> "ResumableLoader":
        """This loader, at the beginning of an epoch."""
        self.batches.epoch, self.batches.skip = epoch, 0
        return self

    def __iter__(self) -> Any:
        self.position = self.batches.skip
        for batch in super().__iter__():
            self.position += 1
            yield batch
        self.batches.skip = 0

    def state_dict(self) -> dict[str, int]:
        """The number of batches that the epoch has yielded."""
        return {"given": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after as many batches."""
        self.batches.skip = state["given"]


def loader_options(workers: int, trainer: Trainer | None) -> dict[str, Any]:
    """Arguments of a `DataLoader` of clips: workers, and pinned memory where the trainer is on a GPU."""
    on_gpu = trainer is not None and trainer.strategy.root_device.type == "cuda"
    return {
        "num_workers": workers,
        "collate_fn": collate,
        "pin_memory": on_gpu,  # page-locked memory, which a GPU copies from while it computes
        "worker_init_fn": init_reader_process,
    }


class ClipDataModule(LightningDataModule):
    """The training split, in another order every epoch, and the validation split.

    If `balanced`, the clips of an epoch are drawn so that all classes are equally likely.
    """

    def __init__(
        self,
        training_set: VideoDataset,
        validation_set: VideoDataset,
        batch_size: int,
        loader: LoaderRecipe,
        *,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        self._reader = Reader(loader.timeout, loader.decoder)
        self.training_set, self.validation_set = (s.with_reader(self._reader) for s in (training_set, validation_set))
        self.batch_size = batch_size
        self.loader = loader
        self.balanced = balanced
        self._training: ResumableLoader | None = None

    @property
    def workers(self) -> int:
        """The number of processes that prepare clips for this process."""
        if self.loader.workers != "auto":
            return self.loader.workers
        if self.loader.cache or self.trainer is None or self.trainer.strategy.root_device.type == "cpu":
            return 0
        return max(1, min(_MOST_WORKERS, core_count() // self.trainer.num_devices - 1))

    def train_dataloader(self) -> ResumableLoader:
        """The batches of the trainer's current epoch."""
        if self._training is None:
            arguments = (self.training_set, self.batch_size, self.workers, self.trainer)
            self._training = ResumableLoader(*arguments, balanced=self.balanced)
        return self._training.at_epoch(0 if self.trainer is None else self.trainer.current_epoch)

    def val_dataloader(self) -> DataLoader[ClipBatch]:
        """This process's shard of the validation clips, in order."""
        return DataLoader(
            SkipUnreadable(self.validation_set),
            self.batch_size,
            sampler=shard_indices(self.trainer, len(self.validation_set)),
            persistent_workers=self.workers > 0,
            **loader_options(self.workers, self.trainer),
        )

    def teardown(self, stage: str) -> None:
        """End the worker processes."""
        self._training = None
        self._reader.close()
