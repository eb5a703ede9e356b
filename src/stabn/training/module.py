"""One step of training, as Lightning wants it."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from stabn.data.dataset import ClipBatch
from stabn.engine.config import EngineRecipe
from stabn.nn import STABN, Output, ResNet3D, recognition_loss, spatial_loss, temporal_loss
from stabn.training.recipes import CorrectionRecipe, OptimizerRecipe
from stabn.training.distributed import BatchShard, ShardedDropout, shard_of_batch, process_count, sum_over_processes

# A quarter, but not exactly: of four steps PyTorch would make a division by zero.
_RISING = 0.2501


class TrainingModule(LightningModule):
    """Eq. 4, and with `gamma` Eq. 5; logs validation_loss and validation_top1 per epoch.

    Dropout draws from a generator that is seeded anew at every step from (seed, step), so that a training that was
    interrupted goes on as if it had not been.

    Args:
        model: ST-ABN or the plain network.
        optimizer: how weights move.
        total_steps: of the whole training.
        seed: of dropout.
        gamma: weight of L_temp (Eq. 6); None leaves it out.
        correction: in which form edits are learnt.
        frozen: modules that keep their weights and their batch-norm statistics.

    Attributes:
        fused: the optimizer moves all weights in one call, which rounds otherwise in the last bit.
    """

    def __init__(
        self,
        model: STABN | ResNet3D,
        optimizer: OptimizerRecipe,
        *,
        total_steps: int,
        seed: int,
        gamma: float | None = None,
        correction: CorrectionRecipe = CorrectionRecipe(),  # noqa: B008
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.seed = seed
        self.gamma = gamma
        self.correction = correction
        self.frozen = frozen
        self.fused = False
        # A loaded network is in evaluation mode, and Lightning would leave it there.
        model.train()
        for module in frozen:
            module.requires_grad_(False).eval()
        self._dropout = model.drop = ShardedDropout(model.dropout)
        self.validation_top1 = MulticlassAccuracy(model.num_classes, average="micro")

    def suit(self, engine: EngineRecipe) -> None:
        """Compute as the engine says; call this before the weights are moved."""
        self.model.activation_checkpointing = engine.activation_checkpointing
        self.fused = engine.fast
        if engine.fast:
            self.model.checkpoint_norms()
            self.model.channels_last()

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        """Move a batch, and make of its bytes there what the network reads."""
        moved = batch.to(device, non_blocking=True)
        _ = moved.clips
        return moved

    def on_train_epoch_start(self) -> None:
        """Keep the batch-norm statistics of frozen modules: they must not drift towards the fine-tuning clips."""
        for module in self.frozen:
            module.eval()

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor] | None:
        """The loss of one batch, and sums over its clips for the curves.

        A batch of which no clip could be read moves nothing, but counts as a step.
        """
        rows = shard_of_batch(len(batch.pixels), self.device)
        _, _, frames, side, _ = batch.pixels.shape
        if rows.total * frames * math.ceil(side / 32) ** 2 < 2:  # too few values for batch norm, or none at all
            return self._nothing()
        self._dropout.part = rows
        again = batch_idx % self.optimizer.accumulate
        torch.manual_seed(zlib.crc32(f"{self.seed} {self.global_step}{f' {again}' if again else ''}".encode()))
        output = self._guided(batch, rows) if self.correction.guided else self.model(batch.clips.to(self.dtype))
        losses = self._losses(batch, output)
        told = {name: loss.detach() * rows.count for name, loss in losses.items()}
        if self.optimizer.label_smoothing and batch.clip_ids:  # told is Eq. 4, so that all runs compare
            told["recognition"] = recognition_loss(output, batch.labels).detach() * rows.count
        told["clips"] = torch.full((), rows.count, dtype=torch.int64, device=self.device)
        told["top1"] = (output.logits.argmax(1) == batch.labels).sum()
        sums = dict(zip(told, sum_over_processes(list(told.values())), strict=True))
        return {"loss": sum(losses.values(), start=torch.zeros((), device=self.device)) * rows.weight, **sums}

    def _losses(self, batch: ClipBatch, output: Output) -> dict[str, Tensor]:
        """By name, each averaged over the clips of the batch."""
        losses = {"recognition": recognition_loss(output, batch.labels, self.optimizer.label_smoothing)}
        if self.gamma is not None:
            assert output.attention is not None
            form = self.correction.loss
            if batch.maps is not None and batch.has_maps is not None:
                losses["spatial_loss"] = spatial_loss(
                    output.attention.spatial, batch.maps, batch.has_maps, self.correction.gamma_where, form
                )
            losses["temporal_loss"] = temporal_loss(
                output.attention.temporal, batch.scores, batch.has_scores, self.gamma, form
            )
        if not batch.clip_ids:
            # Only other processes have clips of this batch; they wait for gradients from this one.
            scores = [output.logits] if output.attention_logits is None else [output.logits, output.attention_logits]
            return {name: torch.stack([0 * score.sum() for score in scores]).sum() for name in losses}
        return losses

    def _nothing(self) -> dict[str, Tensor] | None:
        if process_count() == 1:
            return None
        zero = torch.stack([(0 * p).sum() for p in self.model.parameters() if p.requires_grad]).sum()
        return {"loss": zero}

    def _guided(self, batch: ClipBatch, rows: BatchShard) -> Output:
        """The network's answer, in which some edited clips are perceived through their edited scores."""
        assert isinstance(self.model, STABN)
        features_bcthw = self.model.encode(batch.clips.to(self.dtype))
        attention, attention_logits_bk = self.model.attend(features_bcthw)
        drawn_b = rows.of(torch.rand(rows.total, device=batch.scores.device)) < self.correction.guided
        temporal_bt = torch.where((drawn_b & batch.has_scores)[:, None], batch.scores, attention.temporal)
        seen = replace(attention, temporal=temporal_bt.to(attention.temporal.dtype))
        return Output(self.model.perceive(features_bcthw, seen), attention_logits_bk, attention)

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Loss and accuracy of one batch of validation clips."""
        clips, loss = len(batch.labels), torch.zeros((), device=self.device)
        if clips:
            output = self.model(batch.clips.to(self.dtype))
            self.validation_top1(output.logits, batch.labels)
            loss = recognition_loss(output, batch.labels)
        # also where no clip could be read: other processes wait for this one's sums
        self.log("validation_loss", loss, batch_size=clips, sync_dist=True, logger=False)
        self.log("validation_top1", self.validation_top1, batch_size=clips, logger=False)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The recipe's optimizer and schedule."""
        recipe = self.optimizer
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        rates: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
        if self.fused and self.device.type in ("cpu", "cuda"):
            rates["fused"] = True
        if recipe.name == "sgd":
            optimizer = torch.optim.SGD(parameters, momentum=recipe.momentum, **rates)
        else:
            optimizer = torch.optim.AdamW(parameters, **rates)
        schedule: torch.optim.lr_scheduler.LRScheduler
        interval = "step"
        if recipe.schedule == "one-cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, recipe.learning_rate, total_steps=self.total_steps, pct_start=_RISING
            )
        elif recipe.schedule == "cosine":
            share = partial(cosine_schedule, total=self.total_steps, warmup=round(recipe.warmup * self.total_steps))
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        else:
            milestones = list(recipe.milestones) if recipe.schedule == "step" else []
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
            interval = "epoch"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}


def cosine_schedule(step: int, *, total: int, warmup: int) -> float:
    """The share of the highest learning rate at a step, from 0: up in a line, down along half a cosine.

    Steps 0 .. warmup - 1 take 1 / (warmup + 1), 2 / (warmup + 1), ...; step `warmup` takes 1, and `total` would take 0
    (Loshchilov and Hutter, SGDR, arXiv 1608.03983, without restarts).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
