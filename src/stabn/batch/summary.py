"""The summary of an archive: counts, accuracy, speed, and the price of a million clips."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pyarrow import dataset

from stabn.batch.manifest import ArchiveJob, ArchivePart
from stabn.batch.parquet import SCHEMA
from stabn.batch.worker import ProcessingTimes
from stabn.errors import UserError
from stabn.files import read_json, write_json

SUMMARY = "summary.json"
SUMMARY_FORMAT = "stabn-archive-summary/1"
MILLION = 1_000_000
_LISTED_ERRORS = 5
"""Errors that the summary lists; the files have all of them."""


def count_predictions(out: Path, job: ArchiveJob, parts: Sequence[ArchivePart]) -> dict[str, Any]:
    """Count the rows of all parts' files.

    Returns:
        clips: number of rows; errors: those without a prediction; first_errors: the first of these, {"id": ...,
        "error": ...}; labelled: rows with a prediction and a label that the network knows; right: those of them whose
        label is predicted; predicted: rows by predicted class, the most frequent first; top1: right / labelled, and
        mean_class_accuracy: its mean over the labelled classes, both None where no clip has a label.
    """
    clips = 0
    labelled: Counter[str] = Counter()
    right: Counter[str] = Counter()
    errors: list[dict[str, str]] = []
    predicted: Counter[str] = Counter()
    files = dataset.dataset([str(part.file(out)) for part in parts], SCHEMA, format="parquet")
    for batch in files.to_batches(columns=["id", "label", "predicted", "error"]):
        for row in batch.to_pylist():
            clips += 1
            if row["error"] is not None:
                errors.append({"id": row["id"], "error": row["error"]})
                continue
            predicted[row["predicted"]] += 1
            if row["label"] in job.class_names:
                labelled[row["label"]] += 1
                right[row["label"]] += row["label"] == row["predicted"]
    shares = [right[label] / count for label, count in labelled.items()]
    return {
        "clips": clips,
        "errors": len(errors),
        "first_errors": errors[:_LISTED_ERRORS],
        "labelled": labelled.total(),
        "right": right.total(),
        "predicted": dict(predicted.most_common()),
        "top1": right.total() / labelled.total() if labelled else None,
        "mean_class_accuracy": sum(shares) / len(shares) if shares else None,
    }


def speed_report(times: ProcessingTimes, price_per_hour: float | None = None) -> dict[str, Any]:
    """The times as JSON values, with rates and costs.

    Args:
        times: measured; `seconds` is wall-clock time.
        price_per_hour: of everything that works, in any currency.

    Returns:
        The fields of `times`; where anything was done also clips_per_second; reading_share = reading / (reading +
        network); waiting_share = waiting / (waiting + network); hours_per_million; and with a price price_per_hour and
        price_per_million.
    """
    report: dict[str, Any] = {name: round(value, 3) for name, value in asdict(times).items()}
    times = ProcessingTimes(**report)  # the rounded values, so that the file agrees with itself
    if not times.clips or not times.seconds:
        return report
    hours = MILLION / times.clips * times.seconds / 3600
    report |= {
        "clips_per_second": _three_digits(times.clips / times.seconds),
        "reading_share": _share(times.reading, times.network),
        "waiting_share": _share(times.waiting, times.network),
        "hours_per_million": _three_digits(hours),
    }
    if price_per_hour is not None:
        report |= {"price_per_hour": price_per_hour, "price_per_million": _three_digits(hours * price_per_hour)}
    return report


def previous_times(out: Path) -> ProcessingTimes:
    """The times of earlier commands for the same output folder, from its summary."""
    try:
        speed = read_json(out / SUMMARY, remedy="")["speed"]
        return ProcessingTimes(**{f.name: speed[f.name] for f in fields(ProcessingTimes)})
    except (UserError, KeyError, TypeError):
        return ProcessingTimes()


def write_summary(
    out: Path,
    job: ArchiveJob,
    clips: int,
    times: ProcessingTimes,
    price_per_hour: float | None,
    counts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write summary.json.

    Args:
        out: the output folder.
        job: the job.
        clips: number of clips of the archive.
        times: so far.
        price_per_hour: as for `speed_report`.
        counts: of `count_predictions`; without them the summary is marked as incomplete.

    Returns:
        Its content.
    """
    summary: dict[str, Any] = {
        "format": SUMMARY_FORMAT,
        "complete": counts is not None,
        "run": job.run,
        "table": job.table,
        "clips": clips,
        **(counts or {}),
        "speed": speed_report(times, price_per_hour),
    }
    write_json(out / SUMMARY, summary)
    return summary


def _share(part: float, rest: float) -> float:
    total = part + rest  # 0 where no clip needed reading
    return round(part / total, 4) if total else 0.0


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")
