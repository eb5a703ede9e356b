"""Predictions of networks that were not trained on the clips."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_run import QUICK, SETTINGS

from stabn.cli import edits as edit_verbs
from stabn.data.annotations.source import DataSource
from stabn.data.dataset import Sample, Table
from stabn.edits.project import open_project
from stabn.errors import UserError
from stabn.evaluation.predict import Predictions, predict_split
from stabn.files import read_json
from stabn.runs import open_run
from stabn.training.cross_validation import assign_folds, predict_out_of_fold
from stabn.training.recipes import NetworkRecipe
from stabn.training.train import train


def samples_of(labels: list[int]) -> list[Sample]:
    return [Sample(f"c{i}", Path(f"c{i}.mp4"), label, "train") for i, label in enumerate(labels)]


def test_every_fold_has_its_share_of_every_class_and_depends_on_the_seed_alone():
    labels = np.repeat(np.arange(4), (10, 11, 3, 20))
    folds_of = assign_folds(samples_of(labels.tolist()), 5, seed=3)
    for label in range(4):
        counts = np.bincount(folds_of[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(folds_of).max() - np.bincount(folds_of).min() <= 1
    samples = samples_of([0, 1] * 20)
    assert (assign_folds(samples, 4, seed=1) == assign_folds(samples, 4, seed=1)).all()
    assert (assign_folds(samples, 4, seed=1) != assign_folds(samples, 4, seed=2)).any()


def assert_same(predictions: Predictions, fold_predictions: Predictions, clip_ids: list[str]) -> None:
    for clip_id in clip_ids:
        ours, theirs = predictions.clip_ids.index(clip_id), fold_predictions.clip_ids.index(clip_id)
        np.testing.assert_allclose(predictions.probabilities[ours], fold_predictions.probabilities[theirs], atol=1e-5)
        assert predictions.labels[ours] == fold_predictions.labels[theirs]


@pytest.fixture(scope="module")
def collected(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out-of-fold") / "edits"
    edit_verbs.collect_command(trained, out, bound=1.0, folds=2)
    return out


def test_each_clip_is_predicted_by_a_network_that_was_not_trained_on_it(trained, collected):
    run, folds = open_run(trained), collected.with_name("edits-folds")
    held_out = [set(read_json(folds / str(fold) / "run.json", remedy="")["recipe"]["held_out"]) for fold in range(2)]
    ids = {sample.clip_id for sample in run.table(run.model()).of_split("train")}
    assert held_out[0] | held_out[1] == ids
    assert not held_out[0] & held_out[1]
    predictions = predict_out_of_fold(run, folds, folds=2)
    assert set(predictions.clip_ids) == ids
    for fold in range(2):
        fold_predictions, _ = predict_split(open_run(folds / str(fold)), "train")
        assert_same(predictions, fold_predictions, sorted(held_out[fold])[:4])
    # the project holds their mistakes, and says so
    project = open_project(collected)
    assert project.clips
    assert all(clip.predicted != clip.label for clip in project.clips)
    assert read_json(collected / "project.json", remedy="")["folds"] == 2
    assert len(project.clips) <= (~predictions.correct).sum()


def test_finished_networks_are_not_trained_again(trained, collected, tmp_path):
    folds = collected.with_name("edits-folds")
    before = {file: file.stat().st_mtime_ns for file in folds.rglob("model.safetensors")}
    assert len(before) == 2
    predict_out_of_fold(open_run(trained), folds, folds=2)
    assert {file: file.stat().st_mtime_ns for file in folds.rglob("model.safetensors")} == before


def test_networks_of_other_folds_are_refused(trained, collected):
    with pytest.raises(UserError, match=r"edits-folds/0: .*--out"):
        predict_out_of_fold(open_run(trained), collected.with_name("edits-folds"), folds=3)


def test_networks_of_another_recipe_are_refused(trained, collected, tabletop, tmp_path):
    longer = tmp_path / "longer"
    network, optimizer = NetworkRecipe("tiny"), replace(QUICK, epochs=1)
    train(longer, DataSource(str(tabletop)), network=network, optimizer=optimizer, **SETTINGS)
    with pytest.raises(UserError, match=r"edits-folds/0: .*optimizer"):
        predict_out_of_fold(open_run(longer), collected.with_name("edits-folds"), folds=2)


def listed(folder: Path, table: Table, classes: int) -> DataSource:
    """The clips of a table's first few classes as a CSV file, which numbers classes in the order of the alphabet."""
    rows = ["path,label,split"]
    for sample in table.samples:
        if sample.label < classes:
            rows.append(f'{sample.path},"{table.class_names[sample.label]}",{sample.split}')
    file = folder / "clips.csv"
    file.write_text("\n".join(rows) + "\n")
    return DataSource(str(file))


@pytest.mark.parametrize("classes", [14, 6])
def test_a_table_with_other_class_numbers_or_fewer_classes_is_predicted_in_the_runs_classes(trained, tmp_path, classes):
    first = open_run(trained)
    known = first.table(first.model())
    source = listed(tmp_path, known, classes)
    assert source.table().class_names != known.class_names[:classes]
    run = open_run(trained, source)
    predictions = predict_out_of_fold(run, tmp_path / "folds", folds=2)
    assert predictions.probabilities.shape == (2 * classes, 14)
    truth = {sample.path.stem: sample.label for sample in known.samples}
    samples = run.table(run.model()).of_split("train")
    paths = {sample.clip_id: sample.path.stem for sample in samples}
    assert predictions.labels.tolist() == [truth[paths[clip_id]] for clip_id in predictions.clip_ids]
    for fold in range(2):
        trained_on = open_run(tmp_path / "folds" / str(fold))
        assert trained_on.model().class_names == known.class_names
        fold_predictions, _ = predict_split(trained_on, "train")
        assert_same(predictions, fold_predictions, trained_on.recipe["held_out"])


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (("--bound", 7), "--bound: got 7"),
        (("--max_clips", 0), "--max_clips: got 0"),
        (("--weakest", 0), "--weakest: got 0"),
        (("--batch_size", 0), "batch_size, workers: got 0"),
    ],
)
def test_a_wrong_option_is_refused_before_networks_are_trained(trained, tmp_path, one_line, options, pattern):
    assert pattern in one_line("collect", trained, "--out", tmp_path / "edits", "--folds", 2, *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folds", [1, -2, 15])
def test_the_plain_network_and_a_wrong_number_of_folds_are_refused(plain, trained, tmp_path, one_line, folds):
    assert str(plain) in one_line("collect", plain, "--out", tmp_path / "edits", "--folds", 2)
    message = one_line("collect", trained, "--out", tmp_path / "edits", "--folds", folds)
    assert message.startswith(f"stabn collect: error: --folds: got {folds}")
    assert list(tmp_path.iterdir()) == []
