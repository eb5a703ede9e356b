"""Mean class accuracy while training, weights by class, and balanced sampling."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from small_run import QUICK, SETTINGS, finetuning
from torch.nn import functional as F

from stabn.data.dataset import Sample, VideoDataset
from stabn.nn import Output, recognition_loss
from stabn.training.datamodule import ResumableLoader
from stabn.training.finetune import differences_from_run
from stabn.training.module import MeanClassAccuracy
from stabn.training.recipes import OptimizerRecipe
from stabn.training.train import class_weights

LABELS = [0] * 80 + [1] * 15 + [2] * 5


def rare_classes(epoch: int = 0) -> VideoDataset:
    samples = [Sample(str(n), Path(f"{n}.mp4"), label, "train") for n, label in enumerate(LABELS)]
    return VideoDataset(samples, SETTINGS["preprocessing"], class_names=("a", "b", "c", "d"), seed=1, epoch=epoch)


def batches(epoch: int = 0, skip: int = 0, rank: int = 0, processes: int = 1) -> list[list[tuple[int, int]]]:
    trainer = MagicMock(Trainer, global_rank=rank, world_size=processes)
    trainer.strategy.root_device = torch.device("cpu")
    loader = ResumableLoader(rare_classes(epoch), 10, 0, trainer, balanced=True)
    loader.load_state_dict({"given": skip})
    return list(loader.batches)


def test_mean_class_accuracy_leaves_classes_without_clips_out_even_if_they_were_predicted():
    measure = MeanClassAccuracy(4)
    measure.update(torch.tensor([0, 0, 3]), torch.tensor([0, 0, 0]))
    measure.update(torch.tensor([1, 3]), torch.tensor([1, 1]))
    assert float(measure.compute()) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_weighted_losses_are_averaged_over_clips_whatever_classes_a_batch_has():
    torch.manual_seed(0)
    output = Output(torch.randn(5, 3), torch.randn(5, 3))
    labels, weights = torch.tensor([0, 0, 1, 0, 2]), torch.tensor([0.5, 1.5, 3.0])
    sums = [F.cross_entropy(x, labels, weights, reduction="sum") for x in (output.logits, output.attention_logits)]
    whole = recognition_loss(output, labels, 0, weights)
    assert float(whole) == pytest.approx(float(sum(sums)) / 5)
    halves = [recognition_loss(Output(output.logits[rows], output.attention_logits[rows]), labels[rows], 0, weights)
              for rows in (slice(0, 2), slice(2, 5))]  # fmt: skip
    assert float(2 * halves[0] + 3 * halves[1]) / 5 == pytest.approx(float(whole))
    assert float(recognition_loss(output, labels, 0.1, torch.ones(3))) == pytest.approx(
        float(recognition_loss(output, labels, 0.1))
    )


def test_weights_are_those_of_the_training_clips_and_only_if_asked_for():
    weights = class_weights(OptimizerRecipe(class_balance="weights"), rare_classes())
    assert weights == pytest.approx([100 / (3 * 80), 100 / (3 * 15), 100 / (3 * 5), 1.0])
    assert class_weights(OptimizerRecipe(), rare_classes()) is None


def test_balanced_sampling_draws_all_classes_equally_often():
    drawn = [LABELS[index] for epoch in range(30) for batch in batches(epoch) for _, index in batch]
    counts = Counter(drawn)
    assert len(drawn) == 3000
    deviation = np.sqrt(3000 * (1 / 3) * (2 / 3))
    assert all(abs(counts[label] - 1000) < 4 * deviation for label in (0, 1, 2))


def test_balanced_sampling_depends_on_seed_and_epoch_alone_resumes_anywhere_and_is_shared_by_processes():
    whole = batches()
    assert whole == batches()
    assert whole != batches(epoch=1)
    assert batches(skip=7) == whole[7:]
    shards = [batches(rank=rank, processes=3) for rank in range(3)]
    assert [[item for shard in shards for item in shard[step]] for step in range(10)] == whole
    # A clip that an epoch has twice is not augmented in the same way twice.
    items = [item for batch in whole for item in batch]
    assert len(set(items)) == len(items) > len({index for _, index in items})


def test_fine_tuning_balances_classes_as_its_run_did(run):
    how = finetuning(QUICK, init="scratch", freeze="none", views="any")
    assert differences_from_run(run, how) == []
    balanced = replace(run, recipe=run.recipe | {"optimizer": replace(QUICK, class_balance="weights").as_json()})
    assert differences_from_run(balanced, how) == []
    other = replace(how, optimizer=replace(QUICK, class_balance="none"))
    assert differences_from_run(balanced, other) == ["optimizer"]


def test_recipes_of_earlier_versions_stay_the_same():
    assert "class_balance" not in QUICK.as_json()
    recipe = replace(QUICK, class_balance="sampling")
    assert OptimizerRecipe.from_json(recipe.as_json()) == recipe
