"""Kinetics, Something-Something, folders of classes and named columns, made by hand from their descriptions."""

import json

import pytest
from made_sets import clips, problems, put, write
from messages import names

from stabn.data.annotations.class_folders import read_class_folders
from stabn.data.annotations.columns import Columns
from stabn.data.annotations.kinetics import read_kinetics
from stabn.data.annotations.named_columns import read_named_columns
from stabn.data.annotations.something_something import read_something_v1, read_something_v2
from stabn.data.annotations.source import DataSource
from stabn.data.annotations.splits import split_of_file, with_validation
from stabn.data.dataset import Table
from stabn.data.segments import Segment
from stabn.data.spelling import known_split, normalise_split
from stabn.errors import UserError

HEADING = "label,youtube_id,time_start,time_end,split,is_cc"
V1_CLASSES = ("Holding something", "Something falling like a feather or paper", "Putting something, on something")


# Kinetics


def kinetics(folder, *lines, heading=HEADING, name="train.csv", end="\n", split="unsplit"):
    return read_kinetics([(write(folder / name, heading, *lines, end=end), split)], folder)


@pytest.mark.parametrize("inside", ["", "train/", "train/air drumming/", "air_drumming/"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_kinetics_videos_that_are_cut_have_start_and_end_in_their_names(tmp_path, inside, end):
    put(tmp_path, f"{inside}--_S9IDQPLg_000134_000144.mp4", f"{inside}-x9 AbC_000000_000010.mkv")
    got = kinetics(
        tmp_path, "air drumming,--_S9IDQPLg,134,144,train,0", '"air drumming",-x9 AbC,0,10,validate,1', end=end
    )
    assert clips(got) == {
        "--_S9IDQPLg_000134_000144": ("air drumming", "train"),
        "-x9 AbC_000000_000010": ("air drumming", "validation"),
    }
    assert all(sample.segment is None for sample in got.table.samples)
    assert not got.ordered


def test_whole_kinetics_videos_are_cut_by_their_times_in_seconds(tmp_path):
    put(tmp_path, "abc.mp4", "both.webm", "both_000003_000013.mp4")
    got = kinetics(
        tmp_path,
        "waving,abc,5,15,train,0",
        "bowing,abc,20,29.5,val,0",
        "waving,both,3,13,train,0",
    )
    assert {s.clip_id: (s.path.name, s.segment) for s in got.table.samples} == {
        "abc_000005_000015": ("abc.mp4", Segment(5, 15)),
        "abc_000020_000029": ("abc.mp4", Segment(20, 29.5)),
        "both_000003_000013": ("both_000003_000013.mp4", None),
    }
    assert any(note.startswith("2 clips") for note in got.notes)
    assert any(note.startswith("1 videos") and "abc.mp4" in note for note in got.notes)


def test_kinetics_clips_that_cannot_be_used_are_told(tmp_path):
    put(tmp_path, "a_000001_000011.mp4", "b.mp4", "b_000001_000011.mp4.part")
    got = kinetics(
        tmp_path,
        "waving,a,1,11,train,0",
        ",b,1,11,train,0",
        "waving,c,1,11,train,0",
        "waving,b,eleven,12,train,0",
        "waving,b,12,11,train,0",
        "waving,,1,11,train,0",
        "waving,a,1,11,train,0",
    )
    assert [(p.where, p.problem_kind) for p in got.problems] == [
        ("train.csv, line 3", "no class"),
        ("train.csv, line 4", "missing video"),
        ("train.csv, line 5", "unreadable line"),
        ("train.csv, line 6", "unreadable line"),
        ("train.csv, line 7", "unreadable line"),
        ("train.csv, line 8", "listed twice"),
    ]
    assert len(got.table.samples) == 1


def test_kinetics_test_lists_have_no_labels_and_other_lists_no_split(tmp_path):
    put(tmp_path, "a_000001_000011.mp4")
    files = [
        (write(tmp_path / "val.csv", "label,youtube_id,time_start,time_end", "waving,a,1,11"), "validation"),
        (write(tmp_path / "test.csv", "youtube_id,time_start,time_end,split", "b,1,11,test"), "test"),
    ]
    got = read_kinetics(files, tmp_path)
    assert clips(got) == {"a_000001_000011": ("waving", "validation")}
    assert any("test.csv" in note for note in got.notes)
    with pytest.raises(UserError, match=names("x.csv", "youtube_id, time_start, time_end")):
        read_kinetics([(write(tmp_path / "x.csv", "label,id"), "train")], tmp_path)


def test_of_two_kinetics_videos_of_one_name_that_of_the_class_or_split_is_taken(tmp_path):
    name = "a_000001_000011.mp4"
    put(tmp_path, f"waving hand/{name}", f"bowing/{name}")
    assert kinetics(tmp_path, "bowing,a,1,11,train,0").table.samples[0].path == tmp_path / "bowing" / name
    put(tmp_path / "other", f"train/{name}", f"val/{name}")
    assert kinetics(tmp_path / "other", "bowing,a,1,11,val,0").table.samples[0].path.parent.name == "val"
    put(tmp_path / "third", f"x/{name}", f"y/{name}")
    assert problems(kinetics(tmp_path / "third", "bowing,a,1,11,val,0")) == {"a_000001_000011": "unreadable line"}


def test_kinetics_may_be_folders_of_frames(tmp_path):
    put(tmp_path, frames={"frames/a_000001_000011": 3})
    assert kinetics(tmp_path, "waving,a,1,11,train,0").frame_folders == 1


# Something-Something


@pytest.fixture
def v1(tmp_path):
    def make(end="\n", videos="20bn-something-something-v1", **lists):
        lines = {
            "labels": V1_CLASSES,
            "train": (f"100218;{V1_CLASSES[1]}", f"24413;{V1_CLASSES[2]}"),
            "validation": (f"7;{V1_CLASSES[0]}",),
            "test": ("9", "10"),
        } | lists
        for name, content in lines.items():
            write(tmp_path / f"something-something-v1-{name}.csv", *content, end=end)
        put(tmp_path / videos, frames={"100218": 3, "24413": 4, "7": 5}, pattern="{:05}.jpg")
        return tmp_path

    return make


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("videos", ["20bn-something-something-v1", "frames", "."])
def test_version_1_has_frame_folders_semicolons_and_an_order_of_classes(v1, end, videos):
    got = read_something_v1(v1(end, videos))
    assert got.table.class_names == V1_CLASSES
    assert got.ordered
    assert clips(got) == {
        "100218": (V1_CLASSES[1], "train"),
        "24413": (V1_CLASSES[2], "train"),
        "7": (V1_CLASSES[0], "validation"),
    }
    assert (got.problems, got.frame_folders) == ((), 3)
    assert any("something-something-v1-test.csv" in note for note in got.notes)
    assert got.table.samples[0].path.name == "100218"


def test_version_1_clips_that_cannot_be_used_are_told(v1):
    got = read_something_v1(
        v1(train=("100218;Eating something", "24413", "3;Holding something", "7;Holding something"))
    )
    assert problems(got) == {
        "100218": "unknown class",
        "24413": "no class",
        "3": "missing video",
        "7": "listed twice",
    }
    with pytest.raises(UserError, match=r"something-something-v1-labels\.csv"):
        read_something_v1(v1(labels=("a", "b", "a")))


def v2(folder, labels=None, **splits):
    splits = {
        "train": [
            {"id": "74225", "label": "spinning cube", "template": "Moving [something] up", "placeholders": ["x"]}
        ],
        "validation": [{"id": 7, "template": "Pushing [something]"}],
    } | splits
    labels = labels or {"Pushing something": "10", "Moving something up": "0"} | {f"c{i}": str(i) for i in range(1, 10)}
    for name, content in {"labels": labels, **splits}.items():
        write(folder / f"something-something-v2-{name}.json", json.dumps(content, indent=1), end="\r\n")
    return folder


@pytest.mark.parametrize("videos", ["videos", "20bn-something-something-v2", "."])
def test_version_2_has_indices_that_are_strings_and_templates_in_brackets(tmp_path, videos):
    put(v2(tmp_path) / videos, "74225.webm", frames={"7": 2})
    got = read_something_v2(tmp_path)
    assert got.table.class_names == ("Moving something up", *(f"c{i}" for i in range(1, 10)), "Pushing something")
    assert clips(got) == {"74225": ("Moving something up", "train"), "7": ("Pushing something", "validation")}
    assert (got.ordered, got.frame_folders) == (True, 1)


def test_version_2_clips_that_cannot_be_used_are_told(tmp_path):
    entries = [{"id": str(n), "template": t} for n, t in ((1, "Pushing [something]"), (2, "Eating [something]"))]
    put(v2(tmp_path, train=entries) / "videos", "2.mp4", "7.mp4")
    got = read_something_v2(tmp_path)
    assert problems(got) == {"1": "missing video", "2": "unknown class"}
    assert got.problems[0].where == "something-something-v2-train.json, entry 0"


def test_missing_videos_of_version_2_are_named_when_training_reads_them(tmp_path):
    put(v2(tmp_path) / "videos", "74225.mp4")
    assert [sample.path.name for sample in DataSource(str(tmp_path)).full_table().samples] == ["74225.mp4", "7.webm"]
    with pytest.raises(UserError, match=names("'7'", "1 of 2", "--data.videos", "--data.exclude")):
        DataSource(str(tmp_path)).table()


# A folder per class


def test_a_folder_per_class_without_splits_holds_videos_at_any_depth_and_frame_folders(tmp_path):
    put(tmp_path, "air drumming/take 1.mp4", "air drumming/ann/take 2.AVI", "bowing/1.webm", "bowing/notes.txt")
    put(tmp_path, ".git/x.mp4", "__MACOSX/bowing/1.webm", "bowing/._1.webm", frames={"bowing/frames of 2": 3})
    got = read_class_folders(tmp_path)
    assert clips(got) == {
        "air drumming/take 1.mp4": ("air drumming", "unsplit"),
        "air drumming/ann/take 2.AVI": ("air drumming", "unsplit"),
        "bowing/1.webm": ("bowing", "unsplit"),
        "bowing/frames of 2": ("bowing", "unsplit"),
    }
    assert got.frame_folders == 1
    assert got.problems == ()


def test_folders_of_splits_are_recognised_and_a_class_may_be_called_like_one(tmp_path):
    put(tmp_path / "a", "train/x/1.mp4", "valid/x/2.mp4", "test/y/3.mp4", "extra/x/4.mp4", "train/5.mp4")
    got = read_class_folders(tmp_path / "a")
    assert clips(got) == {
        "train/x/1.mp4": ("x", "train"),
        "valid/x/2.mp4": ("x", "validation"),
        "test/y/3.mp4": ("y", "test"),
        "extra/x/4.mp4": ("x", "extra"),
    }
    assert problems(got) == {"train/5.mp4": "no class"}
    put(tmp_path / "b", "train/1.mp4", "car/2.mp4", "car/front/3.mp4")
    assert set(clips(read_class_folders(tmp_path / "b")).values()) == {("train", "unsplit"), ("car", "unsplit")}
    put(tmp_path / "c", "train/x/1.mp4")
    assert clips(read_class_folders(tmp_path / "c")) == {"train/x/1.mp4": ("x", "train")}


def test_folders_without_classes_or_videos_are_refused(tmp_path):
    put(tmp_path / "flat", "1.mp4", frames={"2": 3})
    with pytest.raises(UserError, match=names(tmp_path / "flat", "2 clips", "1.mp4")):
        read_class_folders(tmp_path / "flat")
    put(tmp_path / "texts", "a/1.txt")
    with pytest.raises(UserError, match=names(tmp_path / "texts")):
        read_class_folders(tmp_path / "texts")


def test_links_are_followed_and_end_nowhere(tmp_path):
    put(tmp_path / "real", "1.mp4")
    (tmp_path / "set" / "waving").mkdir(parents=True)
    (tmp_path / "set" / "bowing").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "waving" / "round").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "waving" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    got = read_class_folders(tmp_path / "set")
    assert clips(got) == {"bowing/1.mp4": ("bowing", "unsplit")}
    assert problems(got) == {"waving/gone.mp4": "missing video"}


# Named columns


def test_named_columns_are_found_under_usual_names_and_told(tmp_path):
    put(tmp_path, "a b.mp4", "c.mp4")
    file = write(tmp_path / "x.csv", "Video;Class;subset", "a b.mp4;waving;val", "c.mp4;bowing;train", end="\r\n")
    got = read_named_columns([(file, "unsplit")], None, Columns())
    assert clips(got) == {"a b.mp4": ("waving", "validation"), "c.mp4": ("bowing", "train")}
    assert got.notes == ("x.csv: path from column 'Video', label from column 'Class', split from column 'subset'",)


def test_json_lines_with_named_keys_and_no_split_have_that_of_their_file(tmp_path):
    put(tmp_path, "a b.mp4", "c.mp4")
    rows = [{"path": "a b.mp4", "label": 3, "id": 7}, {"label": 12.0, "path": "c.mp4", "note": ["x"]}]
    file = write(tmp_path / "val.jsonl", *(json.dumps(row) for row in rows), "", end="\r\n")
    got = read_named_columns([(file, "validation")], None, Columns())
    assert clips(got) == {"7": ("3", "validation"), "c.mp4": ("12", "validation")}


def test_rows_that_cannot_be_used_are_told_and_the_others_read(tmp_path):
    put(tmp_path, "a.mp4", "b.mp4", frames={"f": 6})
    file = write(
        tmp_path / "x.csv",
        "path,label,split,segment_start_frames,segment_end_frames,relevant_start,relevant_end",
        "a.mp4,waving,train,,,3,4.5",
        "b.mp4,,train,,,,",
        ",waving,train,,,,",
        "gone.mp4,waving,train,,,,",
        "b.mp4,waving,train,5,3,,",
        "b.mp4,waving,train,,,3,",
        "f,waving,train,3,6,,",
        "f,waving,train,3,7,,",
        "b.mp4,waving,,1,2,,",
    )
    got = read_named_columns([(file, "unsplit")], None, Columns())
    assert list(clips(got).items()) == [
        ("a.mp4", ("waving", "train")),
        ("f#3-6", ("waving", "train")),
        ("b.mp4#1-2", ("waving", "unsplit")),
    ]
    assert [(p.where.split()[-1], p.problem_kind) for p in got.problems] == [
        ("3", "no class"),
        ("4", "unreadable line"),
        ("5", "missing video"),
        ("6", "unreadable line"),
        ("7", "unreadable line"),
        ("9", "wrong frame count"),
    ]
    assert got.table.truth["a.mp4"].interval == (3.0, 4.5)


def test_a_lacking_column_is_told_with_the_option_of_prepare(tmp_path):
    file = write(tmp_path / "x.csv", "path,label", "a.mp4,x")
    with pytest.raises(UserError, match=names("'word'", "--columns.label")):
        read_named_columns([(file, "train")], None, Columns(label="word"))
    with pytest.raises(UserError, match=names("'part'", "--columns.split")):
        read_named_columns([(file, "train")], None, Columns(split="part"))


# Splits


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.txt", "train"),
        ("kinetics400_val_list_rawframes.txt", "validation"),
        ("val_videofolder.txt", "validation"),
        ("ucf101_train_split_1_rawframes.txt", "train"),
        ("trainlist01.txt", "train"),
        ("testlist01.txt", "test"),
        ("dev.csv", "validation"),
        ("Validation.jsonl", "validation"),
        ("train_val.txt", None),
        ("list.txt", None),
        ("valve.txt", None),
    ],
)
def test_the_name_of_a_file_tells_the_split(tmp_path, name, split):
    assert split_of_file(tmp_path / name) == split


def test_splits_have_one_name_here():
    assert [normalise_split(n) for n in ("val", "VALID", " dev ", "validate", "validation")] == ["validation"] * 5
    assert [normalise_split(n) for n in ("train", "training", "test", "session 2", "")] == [
        "train", "train", "test", "session 2", ""
    ]  # fmt: skip
    assert known_split("session 2") is None


def drawn(folder, share=0.25, seed=0, count=40):
    put(folder, *(f"{label}/{n}.mp4" for label in "abc" for n in range(count)), "single/1.mp4")
    return with_validation(read_class_folders(folder).table, share, seed)


def of(table: Table, split: str) -> set[str]:
    return {sample.clip_id for sample in table.of_split(split)}


def test_a_drawn_split_has_its_share_of_each_class_and_is_a_function_of_the_seed(tmp_path):
    table = drawn(tmp_path)
    held = of(table, "validation")
    assert {label: sum(clip[0] == label for clip in held) for label in "abcs"} == {"a": 10, "b": 10, "c": 10, "s": 0}
    assert len(of(table, "train")) == 91
    assert of(drawn(tmp_path), "validation") == held
    assert of(drawn(tmp_path, seed=1), "validation") != held
    assert len(of(drawn(tmp_path / "more", count=44), "validation") & held) >= 24
    assert len(of(drawn(tmp_path / "two", share=0.01, count=2), "validation")) == 3


def test_clips_of_one_video_are_drawn_together_and_test_clips_stay(tmp_path):
    put(tmp_path, *(f"{n}.mp4" for n in range(20)))
    rows = [f"{n}.mp4,x,{'test' if n == 3 else ''},{i},{i + 1}" for n in range(20) for i in range(5)]
    file = write(tmp_path / "x.csv", "path,label,split,segment_start_seconds,segment_end_seconds", *rows)
    table = with_validation(read_named_columns([(file, "unsplit")], None, Columns()).table, 0.3, 0)
    splits = {}
    for sample in table.samples:
        splits.setdefault(sample.path.name, set()).add(sample.split)
    assert all(len(of_video) == 1 for of_video in splits.values())
    assert splits["3.mp4"] == {"test"}
    assert sum(of_video == {"validation"} for of_video in splits.values()) == 6


@pytest.mark.parametrize(
    "ending", ["mxf", "VOB", "gif", "asf", "mod", "lrv", "tod", "m2v", "f4v", "insv", "divx", "dv"]
)
def test_recordings_of_any_camera_count_and_other_files_are_named(ending, tmp_path):
    for name in (f"wave/1.{ending}", f"jump/1.{ending}", "jump/notes.doc", "jump/2.xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = read_class_folders(tmp_path)
    assert len(listing.table.samples) == 2
    assert any("1 .doc" in note and "1 .xyz" in note for note in listing.notes)
