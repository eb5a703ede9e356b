import json
from dataclasses import replace

import pytest
from small_run import FRAMES

from stabn.cli import main
from stabn.exchange import FORMATS
from stabn.projects import open_project
from stabn.records import write_edits

TIME = "2026-01-31T09:30:00+00:00"
QUICKER = ["--optimiser.epochs", "1", "--optimiser.batch_size", "8"]


@pytest.fixture
def project(run, tmp_path):
    """Three clips; Ann edited the first two, Bo the first."""
    main(["collect", str(run.folder), "--out", str(tmp_path / "project"), "--bound", "1.0", "--max_clips", "3"])
    project = open_project(tmp_path / "project")
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
def test_exported_edits_are_imported_elsewhere_and_only_once(name, project, tmp_path, capsys):
    out = tmp_path / "out" / f"edits{FORMATS[name].suffix}"
    main(["export-edits", str(project.folder), str(out)])
    assert "3 edits of 2 people" in capsys.readouterr().out
    before = project.history()
    main(["import-edits", str(project.folder), str(out)])
    assert "0 edits added, 3 were there already" in capsys.readouterr().out
    assert project.history() == before
    write_edits(project.edits_file, before[:1])
    main(["import-edits", str(project.folder), str(out), "--json", str(tmp_path / "r.json")])
    told = json.loads((tmp_path / "r.json").read_text())
    assert (told["imported"], told["unchanged"]) == (2, 1)
    assert set(project.history()) == set(before)
    assert project.history()[0] == before[0]


def test_an_export_overwrites_nothing_and_needs_something_to_write(project, one_line, tmp_path):
    (tmp_path / "mine.csv").write_text("precious")
    assert "mine.csv: exists" in one_line("export-edits", project.folder, tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "precious"
    assert "ends in none of" in one_line("export-edits", project.folder, tmp_path / "mine.xls")
    assert "got 'xls'" in one_line("export-edits", project.folder, tmp_path / "new.csv", "--format", "xls")
    write_edits(project.edits_file, [])
    assert "holds no edit" in one_line("export-edits", project.folder, tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()


def test_an_import_with_one_mistake_adds_nothing(project, one_line, tmp_path):
    good, bad = replace(project.history()[0], comment="new"), replace(project.history()[0], clip_id="nobody")
    write_edits(tmp_path / "new.jsonl", [good, bad])
    before = project.edits_file.read_bytes()
    assert "new.jsonl, line 2: clip_id: got 'nobody'" in one_line(
        "import-edits", project.folder, tmp_path / "new.jsonl"
    )
    (tmp_path / "latin.csv").write_bytes("clip_id,Zoë".encode("latin-1"))
    assert "latin.csv: is not UTF-8" in one_line("import-edits", project.folder, tmp_path / "latin.csv")
    assert "none.csv: cannot be read" in one_line("import-edits", project.folder, tmp_path / "none.csv")
    assert project.edits_file.read_bytes() == before


def test_people_and_their_agreement_are_told(project, tmp_path, capsys):
    main(["check-edits", str(project.folder), "--json", str(tmp_path / "c.json")])
    text = capsys.readouterr().out
    assert "2 of 3 clips have an edit" in text
    assert "Krippendorff" in text
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["people"] == {"Ann": 2, "Bo": 1}
    first, second, _ = project.clips
    assert told["agreement"]["clips"][second.clip_id] is None
    assert told["agreement"]["project"] == told["agreement"]["clips"][first.clip_id] < 1
    write_edits(project.edits_file, project.history()[:2])
    main(["check-edits", str(project.folder)])
    assert "Krippendorff" not in capsys.readouterr().out


def test_fine_tuning_uses_the_edits_that_it_was_told_to_and_says_so(run, project, one_line, tmp_path):
    words = ["finetune", str(run.folder), "--edits", str(project.folder), *QUICKER]
    recipes = {}
    for use in ("median", "author:Bo"):
        out = tmp_path / use.replace(":", "-")
        main([*words, "--out", str(out), "--use", use])
        told = json.loads((out / "run.json").read_text())
        recipes[use] = told["recipe"]
        assert told["recipe"]["use"] == use
        assert len(told["edited"]) == (1 if use == "author:Bo" else 2)
    assert len({recipe["edits"] for recipe in recipes.values()}) == 2
    out = tmp_path / "none"
    assert "'author:Zoe', but the people with edits are Ann, Bo" in one_line(
        *words, "--out", out, "--use", "author:Zoe"
    )
    assert "use: got 'newest', expected latest, mean" in one_line(*words, "--out", out, "--use", "newest")
    assert not out.exists()
