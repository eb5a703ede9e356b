"""Predictions of a network for a whole split."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, Subset

from stabn.data.clip_batch import ClipBatch, SkippedClip, collate
from stabn.data.dataset import Sample, Table, VideoDataset
from stabn.data.feature_store import KeptDataset
from stabn.data.quality.unreadable import SkipUnreadable
from stabn.data.video.reader import Reader, init_reader_process
from stabn.engine.config import EngineRecipe
from stabn.engine.trainer import build_predictor, progress_bar, shard_indices, silence_lightning
from stabn.errors import NotFiniteError, UserError
from stabn.evaluation.replaced_attention import ATTENTIONS, SHUFFLED, random_derangement
from stabn.nn import Attention, Output, VideoNetwork, shows_attention
from stabn.nn.backbone import Features, TokenMap
from stabn.records import Record
from stabn.runs import Run, network_preprocessing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N clips and K classes: the clips of a data set that could be read, in its order.

    Attributes:
        clip_ids: N names.
        labels: (N,) int64.
        probabilities: (N, K) float32, softmax of the perception branch, averaged over the windows of a clip.
        attention_probabilities: (N, K) likewise of the attention branch; None for the plain network.
        temporal: (N, T) float32, of clips seen through one window by a network with attention; else None.
        spatial: (N, T, h, w) float32, where maps were asked for; else None.
        frame_indices: (N, T) int64, of clips seen through one window; else None.
        timestamps: (N, T) float64 likewise.
        skipped: the clips that could not be read, and why.
    """

    clip_ids: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    attention_probabilities: np.ndarray | None = None
    temporal: np.ndarray | None = None
    spatial: np.ndarray | None = None
    frame_indices: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    skipped: tuple[SkippedClip, ...] = ()

    @property
    def predicted(self) -> np.ndarray:
        """(N,) int64, the most probable class."""
        return self.probabilities.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool."""
        return self.predicted == self.labels

    @property
    def skipped_as_json(self) -> list[dict[str, str]]:
        """[{"clip_id", "path", "reason"}, ...]."""
        return [asdict(clip) for clip in self.skipped]

    def samples(self, of: Sequence[Sample]) -> tuple[Sample, ...]:
        """The samples of these predictions, in their order.

        Args:
            of: all samples of the data set.
        """
        by_id = {sample.clip_id: sample for sample in of}
        return tuple(by_id[clip_id] for clip_id in self.clip_ids)

    def record(
        self, row: int, *, path: str, class_names: Sequence[str], crop: tuple[float, float, float, float]
    ) -> Record:
        """The prediction for one clip as a record.

        Raises:
            ValueError: the predictions hold no maps.
        """
        if self.temporal is None or self.spatial is None or self.frame_indices is None or self.timestamps is None:
            raise ValueError("spatial: got predictions without attention, expected predict(..., keep_maps=True)")
        assert self.attention_probabilities is not None
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
            crop=crop,
            label=int(self.labels[row]),
        )


def predict(
    model: VideoNetwork,
    dataset: VideoDataset | KeptDataset,
    *,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe | None = None,
    attention: str = "as-is",
    keep_maps: bool = False,
    seed: int = 0,
) -> Predictions:
    """Predict every clip of a data set that can be read; a warning is logged for each of the others.

    Args:
        model: the network.
        dataset: without augmentation, or its kept features; softmax scores of several windows of a clip are averaged.
        batch_size: clips at once.
        workers: processes that decode.
        engine: accelerator, devices and precision.
        attention: a key of `ATTENTIONS` or `SHUFFLED`.
        keep_maps: keep the spatial attention too (4 T h w bytes per clip).
        seed: for the exchange of attention between clips.

    Raises:
        UserError: an attention other than "as-is" for the plain network, an option out of range, or no readable video.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "engine": engine, "seed": seed}
    return predict_each(model, dataset, (attention,), keep_maps=keep_maps, **options)[attention]


def check_loader_options(batch_size: int, workers: int) -> None:
    """Check options of a data loader.

    Raises:
        UserError: a batch size below 1 or a negative number of processes.
    """
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch_size, workers: got {batch_size} and {workers}, expected at least 1 and 0")


def predict_each(
    model: VideoNetwork,
    dataset: VideoDataset | KeptDataset,
    attentions: Sequence[str],
    *,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe | None = None,
    keep_maps: bool = False,
    seed: int = 0,
) -> dict[str, Predictions]:
    """Predict every clip once for each attention, encoding it only once.

    The attention of other clips has to be computed first: where it is needed, all clips are read twice.

    Args:
        attentions: keys of `ATTENTIONS` and `SHUFFLED`; the other parameters are those of `predict`.

    Returns:
        Predictions by attention; their `temporal` and `spatial` are what the perception branch used. Without those of
        `SHUFFLED` where only one clip can be read and other attentions are wanted, too.

    Raises:
        UserError: as `predict`.
    """
    names = (*ATTENTIONS, *SHUFFLED)
    for attention in attentions:
        if attention not in names:
            raise UserError(f"attention: got {attention!r}, expected one of {', '.join(names)}")
        if attention != "as-is" and not shows_attention(model):
            raise UserError(
                f"attention: got {attention!r}, but this is the plain network, which has none; leave it out"
            )
    check_loader_options(batch_size, workers)
    if seed < 0:
        raise UserError(f"--seed: got {seed}, expected 0 or more")
    with silence_lightning():
        recipe = (engine or EngineRecipe(devices="1")).for_measurement()
        predictor, trainer = build_predictor(model, recipe, callbacks=progress_bar())

    reader = Reader()
    clips: Dataset[ClipBatch] = SkipUnreadable(dataset.with_reader(reader))
    others: Attention | None = None
    skipped: tuple[SkippedClip, ...] = ()
    own_only = tuple(attention for attention in attentions if attention not in SHUFFLED)
    if len(own_only) < len(attentions):
        module = _Predictor(predictor, ("as-is",), keep_maps=True)
        columns, skipped = _run_predictor(module, clips, batch_size, workers, trainer)
        own = columns["as-is"]
        readable = _readable(dataset, skipped)
        if len(readable) > 1 or not own_only:
            rows = (random_derangement(len(readable), seed)[:, None] * dataset.views + np.arange(dataset.views)).ravel()
            others = Attention(own["spatial"], own["temporal"]).rows(torch.from_numpy(rows))
        else:
            attentions = own_only
        clips = Subset(clips, readable)
    module = _Predictor(predictor, attentions, keep_maps=keep_maps, others=others, windows=dataset.views)
    columns, unreadable = _run_predictor(module, clips, batch_size, workers, trainer)
    reader.close()
    skipped += unreadable
    for clip in skipped:
        logger.warning("skipped: %s", clip.reason)
    ids = tuple(dataset.samples[index].clip_id for index in _readable(dataset, skipped))
    return {attention: _predictions(ids, dataset.views, columns[attention], skipped) for attention in attentions}


def _run_predictor(
    predictor: "_Predictor", clips: Dataset[ClipBatch], batch_size: int, workers: int, trainer: Trainer
) -> tuple[dict[str, dict[str, Tensor]], tuple[SkippedClip, ...]]:
    """By attention and column one row per window of the clips that could be read, and the clips that could not.

    Each of several processes predicts its share, and all processes return all rows.
    """
    with silence_lightning():
        shard = shard_indices(trainer, len(clips))  # type: ignore[arg-type]
        predictor.rows_done = shard.start * predictor.windows
        processes: dict[str, Any] = {"num_workers": workers, "worker_init_fn": init_reader_process}
        loader = DataLoader(clips, batch_size, sampler=shard, collate_fn=collate, **processes)
        try:
            batches: Any = trainer.predict(predictor, loader)
        except NotFiniteError as error:
            raise UserError(
                f"the network's answers are not finite ({error}); give --engine.precision 32-true, or train it again "
                "with a smaller --optimizer.learning_rate"
            ) from error
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        distributed.all_gather_object(gathered, batches)
        batches = [batch for batches in gathered for batch in batches]
    skipped = tuple(SkippedClip(*clip) for batch in batches for clip in batch["skipped"])
    read = [batch["columns"] for batch in batches if batch["columns"]]
    if not read:
        raise UserError(f"not one of {len(skipped)} clips can be read: {skipped[0].reason}")
    columns = {
        attention: {name: torch.cat([batch[attention][name] for batch in read]) for name in read[0][attention]}
        for attention in predictor.attentions
    }
    return columns, skipped


def _readable(dataset: VideoDataset | KeptDataset, skipped: Sequence[SkippedClip]) -> list[int]:
    """Positions of the data set's clips that were not skipped."""
    ids = {clip.clip_id for clip in skipped}
    return [index for index, sample in enumerate(dataset.samples) if sample.clip_id not in ids]


def _predictions(
    clip_ids: tuple[str, ...], windows: int, rows: Mapping[str, Tensor], skipped: tuple[SkippedClip, ...]
) -> Predictions:
    """One prediction per clip from the rows of its windows."""
    columns: dict[str, Any] = {name: value.numpy() for name, value in rows.items()}
    for name in columns.keys() & {"probabilities", "attention_probabilities"}:
        columns[name] = columns[name].reshape(-1, windows, columns[name].shape[1]).mean(1)
    if windows > 1:
        columns = {name: value for name, value in columns.items() if name.endswith("probabilities")}
    columns["labels"] = rows["labels"][::windows].numpy()
    return Predictions(clip_ids, skipped=skipped, **columns)


def encode_batch(model: VideoNetwork, batch: ClipBatch, dtype: torch.dtype) -> Features:
    """The kept features of a batch in a dtype, or what the extractor gives for its clips in that dtype."""
    if batch.features is None or batch.tokens is None:
        return model.encode(batch.clips.to(dtype))
    return kept_features(batch.features.to(dtype), batch.tokens.to(dtype))


def kept_features(map_bcthw: Tensor, tokens_bnc: Tensor) -> Features:
    """Features as a network takes them: with the class tokens where there are any (N above 0)."""
    return TokenMap(map_bcthw, tokens_bnc) if tokens_bnc.shape[1] else map_bcthw


def split_dataset(run: Run, split: str, *, clips: int = 1, crops: int = 1) -> tuple[VideoNetwork, Table, VideoDataset]:
    """A run's network, its table of clips, and the data set of one split, without augmentation.

    Args:
        run: a run.
        split: train, validation, or any other that the table of clips names.
        clips: evenly placed windows per video.
        crops: squares per window, 1 or 3, as in `Preprocessing.test_squares`.

    Raises:
        UserError: the data does not fit the network, or has no such split.
    """
    if clips < 1:
        raise UserError(f"--clips: got {clips}, expected at least 1")
    model = run.model()
    table = run.table(model)
    preprocessing = network_preprocessing(model, str(run.folder))
    samples = table.of_split(split)
    dataset = VideoDataset(samples, preprocessing, class_names=table.class_names, clips=clips, crops=crops)
    return model, table, dataset


def predict_split(
    run: Run, split: str, *, clips: int = 1, crops: int = 1, **options: Any
) -> tuple[Predictions, tuple[str, ...]]:
    """Predictions of a run for a split of its data, and the class names.

    Args:
        run: a run.
        split: train, validation, or any other that the table of clips names.
        clips, crops: as for `split_dataset`.
        options: as for `predict`.

    Raises:
        UserError: as `split_dataset` and `predict`.
    """
    model, table, dataset = split_dataset(run, split, clips=clips, crops=crops)
    return predict(model, dataset, **options), table.class_names


def fused(
    first: Predictions, class_names: Sequence[str], second: Predictions, other_names: Sequence[str]
) -> tuple[Predictions, list[str]]:
    """The mean of two networks' probabilities, clip by clip.

    Args:
        first: one network's predictions.
        class_names: its classes.
        second: the other's.
        other_names: its classes; the order may be another one.

    Returns:
        The predictions of clips that both have, in the first one's order and classes; the names of the others.

    Raises:
        UserError: the networks have other classes, no clip is of both, or a clip has two labels.
    """
    if sorted(class_names) != sorted(other_names):
        different = sorted(set(class_names) ^ set(other_names))
        raise UserError(f"the two runs have other classes: {', '.join(different[:3])}; give runs with the same ones")
    rows = {clip_id: row for row, clip_id in enumerate(second.clip_ids)}
    own = [row for row, clip_id in enumerate(first.clip_ids) if clip_id in rows]
    if not own:
        raise UserError("the two runs have no clip of the same name; give tables with the same names in the column id")
    theirs = [rows[first.clip_ids[row]] for row in own]
    order = [list(other_names).index(name) for name in class_names]
    labels = first.labels[own]
    wrong = np.flatnonzero(labels != np.argsort(order)[second.labels[theirs]])
    if len(wrong):
        raise UserError(f"clip {first.clip_ids[own[wrong[0]]]!r}: has one class in each run; correct the tables")
    shared = {first.clip_ids[row] for row in own}
    left_out = [clip_id for clip_id in (*first.clip_ids, *second.clip_ids) if clip_id not in shared]
    probabilities = (first.probabilities[own] + second.probabilities[theirs][:, order]) / 2
    return Predictions(tuple(first.clip_ids[row] for row in own), labels, probabilities), left_out


class _Predictor(LightningModule):
    """Runs a network with each of several attentions, for Lightning's predict loop."""

    def __init__(
        self,
        model: VideoNetwork,
        attentions: Sequence[str],
        *,
        keep_maps: bool,
        others: Attention | None = None,
        windows: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.attentions = tuple(attentions)
        self.keep_maps = keep_maps
        self.others = others  # for each row, in the order of the data set, the other clip's attention when shuffled
        self.windows = windows
        self.rows_done = 0  # position in `others` of the next clip's first row

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        return batch.to(device, non_blocking=True)

    def predict_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Any]:
        if batch.skipped and self.others is not None:
            raise UserError(f"{batch.skipped[0].reason}; it could be read a moment ago")
        # Lightning inspects what a step returns, and does not accept frozen dataclasses
        skipped = [(clip.clip_id, clip.path, clip.reason) for clip in batch.skipped]
        return {"columns": self._columns(batch) if batch.clip_ids else {}, "skipped": skipped}

    def _columns(self, batch: ClipBatch) -> dict[str, dict[str, Tensor]]:
        start, self.rows_done = self.rows_done, self.rows_done + len(batch.pixels)
        columns: dict[str, dict[str, Tensor]] = {}
        for attention, output in self._outputs(batch, slice(start, self.rows_done)).items():
            if not bool(output.logits.isfinite().all()):
                raise NotFiniteError("logits: got NaN or infinity, expected finite numbers")
            rows = {name: getattr(batch, name) for name in ("labels", "frame_indices", "timestamps")}
            rows["probabilities"] = output.logits.float().softmax(1)
            if output.attention_logits is not None and output.attention is not None:
                rows["attention_probabilities"] = output.attention_logits.float().softmax(1)
                rows["temporal"] = output.attention.temporal.float()
                if self.keep_maps:
                    rows["spatial"] = output.attention.spatial.float()
            columns[attention] = {name: value.cpu() for name, value in rows.items()}
        return columns

    def _outputs(self, batch: ClipBatch, rows: slice) -> dict[str, Output]:
        features = encode_batch(self.model, batch, next(self.model.parameters()).dtype)
        if self.attentions == ("as-is",) or not shows_attention(self.model):
            return {attention: self.model.recognise(features) for attention in self.attentions}
        own, attention_logits_bk = self.model.attend(features)
        perceive = self.model.perceiver(features)
        outputs = {}
        for attention in self.attentions:
            if attention in SHUFFLED:
                assert self.others is not None
                replaced = SHUFFLED[attention](own, self.others.rows(rows))
            else:
                replaced = ATTENTIONS[attention](own)
            outputs[attention] = Output(perceive(replaced), attention_logits_bk, replaced)
        return outputs
