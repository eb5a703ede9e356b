"""A project with the small run's mistakes, and a studio on it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from postgres_cluster import postgres_database, postgres_server
from small_run import SETTINGS
from studio_client import Client, serving

from stabn.data.video.clip import write_video
from stabn.evaluation.collect import collect_project
from stabn.runs import open_run
from stabn.studio.storage.events import Store


@pytest.fixture(scope="session")
def collected(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projects") / "edits"
    collect_project(open_run(trained), folder, bound=1.0, engine=SETTINGS["engine"])
    return folder


@pytest.fixture
def project(collected: Path, tmp_path: Path) -> Path:
    """A copy of the project."""
    return shutil.copytree(collected, tmp_path / "edits")


@pytest.fixture
def client(trained: Path, project: Path) -> Iterator[Client]:
    with serving(trained, project, max_upload=4 * 2**20) as client:
        yield client


@pytest.fixture(scope="session")
def shared(trained: Path, collected: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A studio for tests that change nothing."""
    folder = tmp_path_factory.mktemp("shared") / "edits"
    with serving(trained, shutil.copytree(collected, folder), max_upload=4 * 2**20) as client:
        yield client


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video file."""
    path = tmp_path_factory.mktemp("film") / "own.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8), 10)
    return path.read_bytes()


# Databases: every test of the store runs on both kinds.


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that nobody has opened yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'studio.db'}"
    else:
        with postgres_database(request.getfixturevalue("postgres")) as url:
            yield url


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    store = Store(database, "project")
    yield store
    store.close()
