import csv
import json
import sys
from dataclasses import replace
from datetime import timedelta
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import lightning.pytorch.loggers.mlflow as lightning_mlflow
import lightning.pytorch.loggers.wandb as lightning_wandb
import pytest
import torch
from small_run import QUICK, SETTINGS, PowerError, power_fails_at
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stabn.data.annotations.source import DataSource
from stabn.errors import UserError
from stabn.nn import load_pretrained
from stabn.runs import read_run
from stabn.training import train as fitting
from stabn.training.loggers import TrackingRecipe
from stabn.training.recipes import NetworkRecipe
from stabn.training.train import train

ARGUMENTS = {"network": NetworkRecipe("tiny"), "optimizer": QUICK, **SETTINGS}
STEPS = 14
"""Of the two epochs."""


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "logs" / "csv" / "metrics.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def scalars_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "logs" / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def tracked(tabletop, tmp_path_factory):
    """An uninterrupted training."""
    folder = tmp_path_factory.mktemp("runs") / "tracked"
    train(folder, DataSource(str(tabletop)), tracking=TrackingRecipe(every=1), **ARGUMENTS)
    return folder


def test_tensorboard_shows_every_step_and_all_that_the_curves_have(tracked):
    scalars = scalars_of(tracked)
    assert [step for step, _ in scalars["step_loss"]] == list(range(1, STEPS + 1))
    assert max(value for _, value in scalars["learning_rate"]) <= QUICK.learning_rate + 1e-9
    assert len({value for _, value in scalars["learning_rate"]}) > 5
    epochs = json.loads((tracked / "curves.json").read_text())["epochs"]
    for name in epochs[0]:
        assert [step for step, _ in scalars[name]] == [7, 14]
        assert [value for _, value in scalars[name]] == pytest.approx([entry[name] for entry in epochs])
    assert set(scalars) == {"step_loss", "learning_rate", *epochs[0]}


def test_the_csv_file_has_the_same_numbers(tracked):
    from pyarrow.csv import read_csv

    table = read_csv(tracked / "logs" / "csv" / "metrics.csv").to_pylist()
    steps = [row for row in table if row["step_loss"] is not None]
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    assert [row["step_loss"] for row in steps] == pytest.approx([v for _, v in scalars_of(tracked)["step_loss"]])
    epochs = [row for row in table if row["epoch"] is not None]
    known = json.loads((tracked / "curves.json").read_text())["epochs"]
    assert [{name: row[name] for name in known[0]} for row in epochs] == known


def test_the_mean_of_an_epochs_steps_is_its_training_loss(tracked):
    losses = [value for _, value in scalars_of(tracked)["step_loss"]]
    epochs = json.loads((tracked / "curves.json").read_text())["epochs"]
    assert [sum(losses[:7]) / 7, sum(losses[7:]) / 7] == pytest.approx([e["train_loss"] for e in epochs], abs=1e-5)


def test_the_recipe_is_beside_the_figures(tracked):
    text = (tracked / "logs" / "csv" / "hparams.yaml").read_text()
    assert "architecture: tiny" in text
    assert "learning_rate: 0.002" in text


def test_tracking_does_not_change_the_weights(tracked, trained):
    expected, got = (load_pretrained(folder).state_dict() for folder in (trained, tracked))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert (tracked / "curves.json").read_bytes() == (trained / "curves.json").read_bytes()
    assert not (trained / "logs").exists()


def test_a_resumed_training_has_every_step_once_in_the_same_files(tabletop, tracked, tmp_path, monkeypatch):
    # A checkpoint every two steps: what came after the last one is done, and written, again.
    monkeypatch.setattr(fitting, "SAVE_EVERY", timedelta(0))
    saved = fitting.TimedCheckpoint.on_train_batch_end

    def seldom(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step % 2 == 0:
            saved(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(fitting.TimedCheckpoint, "on_train_batch_end", seldom)
    run, data = tmp_path / "run", DataSource(str(tabletop))
    for step in (3, 11):
        mended = power_fails_at(monkeypatch, step)
        with pytest.raises(PowerError):
            train(run, data, tracking=TrackingRecipe(every=1), **ARGUMENTS)
        mended()
    # As if the process had been killed while it wrote a row.
    with (run / "logs" / "csv" / "metrics.csv").open("a") as file:
        file.write("1,0.00")
    train(run, data, tracking=TrackingRecipe(every=1), **ARGUMENTS)
    assert scalars_of(run) == scalars_of(tracked)
    assert rows_of(run) == rows_of(tracked)
    assert sorted(p.name for p in (run / "logs" / "csv").iterdir()) == ["hparams.yaml", "metrics.csv"]


def test_a_resumed_training_may_have_other_loggers(tabletop, tmp_path, monkeypatch):
    run, data, short = tmp_path / "run", DataSource(str(tabletop)), replace(QUICK, epochs=1)
    arguments = ARGUMENTS | {"optimizer": short}
    mended = power_fails_at(monkeypatch, 2)
    with pytest.raises(PowerError):
        train(run, data, tracking=TrackingRecipe(kind="csv", every=1), **arguments)
    assert [row["step"] for row in rows_of(run)] == ["1", "2"]
    mended()
    train(run, data, tracking=TrackingRecipe(kind="tensorboard", every=5), **arguments)
    assert [step for step, _ in scalars_of(run)["step_loss"]] == [5]
    assert read_run(run)["recipe"]["tracking"]["kind"] == "tensorboard"


class FakeServers:
    """Stand-ins for the libraries of MLflow and Weights & Biases, with what Lightning's loggers ask of them."""

    def __init__(self, monkeypatch):
        self.metrics: dict[str, list] = {}
        self.parameters: dict[str, str] = {}
        self.ended: list = []
        self.begun: list = []
        self.known: list = []
        self.logged: list[dict] = []
        self.config: dict = {}
        self.fails_from = 10**6
        servers = self

        class MlflowClient:
            def __init__(self, address):
                self.address = address

            def get_experiment_by_name(self, name):
                return SimpleNamespace(experiment_id="7", lifecycle_stage="active")

            def create_run(self, experiment_id, tags):
                servers.begun.append((self.address, tags))
                return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

            def get_run(self, run_id):
                servers.known.append((self.address, run_id))
                return SimpleNamespace(info=SimpleNamespace(experiment_id="7"))

            def log_batch(self, run_id, metrics=(), params=()):
                for metric in metrics:
                    servers.metrics.setdefault(metric.key, []).append((metric.step, metric.value))
                servers.parameters.update({param.key: param.value for param in params})

            def set_terminated(self, run_id, status):
                servers.ended.append(status)

        class Run:
            config = SimpleNamespace(update=lambda values, allow_val_change: servers.config.update(values))

            def log(self, values):
                if len(servers.logged) >= servers.fails_from:
                    raise ConnectionError("the network is down\nand out")
                servers.logged.append(values)

            def define_metric(self, *_, **__):
                pass

            def finish(self, exit_code):
                servers.ended.append(exit_code)

        def init(**options):
            servers.begun.append(options)
            return Run()

        entry = SimpleNamespace
        modules = {
            "mlflow": {"set_tracking_uri": lambda address: None},
            "mlflow.tracking": {"MlflowClient": MlflowClient},
            "mlflow.tracking.context": {"resolve_tags": dict},
            "mlflow.entities": {"Metric": entry, "Param": entry},
            "mlflow.utils": {},
            "mlflow.utils.mlflow_tags": {"MLFLOW_RUN_NAME": "mlflow.runName"},
            "wandb": {"init": init, "run": None, "Settings": entry},
            "wandb.sdk": {},
            "wandb.sdk.lib": {"RunDisabled": type("RunDisabled", (), {})},
            "wandb.wandb_run": {"Run": Run},
        }
        for name, contents in modules.items():
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None)
            vars(module).update(contents)
            monkeypatch.setitem(sys.modules, name, module)
        for name in modules:
            above, _, below = name.rpartition(".")
            if above:
                setattr(sys.modules[above], below, sys.modules[name])
        monkeypatch.setattr(lightning_mlflow, "_MLFLOW_AVAILABLE", True)
        monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.delenv("WANDB_BASE_URL", raising=False)


@pytest.fixture
def servers(monkeypatch):
    return FakeServers(monkeypatch)


SHORT = ARGUMENTS | {"optimizer": replace(QUICK, epochs=1)}


def test_mlflow_and_weights_and_biases_get_the_same_metrics_and_resume_the_same_run(
    tabletop, tmp_path, monkeypatch, servers
):
    run, data = tmp_path / "run", DataSource(str(tabletop))
    tracking = TrackingRecipe(kind="mlflow,wandb", project="cups", every=2)
    mended = power_fails_at(monkeypatch, 3)
    with pytest.raises(PowerError):
        train(run, data, tracking=tracking, **SHORT)
    mended()
    assert servers.ended == [1, "FAILED"]
    assert servers.begun[0] == (f"sqlite:///{run}/logs/mlflow.db", {"mlflow.runName": "run"})
    assert servers.begun[1]["project"] == "cups"
    assert servers.begun[1]["name"] == "run"
    assert servers.parameters["network/architecture"] == "tiny"
    assert servers.config["optimizer"]["batch_size"] == 4
    train(run, data, tracking=tracking, **SHORT)
    assert servers.known[-1] == (f"sqlite:///{run}/logs/mlflow.db", "r1")
    assert [one["id"] for one in servers.begun[1:]] == [servers.begun[1]["id"]] * 2
    assert servers.ended[2:] == [0, "FINISHED"]
    (epoch,) = json.loads((run / "curves.json").read_text())["epochs"]
    assert servers.metrics["validation_loss"] == [(7, epoch["validation_loss"])]
    assert servers.logged[-1] == epoch | {"trainer/global_step": 7}
    assert [step for step, _ in servers.metrics["step_loss"]] == [2, 2, 4, 6]


def test_a_server_that_fails_does_not_end_the_training(tabletop, tmp_path, caplog, servers):
    servers.fails_from = 3
    run = tmp_path / "run"
    train(run, DataSource(str(tabletop)), tracking=TrackingRecipe(kind="wandb,csv", every=1), **SHORT)
    (message,) = [line for line in caplog.messages if line.startswith("tracking: ")]
    assert "WandbLogger" in message
    assert "(the network is down)" in message
    assert [row["step"] for row in rows_of(run)] == [*"1234567", "7"]


def test_an_unreachable_server_is_an_error_that_names_it(tabletop, tmp_path, monkeypatch, servers):
    def refused(**options):
        raise ConnectionError("no API key configured")

    monkeypatch.setattr(sys.modules["wandb"], "init", refused)
    with pytest.raises(UserError, match=r"wandb .*no API key configured"):
        train(tmp_path / "run", DataSource(str(tabletop)), tracking=TrackingRecipe(kind="wandb"), **SHORT)


def test_a_library_that_is_not_installed_is_named_before_anything_is_written(tabletop, tmp_path, monkeypatch):
    monkeypatch.setattr("stabn.training.loggers.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install mlflow"):
        train(tmp_path / "run", DataSource(str(tabletop)), tracking=TrackingRecipe(kind="csv,mlflow"), **SHORT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"kind": "csv,excel"}, "tracking.kind: got 'excel'"),
        ({"every": 0}, "tracking.every: got 0"),
        ({"address": "http://here"}, "tracking.address: got http://here"),
        ({"kind": "mlflow,wandb", "address": "http://here"}, "MLFLOW_TRACKING_URI and WANDB_BASE_URL"),
    ],
)
def test_impossible_trackings_are_refused(options, pattern):
    with pytest.raises(UserError, match=pattern):
        TrackingRecipe(**options)


def test_names_may_have_spaces_between_them_and_none_is_nothing():
    assert TrackingRecipe(" csv, tensorboard,csv").kinds == ("csv", "tensorboard")
    assert TrackingRecipe("none").kinds == ()
