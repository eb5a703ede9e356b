"""The answers for some clips as a Parquet file; docs/archive.md describes its columns for other programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from stabn.batch.clips import ArchiveClip
from stabn.batch.manifest import JOB_FORMAT, Job, Part
from stabn.errors import UserError
from stabn.files import replacing

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
"""Values by column; columns that are not there are null."""


@dataclass(frozen=True)
class Found:
    """What the foot of a part's file says of it.

    Attributes:
        clips: how many.
        errors: how many of them could not be read.
    """

    clips: int
    errors: int


def compressed(maps: np.ndarray) -> bytes:
    """(T, h, w) values in 0..1 as T h w bytes, the last index running fastest: round(255 x).

    A byte over 255 is the value again, wrong by 1/510 at most.
    """
    return np.rint(maps * 255).astype(np.uint8).tobytes()


def row_of(clip: ArchiveClip, told: Mapping[str, Any]) -> Row:
    """A clip's row, whose file names are readable text even where they are none."""
    who = {"id": clip.clip_id, "path": clip.path, "label": clip.label, "split": clip.split}
    row = {**who, **told}
    return {name: _text(value) if isinstance(value, str) else value for name, value in row.items()}


def write_answers(out: Path, job: Job, part: Part, rows: Sequence[Row]) -> Found:
    """Write a part's file, whole or not at all; the same rows give the same bytes.

    Args:
        out: the folder of the archive.
        job: what was asked for; it is noted in the file.
        part: which.
        rows: one for each of its clips.

    Raises:
        UserError: the disk does not take it.
    """
    if len(rows) != len(part.clips):
        raise ValueError(f"rows: got {len(rows)}, expected {len(part.clips)}, one per clip")
    found = Found(len(rows), sum(row.get("error") is not None for row in rows))
    stamp = {
        "format": JOB_FORMAT,
        "job": job.id,
        "part": part.number,
        "clips": part.digest,
        "errors": found.errors,
        "weights": job.weights,
        "class_names": list(job.class_names),
        "preprocessing": job.preprocessing.as_json(),
        "precision": job.precision,
    }
    table = pa.Table.from_pylist(list(rows), SCHEMA.with_metadata({_STAMP: json.dumps(stamp)}))
    file = part.file(out)
    try:
        with replacing(file) as temporary:
            parquet.write_table(table, temporary, compression="zstd")
    except OSError as error:
        told = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be written ({told}); make room and give the same command again") from None
    return found


def found_answers(out: Path, job: Job, part: Part) -> Found | None:
    """What is known of a part's file; None where there is none that is whole and of this job."""
    try:
        foot = parquet.read_metadata(part.file(out))
        stamp = json.loads((foot.metadata or {})[_STAMP])
        if (stamp["job"], stamp["part"], stamp["clips"]) != (job.id, part.number, part.digest):
            return None
        return Found(foot.num_rows, stamp["errors"]) if foot.num_rows == len(part.clips) else None
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


def read_answers(out: Path, part: Part) -> list[Row]:
    """The rows of a part's file."""
    return parquet.read_table(part.file(out)).to_pylist()


def _text(value: str) -> str:
    """Names of files need not be Unicode, but cells must."""
    return value.encode("utf-8", "backslashreplace").decode()
