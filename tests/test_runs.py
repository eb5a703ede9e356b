"""What a folder that may hold a run says of itself, while another process writes it."""

from pathlib import Path

import pytest

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
