"""From parts to files: clips are read ahead while the network is busy, and times are measured."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path

from stabn.batch.manifest import ArchiveJob, ArchivePart
from stabn.batch.parquet import Row, clip_row, is_finished, predicted_rows, write_part
from stabn.batch.predictor import ArchivePredictor
from stabn.batch.prefetch import ClipRead, ClipView, ReaderPool
from stabn.data.video.reader import TIMEOUT
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.nn import load_pretrained


@dataclass(frozen=True)
class BatchOptions:
    """Options of the computation, on which the predictions do not depend but for rounding.

    Attributes:
        batch_size: clips per forward pass.
        workers: decoding processes; None for one per core.
        timeout: seconds that reading a clip may take; 0 for no limit.
        engine: device and precision; one device.
        retry_errors: read those clips again that could not be read the last time.
    """

    batch_size: int = 16
    workers: int | None = None
    timeout: float = TIMEOUT
    engine: EngineRecipe = EngineRecipe()  # noqa: RUF009
    retry_errors: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"--batch-size: got {self.batch_size}, expected at least 1")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers: got {self.workers}, expected at least 1")
        if not 0 <= self.timeout < float("inf"):
            raise UserError(f"--timeout: got {self.timeout}, expected seconds from 0")


@dataclass(frozen=True)
class ProcessingTimes:
    """Clips that were processed, and the seconds that it took.

    Attributes:
        clips: number of clips.
        seconds: wall-clock time; 0 where it is measured elsewhere.
        reading: of all decoding processes, summed.
        network: of all networks, summed, with transfers to their devices and back.
        waiting: of all networks, summed, for clips to be read.
    """

    clips: int = 0
    seconds: float = 0.0
    reading: float = 0.0
    network: float = 0.0
    waiting: float = 0.0

    def __add__(self, other: "ProcessingTimes") -> "ProcessingTimes":
        return ProcessingTimes(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(eq=False)
class _OpenPart:
    """A part that is not written yet; `rows` has None for clips without a prediction so far."""

    part: ArchivePart
    rows: list[Row | None]
    times: ProcessingTimes = field(default_factory=ProcessingTimes)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Clips of one part for a forward pass: their positions in the part, and their reads."""

    open_part: _OpenPart
    positions: Sequence[int]
    reads: Sequence[Future[ClipRead]]


class ArchiveWorker:
    """A network and the processes that decode for it.

    Args:
        out: the output folder.
        job: the job.
        options: of the computation.

    Raises:
        UserError: the network cannot be loaded, or this machine has no such engine.
    """

    def __init__(self, out: Path, job: ArchiveJob, options: BatchOptions) -> None:
        self.out, self.job, self.options = out, job, options
        self._predictor = ArchivePredictor(load_pretrained(job.run), job.preprocessing, job.class_names, options.engine)
        self._readers = ReaderPool(job.preprocessing, options.workers, options.timeout)

    def write(
        self, parts: Iterable[ArchivePart], report: Callable[[int], object] = lambda clips: None
    ) -> Iterator[ProcessingTimes]:
        """Write the files of parts; finished ones are skipped.

        Batches never hold clips of two parts, so that a file depends on its part alone.

        Args:
            parts: the parts.
            report: called with the number of clips of each batch that is done.

        Yields:
            The times for each part, as soon as its file is written.

        Raises:
            UserError: a file cannot be written, or a batch does not fit into memory.
        """
        batches = self._batches(parts)
        # While the network processes a batch, every decoding process has a clip to read and another one waiting.
        ahead = 2 + -(-2 * self._readers.count // self.options.batch_size)
        pending = list(islice(batches, ahead))
        while pending:
            start = time.perf_counter()
            batch = _first_read(pending)
            waited = time.perf_counter() - start
            pending.remove(batch)
            pending += islice(batches, 1)
            open_part = batch.open_part
            open_part.times += ProcessingTimes(waiting=waited) + self._predict(batch)
            report(len(batch.positions))
            rows = [row for row in open_part.rows if row is not None]
            if len(rows) == len(open_part.rows):
                write_part(self.out, self.job, open_part.part, rows)
                yield open_part.times

    def close(self) -> None:
        """End the decoding processes."""
        self._readers.close()

    def _batches(self, parts: Iterable[ArchivePart]) -> Iterator[_Batch]:
        for part in parts:
            if is_finished(self.out, self.job, part, retry_errors=self.options.retry_errors):
                continue
            open_part = _OpenPart(part, predicted_rows(self.out, self.job, part))
            missing = [position for position, row in enumerate(open_part.rows) if row is None]
            for start in range(0, len(missing), self.options.batch_size):
                positions = missing[start : start + self.options.batch_size]
                yield _Batch(open_part, positions, self._readers.read([part.clips[p] for p in positions]))

    def _predict(self, batch: _Batch) -> ProcessingTimes:
        """Fill the batch's rows of its part."""
        reads = [future.result() for future in batch.reads]
        results = {position: read.result for position, read in zip(batch.positions, reads, strict=True)}
        views = {position: view for position, view in results.items() if isinstance(view, ClipView)}
        rows: dict[int, Row] = {p: {"error": error} for p, error in results.items() if isinstance(error, str)}
        start = time.perf_counter()
        if views:
            rows |= zip(views, self._predictor.rows(list(views.values())), strict=True)
        seconds = time.perf_counter() - start
        for position, row in rows.items():
            batch.open_part.rows[position] = clip_row(batch.open_part.part.clips[position], row)
        return ProcessingTimes(len(reads), reading=sum(read.seconds for read in reads), network=seconds)


def _first_read(batches: Sequence[_Batch]) -> _Batch:
    """Wait for the first batch whose clips are all read; a clip that takes long delays its own batch alone."""
    while True:
        for batch in batches:
            if all(read.done() for read in batch.reads):
                return batch
        wait([read for batch in batches for read in batch.reads if not read.done()], return_when=FIRST_COMPLETED)
