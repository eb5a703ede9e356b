import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_run import FRAMES, TINY, lines

from stabn.cli.main import main
from stabn.cli.verbs import run_verb
from stabn.data.annotations.source import DataSource
from stabn.data.video.clip import write_video
from stabn.data.video.reader import probe
from stabn.edits.formats import FORMATS
from stabn.edits.project import open_project
from stabn.records import write_edits
from stabn.runs import open_run

TIME = "2026-01-31T09:30:00+00:00"


@pytest.fixture
def edited(project):
    """Three clips; Ann edited the first two, Bo the first."""
    first, second, _ = project.clips
    project.add(
        [
            first.edit([1.0] + [0.0] * (FRAMES - 1), author="Ann", time=TIME, comment="the start"),
            second.edit([0.3] * FRAMES, author="Ann", time=TIME),
            first.edit([1.0] + [0.5] * (FRAMES - 1), author="Bo", time=TIME),
        ]
    )
    return project


@pytest.mark.parametrize("name", FORMATS)
def test_exported_edits_are_imported_elsewhere_and_only_once(name, edited, tmp_path, capsys):
    out = tmp_path / "out" / f"edits{FORMATS[name].suffix}"
    main(["export-edits", str(edited.folder), str(out)])
    assert "3 edits of 2 people" in capsys.readouterr().out
    before = edited.history()
    main(["import-edits", str(edited.folder), str(out)])
    assert "0 edits added, 3 " in capsys.readouterr().out
    assert edited.history() == before
    write_edits(edited.edits_file, before[:1])
    report = run_verb(["import-edits", str(edited.folder), str(out)])
    assert (report["imported"], report["unchanged"]) == (2, 1)
    assert set(edited.history()) == set(before)
    assert edited.history()[0] == before[0]


def test_an_export_overwrites_nothing_and_needs_something_to_write(edited, one_line, tmp_path):
    (tmp_path / "mine.csv").write_text("precious")
    assert "mine.csv" in one_line("export-edits", edited.folder, tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "precious"
    assert "mine.xls" in one_line("export-edits", edited.folder, tmp_path / "mine.xls")
    assert "got 'xls'" in one_line("export-edits", edited.folder, tmp_path / "new.csv", "--format", "xls")
    write_edits(edited.edits_file, [])
    assert "edits.jsonl" in one_line("export-edits", edited.folder, tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()


def test_an_import_with_one_mistake_adds_nothing(edited, one_line, tmp_path):
    good, bad = replace(edited.history()[0], comment="new"), replace(edited.history()[0], clip_id="nobody")
    write_edits(tmp_path / "new.jsonl", [good, bad])
    before = edited.edits_file.read_bytes()
    assert "new.jsonl, line 2: clip_id: got 'nobody'" in one_line("import-edits", edited.folder, tmp_path / "new.jsonl")
    (tmp_path / "latin.csv").write_bytes("clip_id,Zoë".encode("latin-1"))
    assert "latin.csv" in one_line("import-edits", edited.folder, tmp_path / "latin.csv")
    assert "none.csv" in one_line("import-edits", edited.folder, tmp_path / "none.csv")
    assert edited.edits_file.read_bytes() == before


def test_people_and_their_agreement_are_printed(edited, capsys):
    report = run_verb(["check-edits", str(edited.folder)])
    text = capsys.readouterr().out
    assert "2 of 3 clips" in text
    assert "Krippendorff" in text
    assert report["people"] == {"Ann": 2, "Bo": 1}
    first, second, _ = edited.clips
    assert report["agreement"]["clips"][second.clip_id] is None
    assert report["agreement"]["project"] == report["agreement"]["clips"][first.clip_id] < 1
    write_edits(edited.edits_file, edited.history()[:2])
    main(["check-edits", str(edited.folder)])
    assert "Krippendorff" not in capsys.readouterr().out


def test_fine_tuning_uses_the_edits_that_it_was_given_and_says_so(run, edited, one_line, tmp_path):
    words = ["finetune", str(run.folder), "--edits", str(edited.folder), *TINY[-4:]]
    recipes = {}
    for use in ("median", "author:Bo"):
        out = tmp_path / use.replace(":", "-")
        main([*words, "--out", str(out), "--use", use])
        report = json.loads((out / "run.json").read_text())
        recipes[use] = report["recipe"]
        assert report["recipe"]["use"] == use
        assert len(report["edited"]) == (1 if use == "author:Bo" else 2)
    assert len({recipe["edits"] for recipe in recipes.values()}) == 2
    out = tmp_path / "none"
    assert "'author:Zoe'" in one_line(*words, "--out", out, "--use", "author:Zoe")
    assert "'newest'" in one_line(*words, "--out", out, "--use", "newest")
    assert not out.exists()


@pytest.fixture
def spoken(tabletop, tmp_path):
    """A table with names of its own, an interval per clip, a clip where it is unknown, and a split for testing."""
    relevance = {entry["id"]: entry["relevance"] for entry in lines(tabletop / "truth.jsonl")}
    rows = ["nr;part;word;from;to"]
    for n in range(1, 25):
        part = ("train", "train", "train", "validation")[n % 4] if n <= 20 else "test"
        word = "up" if n % 2 or part == "test" else "down"
        inside = [i for i, value in enumerate(relevance[str(n)]) if value]
        when = ";" if n == 1 else f"{inside[0]},5;{inside[-1] + 1}"
        rows.append(f"{n};{part};{word};{when}")
    (tmp_path / "words.csv").write_bytes(("\ufeff" + "\r\n".join(rows) + "\r\n").encode())
    return ["--data.annotations", str(tmp_path / "words.csv"), "--data.videos", str(tabletop / "videos"),
            "--data.columns.path", "{nr}.mp4", "--data.columns.label", "word", "--data.columns.split", "part",
            "--data.columns.id", "nr", "--data.columns.start", "from", "--data.columns.end", "to"]  # fmt: skip


def test_a_run_remembers_the_columns_of_its_table_and_edits_are_simulated_from_its_intervals(
    spoken, tabletop, tmp_path, one_line, capsys
):
    run, project = tmp_path / "spoken", tmp_path / "spoken-edits"
    main(["train", "--out", str(run), *spoken, *TINY, "--engine.accelerator", "cpu"])
    saved = json.loads((run / "run.json").read_text())["data"]
    assert saved["columns"] == {
        "path": "{nr}.mp4", "label": "word", "split": "part", "id": "nr", "start": "from", "end": "to",
        "segment_start": None, "segment_end": None, "segment_unit": None
    }  # fmt: skip
    assert open_run(run).source.options() == dict(zip([w[2:] for w in spoken[::2]], spoken[1::2], strict=True))
    main(["collect", str(run), "--out", str(project), "--bound", "1.0"])
    clips = {clip.clip_id: clip for clip in open_project(project).clips}
    capsys.readouterr()
    report = run_verb(["simulate-edits", str(project)])
    assert report["edits"] == len(clips) - ("1" in clips)
    assert report["without_truth"] == ("1" in clips)
    relevance = {entry["id"]: entry["relevance"] for entry in lines(tabletop / "truth.jsonl")}
    for edit in open_project(project).history():
        # From the middle of its first frame on, the interval holds exactly the frames that Tabletop calls relevant.
        assert edit.scores == tuple(float(relevance[edit.clip_id][i] > 0) for i in edit.frame_indices)
        assert (edit.author, edit.comment) == ("simulated", "simulated from the truth")

    # A table with only a test split and only one of the classes.
    text = (tmp_path / "words.csv").read_text(encoding="utf-8-sig").splitlines()
    (tmp_path / "held-back.csv").write_text("\n".join(r for r in text if "part" in r or "test" in r))
    held_back = ["--data.annotations", str(tmp_path / "held-back.csv"), *spoken[2:]]
    figures = run_verb(["evaluate", str(run), *held_back, "--split", "test"])
    assert [(c["name"], c["count"]) for c in figures["classes"]] == [("down", 0), ("up", 4)]
    assert "'validation'" in one_line("evaluate", run, *held_back)
    assert "'train'" in one_line("train", "--out", tmp_path / "new", *held_back, *TINY, "--data.columns.label", "nr")


def test_a_run_and_a_job_of_an_earlier_version_know_no_columns_and_open_all_the_same(run):
    value = json.loads((run.folder / "run.json").read_text())
    del value["data"]["columns"]
    (run.folder / "run.json").write_text(json.dumps(value))
    assert open_run(run.folder).source == run.source
    assert DataSource.from_json({"annotations": "clips.csv"}) == DataSource("clips.csv")
    assert DataSource("clips.csv").options() == {"data.annotations": "clips.csv"}


def test_simulated_edits_come_from_the_truth_beside_the_annotations_unless_a_file_is_given(
    to_correct, tabletop, tmp_path, capsys
):
    main(["simulate-edits", str(to_correct.folder), "--count", "2"])
    assert "2 edits added" in capsys.readouterr().out
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"id": c.clip_id, "interval": [0, 1000]}) + "\n" for c in to_correct.clips)
    )
    main(["simulate-edits", str(to_correct.folder), "--truth", str(tmp_path / "mine.jsonl"), "--author", "all"])
    edits = to_correct.history()
    assert [edit.author for edit in edits] == ["simulated"] * 2 + ["all"] * 4
    assert all(edit.scores == (1.0,) * FRAMES for edit in edits[2:])
    assert all(0.0 in edit.scores for edit in edits[:2])


def test_a_faulty_editor_is_simulated_as_asked_and_says_so(to_correct, capsys):
    words = ["simulate-edits", str(to_correct.folder), "--seed", "3"]
    main([*words, "--boundary-noise", "2", "--wrong", "0.5", "--shuffle"])
    assert {edit.comment for edit in to_correct.history()} == {
        "simulated from the truth, boundary noise 2, wrong 0.5, shuffled between clips, seed 3"
    }
    write_edits(to_correct.edits_file, [])
    main([*words, "--constant", "1"])
    assert {edit.scores for edit in to_correct.history()} == {(1.0,) * FRAMES}
    assert len(to_correct.history()) == 6


def test_edits_that_cannot_be_simulated_are_refused_in_one_line(to_correct, tabletop, tmp_path, one_line):
    words = ["simulate-edits", to_correct.folder]
    bare = shutil.copytree(tabletop, tmp_path / "bare")
    (bare / "truth.jsonl").unlink()
    assert "--truth" in one_line(*words, "--data.annotations", bare)
    (bare / "truth.jsonl").write_text("{}\n")
    assert "truth.jsonl, line 1" in one_line(*words, "--data.annotations", bare)
    (bare / "truth.jsonl").write_text('{"id": "nobody", "relevance": [1]}\n')
    assert f"{to_correct.folder}: " in one_line(*words, "--truth", bare / "truth.jsonl")
    assert "--wrong: got 2" in one_line(*words, "--wrong", "2")
    assert "--data.columns" in one_line(*words, "--data.annotations", bare, "--data.columns.label", "word")
    (tmp_path / "t.csv").write_text("path,label,split\na.mp4,x,train\n")
    assert "'from'" in one_line(*words, "--data.annotations", tmp_path / "t.csv", "--data.columns.start", "from")
    assert to_correct.history() == ()


def test_edits_of_a_video_that_was_replaced_are_named_refused_and_left_out(project, tabletop, capsys, tmp_path):
    first, *others = project.clips
    project.add(clip.edit([0.5] * FRAMES, author="Ann", time=TIME) for clip in project.clips)
    shutil.copytree(tabletop / "videos", tmp_path / "videos")
    replaced = tmp_path / "videos" / Path(first.path).name
    info = probe(first.path)
    write_video(replaced.with_suffix(".mp4"), np.zeros((info.num_frames, info.height, info.width, 3), np.uint8), 40)
    if replaced.suffix != ".mp4":
        replaced.unlink()
    videos = ["--data.videos", tmp_path / "videos"]
    fine_tune = ["finetune", project.run, "--edits", project.folder, "--out", tmp_path / "f", *videos, *TINY[-4:]]
    for verb in (["check-edits", project.folder, *videos], fine_tune):
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in verb])
        assert stopped.value.code == 2
        message = capsys.readouterr().err
        assert f"{replaced.stem}.mp4: is not the file of clip {first.clip_id!r}" in message
        assert f"1 of {len(project.clips)} clips" in message
        assert "--changed skip" in message
    assert run_verb([str(word) for word in (*fine_tune, "--changed", "skip")])["edits"] == len(others)


def test_a_project_without_its_run_says_how_its_videos_are_found(project, one_line, tmp_path):
    shutil.move(project.run, tmp_path / "gone")
    assert "--data.annotations" in one_line("check-edits", project.folder)


def test_edits_made_on_a_file_with_other_times_are_not_imported(edited, one_line, tmp_path):
    edit = edited.history()[0]
    write_edits(tmp_path / "fast.jsonl", [replace(edit, timestamps=tuple(time / 4 for time in edit.timestamps))])
    told = one_line("import-edits", edited.folder, tmp_path / "fast.jsonl")
    assert "fast.jsonl" in told
    assert (
        f"frame {next(i for i, time in zip(edit.frame_indices, edit.timestamps, strict=True) if time > 0.01)}" in told
    )
