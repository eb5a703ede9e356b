"""What a folder that may hold a run says of itself, while another process writes it."""

import shutil
from pathlib import Path

import pytest

from stabn.data.annotations.columns import Columns
from stabn.data.annotations.source import DataSource
from stabn.errors import UserError
from stabn.runs import is_finished_run, read_run, write_run


def write(folder: Path) -> None:
    write_run(folder, DataSource("clips.csv"), {}, complete=False)


def test_a_folder_is_new_begun_or_somebody_elses(tmp_path):
    assert read_run(tmp_path / "none") is None
    assert read_run(tmp_path) is None
    write(tmp_path / "run")
    begun = read_run(tmp_path / "run")
    assert begun is not None
    assert not begun["complete"]
    assert not is_finished_run(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").touch()
    for folder in (tmp_path / "other", tmp_path / "other" / "holiday.jpg"):
        with pytest.raises(UserError, match=str(folder)):
            read_run(folder)


def test_a_writer_that_was_killed_leaves_nothing_in_the_way(tmp_path):
    (tmp_path / ".run-x1y2z3.json").write_text("{")
    assert read_run(tmp_path) is None


def test_a_run_that_comes_into_being_while_it_is_looked_for_is_no_strangers_folder(tmp_path, monkeypatch):
    listed = Path.iterdir

    def meanwhile(folder: Path):
        write(folder)
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", meanwhile)
    begun = read_run(tmp_path)
    assert begun is not None
    assert not begun["complete"]


def test_a_run_finds_its_data_where_both_have_moved_and_where_it_has_moved_alone(tmp_path):
    project = tmp_path / "project"
    (project / "videos").mkdir(parents=True)
    (project / "clips.csv").touch()
    write_run(
        project / "runs" / "a", DataSource(str(project / "clips.csv"), str(project / "videos")), {}, complete=True
    )
    shutil.copytree(project / "runs" / "a", tmp_path / "alone")
    assert read_run(tmp_path / "alone")["data"]["annotations"] == str(project / "clips.csv")
    moved = project.rename(tmp_path / "moved")
    data = read_run(moved / "runs" / "a")["data"]
    assert (data["annotations"], data["videos"]) == (str(moved / "clips.csv"), str(moved / "videos"))


def test_options_without_a_table_change_those_of_the_run():
    own = DataSource("clips.csv", "videos", Columns(label="word", path="file"))
    changed = DataSource(videos="elsewhere", columns=Columns(label="verb")).over(own)
    assert changed == DataSource("clips.csv", "elsewhere", Columns(label="verb", path="file"))
    assert DataSource("other.csv").over(own) == DataSource("other.csv")
