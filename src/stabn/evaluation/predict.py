"""A network's answers for a whole split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from stabn.data.datasets import ClipBatch, VideoDataset, collate
from stabn.engine import EngineRecipe, build_trainer, progress_bar, quietly
from stabn.errors import UserError
from stabn.nn import STABN, Attention, Output, ResNet3D
from stabn.records import Record
from stabn.runs import Run, preprocessing_of

ATTENTIONS: dict[str, Callable[[Attention], Attention]] = {
    "as-is": lambda attention: attention,
    "inverse-spatial": Attention.inverse_spatial,
    "inverse-temporal": Attention.inverse_temporal,
    "uniform-spatial": Attention.uniform_spatial,
    "uniform-temporal": Attention.uniform_temporal,
}
"""What the perception branch may be shown in place of the network's own attention (Eq. 7 and its relatives)."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers for N clips with K classes, in the data set's order.

    Attributes:
        clip_ids: N names.
        labels: (N,) int64.
        probabilities: (N, K) float32, softmax of the perception branch, averaged over the windows of a clip.
        attention_probabilities: (N, K) likewise of the attention branch; None for the plain network.
        temporal: (N, T) float32, of clips seen through one window by a network with attention; else None.
        spatial: (N, T, h, w) float32, where maps were asked for; else None.
        frame_indices: (N, T) int64, of clips seen through one window; else None.
        timestamps: (N, T) float64 likewise.
    """

    clip_ids: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    attention_probabilities: np.ndarray | None
    temporal: np.ndarray | None
    spatial: np.ndarray | None
    frame_indices: np.ndarray | None
    timestamps: np.ndarray | None

    def __post_init__(self) -> None:
        for name in ("labels", "probabilities", "attention_probabilities", "temporal", "spatial", "frame_indices"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.clip_ids):
                raise ValueError(f"{name}: got {len(value)} rows, expected {len(self.clip_ids)}, one per clip")

    @property
    def predicted(self) -> np.ndarray:
        """(N,) int64, the most probable class."""
        return self.probabilities.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool."""
        return self.predicted == self.labels

    def record(self, row: int, *, path: str, class_names: Sequence[str], crop: tuple[float, ...]) -> Record:
        """One clip's answer as a record.

        Raises:
            ValueError: the predictions hold no maps.
        """
        if self.temporal is None or self.spatial is None or self.frame_indices is None or self.timestamps is None:
            raise ValueError("spatial: got predictions without attention, expected predict(..., keep_maps=True)")
        assert self.attention_probabilities is not None
        left, top, right, bottom = crop
        return Record(
            clip_id=self.clip_ids[row],
            path=path,
            class_names=tuple(class_names),
            probabilities=self.probabilities[row],
            attention_probabilities=self.attention_probabilities[row],
            temporal=self.temporal[row],
            spatial=self.spatial[row],
            frame_indices=self.frame_indices[row],
            timestamps=self.timestamps[row],
            crop=(left, top, right, bottom),
            label=int(self.labels[row]),
        )


def predict(
    model: STABN | ResNet3D,
    dataset: VideoDataset,
    *,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe | None = None,
    attention: str = "as-is",
    keep_maps: bool = False,
) -> Predictions:
    """Ask a network about every clip of a data set.

    Args:
        model: the network.
        dataset: without augmentation; with several windows per clip, the softmax scores are averaged.
        batch_size: clips at once.
        workers: processes that decode.
        engine: on what it runs.
        attention: a key of `ATTENTIONS`.
        keep_maps: keep the spatial attention too (4 T h w bytes per clip).

    Raises:
        UserError: the plain network was asked for another attention, or a video cannot be read.
    """
    if attention not in ATTENTIONS:
        raise UserError(f"attention: got {attention!r}, expected one of {', '.join(ATTENTIONS)}")
    if attention != "as-is" and not isinstance(model, STABN):
        raise UserError(f"attention: got {attention!r}, but this is the plain network, which has none; leave it out")
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch_size, workers: got {batch_size} and {workers}, expected at least 1 and 0")
    loader = DataLoader(dataset, batch_size, num_workers=workers, collate_fn=collate)
    with quietly():
        trainer = build_trainer(engine or EngineRecipe(devices="1"), callbacks=progress_bar())
        batches = trainer.predict(_Asking(model, attention, keep_maps), loader)
    assert batches is not None
    columns: dict[str, np.ndarray] = {
        name: torch.cat([batch[name] for batch in batches]).numpy() for name in batches[0]
    }
    windows = dataset.clips
    for name in ("probabilities", "attention_probabilities"):
        if name in columns:
            columns[name] = columns[name].reshape(-1, windows, columns[name].shape[1]).mean(1)
    for name in ("temporal", "spatial", "frame_indices", "timestamps"):
        if windows > 1:
            columns.pop(name, None)
    return Predictions(
        clip_ids=tuple(sample.clip_id for sample in dataset.samples),
        labels=columns["labels"][::windows],
        probabilities=columns["probabilities"],
        attention_probabilities=columns.get("attention_probabilities"),
        temporal=columns.get("temporal"),
        spatial=columns.get("spatial"),
        frame_indices=columns.get("frame_indices"),
        timestamps=columns.get("timestamps"),
    )


def predict_split(run: Run, split: str, *, clips: int = 1, **options: Any) -> tuple[Predictions, tuple[str, ...]]:
    """A run's answers for a split of its data, and the class names.

    Args:
        run: a run.
        split: train or validation.
        clips: evenly placed windows per video.
        options: as for `predict`.

    Raises:
        UserError: the data does not fit the network, or has no such split.
    """
    if clips < 1:
        raise UserError(f"--clips: got {clips}, expected at least 1")
    model = run.model()
    table = run.table(model)
    preprocessing = preprocessing_of(model, str(run.folder))
    dataset = VideoDataset(table.of_split(split), preprocessing, class_names=table.class_names, clips=clips)
    return predict(model, dataset, **options), table.class_names


class _Asking(LightningModule):
    def __init__(self, model: STABN | ResNet3D, attention: str, keep_maps: bool) -> None:
        super().__init__()
        self.model = model
        model.channels_last()
        self.change = ATTENTIONS[attention]
        self.unchanged = attention == "as-is"
        self.keep_maps = keep_maps

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        return batch.to(device, non_blocking=True)

    def predict_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        output = self._answer(batch.clips)
        row = {"probabilities": output.logits.float().softmax(1)}
        if output.attention_logits is not None and output.attention is not None:
            row["attention_probabilities"] = output.attention_logits.float().softmax(1)
            row["temporal"] = output.attention.temporal.float()
            if self.keep_maps:
                row["spatial"] = output.attention.spatial.float()
        row |= {"labels": batch.labels, "frame_indices": batch.frame_indices, "timestamps": batch.timestamps}
        return {name: value.cpu() for name, value in row.items()}

    def _answer(self, clip_bcthw: Tensor) -> Output:
        if self.unchanged or not isinstance(self.model, STABN):
            return self.model(clip_bcthw)
        features_bcthw = self.model.encode(clip_bcthw)
        attention, attention_logits_bk = self.model.attend(features_bcthw)
        changed = self.change(attention)
        return Output(self.model.perceive(features_bcthw, changed), attention_logits_bk, changed)
