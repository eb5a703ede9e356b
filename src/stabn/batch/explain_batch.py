"""From a run and a table of clips to a folder of answers, on this machine or on a cluster, from where it was left."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stabn.batch.clips import ArchiveSource, list_clips
from stabn.batch.manifest import PART_CLIPS, Job, Part, claimed, parts
from stabn.batch.parquet import found_answers
from stabn.batch.ray_cluster import write_on_ray
from stabn.batch.summary import count, former_effort, write_summary
from stabn.batch.worker import Effort, Means, Worker
from stabn.errors import UserError
from stabn.nn import load_pretrained


def explain_archive(
    run: Path,
    table: Path,
    out: Path,
    *,
    source: ArchiveSource = ArchiveSource(),  # noqa: B008
    split: str | None = None,
    part_clips: int = PART_CLIPS,
    means: Means = Means(),  # noqa: B008
    ray: bool = False,
    ray_address: str | None = None,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """Ask a network about every clip of an archive; given again after an interruption, only what is missing.

    Args:
        run: a run, or any folder with config.json and model.safetensors.
        table: the clips, as for `list_clips`.
        out: folder for the answers.
        source: what the table does not say itself.
        split: only the clips of this split.
        part_clips: clips in a file, which is what a killed process has to do again.
        means: what it is done with.
        ray: on a cluster of Ray.
        ray_address: which; by default one on this machine.
        price_per_hour: of everything that works, in any currency.

    Returns:
        What summary.json says.

    Raises:
        UserError: the run or the table cannot be used, or `out` holds something else.
    """
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise UserError(f"--price-per-hour: got {price_per_hour}, expected a number from 0")
    if means.engine.devices not in ("auto", "1") or means.engine.nodes != 1:
        raise UserError(
            f"--engine.devices, --engine.nodes: got {means.engine.devices} and {means.engine.nodes}, but each network "
            "has one device; --ray uses all GPUs of all machines"
        )
    means = replace(means, engine=means.engine.settled())
    job = Job.of(run, load_pretrained(run), means.engine.precision, table, part_clips)
    listed = list_clips(table, source, split)
    for note in listed.notes:
        print(f"note: {note}")
    out = out.absolute()
    with claimed(out, job, listed.clips):
        cut = parts(listed.clips, part_clips)
        left = _left(out, job, cut, means)
        effort = former_effort(out)
        for one in _measured(_efforts(out, job, means, left, ray, ray_address, len(listed.clips)), effort):
            effort = one
            write_summary(out, job, len(listed.clips), effort, price_per_hour)
        return write_summary(out, job, len(listed.clips), effort, price_per_hour, count(out, job, cut))


def _left(out: Path, job: Job, cut: Sequence[Part], means: Means) -> list[Part]:
    left = []
    for part in tqdm(cut, desc="looking for answers", unit=" files", delay=2, leave=False):
        found = found_answers(out, job, part)
        if found is None or (means.again and found.errors):
            left.append(part)
    return left


def _efforts(
    out: Path, job: Job, means: Means, left: Sequence[Part], ray: bool, address: str | None, total: int
) -> Iterator[Effort]:
    """The effort for some more clips, each time that some are done."""
    if not left:
        return
    initial = total - sum(len(part.clips) for part in left)
    with tqdm(total=total, initial=initial, desc="explaining", unit=" clips", disable=None, leave=False) as bar:
        if ray:
            for effort in write_on_ray(out, job, means, left, address):
                bar.update(effort.clips)
                yield effort
        else:
            with closing(Worker(out, job, means)) as worker:
                yield from worker.write(left, bar.update)


def _measured(efforts: Iterator[Effort], total: Effort) -> Iterator[Effort]:
    """The sums with what was done before, and the time of the clock in them."""
    begun = time.monotonic()
    for effort in efforts:
        now = time.monotonic()
        total += replace(effort, seconds=now - begun)
        begun = now
        yield total
