"""Mistakes of users end in one line on stderr with status 2, and leave no file behind."""

import json
import os
import re
import shutil

import pytest
from small_run import FRAMES, TINY

from stabn.cli.main import main

TRAIN = ["train", "--out", "x", "--data.annotations", "y"]


@pytest.mark.parametrize("kind", ["missing", "truncated", "folder"])
def test_videos(kind, one_line, trained, tabletop, tmp_path):
    video = tmp_path / "bad.mp4"
    if kind == "truncated":
        content = (tabletop / "videos" / "1.mp4").read_bytes()
        video.write_bytes(content[: len(content) * 2 // 3])
    elif kind == "folder":
        video.mkdir()
    good, out = tmp_path / os.fsdecode(b"caf\xe9.mp4"), tmp_path / "out"  # a name that is no Unicode
    shutil.copy(tabletop / "videos" / "2.mp4", good)
    line = one_line("explain", trained, video, good, "--out", out, "--json", tmp_path / "report.json")
    assert line.startswith("stabn explain: error: ")
    assert "bad.mp4" in line
    assert sorted(path.suffix for path in out.glob(f"{good.stem}.*")) == [".json", ".mp4", ".npz", ".png"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert [record["clip_id"] for record in report["records"]] == [good.stem]
    assert [failed["video"] for failed in report["failed"]] == [str(video)]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "verb"),
        (["dance"], "'dance'"),
        (["train"], "out"),
        ([*TRAIN, "--optimizer.epochs", "many"], "epochs.*many"),
        ([*TRAIN, "--optimizer.epochs", "0"], "epochs: got 0"),
        ([*TRAIN, "--optimizer.speed", "3"], "optimizer.speed"),
        ([*TRAIN, "--optimizer.epoch", "3"], "--optimizer.epoch;"),
        ([*TRAIN, "--network.backbone", "vgg"], "vgg|y"),
        (["train", "--out", "x", "--config", "none.yaml"], "none.yaml"),
        ([*TRAIN, "--preprocessing.crop", "100", "--preprocessing.resize", "50"], "crop: got 100"),
        (["evaluate", "nowhere"], "nowhere"),
        (["collect", "nowhere", "--out", "x"], "nowhere"),
        (["finetune", "nowhere", "--edits", "x", "--out", "y"], "nowhere"),
        (["compare", "nowhere"], "1 run"),
        (["report", "a", "b", "--out", "c.pdf"], "c.pdf"),
        (["import-official", "none.pth", "x"], "none.pth"),
        (["tabletop", "x", "--train", "3"], "3 clips"),
        (["simulate-edits", "nowhere", "--truth", "t"], "nowhere"),
        (["demo", "--out", "."], "^stabn demo: error: .: "),
    ],
)
def test_options(words, named, one_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    assert re.search(named, one_line(*words))
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"optimizer:\n  epochs: [3\n", "line 2"),
        (b"optimizer:\n\tepochs: 3\n", "line 2"),
        (b"\xff\xfe\x00", "YAML"),
        (b"seed: 2026-13-01\n", "month"),
        (b"a: &a {b: *a}\n", "YAML"),
        (b"- 3\n", "got '.3.'"),
        (b"optimizer:\n  epochz: 3\n", r"optimizer\.epochz .*optimizer\.epochs\?"),
        (b"weather: fine\n", "weather"),
    ],
)
def test_recipes(content, named, one_line, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(content)
    assert re.search(f"recipe.yaml: .*{named}", one_line(*TRAIN, "--config", recipe))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("optimiser.epochs", "optimizer.epochs"),
        ("correction.start", "correction.init"),
        ("correction.frozen", "correction.freeze"),
        ("engine.recompute", "engine.activation_checkpointing"),
    ],
)
def test_options_of_earlier_versions_are_refused_with_their_new_name(old, new, one_line, tmp_path):
    words = ("finetune", "run", "--edits", "e", "--out", tmp_path / "out")
    for option in ((f"--{old}", "1"), (f"--{old}=1",)):
        assert re.search(f"--{old} .*--{new}", one_line(*words, *option))
    section, _, field = old.partition(".")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{section}: {{{field}: 1}}\n")
    assert re.search(f"recipe.yaml: {old} .*{new}", one_line(*words, "--config", recipe))


def test_labels_that_do_not_match_and_missing_videos(one_line, tabletop, tmp_path):
    for name in ("labels", "train", "validation"):
        text = (tabletop / f"something-something-v2-{name}.json").read_text()
        changed = text.replace('"Lifting something"', '"Raising something"') if name == "labels" else text
        (tmp_path / f"something-something-v2-{name}.json").write_text(changed)
    (tmp_path / "empty").mkdir()
    train = ("train", "--out", tmp_path / "run", "--data.annotations")
    assert "'Lifting something'" in one_line(*train, tmp_path, "--data.videos", tabletop / "videos")
    assert "42 of 42" in one_line(*train, tabletop, "--data.videos", tmp_path / "empty")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [{"scores": [0.5] * (FRAMES - 1)}, {"clip_id": "nobody"}, None])
def test_edits(change, one_line, run, project, tmp_path):
    edit = project.clips[0].edit([0.5] * FRAMES, author="ann", time="2026-01-31T09:30:00+00:00")
    project.edits_file.write_text(("not json" if change is None else json.dumps(edit.as_json() | change)) + "\n")
    assert "edits.jsonl, line 1" in one_line("check-edits", project.folder)
    finetune = ("finetune", run.folder, "--edits", project.folder, "--out", tmp_path / "after")
    assert "edits.jsonl, line 1" in one_line(*finetune)
    assert not (tmp_path / "after").exists()


def test_edits_for_a_network_without_attention(one_line, plain, project, tmp_path):
    assert "plain network" in one_line("finetune", plain, "--edits", project.folder, "--out", tmp_path / "after")


def test_classes_that_changed_since_training(own, own_run, one_line, tmp_path):
    text = (own / "clips.csv").read_text()
    for changed, name in ((text.replace(" a,", " z,"), "'z'"), (text.replace("0.mp4, a,", "0.mp4, c,"), "'c'")):
        (own / "clips.csv").write_text(changed)
        assert name in one_line("evaluate", own_run)
        assert name in one_line("collect", own_run, "--out", tmp_path / "p", "--bound", "1.0")
    assert not (tmp_path / "p").exists()


def test_a_split_or_a_class_that_is_missing(own, one_line, tmp_path):
    train = ("train", *TINY, "--out", tmp_path / "r", "--data.annotations")
    text = (own / "clips.csv").read_text()
    (own / "clips.csv").write_text(text.replace("validation", "train"))
    assert "'validation'" in one_line(*train, own / "clips.csv")
    (own / "clips.csv").write_text(text.replace(" b,", " a,"))
    assert "1 class" in one_line(*train, own / "clips.csv")
    assert "typo.csv" in one_line(*train, "typo.csv")
    assert not (tmp_path / "r").exists()


def test_engines_seeds_and_batches_that_cannot_be(own, own_run, one_line, tmp_path):
    train = ("train", "--out", tmp_path / "r", "--data.annotations", own / "clips.csv", *TINY)
    assert "abacus" in one_line(*train, "--engine.accelerator", "abacus")
    assert "--seed" in one_line(*train, "--seed", "-1")
    one_value = ("--preprocessing.sampling.frames", "1", "--optimizer.batch_size", "1")
    assert "batch norm" in one_line(*train, *one_value)
    assert "batch_size" in one_line("evaluate", own_run, "--batch_size", "0")
    assert "--examples" in one_line("report", own_run, own_run, "--out", tmp_path / "r.html", "--examples", "-1")
    assert not (tmp_path / "r").exists()


def test_places_where_nothing_can_be_written(own, own_run, one_line, tmp_path):
    file = own / "clips.csv"
    assert "--json" in one_line("evaluate", own_run, "--json", tmp_path)
    assert "--json" in one_line("evaluate", own_run, "--json", file / "x.json")
    assert "clips.csv" in one_line("explain", own_run, own / "1.mp4", "--out", file)
    assert "clips.csv" in one_line("tabletop", file)
    assert "clips.csv" in one_line("train", "--out", file / "run", "--data.annotations", file, *TINY)


def test_a_control_that_is_none(own_run, own_project, one_line, tmp_path):
    finetune = ["finetune", str(own_run), "--edits", str(own_project.folder), *TINY[-4:]]
    main([*finetune, "--out", str(tmp_path / "after")])
    main([*finetune, "--out", str(tmp_path / "other"), "--control", "--seed", "7"])
    report = ("report", own_run, tmp_path / "after", "--out", tmp_path / "r.html", "--control")
    assert re.search("seed .*7.* 0", one_line(*report, tmp_path / "other"))
    assert "after" in one_line(*report, tmp_path / "after")
    assert not (tmp_path / "r.html").exists()


def test_runs_that_cannot_be_compared(own_run, trained, plain, one_line, tmp_path):
    assert "--data.annotations" in one_line("compare", own_run, trained)
    assert f"{plain}, {trained}, {plain}" in one_line("compare", plain, trained, plain)
    assert "plain network" in one_line("report", plain, trained, "--out", tmp_path / "r.html")
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": "29", "relevance": [0, 1]}) + "\n")
    assert "2 frames" in one_line("compare", plain, trained, "--truth", tmp_path / "t.jsonl")
