"""An archive with everything that is wrong in real ones, and its answers."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.dataset
from PIL import Image

from stabn.batch.explain_batch import explain_archive
from stabn.batch.worker import BatchOptions
from stabn.data.video.reader import read_chunks
from stabn.engine.config import EngineRecipe

CPU = EngineRecipe(accelerator="cpu", precision="32-true")
OPTIONS = BatchOptions(batch_size=3, workers=2, timeout=20, engine=CPU)
PART = 4
BROKEN = {"cut": "end", "text": "text", "nothing": "empty", "absent": "no such", "late": "100"}
"""Clip -> a word of its error."""


def make_archive(folder: Path, videos: Path) -> Path:
    """Sound clips of several kinds, broken ones between them, and a table without a split."""
    folder.mkdir()
    sound = {f"sound {n}, é'": (videos / f"{n}.mp4").read_bytes() for n in range(1, 8)}
    for name, content in sound.items():
        (folder / f"{name}.mp4").write_bytes(content)
    whole = (videos / "1.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("I am a video, honestly.\n" * 100)
    (folder / "nothing.mp4").touch()
    make_frames(folder / "images", videos / "2.mp4")
    rows = [
        *((f"{name}.mp4", name, "", "Lifting something") for name in list(sound)[:3]),
        ("cut.mp4", "cut", "", "Lifting something"),
        ("text.mp4", "text", "", ""),
        *((f"{name}.mp4", name, "", "unheard of") for name in list(sound)[3:]),
        ("nothing.mp4", "nothing", "", ""),
        ("absent.mp4", "absent", "", ""),
        ("images", "images", "", ""),
        ("sound 1, é'.mp4", "part", "0.5", ""),
        ("sound 1, é'.mp4", "late", "100", ""),
    ]
    return write_rows(folder / "clips.csv", ("path", "id", "segment_start_seconds", "label"), rows)


def make_frames(folder: Path, video: Path) -> None:
    """A folder of frames, without loss."""
    folder.mkdir()
    for chunk in read_chunks(video):
        for index, frame in zip(chunk.frame_indices.tolist(), chunk.frames, strict=True):
            Image.fromarray(np.ascontiguousarray(frame.permute(1, 2, 0).numpy())).save(folder / f"img_{index:05}.png")


def write_rows(file: Path, heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as content:
        csv.writer(content).writerows([heading, *rows])
    return file


def explained(run: Path, table: Path, out: Path, **options) -> dict:
    return explain_archive(run, table, out, **{"part_clips": PART, "options": OPTIONS, **options})


def rows_of(out: Path) -> list[dict]:
    return pyarrow.dataset.dataset(out / "clips").to_table().to_pylist()


def files_of(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((out / "clips").iterdir())}


def assert_same(rows: list[dict], others: list[dict]) -> None:
    """The same answers: other numbers of threads, as other processes may have, round otherwise."""
    for row, other in zip(rows, others, strict=True):
        for column, value in row.items():
            if column == "spatial_attention" and value is not None:
                assert np.abs(maps_of(row) - maps_of(other)).max() < 1.1 / 255
            elif isinstance(value, float | list):
                assert np.allclose(value, other[column], atol=1e-6), column
            else:
                assert value == other[column]


def maps_of(row: dict) -> np.ndarray:
    """As docs/archive.md tells."""
    return np.frombuffer(row["spatial_attention"], np.uint8).reshape(row["spatial_shape"]) / 255
