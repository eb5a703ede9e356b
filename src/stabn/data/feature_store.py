"""Features of a frozen extractor, computed once per clip and view and kept on disk.

FOLDER/about.json      what the rows are
FOLDER/features.bin    rows of equal size
FOLDER/rows.jsonl      one line per complete row: its key, and how its view was made

A row counts once its line is complete, so a process that is killed loses the rows of its last batch and nothing else.
Several processes may add rows; readers see them when they look for a key that they do not know.
"""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stabn.data.clip_batch import ClipBatch
from stabn.data.dataset import VideoDataset, ViewRecord
from stabn.data.video.reader import Reader
from stabn.errors import UserError
from stabn.files import lock_file, read_json, write_json

FORMAT = "stabn-features/1"
_REMOVE = "remove the folder, and it is computed again"
LOCK_PATIENCE = 600.0
"""Seconds to wait for another process that adds rows."""


@dataclass(frozen=True)
class FeatureShape:
    """What one row holds: a map and, for networks with class tokens, the tokens beside it.

    Attributes:
        map: (C, T', h, w).
        tokens: (N, C); (0, 0) without class tokens.
        dtype: of both.
    """

    map: tuple[int, int, int, int]
    tokens: tuple[int, int]
    dtype: Literal["float16", "float32"]

    @property
    def values(self) -> int:
        """Numbers in a row."""
        return int(np.prod(self.map)) + int(np.prod(self.tokens))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.values * np.dtype(self.dtype).itemsize


class FeatureStore:
    """The rows of one folder, which belong to one extractor.

    Args:
        folder: made when missing.
        shape: of the rows.

    Raises:
        UserError: the folder holds rows of another shape, is damaged, or cannot be written.
    """

    def __init__(self, folder: Path, shape: FeatureShape) -> None:
        self.folder = folder
        self.shape = shape
        self._rows: dict[str, tuple[int, ViewRecord]] = {}
        self._lines_read = 0
        self._data: np.ndarray | None = None
        about = {"format": FORMAT, **json.loads(json.dumps(asdict(shape)))}
        file = folder / "about.json"
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                write_json(file, about)
        if (found := read_json(file, remedy=_REMOVE)) != about:
            raise UserError(f"{file}: got {found}, expected {about}; {_REMOVE}")
        self._read_new_lines()
        data = folder / "features.bin"
        rows = data.stat().st_size // shape.row_bytes if data.exists() else 0
        if rows < len(self._rows):
            raise UserError(f"{data}: has {rows} rows, expected {len(self._rows)} as in rows.jsonl; {_REMOVE}")

    def __len__(self) -> int:
        """How many rows are known."""
        return len(self._rows)

    def known_keys(self) -> Collection[str]:
        """The keys of all rows, those that other processes have added among them."""
        self._read_new_lines()
        return self._rows.keys()

    def get(self, key: str) -> tuple[Tensor, Tensor, ViewRecord]:
        """Map (C, T', h, w), tokens (N, C) and record of a key.

        Raises:
            KeyError: there is none.
        """
        if key not in self._rows and key not in self.known_keys():
            raise KeyError(key)
        row, record = self._rows[key]
        values = self._mapped(row + 1)[row]
        size = int(np.prod(self.shape.map))
        tensor = torch.from_numpy(values.copy())
        return tensor[:size].view(self.shape.map), tensor[size:].view(self.shape.tokens), record

    def add(self, rows: Sequence[tuple[str, np.ndarray, ViewRecord]]) -> None:
        """Add rows: key, (values,) in the store's dtype, record.

        Raises:
            UserError: there is no room for them.
        """
        with self._writing(), lock_file(self.folder / ".lock", timeout=LOCK_PATIENCE):
            self._read_new_lines(repair=True)
            new = [row for row in rows if row[0] not in self._rows]
            file = self.folder / "features.bin"
            with file.open("r+b" if file.exists() else "w+b") as data:
                data.seek(len(self._rows) * self.shape.row_bytes)
                for _, values, _ in new:
                    data.write(np.ascontiguousarray(values, self.shape.dtype).tobytes())
                data.flush()
                os.fsync(data.fileno())
            lines = [
                json.dumps({"key": key, "row": len(self._rows) + number, **record.as_json()})
                for number, (key, _, record) in enumerate(new)
            ]
            with (self.folder / "rows.jsonl").open("a", encoding="utf-8") as index:
                index.write("".join(line + "\n" for line in lines))
                index.flush()
                os.fsync(index.fileno())
            self._read_new_lines()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of the operating system within the block are one line."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.folder}: features cannot be kept ({error.strerror or error}); make room, give another folder "
                "with --loader.features, or --loader.views 0 to compute them at every step; what is there is used again"
            ) from None

    def _mapped(self, rows: int) -> np.ndarray:
        if self._data is None or len(self._data) < rows:
            file = self.folder / "features.bin"
            whole = file.stat().st_size // self.shape.row_bytes
            self._data = np.memmap(file, self.shape.dtype, "r", shape=(whole, self.shape.values))
        return self._data

    def _read_new_lines(self, *, repair: bool = False) -> None:
        """Read the lines that this object does not know; with `repair` remove one that its writer did not finish."""
        file = self.folder / "rows.jsonl"
        if not file.exists():
            return
        with file.open("r+b" if repair else "rb") as content:
            content.seek(self._lines_read)
            text = content.read()
            complete = text[: text.rfind(b"\n") + 1]
            if repair and len(complete) < len(text):
                content.truncate(self._lines_read + len(complete))
        self._lines_read += len(complete)
        for line in complete.splitlines():
            try:
                value = json.loads(line)
                self._rows[value.pop("key")] = (value.pop("row"), ViewRecord.from_json(value))
            except (ValueError, LookupError, TypeError):
                raise UserError(f"{file}: line {len(self._rows) + 1} is damaged; {_REMOVE}") from None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_data": None}  # workers map the file themselves


class KeptDataset(Dataset[ClipBatch]):
    """A data set whose items have kept features in place of pixels.

    Args:
        dataset: the videos, with stored views where it is for training.
        store: the features.
    """

    def __init__(self, dataset: VideoDataset, store: FeatureStore) -> None:
        self.dataset = dataset
        self.store = store

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "store"):  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def with_epoch(self, epoch: int) -> "KeptDataset":
        """The same data in another epoch, with the same store."""
        other = copy(self)
        other.dataset = self.dataset.with_epoch(epoch)
        return other

    def with_reader(self, reader: Reader) -> "KeptDataset":
        """The same data and store; the reader says why a clip without features cannot be read."""
        other = copy(self)
        other.dataset = self.dataset.with_reader(reader)
        return other

    def __len__(self) -> int:
        """How many videos."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> ClipBatch:
        """One clip's features.

        Raises:
            UserError: its video cannot be read.
        """
        try:
            features, tokens, record = self.store.get(self.dataset.view_key(index))
        except KeyError:
            _, _ = self.dataset.read_view(index)  # says why it could not be read
            path = self.dataset.samples[index].path
            raise UserError(f"{path}: its features were not kept, though it can be read; repeat the command") from None
        batch = self.dataset.batch_of(index, record, None)
        return batch.with_features(features[None], tokens[None])


def missing_views(dataset: VideoDataset, store: FeatureStore, views: int) -> list[tuple[int, int]]:
    """(view, index) of the clips and views that a store lacks."""
    keys, datasets = store.known_keys(), [dataset.with_epoch(view) for view in range(views)]
    pairs = [(view, index) for index in range(len(dataset)) for view in range(views)]
    return [(view, index) for view, index in pairs if datasets[view].view_key(index) not in keys]
