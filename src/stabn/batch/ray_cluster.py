"""The same work on a Ray cluster: Ray Data hands parts to actors, and those of an actor that died to another one."""

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stabn.batch.manifest import Job, Part
from stabn.batch.worker import Effort, Means, Worker
from stabn.errors import UserError

_TOGETHER = 8
"""Parts that an actor takes at once: it reads the next one's clips while the network is busy with the last one's."""
_EACH = 4
"""Cores of an actor without a GPU, if a machine has so many."""
_DEATHS = 8
"""Actors in a row that may be killed while they start."""


@dataclass(frozen=True)
class Cluster:
    """What the machines of a cluster offer.

    Attributes:
        actors: networks at work at the same time.
        workers: processes that decode for each.
        gpus: GPUs of each, 0 or 1.
    """

    actors: int
    workers: int
    gpus: int


class _Actor:
    """What Ray Data calls with rows of parts; it makes its worker when the first ones come."""

    def __init__(self, out: Path, job: Job, means: Means) -> None:
        self._arguments = (out, job, means)
        self._worker: Worker | None = None

    def __call__(self, rows: Any) -> dict[str, list[Any]]:
        efforts, refused = [Effort()], ""
        try:
            if self._worker is None:
                self._worker = Worker(*self._arguments)
            efforts += self._worker.write(pickle.loads(part) for part in rows["part"].to_pylist())
        except UserError as error:  # Ray would wrap it in two tracebacks
            refused = str(error)
        told = asdict(sum(efforts, Effort())) | {"refused": refused}
        return {name: [value] for name, value in told.items()}


def write_on_ray(out: Path, job: Job, means: Means, parts: Sequence[Part], address: str | None) -> Iterator[Effort]:
    """As `Worker.write`, on all machines of a cluster; they find `out`, the run and the videos under the same paths.

    Args:
        out: the folder of the archive, absolute.
        job: what is asked for.
        means: what it is done with; workers are those of each network.
        parts: which.
        address: of a cluster, such as auto; None starts one on this machine.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, or as `Worker`.
    """
    with _connected(address) as ray:
        cluster = _cluster(ray, means)
        actors = min(cluster.actors, len(parts))
        together = max(1, min(_TOGETHER, len(parts) // (2 * actors)))
        rows = [{"part": pickle.dumps(part)} for part in parts]
        efforts = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // together)).map_batches(
            _Actor,
            fn_constructor_args=(out, job, replace(means, workers=cluster.workers)),
            batch_size=together,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=cluster.workers,
            num_gpus=cluster.gpus,
        )
        for told in efforts.iter_rows():
            refused = told.pop("refused")
            if refused:
                raise UserError(refused)
            yield Effort(**told)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """The module, connected to a cluster; one that was not there before is gone afterwards."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("--ray: Ray is not installed; pip install 'stabn[ray]', or leave --ray out") from None
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        except Exception as error:  # noqa: BLE001 -- Ray raises nearly anything, a bare Exception when it is slow
            where = "on this machine" if address is None else f"at {address}"
            raise UserError(f"--ray: no cluster could be had {where} ({_one_line(error)}); see --ray-address") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    if hasattr(context, "max_consecutive_actor_init_deaths"):
        context.max_consecutive_actor_init_deaths = _DEATHS
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    except ray.exceptions.RayError as error:
        raise UserError(f"--ray: Ray gave up ({_one_line(error)}); give the same command again to go on") from None
    finally:
        if ours:
            ray.shutdown()


def _cluster(ray: Any, means: Means) -> Cluster:
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = means.engine.accelerator in ("auto", "gpu", "cuda")
    with_gpus = [m for m in machines if m.get("GPU", 0) >= 1 and m.get("CPU", 0) >= 1] if wanted else []
    if with_gpus:
        workers = means.workers or max(1, min(int(m["CPU"] // m["GPU"]) for m in with_gpus))
        actors = sum(int(min(m["GPU"], m["CPU"] // workers)) for m in with_gpus)
    else:
        cores = [int(m["CPU"]) for m in machines if m.get("CPU", 0) >= 1]
        workers = means.workers or min([_EACH, *cores])
        actors = sum(count // workers for count in cores)
    if not actors:
        raise UserError(f"--workers: got {workers}, more than the cores of any machine of the cluster; give less")
    return Cluster(actors, workers, int(bool(with_gpus)))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
