from pathlib import Path

import pytest

from stabn.data.annotations.class_names import read_class_names, read_class_numbers
from stabn.data.annotations.source import DataSource
from stabn.data.dataset import Table
from stabn.data.spelling import near_doubles, normalise_label, normalise_split, unusual_splits
from stabn.errors import UserError

COMPOSED = "caf\u00e9 noir"
SAME = ("cafe\u0301 noir", "caf\u00e9\u00a0noir", " caf\u00e9  noir ", "caf\u00e9\u200b noir", "\ufeffcaf\u00e9\tnoir")


@pytest.mark.parametrize("spelling", SAME, ids=ascii)
def test_what_nobody_can_see_makes_no_class_of_its_own(spelling, tmp_path):
    assert normalise_label(spelling) == COMPOSED
    (tmp_path / "names.json").write_text(f'["{spelling}", "x"]'.replace("\t", " "), encoding="utf-8")
    assert read_class_names(tmp_path / "names.json") == (COMPOSED, "x")
    (tmp_path / "names.txt").write_text(f"1 {spelling}\n2 x\n", encoding="utf-8")
    assert read_class_numbers(tmp_path / "names.txt") == {1: COMPOSED, 2: "x"}
    assert Table((COMPOSED,), ()).with_class_names(("x", spelling)).class_names == ("x", spelling)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ("Train", "TRAINING", "train set", "trn", "\uff54rain", "train\u00a0")),
        ("validation", ("val", "Valid", "dev", "val_set", "Evaluation", "validation-split")),
        ("test", ("Testing", "testset")),
        ("ignore", ("Ignore", "excluded", "unused")),
        ("session 2", ("session 2 ", "session\u00a02")),
    ],
)
def test_usual_names_of_splits_are_one(split, names):
    assert {normalise_split(name) for name in names} == {split}


def test_other_splits_are_counted_with_what_may_be_meant():
    others = unusual_splits({"train": 9, "ignore": 2, "trian": 3, "session 2": 1})
    assert others == "3 in 'trian' (train?), 1 in 'session 2'"
    assert unusual_splits({"train": 1, "test": 1}) is None


@pytest.mark.parametrize(
    ("one", "other", "is_pair"),
    [
        ("open door", "Open Door", True),
        ("open-door", "open_door", True),
        ("opening", "openning", True),
        ("level 2", "level 3", False),
        ("put onto", "lift up", False),
    ],
)
def test_near_doubles_are_named_with_their_clips(one, other, is_pair):
    lines = list(near_doubles({one: 8, other: 2, "something else": 4}))
    assert len(lines) == is_pair
    assert all(f"{one!r} (8 clips)" in line and f"{other!r} (2 clips)" in line for line in lines)


def test_two_classes_that_differ_by_a_letter_are_no_slip_if_both_are_frequent():
    assert not list(near_doubles({"put onto": 9, "put into": 7}))


def table(folder: Path, *rows: str) -> DataSource:
    lines = ("path,label,split", *(f"{number}.mp4,{row}" for number, row in enumerate(rows)))
    (folder / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DataSource(str(folder / "clips.csv"))


def test_a_table_is_read_in_any_spelling_and_what_is_left_out_is_named_once(tmp_path, caplog):
    rows = [f"{SAME[0]},Train", f"{SAME[1]},val", "x,trian", "X,Validation", "x,ignore"]
    source = table(tmp_path, *rows)
    read = source.full_table()
    assert read.class_names == ("X", COMPOSED, "x")
    assert [sample.split for sample in read.samples] == ["train", "validation", "trian", "validation"]
    assert [sample.clip_id for sample in read.of_split("val")] == ["1.mp4", "3.mp4"]
    source.full_table()
    splits, classes = caplog.messages
    assert "clips.csv" in splits
    assert "1 in 'trian' (train?)" in splits
    assert "'X' (1 clip) and 'x' (1 clip)" in classes


def test_an_empty_split_is_no_way_to_leave_a_clip_out(tmp_path):
    with pytest.raises(UserError, match=r"clips.csv, line 3: split is empty.*ignore"):
        table(tmp_path, "x,train", "x,").full_table()
