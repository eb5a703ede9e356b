"""The experiments themselves, on a table that nobody has seen: another word, a held-back split, other seeds."""

import csv
import json
import math
import re
import runpy
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.settings import (
    GRID_FRAMES,
    build_parser,
    build_source,
    draw_segments,
    run_seeds,
    write_boxes,
    write_report,
)
from benchmarks.tables import beyond_random, cell, over_seeds, summaries, write_rows
from stabn.data.video.clip import write_video
from stabn.edits.project import Project
from stabn.files import read_json

ROOT = Path(__file__).parents[2]
SPLITS = {"train": 12, "validation": 4, "test": 6}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey clips in which a letter is "said" for six frames; a bright one for "a", a dark one for "b"."""
    folder = tmp_path_factory.mktemp("letters")
    (folder / "videos").mkdir()
    chance = np.random.default_rng(0)
    rows = []
    for split, count in SPLITS.items():
        for i in range(count):
            start = float(chance.integers(2, 60)) + 0.25
            rows.append({"id": f"{split}{i}", "split": split, "letter": "ab"[i % 2]})
            rows[-1] |= {"letter_start": start, "letter_end": start + 6}
    for row in rows:
        frames = np.full((GRID_FRAMES, 48, 48, 3), 128, dtype=np.uint8)
        said = slice(math.ceil(row["letter_start"]), math.ceil(row["letter_end"]))
        frames[said] = 230 if row["letter"] == "a" else 20
        write_video(folder / "videos" / f"{row['id']}.mp4", frames, 25, preset="ultrafast")
    with (folder / "clips.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder / "clips.csv"


def experiment(name: str, *arguments: object) -> None:
    """As `python -m benchmarks.NAME` from the root of the project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)


def test_edits_from_the_start_are_measured_on_a_held_back_split_of_another_word(table, tmp_path):
    common = ["--data", "words", "--table", table, "--word", "letter", "--within", 48, "--epochs", 1, "--clips", 10]
    common += ["--split", "test", "--out", tmp_path / "out", "--seeds", 7, 8, "--results", tmp_path / "found.json"]
    arms = ["edited", "3D ResNet"]
    before = (ROOT / "benchmarks" / "from_start" / "results.json").read_bytes()
    experiment("from_start", *common, "--arms", *arms)
    found = read_json(tmp_path / "found.json", remedy="-")["words-letter-within-48-clips-10-epochs-1, test"]
    assert [result["seed"] for result in found["results"]] == [7, 8]
    for result in found["results"]:
        assert set(result["methods"]) == {"control", *arms}
        assert len(result["edited_classes"]) == 1
        for method, measures in result["methods"].items():
            assert measures["all"] == pytest.approx((measures["edited classes"] + measures["other classes"]) / 2)
            assert ("frame AP" in measures) == (method != "3D ResNet")
        assert result["methods"]["edited"]["edits"] == result["edits"]
    summary = summaries(found)[""]
    assert summary["edited"]["against"] == "control"
    assert summary["control"]["against"] == "3D ResNet"
    assert str(tmp_path) not in found["command"]

    runs = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("run.json")}
    runs_asked = ["from the start: edited", "from the start: 3D ResNet"]
    experiment("faithfulness", *common, "--runs", *runs_asked, "--perturbed", 1, "--name", "looked")
    assert runs == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("run.json")}
    tables = summaries(read_json(tmp_path / "found.json", remedy="-")["looked"])
    own, plain = (tables[f"against cam{of}"]["from the start: edited, attention"] for of in ("", " of the 3D ResNet"))
    assert own["against"] == "from the start: edited, cam"
    assert plain["against"] == "from the start: 3D ResNet, cam"
    assert own["frame AP"]["mean"] == plain["frame AP"]["mean"]
    assert (ROOT / "benchmarks" / "from_start" / "results.json").read_bytes() == before


def test_edits_that_say_where_need_data_whose_truth_has_boxes(table, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        experiment("from_start", "--data", "words", "--table", table, "--out", tmp_path, "--arms", "edited, also where")
    assert stopped.value.code == 2
    assert "only Tabletop's truth has boxes" in capsys.readouterr().err


def test_boxes_are_taken_of_edited_clips_alone(tmp_path):
    lines = [json.dumps({"id": name, "boxes": [[0, 0, 4, 4]]}) + "\n" for name in ("1", "2", "3")]
    (tmp_path / "truth.jsonl").write_text("".join(lines))
    project = SimpleNamespace(folder=tmp_path, edits=lambda: {"3": None, "1": None})
    where = write_boxes(cast(Project, project), tmp_path)
    assert where.read_text() == lines[0] + lines[2]


def test_a_seed_draws_its_training_clips_and_leaves_the_other_splits_alone(table, tmp_path):
    asked = Namespace(data="words", table=table, word="letter", within=None, clips=8)

    def drawn(seed: int, folder: str) -> dict[str, list[str]]:
        (tmp_path / folder).mkdir()
        build_source(asked, tmp_path / folder, seed)
        with (tmp_path / folder / "clips.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        return {split: [row["id"] for row in rows if row["split"] == split] for split in SPLITS}

    first, again, other = drawn(1, "first"), drawn(1, "again"), drawn(2, "other")
    assert first == again
    assert first["train"] != other["train"]
    assert len(set(first["train"])) == len(other["train"]) == 8
    for split in ("validation", "test"):
        assert first[split] == other[split] == [f"{split}{i}" for i in range(SPLITS[split])]


def test_a_clip_that_is_cut_out_holds_the_whole_word_and_lies_in_its_video():
    rows = [{"w_start": start, "w_end": start + 5.5} for start in np.linspace(0, GRID_FRAMES - 5.5, 200)]
    draw_segments(rows, "w", 48)
    for row in rows:
        first, end = row["segment_start_frames"], row["segment_end_frames"]
        assert end - first == 48
        assert 0 <= first <= row["w_start"]
        assert row["w_end"] <= end <= GRID_FRAMES
    places = [(row["w_start"] - row["segment_start_frames"]) / 48 for row in rows[80:120]]
    assert np.std(places) > 0.15  # where the word is in the clip tells nothing


def test_the_interval_over_seeds_is_that_of_paired_differences():
    seeds = [{"a": {"all": 50.0}, "b": {"all": 52.0}}, {"a": {"all": 70.0}, "b": {"all": 76.0}}]
    found = over_seeds(seeds, {"b": "a"})
    assert found["a"]["all"] == {"mean": 60.0}
    assert found["b"]["against"] == "a"
    # Differences 2 and 6: mean 4, standard error 2, and t is 12.706 for one degree of freedom.
    assert found["b"]["all"]["difference"]["mean"] == 4.0
    assert found["b"]["all"]["difference"]["low"] == pytest.approx(4 - 12.706 * 2, abs=0.01)
    assert math.isclose(found["b"]["all"]["difference"]["high"], 4 + 12.706 * 2, abs_tol=0.01)


def test_a_method_that_some_seeds_lack_is_paired_only_where_both_are():
    seeds = [{"a": {"all": 1.0}, "b": {"all": 2.0}}, {"a": {"all": 3.0}}, {"a": {"all": 5.0}, "b": {"all": 6.0}}]
    found = over_seeds(seeds, {"b": "a"})
    assert found["b"]["all"]["mean"] == 4.0
    assert found["b"]["all"]["difference"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_other_seeds_are_added_to_those_that_the_results_have(tmp_path, monkeypatch):
    def run(*given: str) -> dict[str, Any]:
        words = ["--data", "tabletop", "--out", str(tmp_path), "--results", str(tmp_path / "found.json"), *given]
        monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "made_up" / "__main__.py"), *words])
        asked = build_parser(None).parse_args()
        results = run_seeds(asked, lambda _folder, seed: {"methods": {"a": {"all": float(seed)}}})
        write_report(asked, "benchmarks/made_up/__main__.py", results, {})
        return read_json(tmp_path / "found.json", remedy="-")["tabletop"]

    def seeds(entry: dict[str, Any]) -> list[int]:
        return [result["seed"] for result in entry["results"]]

    run("--seeds", "5", "2")
    added = run("--seeds", "3", "--add")
    assert seeds(added) == [2, 3, 5]
    assert added["results"][0]["methods"] == {"a": {"all": 2.0}}
    assert added["command"].endswith("--seeds 2 3 5")
    assert seeds(run("--seeds", "3")) == [3]


def test_results_are_written_with_one_row_per_line_and_read_back_alike(tmp_path):
    row = {
        "all": 51.0,
        "edited classes": 37.5,
        "values of a list in a row": [1, 2, 3],
        "long enough to pass a line": 0.1,
    }
    value = {"command": "python -m benchmarks.x", "results": [{"seed": 2, "methods": {"control": row, "edited": row}}]}
    write_rows(tmp_path / "results.json", value)
    text = (tmp_path / "results.json").read_text()
    assert json.loads(text) == value
    assert sum(line.strip().startswith('"edited": {"all": 51.0') for line in text.splitlines()) == 1
    assert len(text.splitlines()) <= 6


@pytest.mark.parametrize(
    "file", sorted(path.relative_to(ROOT) for path in ROOT.glob("benchmarks/*/results.json")), ids=str
)
def test_results_in_the_repository_are_as_their_writer_lays_them_out(file, tmp_path):
    value = read_json(ROOT / file, remedy="-")
    write_rows(tmp_path / "results.json", value)
    assert (tmp_path / "results.json").read_text() == (ROOT / file).read_text()
    for experiment in value.values() if file.parent.name != "finetuning" else ():
        if isinstance(experiment, dict) and "against" in experiment:
            assert all(summaries(experiment).values())


BY_HAND = {"+6.6 ± 9.2"}
"""Differences that are not of all seeds of an experiment: the first five of ten seeds."""


def differences(experiment: dict[str, Any]) -> set[str]:
    """The paired difference of every two methods in every measure, with half of its interval, as documents write it."""
    seeds = [result["methods"] for result in experiment["results"]]
    of_seeds = [seeds]
    if all(f"{name.rpartition(', ')[0]}, random" in seeds[0] for name in seeds[0]):
        of_seeds.append([beyond_random(methods) for methods in seeds])
    found = set()
    for methods in of_seeds:
        for other in dict.fromkeys(name for names in methods for name in names):
            rows = over_seeds(methods, {name: other for names in methods for name in names})
            for measures in rows.values():
                entries = [entry for entry in measures.values() if isinstance(entry, dict) and "difference" in entry]
                for entry in entries:
                    for digits in (1, 2, 3):
                        found.add(cell(entry, digits).partition("(")[2].strip("*)"))
    return found


def test_every_difference_in_the_documents_is_that_of_the_results_files():
    known = set(BY_HAND)
    for file in ROOT.glob("benchmarks/*/results.json"):
        for experiment in read_json(file, remedy="-").values():
            if isinstance(experiment, dict) and "against" in experiment:
                known |= differences(experiment)
    for name in ("README.md", "docs/results.md"):
        text = re.sub(r"\s+", " ", (ROOT / name).read_text())
        stated = re.findall(r"[-+]?\d*\.\d+ ± \d*\.\d+", text)
        assert stated, name
        unknown = [s for s in stated if not {s, f"+{s}", f"-{s}"} & known]
        assert not unknown, (name, unknown)
