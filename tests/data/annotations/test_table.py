import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from messages import names

from stabn.data.annotations.columns import Columns
from stabn.data.annotations.source import DataSource
from stabn.data.annotations.table import read_table, write_table
from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import ClipTruth
from stabn.data.segments import Segment
from stabn.errors import UserError

SPOKEN = Columns(path="videos/{id}.mp4", label="colour", start="from", end="to")


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "my videos/b, c.mp4", "videos/7.mp4", "videos/8.mp4", "videos/take 9.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def table(folder, *rows, heading="path,label,split", columns=None, end="\n", mark=""):
    (folder / "clips.csv").write_bytes((mark + end.join((heading, *rows)) + end).encode())
    return read_table(folder / "clips.csv", columns=columns)


def test_a_csv_file_lists_clips_with_classes_in_alphabetical_order(folder):
    got = table(folder, "a.mp4,waving,train", '"my videos/b, c.mp4",bowing,validation')
    assert got.class_names == ("bowing", "waving")
    assert [s.clip_id for s in got.of_split("train")] == ["a.mp4"]
    assert got.of_split("validation")[0].path == folder / "my videos" / "b, c.mp4"
    assert got.truth == {}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("heading", "rows"),
    [
        ("id,split,colour,from,to", ["7,train,red,21.25,27.5", "8,test,blue,,", "", ",,,,", "take 9,train,red,3,4"]),
        ("id\tsplit\tcolour\tfrom\tto", ["7\ttrain\tred\t21,25\t27.5", "8\ttest\tblue", "take 9\ttrain\tred\t3\t4"]),
        ("id;split;colour;from;to", ["7;train;red;21,25;27,5", "8;test;blue;;", "take 9;train;red;3;4"]),
        ("id;split;colour;from;to", ['7;train;"red";21.25;"27.5"', "8;test;blue", "take 9;train;red;3,0;4"]),
        (
            'colour, "split","to",from,"note, with a comma",id',
            ['red,train, 27.5,21.25,"so, ""well""",7', "blue,test,,,,8", "red , train,4,3,,take 9"],
        ),
    ],
)
def test_columns_have_any_names_and_any_order_and_a_pattern_makes_the_paths(folder, heading, rows, mark, end):
    got = table(folder, *rows, heading=heading, columns=SPOKEN, mark=mark, end=end)
    assert got.class_names == ("blue", "red")
    assert [(s.clip_id, s.label, s.split) for s in got.samples] == [
        ("7", 1, "train"),
        ("8", 0, "test"),
        ("take 9", 1, "train"),
    ]
    assert [s.path.relative_to(folder).as_posix() for s in got.samples] == [
        "videos/7.mp4",
        "videos/8.mp4",
        "videos/take 9.mp4",
    ]
    assert got.truth == {"7": ClipTruth(interval=(21.25, 27.5)), "take 9": ClipTruth(interval=(3.0, 4.0))}


def test_columns_of_the_usual_names_are_found_without_being_named(folder):
    heading = "id,path,label,split,relevant_start,relevant_end"
    got = table(folder, "one,a.mp4,x,train,1,2.5", ",videos/7.mp4,y,test,,", heading=heading)
    assert [s.clip_id for s in got.samples] == ["one", "videos/7.mp4"]
    assert got.truth == {"one": ClipTruth(interval=(1.0, 2.5))}
    other = table(folder, "one,a.mp4,x,train,1,2.5", heading=heading, columns=Columns(id="path"))
    assert list(other.truth) == ["a.mp4"]


def test_labels_that_are_numbers_are_names_all_the_same(folder):
    got = table(folder, "a.mp4,10,train", "videos/7.mp4,2,train", "videos/8.mp4,02,train")
    assert got.class_names == ("02", "10", "2")


def test_one_video_may_be_several_clips_and_lie_anywhere(folder):
    rows = [f"1,{folder / 'a.mp4'},x,train", f"2,../{folder.name}/a.mp4,y,train"]
    got = table(folder, *rows, heading="id,path,label,split")
    assert all(sample.path.samefile(folder / "a.mp4") for sample in got.samples)
    (folder / "sub").mkdir()
    (folder / "sub" / "clips.csv").write_text("id,label,split\n7,x,train\n")
    columns = Columns(path="{id}.mp4")
    assert read_table(folder / "sub" / "clips.csv", folder / "videos", columns).samples[0].path.name == "7.mp4"


def test_a_pattern_may_name_several_columns_and_one_that_is_used_elsewhere(folder):
    (folder / "train" / "red").mkdir(parents=True)
    (folder / "train" / "red" / "take 1.mp4").write_bytes(b"x")
    columns = Columns(path="{split}/{colour}/take {clip no}.mp4", label="colour")
    got = table(folder, "train,red,1", heading="split,colour,clip no", columns=columns)
    assert got.samples[0].clip_id == "train/red/take 1.mp4"


PLAIN, TIMED = "path,label,split", "id,split,colour,from,to"


@pytest.mark.parametrize(
    ("heading", "rows", "named"),
    [
        (PLAIN, ["a.mp4,,train"], ["line 2", "label"]),
        (PLAIN, ["a.mp4,waving"], ["line 2", "split"]),
        (PLAIN, [",waving,train"], ["line 2", "path"]),
        (PLAIN, ["a.mp4,waving,train", "a.mp4,waving,train"], ["line 3", "'a.mp4'"]),
        (PLAIN, ["my videos/b, c.mp4,waving,train"], ["line 2", "4", "3", "comma"]),
        (PLAIN, ['"a.mp4,waving,train', "a.mp4,waving,train"], ["clips.csv"]),
        (PLAIN, [], ["clips.csv"]),
        ("", [], ["clips.csv", "path,label,split"]),
        ("path,label,split\n\udcff\udcfe,b,c", [], ["clips.csv", "UTF-8"]),
        ("path,label", ["a.mp4,waving"], ["'split'", "path, label", "--data.columns.split"]),
        ("path,label,split,label", ["a.mp4,waving,train,x"], ["2", "'label'"]),
        ("path,label,split,relevant_end", ["a.mp4,x,train,1"], ["'relevant_end'", "--data.columns.start"]),
        ("path,label,split,segment_start", ["a.mp4,x,train,1"], ["segment_start", "--data.columns.segment_unit"]),
        (
            "path,label,split,segment_start_seconds,segment_end_frames",
            ["a.mp4,x,train,1,2"],
            ["segment_start_seconds", "segment_end_frames", "--data.columns.segment_unit"],
        ),
        (TIMED, ["7,train,red,27.5,21.25"], ["line 2", "from", "to", "27.5", "21.25"]),
        (TIMED, ["7,train,red,4,4"], ["line 2", "4.0"]),
        (TIMED, ["7,train,red,-1,4"], ["line 2", "-1.0"]),
        (TIMED, ["7,train,red,nan,4"], ["line 2", "nan"]),
        (TIMED, ["7,train,red,1,inf"], ["line 2", "inf"]),
        (TIMED, ["7,train,red,early,4"], ["line 2", "from", "'early'"]),
        (TIMED, ["7,train,red,1,late"], ["line 2", "to", "'late'"]),
        (TIMED, ["7,train,red,1,"], ["line 2", "to"]),
        (TIMED, ["7,train,red,,3"], ["line 2", "from"]),
        (TIMED, [",train,red,1,3"], ["line 2", "id"]),
    ],
)
def test_a_wrong_table_is_named_with_its_line_column_and_value(folder, heading, rows, named):
    text = "\n".join((heading, *rows)) + "\n"
    (folder / "clips.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=names(*named)):
        read_table(folder / "clips.csv", columns=SPOKEN if heading == TIMED else None)


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (Columns(label="word"), ["'word'", "path, label, split", "--data.columns.label"]),
        (Columns(path="video"), ["'video'", "--data.columns.path"]),
        (Columns(path="videos/{id}.mp4"), ["'id'", "--data.columns.path"]),
        (Columns(path="{}"), ["''"]),
        (Columns(split="part"), ["'part'"]),
        (Columns(id="name"), ["'name'"]),
        (Columns(start="from", end="to"), ["'from'", "--data.columns.start"]),
        (Columns(start="split"), ["'split'", "--data.columns.end"]),
        (Columns(end="b"), ["'b'", "--data.columns.start"]),
    ],
)
def test_a_column_that_is_not_there_is_named_beside_those_that_are(folder, columns, named):
    with pytest.raises(UserError, match=names(*named)):
        table(folder, "a.mp4,x,train", columns=columns)


def test_a_missing_table_is_named(folder):
    with pytest.raises(UserError, match=r"none\.csv"):
        read_table(folder / "none.csv")


def test_any_split_can_be_asked_for_and_one_that_is_not_there_is_told(folder):
    got = table(folder, "a.mp4,x,test", "videos/7.mp4,x,session 2")
    assert [s.clip_id for s in got.of_split("session 2")] == ["videos/7.mp4"]
    with pytest.raises(UserError, match=names("'train'", "session 2, test")):
        got.of_split("train")


def test_the_table_in_the_documentation_is_read_as_it_says(folder):
    text = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    (folder / "words.csv").write_text(re.search(r"```csv\n(id,split,word.*?)```", text, re.DOTALL)[1])
    for number in range(1, 5):
        (folder / "videos" / f"{number:04}.mp4").write_bytes(b"x")
    command = re.search(r"stabn train .*?words\.csv (.*?)\n\n", text, re.DOTALL)[1].replace("\\\n", " ")
    words = shlex.split(command.replace("--data.columns.", ""))
    got = read_table(folder / "words.csv", columns=Columns(**dict(zip(words[::2], words[1::2], strict=True))))
    assert got.class_names == ("blue", "red")
    assert [sample.split for sample in got.samples] == ["train", "train", "validation", "test"]
    assert set(got.truth) == {"0001", "0002", "0004"}


def test_a_video_that_does_not_exist_is_listed_and_many_of_them_are_an_error(folder):
    for name, count in (("few", 1), ("many", 2)):
        gone = [f"{'word ' * 60}{number}.mp4" for number in range(count)]  # too long to be a file's name
        rows = [f"{path},x,train" for path in gone]
        (folder / f"{name}.csv").write_text("\n".join([PLAIN, "a.mp4,x,train", "videos/7.mp4,x,train", *rows]))
        assert [sample.clip_id for sample in read_table(folder / f"{name}.csv").samples][2:] == gone
    assert len(DataSource(str(folder / "few.csv")).table().samples) == 3
    (folder / "a.mp4").unlink()
    with pytest.raises(UserError, match=names("a.mp4", "3 of 4", "--data.videos", "--data.exclude")):
        DataSource(str(folder / "many.csv")).table()


# Segments, frame folders, order of classes, other kinds of files


@pytest.mark.parametrize(
    ("heading", "cells", "expected"),
    [
        ("segment_start_seconds,segment_end_seconds", "1.5,3", Segment(1.5, 3)),
        ("segment_start_seconds,segment_end_seconds", ",3", Segment(0, 3)),
        ("segment_start_seconds,segment_end_seconds", "1.5,", Segment(1.5)),
        ("segment_start_seconds,segment_end_seconds", ",", None),
        ("segment_end_seconds", "2", Segment(0, 2)),
        ("segment_start_frames,segment_end_frames", "3,8", Segment(3, 8, "frames")),
        ("segment_end_frames,segment_start_frames", "8.0,3.0", Segment(3, 8, "frames")),
        ("segment_start_frames", "3", Segment(3, None, "frames")),
    ],
)
def test_a_row_may_be_a_part_of_its_video(folder, heading, cells, expected):
    got = table(folder, f"a.mp4,x,train,{cells}", heading=f"{PLAIN},{heading}")
    assert got.samples[0].segment == expected


def test_columns_of_other_names_need_their_unit_and_decimal_commas_are_read(folder):
    rows, heading = ["a.mp4;x;train;1,5;3,25"], "path;label;split;from;to"
    columns = Columns(segment_start="from", segment_end="to")
    with pytest.raises(UserError, match=names("from", "to", "--data.columns.segment_unit")):
        table(folder, *rows, heading=heading, columns=columns)
    got = table(folder, *rows, heading=heading, columns=replace(columns, segment_unit="seconds"))
    assert got.samples[0].segment == Segment(1.5, 3.25)


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        ("3,3", ["segment_start_frames, segment_end_frames", "3.0"]),
        ("-1,3", ["start", "-1.0"]),
        ("1.5,3", ["start", "1.5"]),
        ("first,3", ["segment_start_frames", "'first'"]),
        ("1,nan", ["end", "nan"]),
    ],
)
def test_a_wrong_segment_is_named_with_its_line_and_value(folder, cells, named):
    with pytest.raises(UserError, match=names("line 2", *named)):
        table(folder, f"a.mp4,x,train,{cells}", heading=f"{PLAIN},segment_start_frames,segment_end_frames")


def test_parts_of_one_video_without_ids_have_names_of_their_own(folder):
    heading = f"{PLAIN},segment_start_seconds,segment_end_seconds"
    rows = ("a.mp4,x,train,0,1.5", "a.mp4,y,train,1.5,", "a.mp4,y,train,,")
    got = table(folder, *rows, heading=heading)
    assert [s.clip_id for s in got.samples] == ["a.mp4#0-1.5", "a.mp4#1.5-", "a.mp4"]
    with pytest.raises(UserError, match=names("line 3", "'a.mp4#0-1.5'")):
        table(folder, rows[0], rows[0], heading=heading)


def test_the_order_of_classes_lies_beside_the_table(folder):
    beside = folder / "clips.csv.classes.json"
    beside.write_text('["waving", "nobody does this", "bowing"]')
    got = table(folder, "a.mp4,bowing,train", "videos/7.mp4,waving,train")
    assert got.class_names == ("waving", "nobody does this", "bowing")
    assert [s.label for s in got.samples] == [2, 0]
    with pytest.raises(UserError, match=names("line 2", "'sitting'", "clips.csv.classes.json")):
        table(folder, "a.mp4,sitting,train")
    for wrong in ('["waving", "waving"]', "{"):
        beside.write_text(wrong)
        with pytest.raises(UserError, match=r"clips\.csv\.classes\.json"):
            table(folder, "a.mp4,waving,train")


def test_what_is_written_is_read_again(folder):
    samples = (
        Sample("one, or so", folder / "my videos" / "b, c.mp4", 1, "train", Segment(0.1, 2)),
        Sample('"two"', folder / "a.mp4", 0, "validation", Segment(3)),
        Sample("three", folder / "videos", 1, "train"),
    )
    truth = {"three": ClipTruth(interval=(0.1 + 0.2, 7.0))}
    written = Table(("zebra", "ant; or ä"), samples, truth)
    write_table(folder / "out.csv", written, ordered=True)
    assert read_table(folder / "out.csv") == written
    assert (folder / "out.csv").read_text().splitlines()[:2] == [
        "path,label,split,id,segment_start_seconds,segment_end_seconds,relevant_start,relevant_end",
        '"my videos/b, c.mp4",ant; or ä,train,"one, or so",0.1,2,,',
    ]
    write_table(folder / "out.csv", replace(written, class_names=("a", "b")), ordered=False)
    assert read_table(folder / "out.csv").class_names == ("a", "b")
    assert not (folder / "out.csv.classes.json").exists()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_json_lines_and_json_lists_are_tables_too(folder, end, mark):
    rows = [
        {"path": "a.mp4", "label": 3, "split": "train", "id": 7, "other": {"x": [1]}},
        {"split": "test", "label": " two ", "path": "my videos/b, c.mp4", "segment_end_frames": 4.0, "id": None},
    ]
    lines = end.join(map(json.dumps, rows)) + end + end
    for name, text in (("c.jsonl", lines), ("c.json", lines), ("l.json", json.dumps(rows, indent=1))):
        (folder / name).write_bytes((mark + text).encode())
        got = read_table(folder / name)
        assert got.class_names == ("3", "two")
        assert [(s.clip_id, s.split, s.segment) for s in got.samples] == [
            ("7", "train", None),
            ("my videos/b, c.mp4#0-4", "test", Segment(0, 4, "frames")),
        ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"path": "a.mp4"}\n{"path": }', ["line 2"]),
        ('{"path": "a.mp4"}\n["b.mp4"]', ["line 2", "b.mp4"]),
        ('[{"path": "a.mp4"}, 3]', ["entry 1", "'3'"]),
        ("", []),
        ('{"path": "a.mp4", "label": "x", "split": ""}', ["line 1", "split"]),
        ('{"path": "a.mp4", "label": "x"}', ["'split'", "path, label"]),
    ],
)
def test_wrong_json_lines_are_named(folder, text, named):
    (folder / "c.jsonl").write_text(text)
    with pytest.raises(UserError, match=names("c.jsonl", *named)):
        read_table(folder / "c.jsonl")


@pytest.mark.parametrize("before", ["\n", "\r\n\r\n", "sep=;\n", "sep=;\r\n"])
def test_what_spreadsheets_put_before_the_heading_is_passed_over(folder, before):
    file = folder / "clips.csv"
    file.write_text(before + "path;label;split\na.mp4;x;train\n", newline="")
    assert [sample.clip_id for sample in read_table(file).samples] == ["a.mp4"]
    file.write_text("sep=,\npath,label,split\na.mp4,,train\n")
    with pytest.raises(UserError, match=r"clips\.csv, line 3"):
        read_table(file)


def test_videos_that_have_moved_are_found_below_the_folder_that_is_given(tmp_path, caplog):
    for name in ("a/1.mp4", "b/1.mp4"):
        (tmp_path / "now" / name).parent.mkdir(parents=True)
        (tmp_path / "now" / name).touch()
    for old in ("/gone/videos/", "videos/", "C:\\\\old\\\\videos\\\\".replace("\\\\", "\\")):
        table = tmp_path / f"{len(caplog.messages)}.csv"
        table.write_text(f"path,label,split\n{old}a/1.mp4,x,train\n{old}b/1.mp4,y,train\n{old}c/2.mp4,y,train\n")
        paths = [str(s.path.relative_to(tmp_path)) for s in read_table(table, tmp_path / "now").samples]
        assert paths == ["now/a/1.mp4", "now/b/1.mp4", "now/c/2.mp4"]
        assert str(table) in caplog.messages[-1]
