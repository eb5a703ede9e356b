"""Features of a frozen extractor: computed before the first epoch, and read again by everything that needs them."""

import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from stabn.data.clip_batch import ClipBatch, SkippedClip
from stabn.data.dataset import VideoDataset, ViewRecord
from stabn.data.feature_store import FeatureShape, FeatureStore, KeptDataset, missing_views
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import init_reader_process
from stabn.engine.stop_signals import StopSignal, stop_requested
from stabn.engine.trainer import shard_indices
from stabn.errors import UserError
from stabn.evaluation.predict import kept_features
from stabn.nn import VideoNetwork
from stabn.nn.backbone import Features, TokenMap, map_of
from stabn.runs import Run
from stabn.training.datamodule import ClipDataModule
from stabn.training.recipes import LoaderRecipe

logger = logging.getLogger(__name__)

FEATURES = "features"
"""The folder of the stores, beside the runs that share them."""

View = tuple[VideoDataset, int, int]
"""A data set, a view and the index of a clip."""


def features_folder(run: Path, loader: LoaderRecipe) -> Path:
    """Where the stores of a run's recipe lie: beside the run, where the recipe does not say."""
    return Path(loader.features) if loader.features else run.absolute().parent / FEATURES


def loader_of(run: Run) -> LoaderRecipe:
    """The default loader, for a run that keeps features with its views and precision: others are computed anew."""
    if "views" not in run.recipe:
        return LoaderRecipe()
    kept = run.recipe["loader"]
    return LoaderRecipe(views=kept["views"], features_precision=kept["features_precision"])


def with_features_of(run: Run, loader: LoaderRecipe) -> LoaderRecipe:
    """The recipe with the folder of a run's kept features, where that can be written and the recipe names no other."""
    folder = _folder_of(run)
    if loader.features or not os.access(folder, os.W_OK):
        return loader
    return replace(loader, features=str(folder))


def _folder_of(run: Run) -> Path:
    return Path(run.recipe.get("loader", {}).get("features") or run.folder.absolute().parent / FEATURES)


def open_store(model: VideoNetwork, preprocessing: Preprocessing, folder: Path, precision: str) -> FeatureStore:
    """The store of an extractor: a folder named by its weights and the shape of its rows.

    Args:
        model: the network, on any device.
        preprocessing: of the clips.
        folder: of all stores; made when missing.
        precision: "16" or "32" bits per number.

    Raises:
        UserError: the folder cannot be written, or what is there is damaged.
    """
    shape = _shape_of(model, preprocessing, "float32" if precision == "32" else "float16")
    rows = "x".join(map(str, shape.map))
    name = f"{model.architecture.replace('/', '-')}-{extractor_digest(model)}-{rows}-{shape.dtype}"
    return FeatureStore(folder / name, shape)


def _shape_of(model: VideoNetwork, preprocessing: Preprocessing, dtype: Literal["float16", "float32"]) -> FeatureShape:
    frames, crop = preprocessing.sampling.frames, preprocessing.crop
    parameter = next(model.parameters())
    with torch.no_grad():
        features = model.encode(torch.zeros(1, 3, frames, crop, crop, device=parameter.device).to(parameter.dtype))
    count, width = features.tokens.shape[1:] if isinstance(features, TokenMap) else (0, 0)
    channels, steps, height, row = map_of(features).shape[1:]
    return FeatureShape((channels, steps, height, row), (count, width), dtype)


def as_row(features: Features, shape: FeatureShape, clip_id: str) -> np.ndarray:
    """(values,) of the features of one clip, map before tokens, as a store keeps them.

    Raises:
        UserError: they do not fit into the store's dtype.
    """
    parts = [map_of(features), *([features.tokens] if isinstance(features, TokenMap) else [])]
    values = torch.cat([part.float().flatten() for part in parts]).cpu().numpy().astype(shape.dtype)
    if not np.isfinite(values).all():
        raise UserError(f"{clip_id}: its features do not fit into {shape.dtype}; give --loader.features_precision 32")
    return values


def fill_store(
    store: FeatureStore,
    views: Sequence[View],
    encode: Callable[[ClipBatch], Features],
    *,
    batch_size: int,
    workers: int = 0,
    title: str,
    hidden: bool | None = None,
) -> None:
    """Compute the features of views and keep them; clips that cannot be read are left out.

    Args:
        store: gets a row per view.
        views: what to compute.
        encode: the features of a batch of one clip.
        batch_size: views that are added at once.
        workers: processes that decode.
        title: before the progress bar.
        hidden: no progress bar; None shows it on a terminal only.

    Raises:
        UserError: there is no room for the features, or they do not fit into the store's dtype.
        StopSignal: the process was told to end; what is computed is kept.
    """
    processes: dict[str, Any] = {"num_workers": workers, "worker_init_fn": init_reader_process}
    loader = DataLoader(_Views(views), batch_size, collate_fn=list, **processes) if views else ()
    with tqdm(total=len(views), desc=f"features, {title}", unit="clip", disable=hidden or not views or None) as bar:
        for items in loader:
            if (number := stop_requested()) is not None:
                kept = f"features of {len(store)} clips and views are kept"
                raise StopSignal(number, f"{kept}; give the same command again to go on")
            read = [item for item in items if not isinstance(item, SkippedClip)]
            with torch.no_grad():
                store.add([(key, as_row(encode(b), store.shape, b.clip_ids[0]), record) for key, b, record in read])
            bar.update(len(items))


class KeepFeatures(Callback):
    """Computes the features of all clips and views that a store lacks, before the first step, and trains on the store.

    Interrupted, it goes on where it was. Clips that cannot be read have no features; the training skips them as usual.

    Args:
        folder: of the stores; each extractor's is in a folder of its own.
        loader: views, precision and size of the store, and how clips are read.
    """

    def __init__(self, folder: Path, loader: LoaderRecipe) -> None:
        self.folder = folder
        self.loader = loader

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Fill the store, and hand it to the data module.

        Raises:
            UserError: there is no room for the features, or they do not fit into float16.
            StopSignal: the process was told to end; what is computed is kept.
        """
        model: VideoNetwork = module.model  # type: ignore[assignment]
        data_module: ClipDataModule = trainer.datamodule  # type: ignore[attr-defined]
        training_set, validation_set = data_module.training_set, data_module.validation_set
        for part in module.frozen:  # type: ignore[union-attr]
            part.eval()
        store = open_store(model, training_set.preprocessing, self.folder, self.loader.features_precision)
        splits = (("train", training_set, self.loader.views), ("validation", validation_set, 1))
        missing = {name: missing_views(dataset, store, views) for name, dataset, views in splits}
        trainer.strategy.barrier()  # no process may add rows while another one looks for those that are missing
        self._check_room(store, sum(len(d) * views for _, d, views in splits), sum(map(len, missing.values())))
        parameter = next(model.parameters())

        def encode(batch: ClipBatch) -> Features:
            with trainer.precision_plugin.forward_context():
                return model.encode(batch.to(parameter.device).clips.to(parameter.dtype))

        for name, dataset, _ in splits:
            mine = [missing[name][row] for row in shard_indices(trainer, len(missing[name]))] if missing[name] else []
            fill_store(
                store,
                [(dataset, view, index) for view, index in mine],
                encode,
                batch_size=data_module.batch_size,
                workers=data_module.workers,
                title=name,
                hidden=None if trainer.is_global_zero else True,
            )
        trainer.strategy.barrier()
        data_module.training_set = KeptDataset(training_set, store)  # type: ignore[assignment]
        data_module.validation_set = KeptDataset(validation_set, store)  # type: ignore[assignment]

    def _check_room(self, store: FeatureStore, rows: int, missing: int) -> None:
        """Say what is kept where, and refuse what is too large."""
        needed, new = rows * store.shape.row_bytes, missing * store.shape.row_bytes
        whole = len(store) * store.shape.row_bytes + new
        free = shutil.disk_usage(store.folder).free
        logger.info(
            "features: %d clips and views, %s in %s; %d of them are to be computed",
            rows,
            _size(needed),
            store.folder,
            missing,
        )
        remedy = "give fewer --loader.views, another --loader.features, or --loader.views 0 to keep none"
        if whole > self.loader.features_gb * 1e9:
            raise UserError(
                f"--loader.features_gb: got {self.loader.features_gb:g}, but with these features {store.folder} takes "
                f"{_size(whole)}; allow more, remove it, or {remedy}"
            )
        if new > free:
            raise UserError(f"{store.folder}: has {_size(free)} left, but the features take {_size(new)}; {remedy}")


class _Views(Dataset[Any]):
    """Views of clips with their pixels, to be encoded; a `SkippedClip` where one cannot be read."""

    def __init__(self, views: Sequence[View]) -> None:
        self.views = views

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, position: int) -> tuple[str, ClipBatch, ViewRecord] | SkippedClip:
        dataset, view, index = self.views[position]
        dataset = dataset.with_epoch(view)
        sample = dataset.samples[index]
        try:
            views, record = dataset.read_view(index)
        except UserError as error:
            return SkippedClip(sample.clip_id, str(sample.path), str(error))
        return dataset.view_key(index), dataset.batch_of(index, record, views), record


def kept_dataset(
    run: Run, model: VideoNetwork, dataset: VideoDataset, loader: LoaderRecipe, batch_size: int
) -> VideoDataset | KeptDataset:
    """A data set without augmentation that reads kept features, or the same one where a run keeps none.

    Args:
        run: in whose folder the network lies.
        model: its network.
        dataset: of its clips, which may be held out of its training.
        loader: of its training.
        batch_size: clips whose features are added at once where some are missing.

    Raises:
        UserError: as `fill_store`.
    """
    if not loader.views or "views" not in run.recipe:
        return dataset
    store = open_store(model, dataset.preprocessing, features_folder(run.folder, loader), loader.features_precision)
    views = [(dataset, view, index) for view, index in missing_views(dataset, store, 1)]
    fill_store(store, views, lambda batch: model.encode(batch.clips), batch_size=batch_size, title="held out")
    return KeptDataset(dataset, store)


class KeptViews:
    """The kept features of clips as evaluation shows them, for programs that open clips one by one; thread-safe.

    Args:
        store: of the network's extractor.
        dataset: of the clips, without augmentation.
        most_bytes: that the store may have; a full one is read, but gets no more rows.
    """

    def __init__(self, store: FeatureStore, dataset: VideoDataset, most_bytes: float) -> None:
        self._store = store
        self._dataset = dataset
        self._most_rows = most_bytes // store.shape.row_bytes
        self._index = {sample.clip_id: index for index, sample in enumerate(dataset.samples)}
        self._lock = threading.Lock()

    def get(self, clip_id: str, like: Tensor) -> tuple[Features, ViewRecord] | None:
        """The features of a clip, a batch of one, and how its view was made; None without any.

        Args:
            clip_id: the clip's.
            like: has the dtype and the device that the features get.
        """
        if clip_id not in self._index:
            return None
        with self._lock:
            try:
                features, tokens, record = self._store.get(self._dataset.view_key(self._index[clip_id]))
            except KeyError:
                return None
        return kept_features(features[None].to(like), tokens[None].to(like)), record

    def add(self, clip_id: str, features: Features, record: ViewRecord) -> None:
        """Keep the features of a clip of the data set; where that is impossible, one line is logged, once."""
        with self._lock:
            if clip_id not in self._index or len(self._store) >= self._most_rows:
                return
            try:
                row = as_row(features, self._store.shape, clip_id)
                self._store.add([(self._dataset.view_key(self._index[clip_id]), row, record)])
            except UserError as error:
                logger.warning("note: %s", error)
                self._most_rows = 0


def kept_views_of(run: Run, model: VideoNetwork, dataset: VideoDataset) -> KeptViews | None:
    """The kept features of a run's clips; None where its training kept none, or they were removed.

    Args:
        run: the run.
        model: its network.
        dataset: its clips, without augmentation.
    """
    folder = _folder_of(run)
    if "views" not in run.recipe or not folder.is_dir() or not os.access(folder, os.W_OK):
        return None
    loader = LoaderRecipe(**run.recipe["loader"])
    store = open_store(model, dataset.preprocessing, folder, loader.features_precision)
    return KeptViews(store, dataset, loader.features_gb * 1e9)


def extractor_digest(model: VideoNetwork) -> str:
    """Sixteen digits that identify the extractor's weights and statistics, and how it was configured."""
    digest = hashlib.sha256(
        json.dumps(model.backbone_options, sort_keys=True).encode() if model.backbone_options else b""
    )
    for module in model.extractor:
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            digest.update(_bytes(value))
    return digest.hexdigest()[:16]


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else str(value).encode()


def _size(nbytes: float) -> str:
    """Bytes for a person, in the unit that leaves digits before the point."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes / 1e3:.1f} kB"
