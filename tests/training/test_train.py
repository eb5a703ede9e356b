import json
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from filelock import FileLock
from small_run import FINETUNING, FRAMES, QUICK, SETTINGS, assert_same_training, finetuning, power_fails_at

from stabn.data.annotations.source import DataSource
from stabn.data.dataset import VideoDataset
from stabn.errors import UserError
from stabn.nn import STABN, PlainNetwork, load_pretrained
from stabn.records import write_edits
from stabn.runs import network_preprocessing, open_run
from stabn.training import train as fitting
from stabn.training.datamodule import ClipDataModule, ResumableLoader
from stabn.training.finetune import finetune
from stabn.training.module import TrainingModule
from stabn.training.recipes import LoaderRecipe, NetworkRecipe, OptimizerRecipe
from stabn.training.train import build_datasets, fit_network, train

ARGUMENTS = {"network": NetworkRecipe("tiny"), "optimizer": QUICK, **SETTINGS}


def test_a_run_is_a_folder_with_a_usable_network(trained):
    model = STABN.from_pretrained(trained)
    assert model.frames == FRAMES
    assert len(model.class_names) == 14
    preprocessing = network_preprocessing(model, "run")
    assert preprocessing.crop == 32
    assert sorted(p.name for p in trained.iterdir()) == ["config.json", "curves.json", "model.safetensors", "run.json"]
    epochs = json.loads((trained / "curves.json").read_text())["epochs"]
    assert [entry["epoch"] for entry in epochs] == [1, 2]
    measures = {f"{s}_{m}" for s in ("train", "validation") for m in ("loss", "top1", "mean_class_accuracy")}
    assert set(epochs[0]) == {"epoch"} | measures


def test_the_baseline_differs_from_st_abn_in_the_attention_branch_alone(trained, plain):
    with_branch, without = load_pretrained(trained), load_pretrained(plain)
    assert type(without) is PlainNetwork
    names = set(without.state_dict())
    added = set(with_branch.state_dict()) - names
    assert names <= set(with_branch.state_dict())
    assert {name.split(".")[0] for name in added} == {
        "layer_att_common", "conv_att_common", "conv_att_out", "fc_att_out", "conv_spatial_att",
        "conv_temp_att1", "conv_temp_att2", "conv_temp_att3", "conv_att_mechanism",
    }  # fmt: skip
    recipes = [open_run(folder).recipe for folder in (trained, plain)]
    assert {**recipes[0], "network": recipes[0]["network"] | {"attention": False}} == recipes[1]


@pytest.mark.parametrize("interrupted_at", [3, 7, 9])
def test_an_interrupted_training_ends_with_the_same_weights_and_curves(
    tabletop, trained, tmp_path, monkeypatch, interrupted_at
):
    # 7 steps an epoch: 3 and 9 are inside the first and the second epoch, 7 is between them.
    monkeypatch.setattr(fitting, "SAVE_EVERY", timedelta(0))
    with power_fails_at(interrupted_at):
        train(tmp_path / "run", DataSource(str(tabletop)), **ARGUMENTS)
    with pytest.raises(UserError, match=str(tmp_path / "run")):
        open_run(tmp_path / "run")
    train(tmp_path / "run", DataSource(str(tabletop)), **ARGUMENTS)
    assert_same_training(trained, tmp_path / "run")


def test_the_same_command_twice_at_once_is_refused_once(tabletop, trained, tmp_path):
    with power_fails_at(3):
        train(tmp_path / "run", DataSource(str(tabletop)), **ARGUMENTS)
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(UserError, match=str(tmp_path / "run")):
        train(tmp_path / "run", DataSource(str(tabletop)), **ARGUMENTS)
    train(tmp_path / "run", DataSource(str(tabletop)), **ARGUMENTS)
    assert {file.name for file in (tmp_path / "run").iterdir()} == {file.name for file in trained.iterdir()}


def test_another_seed_gives_other_weights(tabletop, trained, tmp_path):
    train(tmp_path / "run", DataSource(str(tabletop)), **ARGUMENTS | {"optimizer": replace(QUICK, epochs=1), "seed": 4})
    one, other = (load_pretrained(folder).state_dict() for folder in (trained, tmp_path / "run"))
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_a_run_folder_with_another_recipe_or_another_purpose_is_left_alone(tabletop, run, tmp_path):
    with pytest.raises(UserError, match=str(run.folder)):
        train(run.folder, DataSource(str(tabletop)), **ARGUMENTS)
    value = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(value | {"complete": False}))
    with pytest.raises(UserError, match=r"seed = 3.* 4"):
        train(run.folder, DataSource(str(tabletop)), **ARGUMENTS | {"seed": 4})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=str(tmp_path / "mine")):
        train(tmp_path / "mine", DataSource(str(tabletop)), **ARGUMENTS)


def test_a_resumed_loader_gives_exactly_the_batches_that_are_left(tabletop):
    table = DataSource(str(tabletop)).table()
    parts = {name: SETTINGS[name] for name in ("preprocessing", "augmentation", "loader", "seed")}
    dataset, _ = build_datasets(table, **parts)
    whole = [batch.clip_ids for batch in ResumableLoader(dataset, 4, 0)]
    assert len(whole) == 7
    assert len({clip_id for batch in whole for clip_id in batch}) == 28
    half = ResumableLoader(dataset, 4, 0)
    batches = iter(half)
    given = [next(batches).clip_ids for _ in range(3)]
    rest = ResumableLoader(dataset, 4, 0)
    rest.load_state_dict(half.state_dict())
    assert given + [batch.clip_ids for batch in rest] == whole
    other = ResumableLoader(dataset.with_epoch(1), 4, 0)
    assert [batch.clip_ids for batch in other] != whole


ENGINE = {name: SETTINGS[name] for name in ("loader", "engine")}


def test_fine_tuning_moves_time_towards_the_edits_and_leaves_the_extractor_as_it_was(run, project, tmp_path):
    how = finetuning(replace(FINETUNING, learning_rate=0.01, epochs=10), gamma=50.0)
    metrics = finetune(run, project, tmp_path / "after", how, control=False, **ENGINE)
    assert metrics["edits"] == 6
    finetune(run, project, tmp_path / "control", how, control=True, **ENGINE)
    before, after, control = (load_pretrained(f) for f in (run.folder, tmp_path / "after", tmp_path / "control"))
    kept = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")
    for name, value in before.state_dict().items():
        moved = not torch.equal(value, after.state_dict()[name])
        assert moved != name.startswith(kept), name

    def distance(model: STABN) -> float:
        scores = {e.clip_id: e for e in project.edits().values()}
        samples = [s for s in run.source.table().of_split("train") if s.clip_id in scores]
        dataset = VideoDataset(samples, network_preprocessing(model, "run"), class_names=model.class_names)
        with torch.inference_mode():
            rows = [
                (model(item.clips).attention.temporal[0] - torch.tensor(scores[item.clip_ids[0]].scores))
                .square()
                .mean()
                for item in (dataset[i] for i in range(len(dataset)))
            ]
        return float(torch.stack(rows).mean())

    assert distance(after) < 0.7 * distance(control)
    assert distance(after) < 0.7 * distance(before)
    opened = open_run(tmp_path / "after")
    assert set(opened.edited) == {clip.clip_id for clip in project.clips}
    assert opened.origin == str(run.folder.resolve())


def test_the_control_sees_the_same_clips_and_frames(run, project, tmp_path, monkeypatch):
    seen: dict[str, list] = {}
    step = TrainingModule.training_step

    def watching(self, batch, batch_idx):
        seen.setdefault(str(self.gamma), []).append((batch.clip_ids, batch.frame_indices.tolist(), batch.clips.sum()))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", watching)
    finetune(run, project, tmp_path / "after", finetuning(), control=False, **ENGINE)
    finetune(run, project, tmp_path / "control", finetuning(), control=True, **ENGINE)
    assert seen["5.0"] == seen["None"]
    edited = {e.clip_id: list(e.frame_indices) for e in project.edits().values()}
    shown = {i: f for ids, frames, _ in seen["None"] for i, f in zip(ids, frames, strict=True) if i in edited}
    assert shown == {clip_id: edited[clip_id] for clip_id in shown}
    assert shown


def test_fine_tuning_refuses_wrong_runs_and_edits(run, plain, project, tabletop, tmp_path):
    good = {"how": finetuning(), "control": False, **ENGINE}
    with pytest.raises(UserError, match="gamma"):
        finetuning(gamma=0.0)
    with pytest.raises(UserError, match=str(plain)):
        finetune(open_run(plain), project, tmp_path / "after", **good)
    edit = next(iter(project.edits().values()))
    write_edits(project.edits_file, [replace(edit, clip_id="nobody")])
    with pytest.raises(UserError, match="'nobody'"):
        finetune(run, project, tmp_path / "after", **good)
    write_edits(project.edits_file, [])
    with pytest.raises(UserError, match=str(project.edits_file)):
        finetune(run, project, tmp_path / "after", **good)
    assert not (tmp_path / "after").exists()


def test_frozen_modules_keep_their_statistics_while_the_rest_learns():
    model = STABN("tiny", 3, 4)
    module = TrainingModule(model, QUICK, total_steps=10, seed=0, gamma=1.0, frozen=model.extractor)
    module.train()
    module.on_train_epoch_start()
    assert not any(part.training for frozen in model.extractor for part in frozen.modules())
    assert model.backbone.layer4.training
    assert model.layer_att_common.training
    assert not any(p.requires_grad for frozen in model.extractor for p in frozen.parameters())


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: OptimizerRecipe(epochs=0), "epochs: got 0"),
        (lambda: OptimizerRecipe(learning_rate=0.0), "learning_rate: got 0.0"),
        (lambda: OptimizerRecipe(milestones=(5, 3)), "milestones"),
        (lambda: LoaderRecipe(workers=2, cache=True), "loader.cache"),
        (lambda: LoaderRecipe(workers=-1), "loader.workers"),
    ],
)
def test_impossible_recipes_are_refused(make, pattern):
    with pytest.raises(UserError, match=pattern):
        make()


def test_the_step_schedule_falls_tenfold_after_each_milestone():
    recipe = OptimizerRecipe(learning_rate=0.01, schedule="step", milestones=(1, 2), epochs=3)
    configured = TrainingModule(STABN("tiny", 3, 4), recipe, total_steps=9, seed=0).configure_optimizers()
    rates = []
    for _ in range(3):
        rates.append(configured["optimizer"].param_groups[0]["lr"])
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.01, 0.001, 0.0001])
    assert configured["optimizer"].param_groups[0]["momentum"] == 0.9


def test_fit_writes_nothing_but_the_run_and_a_finished_fit_is_not_repeated(tabletop, tmp_path):
    table = DataSource(str(tabletop)).table()
    parts = {name: SETTINGS[name] for name in ("preprocessing", "augmentation", "loader", "seed")}
    sets = build_datasets(table, **parts)
    module = TrainingModule(STABN("tiny", 14, FRAMES), replace(QUICK, epochs=1), total_steps=7, seed=0)
    entry = fit_network(module, ClipDataModule(*sets, 4, LoaderRecipe()), tmp_path / "run", SETTINGS["engine"])
    seconds = entry.pop("seconds")
    assert seconds > 0
    assert entry["epoch"] == 1
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == ["checkpoints", "config.json", "curves.json", "model.safetensors", "progress.json"]
    progress = json.loads((tmp_path / "run" / "progress.json").read_text())
    assert progress.pop("step") in range(1, 8)
    assert progress == {"epoch": 1, "epochs": 1, "steps": 7}
    # Killed between the last step and the note that it is complete: going on repeats nothing and ends the same.
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    again = TrainingModule(STABN("tiny", 14, FRAMES), replace(QUICK, epochs=1), total_steps=7, seed=0)
    repeated = fit_network(again, ClipDataModule(*sets, 4, LoaderRecipe()), tmp_path / "run", SETTINGS["engine"])
    assert repeated.pop("seconds") > 0.9 * seconds, "the clock goes on"
    assert repeated == entry
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_training_stopped_during_validation_goes_on_as_if_it_had_not(tabletop, tmp_path, monkeypatch, epochs):
    monkeypatch.setattr(fitting, "SAVE_EVERY", timedelta(0))
    arguments = ARGUMENTS | {"optimizer": replace(QUICK, epochs=epochs)}
    train(tmp_path / "whole", DataSource(str(tabletop)), **arguments)
    with power_fails_at(0, "validation_step"):
        train(tmp_path / "run", DataSource(str(tabletop)), **arguments)
    train(tmp_path / "run", DataSource(str(tabletop)), **arguments)
    assert_same_training(tmp_path / "whole", tmp_path / "run")


def test_an_interrupted_fine_tuning_does_not_go_on_with_other_edits(run, project, tmp_path):
    with power_fails_at(0):
        finetune(run, project, tmp_path / "after", finetuning(), control=False, **ENGINE)
    edit = next(iter(project.edits().values()))
    project.add([replace(edit, scores=(0.0,) * FRAMES)])
    with pytest.raises(UserError, match="edits = "):
        finetune(run, project, tmp_path / "after", finetuning(), control=False, **ENGINE)


@pytest.mark.parametrize("attention", [True, False])
def test_a_diverging_training_ends_with_an_error_that_names_the_epoch(tabletop, tmp_path, one_line, attention):
    options = ("--optimizer.name", "sgd", "--optimizer.learning_rate", "1e30", "--optimizer.epochs", 2)
    network = ("--network.backbone", "tiny", "--network.attention", str(attention).lower())
    small = ("--preprocessing.resize", 36, "--preprocessing.crop", 32, "--preprocessing.sampling.frames", FRAMES)
    out = tmp_path / "run"
    message = one_line("train", "--data.annotations", tabletop, "--out", out, *network, *small, *options)
    assert message.startswith(f"stabn train: error: {out}: training diverged in epoch 1")
    assert message.endswith("choose another --out and a smaller --optimizer.learning_rate")


@pytest.mark.parametrize("steps", range(1, 11))
def test_one_cycle_works_for_any_number_of_steps(steps):
    configured = TrainingModule(STABN("tiny", 3, 4), QUICK, total_steps=steps, seed=0).configure_optimizers()
    for _ in range(steps - 1):
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
