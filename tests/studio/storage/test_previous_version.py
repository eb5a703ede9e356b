"""An edit project and database that the previous version of the studio wrote: tests/legacy/studio-edits."""

import shutil
from pathlib import Path

import pytest
from store_changes import change

from stabn.edits.agreement import measure_agreement
from stabn.edits.project import Project, open_project
from stabn.studio.storage.edits_file import EditsFile
from stabn.studio.storage.events import History, Store

LEGACY = Path(__file__).parents[2] / "legacy" / "studio-edits"
NOTHING, HALF, ONES = (0.0,) * 8, (0.5,) * 8, (1.0,) * 8


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return open_project(shutil.copytree(LEGACY, tmp_path / "edits"))


@pytest.fixture
def store(project: Project):
    store = Store(f"sqlite:///{project.folder / 'studio.db'}", project.id)
    yield store
    store.close()


def test_its_changes_history_and_agreement_are_there(project: Project, store: Store) -> None:
    painted = [(event.author, event.scores, event.comment) for event in store.events("1") if event.kind == "paint"]
    assert painted == [("Ann", NOTHING, "old"), ("Bo", ONES, "old"), ("Ann", HALF, "old")]
    assert store.people() == ("Ann", "Bo", "simulated")
    assert store.history("1", "Ann") == History(HALF, "old", (None, NOTHING), (), store.version())
    assert (store.version(), store.use(), len(store.current())) == (28, "latest", 27)
    edits = [edit for edit in store.current("1") if edit.author != "simulated"]
    assert [(edit.author, edit.scores) for edit in edits] == [("Bo", ONES), ("Ann", HALF)]
    # By hand: the two always differ, and by chance 128 of 240 pairs of the 16 scores would.
    assert measure_agreement(edits, {"1": "any"}).clips["1"] == pytest.approx(1 - 240 / 128)


def test_its_edits_file_agrees_with_the_database_and_follows_new_changes(project: Project, store: Store) -> None:
    clip = project.clips[0]
    file = EditsFile(project.edits_file, store, lambda: {clip.clip_id: clip.frame_indices for clip in project.clips})
    assert file.pull() == 0
    undo = {"kind": "undo", "clip_id": "1", "frame_indices": clip.frame_indices, "timestamps": clip.timestamps}
    assert store.append(change("request-3", scores=NOTHING, **undo)) == 29
    assert store.append(change("request-2", scores=NOTHING, **undo)) == 28  # of the previous version, repeated
    assert store.history("1", "Ann").undone == (HALF,)
    file.close()
    assert (file.problem, file.left_out) == (None, ())
    assert {edit.scores for edit in project.history() if edit.author == "Ann"} == {NOTHING}
