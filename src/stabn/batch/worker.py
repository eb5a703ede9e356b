"""Parts become files: clips are read ahead while the network is busy, and everything is counted."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path

from stabn.batch.manifest import Job, Part
from stabn.batch.parquet import Row, found_answers, read_answers, row_of, write_answers
from stabn.batch.predictor import Network
from stabn.batch.prefetch import Read, Readers, View
from stabn.data.video.reader import TIMEOUT
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.nn import load_pretrained


@dataclass(frozen=True)
class Means:
    """What the work is done with; the answers do not depend on it, but for rounding.

    Attributes:
        batch_size: clips that the network sees at once.
        workers: processes that decode; None for one per core.
        timeout: seconds that reading a clip may take; 0 for as long as it takes.
        engine: on what the network runs; one device.
        again: try clips once more that could not be read the last time.
    """

    batch_size: int = 16
    workers: int | None = None
    timeout: float = TIMEOUT
    engine: EngineRecipe = EngineRecipe()  # noqa: RUF009
    again: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"--batch-size: got {self.batch_size}, expected at least 1")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers: got {self.workers}, expected at least 1")
        if not 0 <= self.timeout < float("inf"):
            raise UserError(f"--timeout: got {self.timeout}, expected seconds from 0")


@dataclass(frozen=True)
class Effort:
    """What was done and what it took, in seconds.

    Attributes:
        clips: how many were looked at.
        seconds: of the clock; 0 where only parts of the work are told.
        reading: of all processes that decode, together.
        network: of all networks, with the way to their devices and back.
        waiting: of all networks, for clips to be read.
    """

    clips: int = 0
    seconds: float = 0.0
    reading: float = 0.0
    network: float = 0.0
    waiting: float = 0.0

    def __add__(self, other: "Effort") -> "Effort":
        return Effort(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(eq=False)
class _Open:
    """A part that is not written yet.

    Attributes:
        rows: one per clip; None where it is not known yet.
    """

    part: Part
    rows: list[Row | None]
    effort: Effort = field(default_factory=Effort)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Clips of one part that the network will see at once.

    Attributes:
        places: where in the part.
        reads: one per place.
    """

    of: _Open
    places: Sequence[int]
    reads: Sequence[Future[Read]]


class Worker:
    """A network and the processes that decode for it.

    Args:
        out: the folder of the archive.
        job: what is asked for.
        means: what it is done with.

    Raises:
        UserError: the network is not the job's, or the engine is not to be had here.
    """

    def __init__(self, out: Path, job: Job, means: Means) -> None:
        self.out, self.job, self.means = out, job, means
        self._network = Network(load_pretrained(job.run), job.preprocessing, job.class_names, means.engine)
        self._readers = Readers(job.preprocessing, means.workers, means.timeout)

    def write(self, parts: Iterable[Part], tell: Callable[[int], object] = lambda clips: None) -> Iterator[Effort]:
        """Write the files of parts, those that are there already passed over.

        Batches never hold clips of two parts, so that a file depends on its part alone, whatever was done before.

        Args:
            parts: which.
            tell: is called with the number of clips that were done.

        Yields:
            The effort for each part, as soon as its file is there.

        Raises:
            UserError: a file cannot be written, or a batch does not fit into memory.
        """
        batches = self._batches(parts)
        # each process is at work on a clip and knows the next one while the network is busy with a batch
        ahead = 2 + -(-2 * self._readers.count // self.means.batch_size)
        waiting = list(islice(batches, ahead))
        while waiting:
            begun = time.perf_counter()
            batch = _first_read(waiting)
            waited = time.perf_counter() - begun
            waiting.remove(batch)
            waiting += islice(batches, 1)
            batch.of.effort += Effort(waiting=waited) + self._fill(batch)
            tell(len(batch.places))
            rows = [row for row in batch.of.rows if row is not None]
            if len(rows) == len(batch.of.rows):
                write_answers(self.out, self.job, batch.of.part, rows)
                yield batch.of.effort

    def close(self) -> None:
        """End the processes."""
        self._readers.close()

    def _batches(self, parts: Iterable[Part]) -> Iterator[_Batch]:
        for part in parts:
            found = found_answers(self.out, self.job, part)
            if found is not None and not (self.means.again and found.errors):
                continue
            known = [{"error": ""} for _ in part.clips] if found is None else read_answers(self.out, part)
            opened = _Open(part, [row if row["error"] is None else None for row in known])
            places = [place for place, row in enumerate(opened.rows) if row is None]
            for start in range(0, len(places), self.means.batch_size):
                chosen = places[start : start + self.means.batch_size]
                yield _Batch(opened, chosen, self._readers.read([part.clips[place] for place in chosen]))

    def _fill(self, batch: _Batch) -> Effort:
        reads = [future.result() for future in batch.reads]
        seen = {place: read.seen for place, read in zip(batch.places, reads, strict=True)}
        views = {place: view for place, view in seen.items() if isinstance(view, View)}
        told: dict[int, Row] = {place: {"error": why} for place, why in seen.items() if isinstance(why, str)}
        begun = time.perf_counter()
        if views:
            told |= zip(views, self._network.rows(list(views.values())), strict=True)
        spent = time.perf_counter() - begun
        for place, row in told.items():
            batch.of.rows[place] = row_of(batch.of.part.clips[place], row)
        return Effort(len(reads), reading=sum(read.seconds for read in reads), network=spent)


def _first_read(batches: Sequence[_Batch]) -> _Batch:
    """The first batch whose clips are all read; a clip that takes long holds up its own batch alone."""
    while True:
        for batch in batches:
            if all(read.done() for read in batch.reads):
                return batch
        wait([read for batch in batches for read in batch.reads if not read.done()], return_when=FIRST_COMPLETED)
