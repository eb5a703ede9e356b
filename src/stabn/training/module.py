"""The Lightning module of training and fine-tuning: losses, optimizer and schedule."""

import logging
import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, OneCycleLR
from torchmetrics.classification import MulticlassAccuracy

from stabn.data.clip_batch import ClipBatch
from stabn.engine.config import EngineRecipe
from stabn.evaluation.predict import encode_batch
from stabn.nn import Output, VideoNetwork, has_attention, recognition_loss, spatial_loss, temporal_loss
from stabn.training.distributed import BatchShard, ShardedDropout, process_count, shard_of_batch, sum_over_processes
from stabn.training.recipes import PAPER_CORRECTION, CorrectionRecipe, OptimizerRecipe

logger = logging.getLogger(__name__)

# A quarter, but not exactly: with four steps OneCycleLR would divide by zero.
_RISING_SHARE = 0.2501


class MeanClassAccuracy(MulticlassAccuracy):
    """The mean of top-1 accuracy over the classes that have clips.

    TorchMetrics' own macro average counts a class without clips as 0 once it was predicted.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average="none")

    def compute(self) -> Tensor:
        """A scalar in 0..1; 0 without clips."""
        right_k, wrong_k = self.tp, self.fn
        assert isinstance(right_k, Tensor)
        assert isinstance(wrong_k, Tensor)
        clips_k = right_k + wrong_k
        return (right_k / clips_k.clamp(min=1)).sum() / clips_k.count_nonzero().clamp(min=1)


class TrainingModule(LightningModule):
    """The loss of Eq. 4, and with `gamma` of Eq. 5; logs loss, top-1 and mean class accuracy of validation per epoch.

    Dropout is seeded at every step from (seed, step), so that a resumed training draws the same masks.

    Args:
        model: ST-ABN or the plain network.
        optimizer: optimizer, schedule and batches.
        total_steps: of the whole training.
        seed: of dropout.
        gamma: weight of L_temp (Eq. 6); None leaves it out.
        correction: how the network learns from edits.
        class_weights: (K,) factors of the recognition loss by class; None for 1.
        frozen: modules that keep their weights and their batch-norm statistics.
        thaw: epochs after which they train, too; None for never.

    Attributes:
        fused: whether the optimizer updates all weights in one call, which rounds differently in the last bit.
    """

    class_weights_k: Tensor | None

    def __init__(
        self,
        model: VideoNetwork,
        optimizer: OptimizerRecipe,
        *,
        total_steps: int,
        seed: int,
        gamma: float | None = None,
        correction: CorrectionRecipe = PAPER_CORRECTION,
        class_weights: np.ndarray | None = None,
        frozen: Sequence[nn.Module] = (),
        thaw: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.seed = seed
        self.gamma = gamma
        self.correction = correction
        self.frozen = frozen
        self.thaw = thaw
        self.fused = False
        # A loaded network is in evaluation mode, and Lightning would leave it there.
        model.train()
        for module in frozen:
            module.requires_grad_(False).eval()
        self._dropout = model.backbone.drop = ShardedDropout(model.dropout)
        self.validation_top1 = MulticlassAccuracy(model.num_classes, average="micro")
        self.validation_mean_class_accuracy = MeanClassAccuracy(model.num_classes)
        weights = None if class_weights is None else torch.from_numpy(class_weights).float()
        self.register_buffer("class_weights_k", weights, persistent=False)

    def configure_engine(self, engine: EngineRecipe) -> None:
        """Set up the network for an engine; call this before the weights are moved to a device."""
        if not self.model.checkpoint_activations(engine.activation_checkpointing) and engine.activation_checkpointing:
            logger.warning(
                "note: --engine.activation_checkpointing: %s keeps all its activations; take a smaller "
                "--optimizer.batch_size, or --network.freeze extractor, for less memory",
                self.model.architecture,
            )
        self.fused = engine.fast
        if engine.fast:
            self.model.checkpoint_norms()
            self.model.channels_last()

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        """Move a batch, and normalise its pixels there."""
        moved = batch.to(device, non_blocking=True)
        _ = moved.clips
        return moved

    def on_train_epoch_start(self) -> None:
        """Keep weights and batch-norm statistics of frozen modules as they are, until they thaw."""
        thawed = self.thaw is not None and self.current_epoch >= self.thaw
        for module in self.frozen:
            module.train(thawed).requires_grad_(thawed)

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor] | None:
        """The loss of one batch, and sums over its clips in all processes for the curves.

        A batch with no readable clip skips the update but still counts as a step.
        """
        shard = shard_of_batch(len(batch.pixels), self.device)
        if shard.total * self._cells(batch) < 2:  # too few values for batch norm
            return self._zero_loss()
        self._dropout.shard = shard
        accumulated = batch_idx % self.optimizer.accumulate
        step = f"{self.seed} {self.global_step}" + (f" {accumulated}" if accumulated else "")
        torch.manual_seed(zlib.crc32(step.encode()))
        output = self._guided(batch, shard) if self.correction.guided else self._output(batch)
        losses = self._losses(batch, output)
        sums = {name: loss.detach() * shard.count for name, loss in losses.items()}
        changed = self.optimizer.label_smoothing or self.class_weights_k is not None
        if changed and batch.clip_ids:  # the curves have Eq. 4, which compares between runs
            sums["recognition"] = recognition_loss(output, batch.labels).detach() * shard.count
        sums["clips"] = torch.full((), shard.count, dtype=torch.int64, device=self.device)
        right_b = output.logits.argmax(1) == batch.labels
        sums["top1"] = right_b.sum()
        # compared with all classes, because counting them would make a GPU wait
        label_bk = batch.labels[:, None] == torch.arange(self.model.num_classes, device=self.device)
        sums["class_right"], sums["class_clips"] = (label_bk & right_b[:, None]).sum(0), label_bk.sum(0)
        totals = dict(zip(sums, sum_over_processes(list(sums.values())), strict=True))
        return {"loss": sum(losses.values(), start=torch.zeros((), device=self.device)) * shard.weight, **totals}

    def _losses(self, batch: ClipBatch, output: Output) -> dict[str, Tensor]:
        """The weighted losses by name, each a mean over the clips of the batch."""
        smoothing = self.optimizer.label_smoothing
        losses = {"recognition": recognition_loss(output, batch.labels, smoothing, self.class_weights_k)}
        if self.gamma is not None:
            assert output.attention is not None
            form = self.correction.loss
            assert form != "auto"
            if batch.maps is not None and batch.has_maps is not None:
                assert self.correction.gamma_where is not None
                losses["spatial_loss"] = spatial_loss(
                    output.attention.spatial, batch.maps, batch.has_maps, self.correction.gamma_where, form
                )
            losses["temporal_loss"] = temporal_loss(
                output.attention.temporal, batch.scores, batch.has_scores, self.gamma, form, batch.score_weights
            )
        if not batch.clip_ids:
            # Only other processes have clips of this batch; they wait for this one's gradients.
            scores = [output.logits] if output.attention_logits is None else [output.logits, output.attention_logits]
            return {name: torch.stack([0 * score.sum() for score in scores]).sum() for name in losses}
        return losses

    @property
    def _dtype_of_weights(self) -> torch.dtype:
        assert isinstance(self.dtype, torch.dtype)
        return self.dtype

    def _output(self, batch: ClipBatch) -> Output:
        if batch.features is None:
            return self.model(batch.clips.to(self.dtype))
        return self.model.recognise(encode_batch(self.model, batch, self._dtype_of_weights))

    @staticmethod
    def _cells(batch: ClipBatch) -> int:
        """Cells of a clip's last maps, from which a batch norm computes its statistics."""
        if batch.features is not None:
            return math.prod(batch.features.shape[2:])
        _, _, frames, side, _ = batch.pixels.shape
        return frames * math.ceil(side / 32) ** 2

    def _zero_loss(self) -> dict[str, Tensor] | None:
        """A loss without effect, for which other processes wait; None, which skips the step, if there are none."""
        if process_count() == 1:
            return None
        zero = torch.stack([(0 * p).sum() for p in self.model.parameters() if p.requires_grad]).sum()
        return {"loss": zero}

    def _guided(self, batch: ClipBatch, shard: BatchShard) -> Output:
        """The network's output, for which some edited clips are perceived through their edited scores."""
        assert has_attention(self.model)
        features = encode_batch(self.model, batch, self._dtype_of_weights)
        attention, attention_logits_bk = self.model.attend(features)
        drawn_b = shard.of(torch.rand(shard.total, device=batch.scores.device)) < self.correction.guided
        temporal_bt = torch.where((drawn_b & batch.has_scores)[:, None], batch.scores, attention.temporal)
        guided = replace(attention, temporal=temporal_bt.to(attention.temporal.dtype))
        return Output(self.model.perceive(features, guided), attention_logits_bk, attention)

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Loss and accuracy of one batch of validation clips."""
        clips, loss = len(batch.labels), torch.zeros((), device=self.device)
        if clips:
            output = self._output(batch)
            self.validation_top1(output.logits, batch.labels)
            self.validation_mean_class_accuracy(output.logits, batch.labels)
            loss = recognition_loss(output, batch.labels)
        # also if no clip could be read, because other processes wait for this one's sums
        self.log("validation_loss", loss, batch_size=clips, sync_dist=True, logger=False)
        for name in ("validation_top1", "validation_mean_class_accuracy"):
            self.log(name, getattr(self, name), batch_size=clips, logger=False)

    def _parameter_groups(self) -> list[Any]:
        """All parameters that ever train; with a rate of their own, those of the extractor are a second group."""
        frozen = {id(p) for module in self.frozen for p in module.parameters()} if self.thaw is None else set()
        training = [p for p in self.model.parameters() if id(p) not in frozen]
        rate = self.optimizer.extractor_rate
        extractor = {id(p) for module in self.model.extractor for p in module.parameters()}
        slower = [p for p in training if id(p) in extractor]
        if rate == 1 or not slower:
            return training
        others = [p for p in training if id(p) not in extractor]
        return [{"params": others}, {"params": slower, "lr": rate * self.optimizer.learning_rate}]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The recipe's optimizer and learning-rate schedule."""
        recipe = self.optimizer
        parameters = self._parameter_groups()
        options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
        if self.fused and self.device.type in ("cpu", "cuda"):
            options["fused"] = True
        optimizer: torch.optim.Optimizer
        if recipe.name == "sgd":
            optimizer = torch.optim.SGD(parameters, momentum=recipe.momentum, **options)
        else:
            optimizer = torch.optim.AdamW(parameters, **options)
        scheduler: LRScheduler
        if recipe.schedule == "one-cycle":
            highest = [group["lr"] for group in optimizer.param_groups]
            scheduler = OneCycleLR(optimizer, highest, self.total_steps, pct_start=_RISING_SHARE)
        elif recipe.schedule == "cosine":
            warmup = round(recipe.warmup * self.total_steps)
            scheduler = LambdaLR(optimizer, partial(cosine_schedule, total=self.total_steps, warmup=warmup))
        else:
            milestones = recipe.milestones if recipe.schedule == "step" else ()
            scheduler = MultiStepLR(optimizer, milestones, gamma=0.1)
        interval = "epoch" if isinstance(scheduler, MultiStepLR) else "step"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}


def cosine_schedule(step: int, *, total: int, warmup: int) -> float:
    """The share of the highest learning rate at a step, from 0: a linear warm-up, then half a cosine.

    Steps 0 .. warmup - 1 take 1 / (warmup + 1), 2 / (warmup + 1), ...; step `warmup` takes 1, and `total` would take 0
    (Loshchilov and Hutter, SGDR, arXiv 1608.03983, without restarts).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
