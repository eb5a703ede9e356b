import csv
import json
import sys
from dataclasses import replace
from datetime import timedelta
from importlib.machinery import ModuleSpec
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, call

import lightning.pytorch.loggers.mlflow as lightning_mlflow
import lightning.pytorch.loggers.wandb as lightning_wandb
import pytest
from small_run import QUICK, SETTINGS, assert_same_training, power_fails_at
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stabn.data.annotations.source import DataSource
from stabn.errors import UserError
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
    losses = [value for _, value in scalars["step_loss"]]
    assert [sum(losses[:7]) / 7, sum(losses[7:]) / 7] == pytest.approx([e["train_loss"] for e in epochs], abs=1e-5)


def test_the_csv_file_has_the_same_numbers_and_the_recipe_beside_them(tracked):
    from pyarrow.csv import read_csv

    table = read_csv(tracked / "logs" / "csv" / "metrics.csv").to_pylist()
    steps = [row for row in table if row["step_loss"] is not None]
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    assert [row["step_loss"] for row in steps] == pytest.approx([v for _, v in scalars_of(tracked)["step_loss"]])
    epochs = [row for row in table if row["epoch"] is not None]
    known = json.loads((tracked / "curves.json").read_text())["epochs"]
    assert [{name: row[name] for name in known[0]} for row in epochs] == known
    recipe = (tracked / "logs" / "csv" / "hparams.yaml").read_text()
    assert "backbone: tiny" in recipe
    assert "learning_rate: 0.002" in recipe


def test_tracking_does_not_change_the_weights(tracked, trained):
    assert_same_training(trained, tracked)
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
        with power_fails_at(step):
            train(run, data, tracking=TrackingRecipe(every=1), **ARGUMENTS)
    # As if the process had been killed while it wrote a row.
    with (run / "logs" / "csv" / "metrics.csv").open("a") as file:
        file.write("1,0.00")
    train(run, data, tracking=TrackingRecipe(every=1), **ARGUMENTS)
    assert scalars_of(run) == scalars_of(tracked)
    assert rows_of(run) == rows_of(tracked)
    assert sorted(p.name for p in (run / "logs" / "csv").iterdir()) == ["hparams.yaml", "metrics.csv"]


def test_a_resumed_training_may_have_other_loggers(tabletop, tmp_path):
    run, data, short = tmp_path / "run", DataSource(str(tabletop)), replace(QUICK, epochs=1)
    arguments = ARGUMENTS | {"optimizer": short}
    with power_fails_at(2):
        train(run, data, tracking=TrackingRecipe(kind="csv", every=1), **arguments)
    assert [row["step"] for row in rows_of(run)] == ["1", "2"]
    train(run, data, tracking=TrackingRecipe(kind="tensorboard", every=5), **arguments)
    assert [step for step, _ in scalars_of(run)["step_loss"]] == [5]
    assert read_run(run)["recipe"]["tracking"]["kind"] == "tensorboard"


@pytest.fixture
def servers(monkeypatch):
    """Stand-ins for the libraries of MLflow and Weights & Biases, with what Lightning's loggers ask of them."""
    mlflow, wandb = MagicMock(), MagicMock(run=None)
    mlflow.entities.Metric = mlflow.entities.Param = SimpleNamespace
    mlflow.utils.mlflow_tags.MLFLOW_RUN_NAME = "mlflow.runName"
    mlflow.tracking.context.resolve_tags = dict
    mlflow.client = mlflow.tracking.MlflowClient.return_value
    mlflow.client.create_run.return_value.info.run_id = "r1"
    wandb.wandb_run.Run = wandb.sdk.lib.RunDisabled = type("Run", (), {})
    names = "mlflow mlflow.tracking mlflow.tracking.context mlflow.entities mlflow.utils mlflow.utils.mlflow_tags"
    for name in (*names.split(), "wandb", "wandb.sdk", "wandb.sdk.lib", "wandb.wandb_run"):
        module = attrgetter(name)(SimpleNamespace(mlflow=mlflow, wandb=wandb))
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(lightning_mlflow, "_MLFLOW_AVAILABLE", True)
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    return SimpleNamespace(mlflow=mlflow, wandb=wandb, client=mlflow.client, wandb_run=wandb.init.return_value)


SHORT = ARGUMENTS | {"optimizer": replace(QUICK, epochs=1)}


def test_mlflow_and_weights_and_biases_get_the_same_metrics_and_resume_the_same_run(tabletop, tmp_path, servers):
    run, data = tmp_path / "run", DataSource(str(tabletop))
    tracking = TrackingRecipe(kind="mlflow,wandb", project="cups", every=2)
    with power_fails_at(3):
        train(run, data, tracking=tracking, **SHORT)
    train(run, data, tracking=tracking, **SHORT)
    assert servers.mlflow.tracking.MlflowClient.call_args_list == [call(f"sqlite:///{run}/logs/mlflow.db")] * 2
    (begun,) = servers.client.create_run.call_args_list
    assert begun.kwargs["tags"] == {"mlflow.runName": "run"}
    assert servers.client.get_run.call_args == call("r1")
    first, second = (options.kwargs for options in servers.wandb.init.call_args_list)
    assert first == second
    assert (first["project"], first["name"]) == ("cups", "run")
    logged = [one.kwargs for one in servers.client.log_batch.call_args_list]
    parameters = {parameter.key: parameter.value for one in logged for parameter in one.get("params", ())}
    assert parameters["network/backbone"] == "tiny"
    assert servers.wandb_run.config.update.call_args.args[0]["optimizer"]["batch_size"] == 4
    assert [one.kwargs["exit_code"] for one in servers.wandb_run.finish.call_args_list] == [1, 0]
    assert [one.args for one in servers.client.set_terminated.call_args_list] == [("r1", "FAILED"), ("r1", "FINISHED")]
    (epoch,) = json.loads((run / "curves.json").read_text())["epochs"]
    metrics = [metric for one in logged for metric in one.get("metrics", ())]
    validation = [(metric.step, metric.value) for metric in metrics if metric.key == "validation_loss"]
    assert validation == [(7, epoch["validation_loss"])]
    assert [metric.step for metric in metrics if metric.key == "step_loss"] == [2, 2, 4, 6]
    assert servers.wandb_run.log.call_args == call(epoch | {"trainer/global_step": 7})


def test_a_server_that_fails_does_not_end_the_training(tabletop, tmp_path, caplog, servers):
    servers.wandb_run.log.side_effect = [None] * 3 + [ConnectionError("the network is down\nand out")]
    run = tmp_path / "run"
    train(run, DataSource(str(tabletop)), tracking=TrackingRecipe(kind="wandb,csv", every=1), **SHORT)
    (message,) = [line for line in caplog.messages if line.startswith("tracking: ")]
    assert "WandbLogger" in message
    assert "(the network is down)" in message
    assert [row["step"] for row in rows_of(run)] == [*"1234567", "7"]


def test_an_unreachable_server_is_an_error_that_names_it(tabletop, tmp_path, servers):
    servers.wandb.init.side_effect = ConnectionError("no API key configured")
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
