import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_run import lines

from stabn.edits.project import add_clip, open_project, write_project, write_snapshot
from stabn.errors import UserError
from stabn.records import Record

TIME = "2026-01-31T09:30:00+00:00"
NAMES = ("up", "down")


def record(clip_id, **changes) -> Record:
    rng = np.random.default_rng(sum(map(ord, clip_id)))
    values = {
        "clip_id": clip_id,
        "path": f"/videos/{clip_id}.mp4",
        "class_names": NAMES,
        "probabilities": np.array([0.7, 0.3], np.float32),
        "attention_probabilities": np.array([0.6, 0.4], np.float32),
        "temporal": rng.random(4, np.float32),
        "spatial": rng.random((4, 3, 3), np.float32),
        "frame_indices": np.array([1, 4, 7, 10]),
        "timestamps": np.array([0.1, 0.4, 0.7, 1.0]),
        "crop": (0.0, 0.0, 1.0, 1.0),
        "label": 1,
    }
    return Record(**values | changes)


@pytest.fixture
def project(tmp_path):
    classes = [{"name": "down", "count": 2, "top1": 0.0, "collected": 2}]
    write_project(tmp_path / "p", tmp_path / "run", classes, [record("a"), record("b")], 0.5)
    return open_project(tmp_path / "p")


def test_every_project_has_an_id_of_its_own_that_stays(project, tmp_path):
    write_project(tmp_path / "q", tmp_path / "run", [], [record("a")], 0.5)
    assert open_project(project.folder).id == project.id
    assert open_project(tmp_path / "q").id != project.id
    shutil.move(project.folder, tmp_path / "moved")
    assert open_project(tmp_path / "moved").id == project.id


def test_a_project_from_before_ids_gets_one_that_stays_when_clips_are_added(project):
    file = project.folder / "project.json"
    value = json.loads(file.read_text())
    del value["id"]
    file.write_text(json.dumps(value))
    old = open_project(project.folder)
    assert len(old.id) == 32
    assert add_clip(old, record("c")).id == open_project(old.folder).id == old.id


def test_history_keeps_every_line_and_current_the_last_of_each_person(project):
    a, b = project.clips
    first = [a.edit([0.0] * 4, author="Ann", time=TIME), a.edit([1.0] * 4, author="Bo", time=TIME)]
    then = [b.edit([0.5] * 4, author="Bo", time=TIME), a.edit([0.5] * 4, author="Ann", time=TIME)]
    project.add(first)
    project.add(then)
    assert project.history() == (*first, *then)
    assert project.latest_edits() == (first[1], *then)
    assert project.edits() == {"a": then[1], "b": then[0]}
    assert project.edits("mean")["a"].scores == (0.75,) * 4
    assert project.edits("author:Bo") == {"a": first[1], "b": then[0]}


def test_an_adopted_clip_can_be_edited_and_those_before_stay_as_they_were(project):
    before = load_file(project.folder / "attention.safetensors")
    taken = add_clip(project, record("c"))
    assert taken == open_project(project.folder)
    assert [clip.clip_id for clip in taken.clips] == ["a", "b", "c"]
    assert taken.clips[:2] == project.clips
    arrays = load_file(project.folder / "attention.safetensors")
    for name, array in arrays.items():
        assert array.dtype == before[name].dtype
        assert np.array_equal(array[:2], before[name])
        assert np.array_equal(array[2], getattr(record("c"), name))
    taken.add([taken.clips[2].edit([1.0] * 4, author="Ann", time=TIME)])
    assert set(open_project(project.folder).edits()) == {"c"}


def test_a_clip_is_adopted_once_also_by_somebody_who_opened_the_project_before(project):
    add_clip(project, record("c"))
    assert len(add_clip(project, record("c")).clips) == 3
    assert [clip.clip_id for clip in add_clip(project, record("d")).clips] == ["a", "b", "c", "d"]


def test_a_crash_between_arrays_and_lines_leaves_a_project_that_goes_on(project):
    file = project.folder / "attention.safetensors"
    arrays = load_file(file)
    save_file({name: np.concatenate([array, array[:1]]) for name, array in arrays.items()}, file)
    assert open_project(project.folder) == project
    add_clip(project, record("c"))
    assert np.array_equal(load_file(file)["temporal"][2], record("c").temporal)
    assert len(load_file(file)["temporal"]) == len(lines(project.folder / "clips.jsonl")) == 3


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"label": None}, "'c' has no label"),
        ({"spatial": np.zeros((4, 5, 5), np.float32)}, r"spatial has shape \(4, 5, 5\), expected \(4, 3, 3\)"),
    ],
)
def test_a_record_that_does_not_fit_is_not_adopted(project, changes, pattern):
    with pytest.raises(ValueError, match=pattern):
        add_clip(project, record("c", **changes))
    assert open_project(project.folder) == project
    assert len(load_file(project.folder / "attention.safetensors")["temporal"]) == 2


def test_damaged_arrays_are_told_by_file(project):
    (project.folder / "attention.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"attention\.safetensors"):
        add_clip(project, record("c"))


def test_a_snapshot_keeps_the_edits_it_was_given(project, tmp_path):
    given = [project.clips[0].edit([0.0] * 4, author="Ann", time=TIME)]
    project.add(given)
    write_snapshot(tmp_path / "job" / "edits", project, given)
    project.add([replace(given[0], scores=(1.0,) * 4)])
    add_clip(project, record("c"))
    copy = open_project(tmp_path / "job" / "edits")
    assert copy == replace(project, folder=copy.folder)
    assert list(copy.edits().values()) == given
