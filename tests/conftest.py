"""A small Tabletop and a run on it, made once; tests that change a folder take a copy.

Fixtures import what they need: the process that hands tests out to workers loads this file, but no network.
"""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tabletop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from stabn.data.tabletop.generate import generate_tabletop

    folder = tmp_path_factory.mktemp("data") / "tabletop"
    generate_tabletop(folder, train=28, validation=14, seed=5)
    return folder


@pytest.fixture(scope="session")
def trained(tabletop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tabletop, tmp_path_factory.mktemp("runs") / "trained", attention=True)


@pytest.fixture(scope="session")
def plain(tabletop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tabletop, tmp_path_factory.mktemp("runs") / "plain", attention=False)


def _train(tabletop: Path, folder: Path, *, attention: bool) -> Path:
    from small_run import QUICK, SETTINGS

    from stabn.data.annotations.source import DataSource
    from stabn.training.recipes import NetworkRecipe
    from stabn.training.train import train

    network = NetworkRecipe("tiny", attention=attention)
    train(folder, DataSource(str(tabletop)), network=network, optimizer=QUICK, **SETTINGS)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path):
    """A copy of the run, open."""
    from stabn.runs import open_run

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
        others = ("epoch ", "fast path ", "features: ", "note: ")
        told = [line for line in message.splitlines() if not line.startswith(others)]
        assert len(told) == 1, message
        return told[0]

    return call


MAY_BE_SKIPPED = "needs a GPU"
"""How the reason of a skip begins that continuous integration accepts: its machines have no GPU."""


def _fail_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With CI=true make a skip a failure, so that a missing browser or database cannot pass unnoticed."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(MAY_BE_SKIPPED):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped, which CI=true does not allow ({reason})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    _fail_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    report = yield
    _fail_in_ci(report)
    return report
