import json
import shutil
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hanging import HangsOnSome
from small_run import COMMAND_SETTINGS, QUICK, SETTINGS, assert_same_training, power_fails_at

from stabn.cli import edits as edit_verbs
from stabn.cli import explain as explaining_verbs
from stabn.cli import train as verbs
from stabn.data.annotations.source import DataSource
from stabn.data.video.clip import write_video
from stabn.data.video.reader import Reader
from stabn.errors import UserError
from stabn.evaluation.predict import predict_split
from stabn.runs import open_run
from stabn.training import train as fitting
from stabn.training.module import TrainingModule
from stabn.training.recipes import LoaderRecipe, NetworkRecipe
from stabn.training.train import train

TRAINING, VALIDATION = 12, 4
BROKEN = ("1.mp4", "4.mp4")
RECIPE = {
    **SETTINGS,
    "network": NetworkRecipe("tiny"),
    "optimizer": replace(QUICK, epochs=2, batch_size=3),
    "loader": LoaderRecipe(),
}
IN_COMMANDS = {"preprocessing": COMMAND_SETTINGS["preprocessing"]}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of clips, all of which can be read."""
    folder = tmp_path_factory.mktemp("clips")
    lines = ["path,label,split"]
    for number in range(TRAINING + VALIDATION):
        frames = np.random.default_rng(number).integers(0, 256, (9, 36, 36, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, 12, preset="ultrafast")
        lines.append(f"{number}.mp4,{'ab'[number % 2]},{'train' if number < TRAINING else 'validation'}")
    (folder / "clips.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def clips(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "clips")


def break_clips(folder: Path, *names: str) -> DataSource:
    """Cut them short."""
    for name in names:
        (folder / name).write_bytes((folder / name).read_bytes()[:300])
    return DataSource(str(folder / "clips.csv"))


def skipped_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("skipped")]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps the trainings of a test took."""
    counted: list[int] = []
    monkeypatch.setattr(TrainingModule, "on_train_end", lambda self: counted.append(self.global_step), raising=False)
    return counted


@pytest.mark.parametrize("loader", [LoaderRecipe(), LoaderRecipe(cache=True), LoaderRecipe(workers=2)], ids=str)
def test_a_broken_clip_is_left_out_named_once_and_counted(clips, tmp_path, capsys, caplog, steps, loader):
    source = break_clips(clips, *BROKEN, "13.mp4")
    report = verbs.train_command(tmp_path / "run", source, **RECIPE | {**IN_COMMANDS, "loader": loader})
    assert report["skipped"] == 3
    assert str(tmp_path / "run" / "skipped.json") in capsys.readouterr().out
    lines = skipped_lines(caplog)
    assert len(lines) == 3
    for name, split in (("1.mp4", "train"), ("4.mp4", "train"), ("13.mp4", "validation")):
        assert sum(line.startswith(f"skipped, {split}: {clips / name}: is cut short") for line in lines) == 1
    listed = json.loads((tmp_path / "run" / "skipped.json").read_text())
    assert listed["format"] == "stabn-skipped/1"
    counts = sorted((c["clip_id"], c["split"], c["times"]) for c in listed["clips"])
    assert counts == [("1.mp4", "train", 2), ("13.mp4", "validation", 2), ("4.mp4", "train", 2)]
    assert all(c["reason"].startswith(c["path"]) for c in listed["clips"])
    epochs = json.loads((tmp_path / "run" / "curves.json").read_text())["epochs"]
    assert [entry["skipped"] for entry in epochs] == [3, 3]
    assert steps == [8]
    assert open_run(tmp_path / "run").recipe["loader"]["timeout"] == 60


def test_a_missing_video_is_a_broken_one_and_many_are_a_wrong_folder(clips, tmp_path):
    (clips / "1.mp4").unlink()
    report = verbs.train_command(tmp_path / "run", DataSource(str(clips / "clips.csv")), **RECIPE | IN_COMMANDS)
    assert report["skipped"] == 1
    (skipped,) = json.loads((tmp_path / "run" / "skipped.json").read_text())["clips"]
    assert skipped["reason"].startswith(f"{clips / '1.mp4'}: no such file")
    for number in range(2, 9):
        (clips / f"{number}.mp4").unlink()
    with pytest.raises(UserError, match="8 of 16") as stopped:
        train(tmp_path / "other", DataSource(str(clips / "clips.csv")), **RECIPE)
    assert "check-data" in str(stopped.value)
    assert not (tmp_path / "other").exists()


def test_no_other_clip_takes_the_place_of_a_broken_one(clips, tmp_path, monkeypatch):
    seen: list[tuple[str, ...]] = []
    step = TrainingModule.training_step

    def watching(self, batch, batch_idx):
        seen.append(batch.clip_ids)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", watching)
    train(tmp_path / "run", break_clips(clips, *BROKEN), **RECIPE)
    whole = {f"{number}.mp4" for number in range(TRAINING)}
    for epoch in (seen[:4], seen[4:]):
        names = [name for batch in epoch for name in batch]
        assert sorted(names) == sorted(whole - set(BROKEN))
    assert min(map(len, seen)) < 3


def test_a_batch_of_broken_clips_is_a_step_that_moves_nothing(clips, tmp_path, monkeypatch, steps):
    source = break_clips(clips, *BROKEN)
    weights: list[tuple[bool, torch.Tensor]] = []

    def after(self, outputs, batch, batch_idx):
        weights.append((bool(batch.clip_ids), self.model.backbone.fc.weight.detach().clone()))

    monkeypatch.setattr(TrainingModule, "on_train_batch_end", after)
    train(tmp_path / "run", source, **RECIPE | {"optimizer": replace(RECIPE["optimizer"], batch_size=1)})
    assert steps == [24]
    assert sum(not read for read, _ in weights) == 4
    for (_, before), (read, now) in pairwise(weights):
        assert torch.equal(before, now) != read


@pytest.mark.parametrize(
    ("broken", "names", "pattern"),
    [
        (0.0, ["1.mp4"], "1 of 12 "),
        (0.1, ["1.mp4", "4.mp4"], "2 of 12 "),
        (None, [f"{n}.mp4" for n in range(7)], "7 of 12 "),
        (1.0, [f"{n}.mp4" for n in range(12)], "12 of 12 "),
        (0.2, ["12.mp4", "13.mp4"], "validation: 2 of 4 "),
    ],
)
def test_too_many_broken_clips_end_training_with_one_clear_error(clips, tmp_path, broken, names, pattern):
    source = break_clips(clips, *names)
    with pytest.raises(UserError, match=pattern) as caught:
        train(tmp_path / "run", source, **RECIPE | {"loader": LoaderRecipe(cache=True, broken=broken)})
    message = str(caught.value)
    assert "\n" not in message
    assert "stabn check-data" in message
    assert str(clips / names[0]) in message or len(names) > 3
    listed = json.loads((tmp_path / "run" / "skipped.json").read_text())["clips"]
    assert {c["clip_id"] for c in listed} == set(names)


def test_one_broken_clip_is_never_too_many_unless_none_is_allowed(clips, tmp_path):
    source = break_clips(clips, "1.mp4")
    assert train(tmp_path / "run", source, **RECIPE | {"loader": LoaderRecipe(broken=0.001)})["skipped"] == 1


@pytest.mark.parametrize("interrupted_at", [2, 5])
def test_a_resumed_training_with_broken_clips_ends_as_one_that_was_not_interrupted(
    clips, tmp_path, monkeypatch, interrupted_at
):
    source = break_clips(clips, *BROKEN, "13.mp4")
    train(tmp_path / "whole", source, **RECIPE)
    monkeypatch.setattr(fitting, "SAVE_EVERY", timedelta(0))
    with power_fails_at(interrupted_at):
        train(tmp_path / "run", source, **RECIPE)
    train(tmp_path / "run", source, **RECIPE)
    assert_same_training(tmp_path / "whole", tmp_path / "run")
    whole, resumed = ((tmp_path / name / "skipped.json").read_text() for name in ("whole", "run"))
    assert json.loads(whole) == json.loads(resumed)


@pytest.mark.parametrize(
    "loader",
    # PyAV: within two seconds a process of its own could not even import torchcodec
    [LoaderRecipe(cache=True, timeout=2, decoder="pyav"), LoaderRecipe(workers=1, timeout=2, decoder="pyav")],
    ids=str,
)
def test_a_video_that_hangs_or_crashes_the_decoder_is_left_out(clips, tmp_path, monkeypatch, caplog, loader):
    monkeypatch.setattr("stabn.data.video.reader.VideoFiles", HangsOnSome)
    table = (clips / "clips.csv").read_text()
    for number, name in ((3, "hang-3.mp4"), (6, "crash-6.mp4")):
        (clips / f"{number}.mp4").rename(clips / name)
        table = table.replace(f"\n{number}.mp4", f"\n{name}")
    (clips / "clips.csv").write_text(table)
    assert train(tmp_path / "run", DataSource(str(clips / "clips.csv")), **RECIPE | {"loader": loader})["skipped"] == 2
    lines = skipped_lines(caplog)
    assert len(lines) == 2
    assert any(f"{clips / 'hang-3.mp4'}: reading it did not end within 2 s" in line for line in lines)
    assert any(f"{clips / 'crash-6.mp4'}: reading it crashed the decoder (SIGSEGV)" in line for line in lines)


@pytest.fixture(scope="module")
def run(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "sound"
    train(folder, DataSource(str(sound / "clips.csv")), **RECIPE | {"loader": LoaderRecipe(cache=True)})
    assert not (folder / "skipped.json").exists()
    return folder


@pytest.mark.parametrize("attention", ["as-is", "shuffled-temporal"])
@pytest.mark.parametrize("windows", [1, 2])
def test_an_evaluation_goes_without_broken_clips_and_says_so(run, sound, clips, capsys, caplog, attention, windows):
    from stabn.cli.evaluate import evaluate_command

    source = break_clips(clips, *BROKEN)
    report = evaluate_command(run, split="train", data=source, attention=attention, clips=windows)
    assert report["num_clips"] == TRAINING - 2
    assert [one["clip_id"] for one in report["skipped"]] == list(BROKEN)
    readable = [f"{n}.mp4" for n in range(TRAINING) if f"{n}.mp4" not in BROKEN]
    assert [one["clip_id"] for one in report["predictions"]] == readable
    assert f"({clips / '1.mp4'}, {clips / '4.mp4'})" in capsys.readouterr().out
    assert len(skipped_lines(caplog)) == 2
    if attention == "as-is":
        whole, _ = predict_split(open_run(run, DataSource(str(sound / "clips.csv"))), "train", clips=windows)
        ours, _ = predict_split(open_run(run, source), "train", clips=windows)
        rows = [row for row, clip_id in enumerate(whole.clip_ids) if clip_id not in BROKEN]
        np.testing.assert_allclose(ours.probabilities, whole.probabilities[rows], atol=1e-5)
        assert ours.labels.tolist() == whole.labels[rows].tolist()


def test_nothing_is_measured_where_no_clip_can_be_read(run, clips):
    source = break_clips(clips, *(f"{number}.mp4" for number in range(TRAINING, TRAINING + VALIDATION)))
    with pytest.raises(UserError, match=r"12\.mp4"):
        predict_split(open_run(run, source), "validation")


def test_collecting_and_comparing_go_without_broken_clips_and_explaining_one_is_an_error(run, clips, tmp_path, capsys):
    from stabn.cli.evaluate import compare_command

    source = break_clips(clips, *BROKEN)
    copy = shutil.copytree(run, tmp_path / "copy")
    collected = edit_verbs.collect_command(run, tmp_path / "project", weakest=2, recognised=True, data=source)
    assert sum(c["count"] for c in collected["classes"]) == TRAINING - 2
    for report in (collected, compare_command([run, copy], split="train", data=source)):
        assert [one["clip_id"] for one in report["skipped"]] == list(BROKEN)
    assert capsys.readouterr().out.count("10 of 12 clips") >= 2
    with pytest.raises(UserError, match=r"1\.mp4"):
        explaining_verbs.explain_command(run, [clips / "1.mp4"], tmp_path / "explained")


def test_reading_in_another_process_gives_the_same_clips(sound):
    guarded, here = Reader(timeout=30), Reader(timeout=0)
    path = sound / "0.mp4"
    assert guarded.probe(path) == here.probe(path)
    for read in (
        lambda reader: reader.read_clip(path, [5, 5, 2]),
        lambda reader: reader.read_sampled(path, lambda count: [count - 1, 0]),
        lambda reader: list(reader.read_chunks(path, 4))[-1],
    ):
        ours, theirs = read(guarded), read(here)
        assert torch.equal(ours.frames, theirs.frames)
        assert torch.equal(ours.frame_indices, theirs.frame_indices)
        assert torch.equal(ours.timestamps, theirs.timestamps)
    with pytest.raises(UserError, match=r"frame 9"):
        guarded.read_sampled(path, lambda count: [count])
    guarded.close()
