"""Fill a feature store before training, so that every epoch trains attention branch and head alone."""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
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
from stabn.data.video.reader import init_reader_process
from stabn.engine.stop_signals import StopSignal, stop_requested
from stabn.engine.trainer import shard_indices
from stabn.errors import UserError
from stabn.nn import VideoNetwork
from stabn.nn.backbone import TokenMap, map_of
from stabn.runs import Run
from stabn.training.datamodule import ClipDataModule
from stabn.training.recipes import LoaderRecipe

logger = logging.getLogger(__name__)

FEATURES = "features"
"""The folder of the stores, beside the runs that share them."""


def with_features_of(run: Run, loader: LoaderRecipe) -> LoaderRecipe:
    """The recipe with the folder of a run's kept features, where that can be written and the recipe names no other."""
    folder = Path(run.recipe.get("loader", {}).get("features") or run.folder.absolute().parent / FEATURES)
    if loader.features or not os.access(folder, os.W_OK):
        return loader
    return replace(loader, features=str(folder))


class KeepFeatures(Callback):
    """Computes the features of all clips and views that a store lacks, before the first step, and trains on the store.

    Interrupted, it goes on where it was. Clips that cannot be read have no features; the training skips them as usual.

    Args:
        folder: of the stores; each extractor's is in a folder of its own, named by its weights and the shape of rows.
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
        shape = self._shape(model, training_set)
        store = FeatureStore(self._folder_of(model, shape), shape)
        self._check_room(store, len(training_set) * self.loader.views + len(validation_set))
        for name, dataset, views in (("train", training_set, self.loader.views), ("validation", validation_set, 1)):
            missing = missing_views(dataset, store, views)
            mine = [missing[row] for row in shard_indices(trainer, len(missing))] if missing else []
            self._fill(store, dataset, mine, trainer, module, name)
        trainer.strategy.barrier()
        data_module.training_set = KeptDataset(training_set, store)  # type: ignore[assignment]
        data_module.validation_set = KeptDataset(validation_set, store)  # type: ignore[assignment]

    def _folder_of(self, model: VideoNetwork, shape: FeatureShape) -> Path:
        rows = "x".join(map(str, shape.map))
        name = f"{model.architecture.replace('/', '-')}-{extractor_digest(model)}-{rows}-{shape.dtype}"
        return self.folder / name

    def _shape(self, model: VideoNetwork, dataset: VideoDataset) -> FeatureShape:
        preprocessing = dataset.preprocessing
        frames, crop = preprocessing.sampling.frames, preprocessing.crop
        parameter = next(model.parameters())
        with torch.no_grad():
            features = model.encode(torch.zeros(1, 3, frames, crop, crop, device=parameter.device).to(parameter.dtype))
        tokens = features.tokens.shape[1:] if isinstance(features, TokenMap) else (0, 0)
        channels, steps, height, width = map_of(features).shape[1:]
        count, token_channels = tokens
        dtype: Literal["float16", "float32"] = "float32" if self.loader.features_precision == "32" else "float16"
        return FeatureShape((channels, steps, height, width), (count, token_channels), dtype)

    def _check_room(self, store: FeatureStore, rows: int) -> None:
        gigabytes = rows * store.shape.row_bytes / 1e9
        new = (rows - min(rows, len(store))) * store.shape.row_bytes
        free = shutil.disk_usage(store.folder).free
        logger.info(
            "features: %d clips and views, %.2f GB in %s; %d are there", rows, gigabytes, store.folder, len(store)
        )
        remedy = "give fewer --loader.views, another --loader.features, or --loader.views 0 to keep none"
        if gigabytes > self.loader.features_gb:
            raise UserError(
                f"--loader.features_gb: got {self.loader.features_gb:g}, but the features take {gigabytes:.1f} GB; "
                f"allow more, or {remedy}"
            )
        if new > free:
            raise UserError(
                f"{store.folder}: has {free / 1e9:.1f} GB left, but the features take {new / 1e9:.1f} GB; {remedy}"
            )

    def _fill(
        self,
        store: FeatureStore,
        dataset: VideoDataset,
        missing: list[tuple[int, int]],
        trainer: Trainer,
        module: LightningModule,
        name: str,
    ) -> None:
        if not missing:
            return
        model: VideoNetwork = module.model  # type: ignore[assignment]
        for part in module.frozen:  # type: ignore[union-attr]
            part.eval()
        data_module: ClipDataModule = trainer.datamodule  # type: ignore[attr-defined]
        loader = DataLoader(
            _Views(dataset, missing),
            data_module.batch_size,
            num_workers=data_module.workers,
            collate_fn=list,
            worker_init_fn=init_reader_process,
        )
        hidden = None if trainer.is_global_zero else True  # None: on a terminal only
        with tqdm(total=len(missing), desc=f"features, {name}", unit="clip", disable=hidden) as bar:
            for items in loader:
                if (number := stop_requested()) is not None:
                    kept = f"features of {len(store)} clips and views are kept"
                    raise StopSignal(number, f"{kept}; give the same command again to go on")
                read = [item for item in items if not isinstance(item, SkippedClip)]
                store.add(list(self._rows(store, read, trainer, model)))
                bar.update(len(items))

    @staticmethod
    @torch.no_grad()
    def _rows(
        store: FeatureStore, items: list[tuple[str, ClipBatch, ViewRecord]], trainer: Trainer, model: VideoNetwork
    ) -> Iterator[tuple[str, np.ndarray, ViewRecord]]:
        for key, batch, record in items:
            parameter = next(model.parameters())
            with trainer.precision_plugin.forward_context():
                features = model.encode(batch.to(parameter.device).clips.to(parameter.dtype))
            parts = [map_of(features), *([features.tokens] if isinstance(features, TokenMap) else [])]
            values = torch.cat([part.float().flatten() for part in parts]).cpu().numpy().astype(store.shape.dtype)
            if not np.isfinite(values).all():
                raise UserError(
                    f"{batch.clip_ids[0]}: its features do not fit into {store.shape.dtype}; give "
                    "--loader.features_precision 32"
                )
            yield key, values, record


class _Views(Dataset[Any]):
    """Views of clips with their pixels, to be encoded; a `SkippedClip` where one cannot be read."""

    def __init__(self, dataset: VideoDataset, pairs: list[tuple[int, int]]) -> None:
        self.dataset = dataset
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: int) -> tuple[str, ClipBatch, ViewRecord] | SkippedClip:
        view, index = self.pairs[position]
        dataset = self.dataset.with_epoch(view)
        sample = dataset.samples[index]
        try:
            pixels, record = dataset.read_view(index)
        except UserError as error:
            return SkippedClip(sample.clip_id, str(sample.path), str(error))
        return dataset.view_key(index), dataset.batch_of(index, record, pixels), record


def extractor_digest(model: VideoNetwork) -> str:
    """Sixteen digits that identify the extractor's weights and statistics."""
    digest = hashlib.sha256()
    for module in model.extractor:
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            digest.update(_bytes(value))
    return digest.hexdigest()[:16]


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else str(value).encode()
