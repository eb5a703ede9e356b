"""`stabn check-data`, what --data.exclude makes of its list, and `stabn doctor`."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from messages import names
from small_run import COMMAND_SETTINGS, QUICK, SETTINGS

from stabn.cli import train as verbs
from stabn.cli.evaluate import evaluate_command
from stabn.cli.main import main
from stabn.data.annotations.source import DataSource
from stabn.data.video.clip import write_video
from stabn.engine.doctor import inspect_machine, machine_report
from stabn.training.recipes import NetworkRecipe
from stabn.training.train import train

TRAINING, VALIDATION = 6, 4
BROKEN = ("2.mp4", "7.mp4")
INTACT = [f"{n}.mp4" for n in range(TRAINING + VALIDATION) if f"{n}.mp4" not in BROKEN]
BRIEF = {**SETTINGS, "network": NetworkRecipe("tiny"), "optimizer": replace(QUICK, epochs=1, batch_size=3)}


def source(folder: Path, exclude: str | None = None) -> DataSource:
    """The table of a folder, with or without a list of clips to leave out in it."""
    return DataSource(str(folder / "clips.csv"), exclude=exclude and str(folder / exclude))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A table of ten clips, two of which are cut short."""
    lines = ["path,label,split"]
    for number in range(TRAINING + VALIDATION):
        frames = np.random.default_rng(number).integers(0, 256, (9, 36, 36, 3), dtype=np.uint8)
        write_video(tmp_path / f"{number}.mp4", frames, 12, preset="ultrafast")
        lines.append(f"{number}.mp4,{'ab'[number % 2]},{'train' if number < TRAINING else 'validation'}")
    for name in BROKEN:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:300])
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    return tmp_path


def test_what_is_found_is_printed_and_its_list_is_understood_by_training(clips, tmp_path, capsys):
    main(["check-data", str(clips / "clips.csv"), "--out", str(tmp_path / "check"), "--frames", "4", "--workers", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in (lines[0], *lines[2:5])] == [
        ["train", "validation"],
        ["clips", "6", "4"],
        ["usable", "5", "3"],
        ["classes", "with", "usable", "clips", "2", "2"],
    ]
    unreadable = [line for line in lines if line.startswith("unreadable: ")]
    assert [line.partition(": is cut short")[0] for line in unreadable] == [f"unreadable: {clips / n}" for n in BROKEN]
    assert f"2 clips to leave out: train with --data.exclude {tmp_path / 'check' / 'exclude.txt'}" in lines
    assert lines[-1].startswith(f"{tmp_path / 'check'}: 10 files, 10 of them read now; ")
    report = json.loads((tmp_path / "check" / "check.json").read_text())
    assert report["exclude"] == list(BROKEN)

    capsys.readouterr()
    report = verbs.train_command(tmp_path / "run", source(clips, "check/exclude.txt"), **BRIEF | COMMAND_SETTINGS)
    assert not report.get("skipped")
    assert not (tmp_path / "run" / "skipped.json").exists()
    # The run knows what it was trained on, so the list need not be given again.
    for split, count in (("train", TRAINING - 1), ("validation", VALIDATION - 1)):
        measured = evaluate_command(tmp_path / "run", split=split)
        assert measured["num_clips"] == count
        assert not measured["skipped"]
        assert not {one["clip_id"] for one in measured["predictions"]} & set(BROKEN)
    assert "skipped" not in capsys.readouterr().err


def test_without_a_broken_clip_nothing_is_to_be_left_out(clips, tmp_path, capsys):
    (clips / "clips.csv").write_text("path,label,split\n0.mp4,a,train\n1.mp4,b,train\n")
    main(["check-data", str(clips / "clips.csv"), "--out", str(tmp_path / "check")])
    assert "leave out" not in capsys.readouterr().out
    assert (tmp_path / "check" / "exclude.txt").read_text() == ""
    assert len(source(clips, "check/exclude.txt").table().samples) == 2


def test_missing_videos_are_reported_and_may_be_left_out(clips, tmp_path):
    (clips / "0.mp4").unlink()
    assert len(source(clips).table().samples) == 10, "as long as they are few"
    main(["check-data", str(clips / "clips.csv"), "--out", str(tmp_path / "check")])
    without = source(clips, "check/exclude.txt")
    assert [sample.clip_id for sample in without.table().samples] == INTACT[1:]
    assert len(without.full_table().samples) == 10


@pytest.mark.parametrize(
    "written", ["2.mp4\n7.mp4\n", "2.mp4\r\n7.mp4", "\ufeff2.mp4\n\n7.mp4\nof-another-split.mp4\n"]
)
def test_lists_of_clips_are_read_as_people_write_them(clips, written):
    (clips / "list.txt").write_bytes(written.encode())
    assert [sample.clip_id for sample in source(clips, "list.txt").table().samples] == INTACT


@pytest.mark.parametrize(
    ("written", "named"),
    [(None, "list.txt"), (b"nobody.mp4\n", "'nobody.mp4'"), (b"\xff\xfe1\x00", "UTF-8")],
)
def test_a_list_of_no_use_is_refused_in_one_line(clips, tmp_path, one_line, written, named):
    file = clips / "list.txt"
    if written is not None:
        file.write_bytes(written)
    words = ("--data.annotations", clips / "clips.csv", "--data.exclude", file)
    message = one_line("train", "--out", tmp_path / "run", *words)
    assert re.search(names("--data.exclude", file, named), message)
    assert not (tmp_path / "run").exists()


def test_who_excludes_everything_is_told(clips, tmp_path, one_line):
    (clips / "list.txt").write_text("".join(f"{number}.mp4\n" for number in range(TRAINING + VALIDATION)))
    words = ("--data.annotations", clips / "clips.csv", "--data.exclude", clips / "list.txt")
    assert "train" in one_line("train", "--out", tmp_path / "run", *words)


def test_an_evaluation_may_leave_out_what_training_did_not(clips, tmp_path):
    train(tmp_path / "run", source(clips), **BRIEF)
    (clips / "list.txt").write_text("7.mp4\n8.mp4\n")
    report = evaluate_command(tmp_path / "run", data=source(clips, "list.txt"))
    assert [one["clip_id"] for one in report["predictions"]] == ["6.mp4", "9.mp4"]


@pytest.mark.parametrize(
    "words", [(), ("--out", "o"), ("SOURCE", "--data.annotations", "a"), ("SOURCE", "--workers", "0")], ids=str
)
def test_a_check_that_says_too_little_or_too_much_is_refused(clips, tmp_path, words, capsys):
    given = [str(clips / "clips.csv") if word == "SOURCE" else word for word in words]
    with pytest.raises(SystemExit) as stopped:
        main(["check-data", *given, *([] if "--out" in words or not words else ["--out", str(tmp_path / "o")])])
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "used", "why"),
    [
        ("torchcodec is not installed", "pyav", "torchcodec is not installed"),
        (None, "torchcodec", "torchcodec loads; "),
    ],
)
def test_the_doctor_says_which_decoder_is_used_and_why(monkeypatch, capsys, fault, used, why):
    monkeypatch.setattr("stabn.engine.doctor.torchcodec_fault", lambda: fault)
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"decoder: {used}, because {why}") for line in lines)
    remedies = [line for line in lines if line.startswith("to add torchcodec")]
    assert len(remedies) == (used == "pyav")
    assert all("pip install torchcodec" in line and "FFmpeg's shared libraries" in line for line in remedies)
    report = inspect_machine()["decoding"]
    assert report["used"] == used
    assert report["why"].startswith(why)
    assert (report["install"] is None) == (used == "torchcodec")


def test_the_doctor_tells_what_this_machine_has():
    report = inspect_machine()
    assert report["format"] == "stabn-doctor/1"
    assert json.loads(json.dumps(report)) == report
    assert report["cores"] >= 1
    assert report["torch"]["version"]
    assert report["decoding"]["codecs"]["H.264"]
    assert report["encoding"]["H.264"]
    text = "\n".join(machine_report(report))
    versions = (report["python"], report["torch"]["version"], report["decoding"]["pyav"])
    assert all(word in text for word in (*versions, "H.265", "VP9", "AV1", "MPEG-4", *report["extras"]))


def test_gpus_and_codecs_that_are_missing_are_named_as_such():
    report = inspect_machine()
    report["torch"] |= {"cuda": "13.2", "gpus": [{"name": "NVIDIA H100", "gib": 79.2}], "bf16": True}
    report["decoding"]["codecs"]["AV1"] = False
    report["extras"]["ray"] = None
    lines = list(machine_report(report))
    assert "GPU: NVIDIA H100, 79.2 GiB, with bf16" in lines
    assert any("not AV1" in line for line in lines)
    assert any("ray not installed" in line for line in lines)
    report["torch"] |= {"cuda": None, "gpus": []}
    assert any(line.startswith("GPU: none that torch can use") for line in machine_report(report))
