import json

import numpy as np
import pytest

from stabn.errors import UserError
from stabn.records import Edit, Record, read_edits, write_edits

EDIT = Edit("17", (0, 2, 4, 4), (0.0, 0.2, 0.4, 0.4), (0.0, 0.5, 1.0, 1.0), "ann", "2026-01-31T09:30:00+00:00", "ok")
KNOWN = {"17": (0, 2, 4, 4)}


def record(**changes) -> Record:
    values = {
        "clip_id": "17",
        "path": "17.mp4",
        "class_names": ("up", "down", "on"),
        "probabilities": np.array([0.2, 0.7, 0.1], np.float32),
        "attention_probabilities": np.array([0.3, 0.3, 0.4], np.float32),
        "temporal": np.array([0.0, 1.0], np.float32),
        "spatial": np.zeros((2, 3, 3), np.float32),
        "frame_indices": np.array([0, 4]),
        "timestamps": np.array([0.0, 0.4]),
        "crop": (0.0, 0.0, 1.0, 1.0),
    }
    return Record(**values | changes)


def test_edits_come_back_from_their_file_as_they_were(tmp_path):
    write_edits(tmp_path / "edits.jsonl", [EDIT, EDIT])
    assert read_edits(tmp_path / "edits.jsonl", KNOWN) == (EDIT, EDIT)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"scores": [0, 0.5, 1]}, "scores: got 3 for 4 frames"),
        ({"scores": [0, 0.5, 1.2, 1]}, "scores: got 1.2, expected a number in 0..1"),
        ({"scores": [0, 0.5, float("nan"), 1]}, "scores: got nan"),
        ({"scores": [0, True, 1, 1]}, "scores: got True"),
        ({"scores": [0, "1", 1, 1]}, "scores: got '1'"),
        ({"scores": 1}, "scores: got 1, expected a list"),
        ({"frame_indices": [0, 4, 2, 4]}, "expected [0, 2, 4, 4]"),
        ({"frame_indices": [0, 2, 4, 5]}, "expected [0, 2, 4, 4]"),
        ({"frame_indices": [0, 2.5, 4, 4]}, "expected integers from 0"),
        ({"frame_indices": [0, 1], "timestamps": [0, 1], "scores": [0, 1]}, "scores: got 2 for clip '17', expected 4"),
        ({"timestamps": [0.0, 0.2, 0.4]}, "timestamps: got 3 for 4 frames"),
        ({"timestamps": [0.0, 0.2, -0.4, 1]}, "timestamps: got -0.4"),
        ({"clip_id": "18"}, "clip_id: got '18', which is not a clip of this edit project"),
        ({"clip_id": 17}, "clip_id: got 17, expected a string"),
        ({"time": "yesterday"}, "expected ISO 8601"),
        ({"time": "2026-01-31T09:30:00"}, "without a time zone"),
        ({"format": "stabn-edit/9"}, "format: got 'stabn-edit/9'"),
        ({"mood": "good"}, "mood: unknown field"),
    ],
)
def test_a_wrong_edit_is_refused_by_file_line_and_value(tmp_path, change, pattern):
    file = tmp_path / "edits.jsonl"
    good = json.dumps(EDIT.as_json())
    file.write_text(good + "\n\n" + json.dumps(EDIT.as_json() | change) + "\n")
    with pytest.raises(UserError, match=r"edits\.jsonl, line 3: ") as caught:
        read_edits(file, KNOWN)
    assert pattern in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["clip_id", "scores", "author", "time", "frame_indices", "timestamps"])
def test_an_edit_without_a_field_is_refused_by_its_name(tmp_path, name):
    value = EDIT.as_json()
    del value[name]
    (tmp_path / "e.jsonl").write_text(json.dumps(value))
    with pytest.raises(UserError, match=f"line 1: {name}: missing"):
        read_edits(tmp_path / "e.jsonl", KNOWN)


@pytest.mark.parametrize(
    ("content", "place"),
    [*((text, ", line 1") for text in (b"{", b"[1]", b"3", b'"x"', b"null")), (None, ""), (b"\xff\xfe\x00", "")],
)
def test_a_line_that_is_no_edit_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path, content, place):
    if content is not None:
        (tmp_path / "e.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=rf"e\.jsonl{place}: "):
        read_edits(tmp_path / "e.jsonl")


def test_a_record_ranks_its_classes_and_rounds_its_json():
    assert record().predicted == 1
    assert [name for name, _ in record().top(2)] == ["down", "up"]
    value = record(label=0).as_json()
    assert value["label"] == "up"
    assert value["predictions"][0] == {"class": "down", "probability": pytest.approx(0.7)}
    assert value["frame_indices"] == [0, 4]
    json.dumps(value, allow_nan=False)


def test_a_records_arrays_are_read_by_numpy_without_pickle(tmp_path):
    record().save_arrays(tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz", allow_pickle=False) as arrays:
        assert arrays["spatial"].shape == (2, 3, 3)
        assert arrays["class_names"].tolist() == ["up", "down", "on"]


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"temporal": np.zeros(3, np.float32)}, r"temporal: got shape \(3,\), expected \(2,\)"),
        ({"temporal": np.array([0, 1.5], np.float32)}, "temporal: got values in 0.0..1.5"),
        ({"temporal": np.array([0, np.nan], np.float32)}, "temporal: got values"),
        ({"spatial": np.zeros((2, 3), np.float32)}, "spatial: got shape"),
        ({"probabilities": np.zeros(2, np.float32)}, "probabilities: got shape"),
        ({"label": 3}, "label: got 3"),
    ],
)
def test_a_record_whose_parts_do_not_fit_is_refused(change, pattern):
    with pytest.raises(ValueError, match=pattern):
        record(**change)
