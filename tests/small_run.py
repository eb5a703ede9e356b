"""A recipe that trains in seconds, shared by the tests that need a run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stabn.data.sampling import Sampling
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.engine.config import EngineRecipe
from stabn.training.correction import Finetuning
from stabn.training.module import TrainingModule
from stabn.training.recipes import (
    PAPER_CORRECTION,
    LoaderRecipe,
    OptimizerRecipe,
    PreprocessingRecipe,
    SamplingRecipe,
)

FRAMES = 8
QUICK = OptimizerRecipe(name="adamw", learning_rate=0.002, schedule="one-cycle", epochs=2, batch_size=4)
SETTINGS = {
    "preprocessing": Preprocessing(Sampling("uniform", FRAMES), resize=36, crop=32),
    "augmentation": Augmentation(jitter=0.2, flip=True),
    "loader": LoaderRecipe(cache=True),
    "engine": EngineRecipe(accelerator="cpu", devices="1"),
    "seed": 3,
}
FINETUNING = OptimizerRecipe(name="adamw", learning_rate=0.003, schedule="constant", epochs=1, batch_size=4)
NO_TRAINING = {
    "epoch": 1,
    "validation_top1": 0.0,
    "validation_mean_class_accuracy": 0.0,
    "no_validation_clips": [],
    "edits": 0,
    "skipped": 0,
}
"""What `train` and `finetune` give back, for tests that put another function in their place."""
COMMAND_SETTINGS = SETTINGS | {"preprocessing": PreprocessingRecipe(SamplingRecipe("uniform", FRAMES), 36, 32)}
"""The same for the function behind `stabn train`."""


@contextmanager
def power_fails_at(interrupted_at: int, method: str = "training_step") -> Iterator[None]:
    """The training in the block fails at a step, or in the first `method` from it on."""
    step = getattr(TrainingModule, method)

    def failing(self, batch, batch_idx):
        if self.global_step >= interrupted_at:
            raise ConnectionAbortedError("the power fails")
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, method, failing)
        with pytest.raises(ConnectionAbortedError):
            yield


def assert_same_training(first: Path, second: Path) -> None:
    """Two runs have the same weights and curves, bit by bit."""
    for name in ("model.safetensors", "curves.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def finetuning(optimizer: OptimizerRecipe = FINETUNING, gamma: float = 5.0, **correction: Any) -> Finetuning:
    """The paper's form, or with other fields of the correction."""
    how = replace(PAPER_CORRECTION, **correction)
    return Finetuning(how, gamma, SETTINGS["augmentation"], optimizer, SETTINGS["seed"], "")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


TINY = ["--network.backbone", "tiny", "--preprocessing.sampling.frames", str(FRAMES),
        "--preprocessing.resize", "36", "--preprocessing.crop", "32",
        "--optimizer.epochs", "1", "--optimizer.batch_size", "4"]  # fmt: skip
"""Options of `stabn train` for a network as small; the last four also fit `stabn finetune`."""
