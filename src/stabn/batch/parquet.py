"""The Parquet files of an archive; docs/archive.md describes their columns."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from stabn.batch.clips import ArchiveClip
from stabn.batch.manifest import JOB_FORMAT, ArchiveJob, ArchivePart
from stabn.errors import UserError
from stabn.files import atomic_write

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
        pa.field("predicted", pa.string()),
        pa.field("predicted_index", pa.int32()),
        pa.field("probability", pa.float32()),
        pa.field("probabilities", pa.list_(pa.float32())),
        pa.field("attention_branch_predicted", pa.string()),
        pa.field("attention_branch_probability", pa.float32()),
        pa.field("frame_indices", pa.list_(pa.int32())),
        pa.field("timestamps", pa.list_(pa.float64())),
        pa.field("temporal_attention", pa.list_(pa.float32())),
        pa.field("spatial_attention", pa.binary()),
        pa.field("spatial_shape", pa.list_(pa.int32())),
        pa.field("crop", pa.list_(pa.float64())),
        pa.field("error", pa.string()),
    ]
)
_STAMP = b"stabn"
Row = dict[str, Any]
"""Values by column; missing columns are null."""


@dataclass(frozen=True)
class PartStatus:
    """The footer of a part's file.

    Attributes:
        clips: number of clips.
        errors: number of clips without a prediction.
    """

    clips: int
    errors: int


def quantised_maps(maps: np.ndarray) -> bytes:
    """Quantise (T, h, w) values in 0..1 to T h w bytes in C order, round(255 x); the error is at most 1/510."""
    return np.rint(maps * 255).astype(np.uint8).tobytes()


def clip_row(clip: ArchiveClip, prediction: Mapping[str, Any]) -> Row:
    """A clip's row; file names that are not Unicode are escaped."""
    row = {"id": clip.clip_id, "path": clip.path, "label": clip.label, "split": clip.split, **prediction}
    return {name: _text(value) if isinstance(value, str) else value for name, value in row.items()}


def write_part(out: Path, job: ArchiveJob, part: ArchivePart, rows: Sequence[Row]) -> PartStatus:
    """Write a part's file atomically; the same rows give the same bytes.

    Args:
        out: the output folder.
        job: recorded in the file.
        part: whose file.
        rows: one for each of its clips.

    Raises:
        UserError: it cannot be written.
    """
    if len(rows) != len(part.clips):
        raise ValueError(f"rows: got {len(rows)}, expected {len(part.clips)}, one per clip")
    status = PartStatus(len(rows), sum(row.get("error") is not None for row in rows))
    stamp = {
        "format": JOB_FORMAT,
        "job": job.id,
        "part": part.number,
        "clips": part.digest,
        "errors": status.errors,
        "weights": job.weights,
        "class_names": list(job.class_names),
        "preprocessing": job.preprocessing.as_json(),
        "precision": job.precision,
    }
    table = pa.Table.from_pylist(list(rows), SCHEMA.with_metadata({_STAMP: json.dumps(stamp)}))
    file = part.file(out)
    try:
        with atomic_write(file) as temporary:
            parquet.write_table(table, temporary, compression="zstd")
    except OSError as error:
        message = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be written ({message}); make room and give the same command again") from None
    return status


def part_status(out: Path, job: ArchiveJob, part: ArchivePart) -> PartStatus | None:
    """The status of a part's file; None where there is no complete one of this job."""
    try:
        footer = parquet.read_metadata(part.file(out))
        stamp = json.loads((footer.metadata or {})[_STAMP])
        if (stamp["job"], stamp["part"], stamp["clips"]) != (job.id, part.number, part.digest):
            return None
        return PartStatus(footer.num_rows, stamp["errors"]) if footer.num_rows == len(part.clips) else None
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


def is_finished(out: Path, job: ArchiveJob, part: ArchivePart, *, retry_errors: bool) -> bool:
    """Whether a part's file is complete and, if errors are to be retried, without errors."""
    status = part_status(out, job, part)
    return status is not None and not (retry_errors and status.errors)


def predicted_rows(out: Path, job: ArchiveJob, part: ArchivePart) -> list[Row | None]:
    """The rows of a part's file; None for clips without a prediction, for all if there is no such file."""
    if part_status(out, job, part) is None:
        return [None] * len(part.clips)
    return [row if row["error"] is None else None for row in parquet.read_table(part.file(out)).to_pylist()]


def _text(value: str) -> str:
    """Escape bytes of file names that are not Unicode, because cells must be."""
    return value.encode("utf-8", "backslashreplace").decode()
