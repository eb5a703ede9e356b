"""Batches in an order that depends on nothing but the seed and the epoch, from any batch on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from stabn.data.datasets import ClipBatch, VideoDataset, collate
from stabn.training.recipes import LoaderRecipe


class _Batches(Sampler[list[int]]):
    """Shuffled batches of one epoch; `done` of them are passed over. An incomplete last batch is left out."""

    def __init__(self, length: int, batch_size: int, seed: int, epoch: int) -> None:
        order = np.random.default_rng((seed, epoch)).permutation(length).tolist()
        count = steps_per_epoch(length, batch_size)
        self.batches = [order[i * batch_size : (i + 1) * batch_size] for i in range(count)]
        self.done = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches[self.done :])


def steps_per_epoch(length: int, batch_size: int) -> int:
    """Whole batches of an epoch; a data set smaller than a batch is one batch."""
    return max(1, length // batch_size)


class ResumableLoader(DataLoader[ClipBatch]):
    """A loader of one epoch whose state is how many batches it has given; Lightning saves and restores it."""

    def __init__(self, dataset: VideoDataset, batch_size: int, workers: int) -> None:
        self.sampled = _Batches(len(dataset), batch_size, dataset.seed, dataset.epoch)
        super().__init__(dataset, batch_sampler=self.sampled, num_workers=workers, collate_fn=collate)
        self.given = 0

    def __iter__(self) -> Any:
        self.given = self.sampled.done
        for batch in super().__iter__():
            self.given += 1
            yield batch
        self.sampled.done = 0

    def state_dict(self) -> dict[str, int]:
        """How many batches were given."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after so many batches."""
        self.sampled.done = state["given"]


class Feeding(LightningDataModule):
    """The training split, another order every epoch, and the validation split."""

    def __init__(
        self, training_set: VideoDataset, validation_set: VideoDataset, batch_size: int, loader: LoaderRecipe
    ) -> None:
        super().__init__()
        self.training_set = training_set
        self.validation_set = validation_set
        self.batch_size = batch_size
        self.loader = loader

    def train_dataloader(self) -> ResumableLoader:
        """The batches of the trainer's current epoch."""
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        return ResumableLoader(self.training_set.with_epoch(epoch), self.batch_size, self.loader.workers)

    def val_dataloader(self) -> DataLoader[ClipBatch]:
        """All validation clips in order."""
        return DataLoader(self.validation_set, self.batch_size, num_workers=self.loader.workers, collate_fn=collate)
