"""Runs and edits that the previous version wrote, with its names of options; `tests/legacy` has their small files."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_run import QUICK, SETTINGS, assert_same_training, finetuning, power_fails_at

from stabn.cli.evaluate import compare_command, report_command
from stabn.data.annotations.source import DataSource
from stabn.edits.project import open_project
from stabn.nn import STABN
from stabn.runs import open_run
from stabn.training import train as training
from stabn.training.correction import choose_finetuning
from stabn.training.cross_validation import predict_out_of_fold
from stabn.training.finetune import finetune, is_own_control
from stabn.training.recipes import PAPER_CORRECTION, CorrectionRecipe, NetworkRecipe, OptimizerRecipe
from stabn.training.train import train

OLD_NAMES = {
    '"optimizer"': '"optimiser"',
    '"activation_checkpointing"': '"recompute"',
}


@pytest.fixture
def legacy(tabletop: Path, tmp_path: Path) -> Path:
    """A copy whose paths lead to the data and the runs of this test, with random weights."""
    folder = shutil.copytree(Path(__file__).with_name("legacy"), tmp_path / "legacy")
    for file in [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]:
        text = file.read_text().replace("/previous/tabletop", str(tabletop)).replace("/previous", str(folder))
        file.write_text(text)
    for number, name in enumerate(("run", "finetuned", "anew")):
        torch.manual_seed(number)
        weights = STABN("tiny", 14, 8).state_dict()
        save_file(weights, folder / name / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_recipes_have_the_names_and_values_of_today(legacy):
    run, finetuned, anew = (open_run(legacy / name) for name in ("run", "finetuned", "anew"))
    assert OptimizerRecipe.from_json(run.recipe["optimizer"]) == QUICK
    assert run.recipe["engine"]["activation_checkpointing"] is False
    assert CorrectionRecipe(**finetuned.recipe["correction"]) == PAPER_CORRECTION
    expected = replace(PAPER_CORRECTION, init="scratch", freeze="none", mechanism="gated")
    assert CorrectionRecipe(**anew.recipe["correction"]) == expected
    assert len(anew.edited) == 25


def test_runs_are_compared_and_reported(legacy, tmp_path):
    report_command(legacy / "run", legacy / "finetuned", tmp_path / "report.html", edits=legacy / "edits")
    assert "fine-tuned" in (tmp_path / "report.html").read_text()
    compared = compare_command([legacy / "run", legacy / "anew"])
    assert len(compared["methods"]) == 2


def test_a_run_is_fine_tuned_and_is_the_control_of_its_own_retraining(legacy, tmp_path):
    run, project = open_run(legacy / "run"), open_project(legacy / "edits")
    parts = {name: SETTINGS[name] for name in ("loader", "engine")}
    metrics = finetune(run, project, tmp_path / "out", finetuning(), control=False, **parts)
    assert metrics["edits"] == 25
    how = choose_finetuning(run)
    assert how.correction.init == "checkpoint", "how long its training took is not known"
    assert (how.augmentation, how.seed) == (SETTINGS["augmentation"], SETTINGS["seed"])
    assert is_own_control(run, choose_finetuning(run, CorrectionRecipe("scratch")))


def test_its_recipe_trains_the_networks_of_a_cross_validation(legacy, tmp_path):
    predictions = predict_out_of_fold(open_run(legacy / "run"), tmp_path / "folds", folds=2)
    assert len(predictions.clip_ids) == 28


def test_an_unfinished_training_ends_with_the_same_weights_and_curves(tabletop, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", timedelta(0))
    arguments = {"network": NetworkRecipe("tiny"), "optimizer": QUICK, **SETTINGS}
    with power_fails_at(9):
        train(tmp_path / "run", DataSource(str(tabletop)), **arguments)
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert {"SkippedClips", "_Curves"} <= set(checkpoint["callbacks"])  # the previous version's keys
    file = tmp_path / "run" / "run.json"
    text = file.read_text()
    for name, old in OLD_NAMES.items():
        assert name in text
        text = text.replace(name, old)
    file.write_text(text)
    train(tmp_path / "run", DataSource(str(tabletop)), **arguments)
    assert_same_training(trained, tmp_path / "run")
    assert json.loads(file.read_text())["recipe"]["optimizer"]["epochs"] == 2
