"""A small Tabletop and a run on it, made once; tests that change a folder take a copy."""

import shutil
from pathlib import Path

import pytest
from small_run import QUICK, SETTINGS

from stabn.data.annotations.source import DataSource
from stabn.data.tabletop import generate
from stabn.runs import Run, open_run
from stabn.training.config import NetworkRecipe
from stabn.training.train import train


@pytest.fixture(scope="session")
def tabletop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tabletop"
    generate(folder, train=28, validation=14, seed=5)
    return folder


@pytest.fixture(scope="session")
def trained(tabletop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    train(folder, DataSource(str(tabletop)), network=NetworkRecipe("tiny"), optimizer=QUICK, **SETTINGS)
    return folder


@pytest.fixture(scope="session")
def plain(tabletop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "plain"
    network = NetworkRecipe("tiny", attention=False)
    train(folder, DataSource(str(tabletop)), network=network, optimizer=QUICK, **SETTINGS)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return open_run(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def one_line(capsys: pytest.CaptureFixture[str]):
    """Runs the command line with a mistake in it and gives the one line that it answers."""
    from stabn.cli.main import main

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        assert stopped.value.code == 2
        message = capsys.readouterr().err
        told = [line for line in message.splitlines() if not line.startswith(("epoch ", "fast path "))]
        assert len(told) == 1, message
        return told[0]

    return call
