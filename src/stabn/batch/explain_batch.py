"""Explaining a whole archive, on this machine or on a Ray cluster, continuing where it was interrupted."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stabn.batch.clips import ArchiveSource, list_clips
from stabn.batch.manifest import PART_CLIPS, ArchiveJob, ArchivePart, locked_output, split_into_parts
from stabn.batch.parquet import is_finished
from stabn.batch.ray_cluster import write_on_ray
from stabn.batch.summary import count_predictions, previous_times, write_summary
from stabn.batch.worker import ArchiveWorker, BatchOptions, ProcessingTimes
from stabn.errors import UserError
from stabn.nn import load_pretrained

log = logging.getLogger(__name__)


def explain_archive(
    run: Path,
    table: Path,
    out: Path,
    *,
    source: ArchiveSource = ArchiveSource(),  # noqa: B008
    split: str | None = None,
    part_clips: int = PART_CLIPS,
    options: BatchOptions = BatchOptions(),  # noqa: B008
    ray: bool = False,
    ray_address: str | None = None,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """Write a network's predictions and attention for every clip of an archive; after an interruption, the rest.

    Args:
        run: a run, or any folder with config.json and model.safetensors.
        table: the clips, as for `list_clips`.
        out: output folder.
        source: how to read the table.
        split: only the clips of this split.
        part_clips: clips per file, the work that is lost when a process is killed.
        options: of the computation.
        ray: whether to use a Ray cluster.
        ray_address: of the cluster; None starts one on this machine.
        price_per_hour: of everything that works, in any currency.

    Returns:
        The content of summary.json.

    Raises:
        UserError: the run or the table cannot be used, or `out` holds something else.
    """
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise UserError(f"--price-per-hour: got {price_per_hour}, expected a number from 0")
    engine = options.engine
    if engine.devices not in ("auto", "1") or engine.nodes != 1:
        raise UserError(
            f"--engine.devices, --engine.nodes: got {engine.devices} and {engine.nodes}, but each network has one "
            "device; --ray uses all GPUs of all machines"
        )
    options = replace(options, engine=engine.with_resolved_precision())
    job = ArchiveJob.create(run, load_pretrained(run), options.engine.precision, table, part_clips)
    listing = list_clips(table, source, split)
    for note in listing.notes:
        log.info("note: %s", note)
    out = out.absolute()
    with locked_output(out, job, listing.clips) as clips:
        parts = split_into_parts(clips, part_clips)
        total = previous_times(out)
        start = time.monotonic()
        for times in _write_missing(out, job, options, parts, ray, ray_address):
            now = time.monotonic()
            total += replace(times, seconds=now - start)
            start = now
            write_summary(out, job, len(clips), total, price_per_hour)
        counts = count_predictions(out, job, parts)
        return write_summary(out, job, len(clips), total, price_per_hour, counts)


def _write_missing(
    out: Path, job: ArchiveJob, options: BatchOptions, parts: Sequence[ArchivePart], ray: bool, ray_address: str | None
) -> Iterator[ProcessingTimes]:
    """Write the parts that are not finished; yields the times of some more clips whenever such are done."""
    missing = [
        part
        for part in tqdm(parts, desc="reading existing parts", unit=" files", delay=2, leave=False)
        if not is_finished(out, job, part, retry_errors=options.retry_errors)
    ]
    if not missing:
        return
    total, left = (sum(len(part.clips) for part in some) for some in (parts, missing))
    with tqdm(total=total, initial=total - left, desc="explaining", unit=" clips", disable=None, leave=False) as bar:
        if ray:
            for times in write_on_ray(out, job, options, missing, ray_address):
                bar.update(times.clips)
                yield times
        else:
            with closing(ArchiveWorker(out, job, options)) as worker:
                yield from worker.write(missing, bar.update)
