"""How many, how well, how fast, and what a million clips would cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pyarrow import dataset

from stabn.batch.manifest import Job, Part
from stabn.batch.parquet import SCHEMA
from stabn.batch.worker import Effort
from stabn.errors import UserError
from stabn.files import read_json, write_json

SUMMARY = "summary.json"
SUMMARY_FORMAT = "stabn-archive-summary/1"
MILLION = 1_000_000
_NAMED = 5
"""Broken clips that are named; the files name all of them."""


@dataclass(frozen=True)
class Counts:
    """What the files of an archive hold.

    Attributes:
        clips: rows.
        errors: rows of clips that could not be read.
        first_errors: the first few of them, {"id": ..., "error": ...}.
        labelled: rows with an answer and a label that the network knows.
        right: those of them whose label is the answer.
        predicted: rows by answer, the most frequent first.
    """

    clips: int
    errors: int
    first_errors: tuple[dict[str, str], ...]
    labelled: int
    right: int
    predicted: dict[str, int]

    @property
    def top1(self) -> float | None:
        """The share of right answers; None where no clip has a label."""
        return self.right / self.labelled if self.labelled else None


def count(out: Path, job: Job, parts: Sequence[Part]) -> Counts:
    """What the files of all parts hold, read from them."""
    known = frozenset(job.class_names)
    clips = errors = labelled = right = 0
    first: list[dict[str, str]] = []
    predicted: Counter[str] = Counter()
    files = dataset.dataset([str(part.file(out)) for part in parts], SCHEMA, format="parquet")
    for batch in files.to_batches(columns=["id", "label", "predicted", "error"]):
        for row in batch.to_pylist():
            clips += 1
            if row["error"] is not None:
                errors += 1
                first += [{"id": row["id"], "error": row["error"]}][: len(first) < _NAMED]
                continue
            predicted[row["predicted"]] += 1
            labelled += row["label"] in known
            right += row["label"] == row["predicted"]
    return Counts(clips, errors, tuple(first), labelled, right, dict(predicted.most_common()))


def speed(effort: Effort, price_per_hour: float | None = None) -> dict[str, Any]:
    """The effort as JSON values, and what follows from it.

    Args:
        effort: measured; `seconds` of the clock.
        price_per_hour: of everything that works, in any currency.

    Returns:
        The effort's fields; where anything was done also clips_per_second; reading_share, of all processing how much
        was reading; waiting_share, of the networks' time how much they waited for clips; hours_per_million; and with a
        price price_per_million.
    """
    told = {name: round(value, 3) for name, value in asdict(effort).items()}
    effort = Effort(**told)  # what the file says, so that it agrees with itself
    if not effort.clips or not effort.seconds:
        return told
    hours = MILLION / effort.clips * effort.seconds / 3600
    told |= {
        "clips_per_second": _digits(effort.clips / effort.seconds),
        "reading_share": _share(effort.reading, effort.network),
        "waiting_share": _share(effort.waiting, effort.network),
        "hours_per_million": _digits(hours),
    }
    if price_per_hour is not None:
        told |= {"price_per_hour": price_per_hour, "price_per_million": _digits(hours * price_per_hour)}
    return told


def former_effort(out: Path) -> Effort:
    """What earlier commands took for this archive, as far as they came."""
    try:
        told = read_json(out / SUMMARY, remedy="")["speed"]
        return Effort(**{f.name: told[f.name] for f in fields(Effort)})
    except (UserError, KeyError, TypeError):
        return Effort()


def write_summary(
    out: Path, job: Job, clips: int, effort: Effort, price_per_hour: float | None, counts: Counts | None = None
) -> dict[str, Any]:
    """Write summary.json; without counts it says that the work is not finished.

    Args:
        out: the folder of the archive.
        job: what is asked for.
        clips: how many there are in all.
        effort: so far.
        price_per_hour: as for `speed`.
        counts: what the files hold.

    Returns:
        What it says.
    """
    told: dict[str, Any] = {
        "format": SUMMARY_FORMAT,
        "complete": counts is not None,
        "run": job.run,
        "table": job.table,
        "clips": clips,
    }
    if counts is not None:
        told |= {**asdict(counts), "first_errors": list(counts.first_errors), "top1": counts.top1}
    told["speed"] = speed(effort, price_per_hour)
    write_json(out / SUMMARY, told)
    return told


def _share(part: float, rest: float) -> float:
    total = part + rest  # 0 where every clip's error was known at once
    return round(part / total, 4) if total else 0.0


def _digits(value: float) -> float:
    """Three digits that count."""
    return float(f"{value:.3g}")
