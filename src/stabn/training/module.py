"""One step of training, as Lightning wants it."""

import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from stabn.data.datasets import ClipBatch
from stabn.nn import STABN, Output, ResNet3D, recognition_loss, spatial_loss, temporal_loss
from stabn.training.recipes import CorrectionRecipe, OptimiserRecipe

# A quarter, but not exactly: of four steps PyTorch would make a division by zero.
_RISING = 0.2501


class Training(LightningModule):
    """Eq. 4, and with `gamma` Eq. 5; logs validation_loss and validation_top1 per epoch.

    Dropout draws from a generator that is seeded anew at every step from (seed, step), so that a training that was
    interrupted goes on as if it had not been.

    Args:
        model: ST-ABN or the plain network.
        optimiser: how weights move.
        total_steps: of the whole training.
        seed: of dropout.
        gamma: weight of L_temp (Eq. 6); None leaves it out.
        correction: in which form edits are learnt.
        frozen: modules that keep their weights and their batch-norm statistics.
    """

    def __init__(
        self,
        model: STABN | ResNet3D,
        optimiser: OptimiserRecipe,
        *,
        total_steps: int,
        seed: int,
        gamma: float | None = None,
        correction: CorrectionRecipe = CorrectionRecipe(),  # noqa: B008
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.model = model
        model.channels_last()
        self.optimiser = optimiser
        self.total_steps = total_steps
        self.seed = seed
        self.gamma = gamma
        self.correction = correction
        self.frozen = frozen
        # A loaded network is in evaluation mode, and Lightning would leave it there.
        model.train()
        for module in frozen:
            module.requires_grad_(False).eval()
        self.validation_top1 = MulticlassAccuracy(model.num_classes, average="micro")

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        """Move a batch."""
        return batch.to(device, non_blocking=True)

    def on_train_epoch_start(self) -> None:
        """Keep the batch-norm statistics of frozen modules: they must not drift towards the fine-tuning clips."""
        for module in self.frozen:
            module.eval()

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of one batch, and sums over its clips for the curves."""
        torch.manual_seed(zlib.crc32(f"{self.seed} {self.global_step}".encode()))
        output = self._guided(batch) if self.correction.guided else self.model(batch.clips)
        clips = batch.labels.new_tensor(len(batch.labels))
        loss = recognition_loss(output, batch.labels)
        sums = {"recognition": loss.detach() * clips}
        if self.gamma is not None and batch.maps is not None and batch.has_maps is not None:
            assert output.attention is not None
            where = spatial_loss(output.attention.spatial, batch.maps, batch.has_maps, self.correction.gamma_where)
            sums["spatial_loss"] = where.detach() * clips
            loss = loss + where
        if self.gamma is not None:
            assert output.attention is not None
            agreement = temporal_loss(
                output.attention.temporal, batch.scores, batch.has_scores, self.gamma, self.correction.loss
            )
            sums["temporal_loss"] = agreement.detach() * clips
            loss = loss + agreement
        sums["top1"] = (output.logits.argmax(1) == batch.labels).sum()
        return {"loss": loss, "clips": clips, **sums}

    def _guided(self, batch: ClipBatch) -> Output:
        """The network's answer, in which some edited clips are perceived through their edited scores."""
        assert isinstance(self.model, STABN)
        features_bcthw = self.model.encode(batch.clips)
        attention, attention_logits_bk = self.model.attend(features_bcthw)
        drawn_b = torch.rand(len(batch.labels), device=batch.scores.device) < self.correction.guided
        temporal_bt = torch.where((drawn_b & batch.has_scores)[:, None], batch.scores, attention.temporal)
        seen = replace(attention, temporal=temporal_bt.to(attention.temporal.dtype))
        return Output(self.model.perceive(features_bcthw, seen), attention_logits_bk, attention)

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Loss and accuracy of one batch of validation clips."""
        output = self.model(batch.clips)
        self.validation_top1(output.logits, batch.labels)
        clips = len(batch.labels)
        self.log("validation_loss", recognition_loss(output, batch.labels), batch_size=clips)
        self.log("validation_top1", self.validation_top1, batch_size=clips)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The recipe's optimiser and schedule."""
        recipe = self.optimiser
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimiser: torch.optim.Optimizer
        if recipe.name == "sgd":
            optimiser = torch.optim.SGD(
                parameters, recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
            )
        else:
            optimiser = torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedule: torch.optim.lr_scheduler.LRScheduler
        interval = "step"
        if recipe.schedule == "one-cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, recipe.learning_rate, total_steps=self.total_steps, pct_start=_RISING
            )
        else:
            milestones = list(recipe.milestones) if recipe.schedule == "step" else []
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
            interval = "epoch"
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": interval}}
