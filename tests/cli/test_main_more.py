"""The second look at the command line: other data, other folders, and mistakes that are easy to make."""

import json
import shutil

import numpy as np
import pytest
from small_run import FRAMES

from stabn.cli.main import main
from stabn.data.video.clip import write_video
from stabn.edits.project import open_project
from stabn.nn import STABN

QUICK = ["--optimizer.epochs", "1", "--optimizer.batch_size", "4"]
TINY = [*QUICK, "--network.architecture", "tiny", "--preprocessing.sampling.frames", str(FRAMES),
        "--preprocessing.resize", "36", "--preprocessing.crop", "32"]  # fmt: skip


@pytest.fixture
def own(tmp_path):
    """Two classes, eight training and four validation videos, in a folder with a space in its name."""
    folder = tmp_path / "my clips"
    rng = np.random.default_rng(0)
    rows = ["path, label, split"]
    for i in range(12):
        write_video(folder / f"{i}.mp4", rng.integers(0, 255, (12, 32, 40, 3), dtype=np.uint8), 12)
        rows.append(f"{i}.mp4, {'ab'[i % 2]}, {'train' if i < 8 else 'validation'}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def run(own, tmp_path):
    main(["train", "--out", str(tmp_path / "run"), "--data.annotations", str(own / "clips.csv"), *TINY])
    return tmp_path / "run"


@pytest.fixture
def project(run, tmp_path):
    main(["collect", str(run), "--out", str(tmp_path / "project"), "--bound", "1.0"])
    project = open_project(tmp_path / "project")
    project.add(
        clip.edit([1.0] + [0.0] * (FRAMES - 1), author="ann", time="2026-01-31T09:30:00+00:00", comment="x\u2028y\x85z")
        for clip in project.clips
    )
    return project


def test_every_verb_works_on_a_folder_without_a_run_if_told_the_data(run, own, tmp_path):
    bare, data = tmp_path / "bare", ["--data.annotations", str(own / "clips.csv")]
    STABN.from_pretrained(run).save_pretrained(bare)
    main(["evaluate", str(bare), *data])
    main(["collect", str(bare), "--out", str(tmp_path / "p"), "--bound", "1.0", *data])
    project = open_project(tmp_path / "p")
    project.add(c.edit([0.5] * FRAMES, author="a", time="2026-01-31T09:30:00+00:00") for c in project.clips)
    main(["finetune", str(bare), "--edits", str(tmp_path / "p"), "--out", str(tmp_path / "after"), *data, *QUICK])
    main(["compare", str(bare), str(tmp_path / "after"), *data])


def test_a_switch_needs_no_value_and_words_may_be_joined_by_hyphens(run, project, tmp_path):
    words = ["finetune", str(run), "--edits", str(project.folder), *QUICK]
    main([*words, "--out", str(tmp_path / "control"), "--control"])
    assert json.loads((tmp_path / "control" / "run.json").read_text())["recipe"]["control"] is True
    main([*words, "--out", str(tmp_path / "after")])
    assert json.loads((tmp_path / "after" / "run.json").read_text())["recipe"]["control"] is False
    main(["evaluate", str(run), "--batch-size", "3"])
    main(["report", str(run), str(tmp_path / "after"), "--control", str(tmp_path / "control"), "--out",
          str(tmp_path / "r.html"), "--examples", "1"])  # fmt: skip


def test_a_table_with_only_some_of_the_classes_is_matched_by_name(run, own, tmp_path):
    (own / "b.csv").write_text("path,label,split\n1.mp4,b,validation\n3.mp4,b,validation\n")
    main(["evaluate", str(run), "--data.annotations", str(own / "b.csv"), "--json", str(tmp_path / "e.json")])
    figures = json.loads((tmp_path / "e.json").read_text())
    assert [c["count"] for c in figures["classes"]] == [0, 2]


def test_a_linked_table_keeps_its_own_videos(run, own, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.move(own / "clips.csv", tmp_path / "elsewhere" / "clips.csv")
    (own / "clips.csv").symlink_to(tmp_path / "elsewhere" / "clips.csv")
    main(["evaluate", str(run)])


def test_a_collection_that_was_killed_can_be_repeated(run, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "clips.jsonl").write_text("{}\n")
    main(["collect", str(run), "--out", str(tmp_path / "p"), "--bound", "1.0"])
    assert open_project(tmp_path / "p").clips


class TestMistakesEndInOneLineWithStatusTwo:
    def test_classes_that_changed_since_training(self, run, own, one_line, tmp_path):
        text = (own / "clips.csv").read_text()
        for changed in (text.replace(" a,", " z,"), text.replace("0.mp4, a,", "0.mp4, c,")):
            (own / "clips.csv").write_text(changed)
            for words in (["evaluate", run], ["collect", run, "--out", tmp_path / "p", "--bound", "1.0"]):
                assert "does not know" in one_line(*words)
        assert not (tmp_path / "p").exists()

    def test_a_split_or_a_class_that_is_missing(self, own, one_line, tmp_path):
        out = ["--out", tmp_path / "r", "--data.annotations", own / "clips.csv"]
        whole = (own / "clips.csv").read_text()
        (own / "clips.csv").write_text(whole.replace("validation", "train"))
        assert "'validation'" in one_line("train", *out, *TINY)
        (own / "clips.csv").write_text(whole.replace(" b,", " a,"))
        assert "1 class" in one_line("train", *out, *TINY)
        assert "typo.csv: no such file" in one_line("train", "--out", tmp_path / "r", "--data.annotations", "typo.csv")
        assert not (tmp_path / "r").exists()

    def test_engines_seeds_and_batches_that_cannot_be(self, run, own, one_line, tmp_path):
        out = ["train", "--out", tmp_path / "r", "--data.annotations", own / "clips.csv", *TINY]
        assert "abacus" in one_line(*out, "--engine.accelerator", "abacus")
        assert "--seed" in one_line(*out, "--seed", "-1")
        tiny = ["--preprocessing.sampling.frames", "1", "--optimizer.batch_size", "1"]
        assert "batch norm" in one_line(*out, *tiny)
        assert "batch_size" in one_line("evaluate", run, "--batch_size", "0")
        assert "--examples" in one_line("report", run, run, "--out", tmp_path / "r.html", "--examples", "-1")
        assert not (tmp_path / "r").exists()

    def test_places_where_nothing_can_be_written(self, run, own, one_line, tmp_path):
        file = own / "clips.csv"
        assert "--json" in one_line("evaluate", run, "--json", tmp_path)
        assert "--json" in one_line("evaluate", run, "--json", file / "x.json")
        assert "clips.csv" in one_line("explain", run, own / "1.mp4", "--out", file)
        assert "clips.csv" in one_line("tabletop", file)
        assert "clips.csv" in one_line("train", "--out", file / "run", "--data.annotations", file, *TINY)

    def test_a_control_that_is_none(self, run, project, one_line, tmp_path):
        words = ["finetune", run, "--edits", project.folder, *QUICK]
        main([str(w) for w in (*words, "--out", tmp_path / "after")])
        main([str(w) for w in (*words, "--out", tmp_path / "other", "--control", "--seed", "7")])
        report = ["report", run, tmp_path / "after", "--out", tmp_path / "r.html", "--control"]
        assert "seed is 7 and not 0" in one_line(*report, tmp_path / "other")
        assert "with the edits" in one_line(*report, tmp_path / "after")
        assert not (tmp_path / "r.html").exists()

    def test_runs_that_cannot_be_compared(self, run, trained, plain, one_line, tmp_path):
        assert "to compare them" in one_line("compare", run, trained)
        assert "plain network" in one_line("report", plain, trained, "--out", tmp_path / "r.html")
        (tmp_path / "t.jsonl").write_text(json.dumps({"id": "29", "relevance": [0, 1]}) + "\n")
        assert "truth has 2 frames" in one_line("compare", plain, trained, "--truth", tmp_path / "t.jsonl")
