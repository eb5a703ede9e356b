"""Explaining an archive on a Ray cluster: Ray Data gives parts to actors, and repeats those of an actor that died."""

import logging
import os
import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stabn.batch.manifest import ArchiveJob, ArchivePart
from stabn.batch.worker import ArchiveWorker, BatchOptions, ProcessingTimes
from stabn.engine.stop_signals import StopSignal, take_stop_signals
from stabn.errors import UserError

_PARTS_PER_CALL = 8
"""Parts that an actor takes at once: it reads the next one's clips while the network is busy with the last one's."""
_CPUS_PER_ACTOR = 4
"""Cores of an actor without a GPU, if every machine has so many."""
_ACTOR_START_FAILURES = 8
"""Actors in a row that may be killed while they start."""


class _Actor:
    """A worker as a callable for Ray Data; it is made at the first call, so that its errors can be returned."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self._worker: ArchiveWorker | None = None

    def __call__(self, rows: Any) -> dict[str, list[Any]]:
        times, error_message = [ProcessingTimes()], ""
        try:
            if self._worker is None:
                self._worker = ArchiveWorker(*self._arguments)
            times += self._worker.write(pickle.loads(part) for part in rows["part"].to_pylist())
        except UserError as error:  # Ray would wrap it in two tracebacks
            error_message = str(error)
        row = asdict(sum(times, ProcessingTimes())) | {"error": error_message}
        return {name: [value] for name, value in row.items()}


def write_on_ray(
    out: Path, job: ArchiveJob, options: BatchOptions, parts: Sequence[ArchivePart], address: str | None
) -> Iterator[ProcessingTimes]:
    """As `ArchiveWorker.write`, on a cluster whose machines have `out`, the run and the videos under the same paths.

    Args:
        out: the output folder, absolute.
        job: the job.
        options: of the computation; `workers` is the number per network.
        parts: the parts.
        address: of a cluster, such as auto; None starts one on this machine.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, or as `ArchiveWorker`.
    """
    with _connected(address) as ray:
        actors, workers, gpus = _actors(ray, options)
        actors = min(actors, len(parts))
        parts_per_call = max(1, min(_PARTS_PER_CALL, len(parts) // (2 * actors)))
        items = [{"part": pickle.dumps(part)} for part in parts]
        results = ray.data.from_items(items, override_num_blocks=-(-len(items) // parts_per_call)).map_batches(
            _Actor,
            fn_constructor_args=(out, job, replace(options, workers=workers)),
            batch_size=parts_per_call,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=workers,
            num_gpus=gpus,
        )
        for row in results.iter_rows():
            error_message = row.pop("error")
            if error_message:
                raise UserError(error_message)
            yield ProcessingTimes(**row)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to a cluster; one that was started here is stopped afterwards."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("--ray: Ray is not installed; pip install 'stabn[ray]', or leave --ray out") from None
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        except Exception as error:  # noqa: BLE001 -- Ray raises nearly anything, a bare Exception when it is slow
            where = "on this machine" if address is None else f"at {address}"
            raise UserError(f"--ray: no cluster {where} ({_one_line(error)}); see --ray-address") from None
        except SystemExit:  # by the handler for SIGTERM that Ray installs
            raise StopSignal(signal.SIGTERM) from None
        take_stop_signals()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    if hasattr(context, "max_consecutive_actor_init_deaths"):
        context.max_consecutive_actor_init_deaths = _ACTOR_START_FAILURES
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    except ray.exceptions.RayError as error:
        raise UserError(f"--ray: Ray failed ({_one_line(error)}); give the same command again to continue") from None
    except SystemExit:
        raise StopSignal(signal.SIGTERM) from None
    finally:
        if started:
            ray.shutdown()


def _actors(ray: Any, options: BatchOptions) -> tuple[int, int, int]:
    """The number of networks at the same time; decoding processes, and GPUs (0 or 1), of each."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [machine for machine in machines if machine.get("CPU", 0) >= 1]
    with_gpus = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    if with_gpus and options.engine.accelerator in ("auto", "gpu", "cuda"):
        workers = options.workers or max(1, min(int(m["CPU"] // m["GPU"]) for m in with_gpus))
        actors, gpus = sum(int(min(m["GPU"], m["CPU"] // workers)) for m in with_gpus), 1
    else:
        cores = [int(machine["CPU"]) for machine in machines]
        workers = options.workers or min([_CPUS_PER_ACTOR, *cores])
        actors, gpus = sum(count // workers for count in cores), 0
    if not actors:
        raise UserError(f"--workers: got {workers}, more than the cores of any machine of the cluster; give less")
    return actors, workers, gpus


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
