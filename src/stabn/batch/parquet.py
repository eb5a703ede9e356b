"""The Parquet files of an archive; docs/archive.md describes their columns."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from stabn.batch.clips import ArchiveClip
from stabn.batch.manifest import JOB_FORMAT, ArchiveJob, ArchivePart
from stabn.errors import UserError, describe_os_error
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


def quantised_maps(maps: np.ndarray) -> bytes:
    """Quantise (T, h, w) values in 0..1 to T h w bytes in C order, round(255 x); the error is at most 1/510."""
    return np.rint(maps * 255).astype(np.uint8).tobytes()


def clip_row(clip: ArchiveClip, prediction: Mapping[str, Any]) -> Row:
    """A clip's row; file names that are not Unicode are escaped, because cells must be."""
    row = {"id": clip.clip_id, "path": clip.path, "label": clip.label, "split": clip.split, **prediction}
    for name, value in row.items():
        if isinstance(value, str):
            row[name] = value.encode("utf-8", "backslashreplace").decode()
    return row


def write_part(out: Path, job: ArchiveJob, part: ArchivePart, rows: Sequence[Row]) -> None:
    """Write a part's file atomically; the same rows give the same bytes.

    Args:
        out: the output folder.
        job: recorded in the file.
        part: whose file.
        rows: one for each of its clips.

    Raises:
        UserError: it cannot be written.
    """
    stamp = {
        "format": JOB_FORMAT,
        "job": job.id,
        "part": part.number,
        "clips": part.digest,
        "errors": sum(row.get("error") is not None for row in rows),
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
        raise UserError(f"{describe_os_error(error, file)}, and give the same command again") from None


def _count_errors(out: Path, job: ArchiveJob, part: ArchivePart) -> int | None:
    """The number of clips without a prediction in a part's file; None where there is no complete one of this job."""
    try:
        footer = parquet.read_metadata(part.file(out))
        stamp = json.loads((footer.metadata or {})[_STAMP])
        identity = (stamp["job"], stamp["part"], stamp["clips"], footer.num_rows)
        return stamp["errors"] if identity == (job.id, part.number, part.digest, len(part.clips)) else None
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


def is_finished(out: Path, job: ArchiveJob, part: ArchivePart, *, retry_errors: bool) -> bool:
    """Whether a part's file is complete and, if errors are to be retried, without errors."""
    errors = _count_errors(out, job, part)
    return errors is not None and not (retry_errors and errors)


def predicted_rows(out: Path, job: ArchiveJob, part: ArchivePart) -> list[Row | None]:
    """The rows of a part's file; None for clips without a prediction, for all if there is no such file."""
    if _count_errors(out, job, part) is None:
        return [None] * len(part.clips)
    return [row if row["error"] is None else None for row in parquet.read_table(part.file(out)).to_pylist()]
