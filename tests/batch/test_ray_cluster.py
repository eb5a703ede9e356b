import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from archive_folder import BROKEN, CPU, assert_same, explained, rows_of, write_rows

from stabn.batch.worker import BatchOptions
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own are not ours to mend
OPTIONS = BatchOptions(batch_size=3, workers=2, timeout=20, engine=CPU)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A cluster for all tests here: that of RAY_ADDRESS, or one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def test_ray_writes_the_same_files_and_what_it_began_is_finished_without(trained, archive, answered, tmp_path):
    out = tmp_path / "out"
    told = explained(trained, archive, out, ray=True, options=OPTIONS)
    assert (told["clips"], told["errors"]) == (14, len(BROKEN))
    assert_same(rows_of(out), rows_of(answered))
    for name in ("part-00000.parquet", "part-00002.parquet"):
        (out / "clips" / name).unlink()
    explained(trained, archive, out)
    assert_same(rows_of(out), rows_of(answered))


def test_a_killed_worker_of_ray_loses_nothing(trained, tabletop, tmp_path):
    rows = [(str(tabletop / "videos" / f"{1 + n % 5}.mp4"), f"clip {n}") for n in range(120)]
    table, out = write_rows(tmp_path / "many.csv", ("path", "id"), rows), tmp_path / "out"
    killed = []

    def kill() -> None:
        while not list(out.glob("clips/part-*")):
            time.sleep(0.01)
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # other processes come and go
                if file.read_bytes().startswith(b"ray::MapWorker"):
                    os.kill(int(file.parent.name), signal.SIGKILL)
                    killed.append(len(list(out.glob("clips/part-*"))))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    explained(trained, table, out, ray=True, options=OPTIONS)
    killer.join()
    assert killed
    assert killed[0] < 30
    assert [row["id"] for row in rows_of(out)] == [f"clip {n}" for n in range(120)]
    assert all(row["error"] is None for row in rows_of(out))


def test_a_mistake_is_told_in_one_line(trained, archive, tmp_path):
    with pytest.raises(UserError, match="--workers: got 100000"):
        explained(trained, archive, tmp_path / "out", ray=True, options=BatchOptions(workers=100_000, engine=CPU))
    options = BatchOptions(workers=1, engine=EngineRecipe(accelerator="mps"))
    with pytest.raises(UserError, match="engine: got") as stopped:
        explained(trained, archive, tmp_path / "out", ray=True, options=options)
    assert "\n" not in str(stopped.value)
