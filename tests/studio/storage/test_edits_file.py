import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stabn.errors import UserError
from stabn.records import Edit, read_edits, write_edits
from stabn.studio.storage import edits_file
from stabn.studio.storage.edits_file import EditsFile
from stabn.studio.storage.events import EditChange, Store

CLIPS = {"17": (0, 4), "18": (0, 2, 4)}
ANN = Edit("17", (0, 4), (0.0, 1 / 3), (0.0, 0.5), "Ann", "2026-01-31T09:30:00+00:00", "")
BO = replace(ANN, scores=(1.0, 0.1), author="Bo", comment="mine\u2028\n")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'studio.db'}", "project")
    yield store
    store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "edits.jsonl"
    path.touch()
    return path


@pytest.fixture
def file(path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[EditsFile]:
    monkeypatch.setattr(edits_file, "DELAY", 0.01)
    monkeypatch.setattr(edits_file, "RETRY", 0.02)
    file = EditsFile(path, store, lambda: CLIPS)
    yield file
    file.close()


def keep(store: Store, edit: Edit, kind: str = "import", *, withdrawn: bool = False) -> None:
    change = EditChange(f"request-{store.version()}", kind, **vars(edit) | ({"scores": None} if withdrawn else {}))
    store.append(change)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_lines_of_the_file_become_events_once(path: Path, store: Store, file: EditsFile):
    write_edits(path, [ANN, BO])
    assert file.pull() == 2
    assert store.current() == (ANN, BO)
    write_edits(path, [BO, ANN, replace(ANN, clip_id="17", comment="added by hand")])
    assert file.pull() == 1
    assert file.pull() == 0
    assert [event.comment for event in store.events("17")] == ["", BO.comment, "added by hand"]


def test_the_file_holds_one_line_per_clip_and_person(path: Path, store: Store, file: EditsFile):
    for edit in (ANN, BO, replace(ANN, scores=(1.0, 1.0))):
        keep(store, edit)
    file.push()
    assert read_edits(path, CLIPS) == (BO, replace(ANN, scores=(1.0, 1.0)))
    before = path.stat()
    file.push()  # nothing has changed, so nothing is written
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    keep(store, BO, "clear", withdrawn=True)
    file.push()
    assert [edit.author for edit in read_edits(path)] == ["Ann"]


def test_a_project_from_before_the_studio_keeps_its_lines_as_history(path: Path, store: Store, file: EditsFile):
    older = replace(ANN, scores=(0.2, 0.2), time="2025-01-31T09:30:00+00:00")
    write_edits(path, [older, BO, ANN])
    file.push()
    assert read_edits(path) == (BO, ANN)
    assert store.history("17", "Ann").done == (None, older.scores)


def test_what_another_program_adds_before_or_while_we_write_is_kept(path, store, file, monkeypatch):
    current = Store.current

    def interrupted(self: Store) -> tuple[Edit, ...]:
        edits = current(self)
        if not path.read_text():
            write_edits(path, [BO])
        return edits

    monkeypatch.setattr(Store, "current", interrupted)
    keep(store, ANN)
    file.push()
    assert set(read_edits(path)) == {ANN, BO}
    cy, newer = replace(BO, author="Cy"), replace(ANN, scores=(1.0, 1.0))
    write_edits(path, [*read_edits(path), cy])
    keep(store, newer)
    file.push()
    assert set(store.current()) == set(read_edits(path)) == {newer, BO, cy}


def test_a_removed_line_and_a_removed_file_come_back_but_no_withdrawn_edit(path: Path, store: Store, file: EditsFile):
    keep(store, ANN)
    keep(store, BO)
    for remove in (lambda: write_edits(path, [ANN]), path.unlink):
        file.push()
        remove()
        file.push()
        assert read_edits(path) == (ANN, BO)
    assert len(store.events("17")) == 2
    keep(store, ANN, "undo", withdrawn=True)  # and now the server is killed, before the file is written
    EditsFile(path, store, lambda: CLIPS).close()
    assert store.current() == read_edits(path) == (BO,)


def test_edits_of_clips_or_frames_that_the_project_does_not_know_are_left_out_until_it_does(path, store):
    clips = dict(CLIPS)
    file = EditsFile(path, store, lambda: clips)
    strange = replace(ANN, clip_id="99")
    other_frames = replace(ANN, frame_indices=(1, 5), author="Bo")
    for edit in (strange, ANN, other_frames):
        keep(store, edit)
    file.push()
    assert read_edits(path, CLIPS) == (ANN,)
    assert file.left_out == (strange, other_frames)
    clips["99"] = (0, 4)
    file.push()
    assert read_edits(path, clips) == (strange, ANN)
    assert file.left_out == (other_frames,)
    file.close()


DAMAGED = {
    "half a line": json.dumps(ANN.as_json())[:-20],
    "no text": "\udcff",
    "a score too high": json.dumps(BO.as_json() | {"scores": [0, 2]}),
    "another project's clip": json.dumps(BO.as_json() | {"clip_id": "99"}),
    "other frames": json.dumps(BO.as_json() | {"frame_indices": [1, 5]}),
    "nobody's": json.dumps(BO.as_json() | {"author": ""}),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_reported_and_never_overwritten(path: Path, store: Store, file: EditsFile, damage: str):
    keep(store, ANN)
    content = f"{json.dumps(BO.as_json())}\n{damage}\n".encode(errors="surrogateescape")
    path.write_bytes(content)
    for attempt in (file.pull, file.push):
        with pytest.raises(UserError, match=r"^\S+edits\.jsonl[^\n]*$"):
            attempt()
    file.request_push()
    wait_until(lambda: file.problem is not None)
    assert "edits.jsonl" in str(file.problem)
    file.close()
    assert path.read_bytes() == content
    assert store.current() == (ANN,)


def test_the_background_goes_on_once_a_damaged_file_is_mended(path: Path, store: Store, file: EditsFile):
    path.write_text("{")
    keep(store, ANN)
    file.request_push()
    wait_until(lambda: file.problem is not None)
    write_edits(path, [BO])
    wait_until(lambda: file.problem is None)
    assert set(read_edits(path)) == {ANN, BO}
    for number in range(40):  # changes that come while the file is written are not forgotten
        keep(store, replace(ANN, comment=str(number)))
        file.request_push()
    wait_until(lambda: "39" in path.read_text())
    assert file.problem is None


def test_a_file_that_cannot_be_read_or_written_is_reported(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
):
    file = EditsFile(tmp_path, store, lambda: CLIPS)
    with pytest.raises(UserError, match="Is a directory"):
        file.push()
    file.close()
    assert "Is a directory" in str(file.problem)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edits_file, "write_text", full)
    file = EditsFile(tmp_path / "edits.jsonl", store, lambda: CLIPS)
    with pytest.raises(UserError, match=r"edits\.jsonl.*No space left"):
        file.push()
    file.close()
    assert not (tmp_path / "edits.jsonl").exists()


def test_changes_reach_the_file_within_half_a_second_or_when_it_is_closed(path: Path, store: Store):
    file = EditsFile(path, store, lambda: CLIPS)
    keep(store, ANN)
    requested = time.monotonic()
    file.request_push()
    wait_until(lambda: path.read_text() != "")
    assert 0.3 < time.monotonic() - requested < 5  # slow machines may be slow
    assert read_edits(path) == (ANN,)
    keep(store, BO)
    file.close()  # writes the rest
    assert read_edits(path) == (ANN, BO)
    file.close()
