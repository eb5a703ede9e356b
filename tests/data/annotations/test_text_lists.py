"""Lists as the documentation of MMAction2 (rawframe, with_offset, video), TSM and PySlowFast describes them."""

import pytest
from made_sets import clips, problems, put, write
from messages import names

from stabn.data.annotations.class_names import read_class_numbers
from stabn.data.annotations.text_lists import read_text_lists
from stabn.data.segments import Segment
from stabn.errors import UserError


def read(folder, *lines, name="train.txt", **options):
    made = {key: options.pop(key) for key in ("end", "mark") if key in options}
    return read_text_lists([(write(folder / name, *lines, **made), "train")], **options)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_rawframe_lists_have_folder_number_of_frames_and_class(tmp_path, end, mark):
    put(tmp_path, frames={"some/directory-1": 3, "some/directory 2": 4, "some/take 3 24": 5})
    lines = ["some/directory-1 3 1", "some/directory 2 4 0", "", "some/take 3 24 5 1  "]
    got = read(tmp_path, *lines, end=end, mark=mark)
    assert "folder num_frames class" in got.format
    assert clips(got) == {
        "some/directory-1": ("1", "train"),
        "some/directory 2": ("0", "train"),
        "some/take 3 24": ("1", "train"),
    }
    assert got.problems == ()
    assert got.table.samples[2].path == tmp_path / "some/take 3 24"
    assert all(sample.segment is None for sample in got.table.samples)
    assert got.frame_folders == 3
    assert any("numbered from 1;" in note for note in got.notes)


def test_video_lists_have_path_and_class_and_paths_with_spaces_and_numbers(tmp_path):
    put(tmp_path, "some/path/000.mp4", "my clips/take 1 2.mp4", "my clips/a,b; c.avi")
    got = read(tmp_path, "some/path/000.mp4 1", "my clips/take 1 2.mp4 0", "my clips/a,b; c.avi\t1")
    assert "path label" in got.format
    assert clips(got) == {
        "some/path/000.mp4": ("1", "train"),
        "my clips/take 1 2.mp4": ("0", "train"),
        "my clips/a,b; c.avi": ("1", "train"),
    }


def test_pyslowfast_lists_have_absolute_paths_and_maybe_commas(tmp_path):
    put(tmp_path / "elsewhere", "a b.mp4", "c.mp4")
    absolute = [f"{tmp_path}/elsewhere/a b.mp4 1", f"{tmp_path}/elsewhere/c.mp4 0"]
    assert len(read(tmp_path, *absolute, name="train.csv").table.samples) == 2
    got = read(tmp_path, "a b.mp4,1", "c.mp4, 0", name="train.csv", videos=tmp_path / "elsewhere")
    assert clips(got) == {"a b.mp4": ("1", "train"), "c.mp4": ("0", "train")}


def test_lists_with_offset_say_where_in_a_folder_a_clip_begins_and_count_from_0(tmp_path):
    put(tmp_path, frames={"long take": 300, "other": 50})
    got = read(tmp_path, "long take 12 163 3", "long take 213 80 4", "other 0 50 0")
    assert "folder start num_frames class" in got.format
    assert {s.clip_id: s.segment for s in got.table.samples} == {
        "long take#12-175": Segment(12, 175, "frames"),
        "long take#213-293": Segment(213, 293, "frames"),
        "other#0-50": Segment(0, 50, "frames"),
    }
    assert got.problems == ()
    assert not any("first-frame" in note for note in got.notes)


def test_starts_that_count_from_1_are_suspected_and_read_on_demand(tmp_path):
    put(tmp_path, frames={"a": 10, "b": 20})
    lines = ["a 1 10 0", "b 1 20 1", "b 11 10 0"]
    got = read(tmp_path, *lines)
    assert set(problems(got).values()) == {"wrong frame count"}
    assert any("--first-frame 1" in note for note in got.notes)
    got = read(tmp_path, *lines, first_frame=1)
    assert [s.segment for s in got.table.samples] == [
        Segment(0, 10, "frames"),
        Segment(0, 20, "frames"),
        Segment(10, 20, "frames"),
    ]
    assert got.problems == ()


def test_folders_with_another_number_of_frames_than_the_list_says_are_told(tmp_path):
    put(tmp_path, frames={"less": 4, "more": 9, "right": 5, "none": 0})
    got = read(tmp_path, "less 5 0", "more 5 0", "right 5 1", "none 5 1", "absent 5 1")
    assert problems(got) == {
        "less": "wrong frame count",
        "none": "unusable frames",
        "absent": "missing video",
    }
    assert "5 frames" in got.problems[1].problem
    assert got.problems[1].where == "train.txt, line 1"
    assert {s.clip_id: s.segment for s in got.table.samples} == {"more": Segment(0, 5, "frames"), "right": None}
    assert any(note.startswith("1 frame folders") and note.endswith(": more") for note in got.notes)


def test_images_that_lack_numbers_or_are_two_series_are_told(tmp_path):
    put(tmp_path, frames={"whole": 5, "gap": 5, "two": 5})
    (tmp_path / "gap/img_00003.jpg").unlink()
    put(tmp_path, "two/left_00001.jpg")
    got = read(tmp_path, "whole 5 0", "gap 4 1", "two 5 1")
    assert problems(got) == {"two": "unusable frames"}
    assert any(note.startswith("1 frame folders") and note.endswith(": gap") for note in got.notes)


def test_one_file_may_be_of_one_layout_only_as_what_exists_decides(tmp_path):
    put(tmp_path, frames={"takes/clip": 12, "takes/clip 12": 5})
    with pytest.raises(UserError, match=names("train.txt", "--format", "videos-list", "frames-list")):
        read(tmp_path, "takes/clip 12 5")
    assert list(clips(read(tmp_path, "takes/clip 12 5", layout="frames-list"))) == ["takes/clip"]
    assert list(clips(read(tmp_path, "takes/clip 12 5", layout="videos-list"))) == ["takes/clip 12"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a/b 163 1", "c/d 20 2"], "folder num_frames class"),
        (["a/b 0 163 1", "c/d 3 20 2"], "folder start num_frames class"),
        (["a/b.mp4 1", "c/take 3 4.mp4 2"], "path label"),
        (["100218 1", "7 2"], "path label"),
    ],
)
def test_where_no_video_is_there_the_form_decides_and_all_are_missing(tmp_path, lines, words):
    got = read(tmp_path, *lines)
    assert words in got.format
    assert [problem.problem_kind for problem in got.problems] == ["missing video"] * 2
    assert got.table.samples == ()


def test_lines_without_a_class_or_with_words_for_numbers_are_told(tmp_path):
    put(tmp_path, frames={"a": 5, "b": 5, "c": 5})
    got = read(tmp_path, "a 5 0", "b 5", "c many 1", "b five 5 1", layout="frames-list")
    assert problems(got) == {"b 5": "no class", "c many 1": "unreadable line", "b five": "missing video"}
    put(tmp_path, frames={"take 1": 5, "take 2": 5, "take 3": 5})
    got = read(tmp_path, "take 1 5 0", "take 3 5 0", "take 2 5", "take 2")
    assert [(problem.clip_id, problem.problem_kind) for problem in got.problems] == [("take 2", "no class")] * 2
    assert got.table.class_names == ("0",)
    videos = put(tmp_path / "ucf", "v_Archery_g01_c01.avi", "v_Archery_g01 c02.avi")
    got = read(videos, "v_Archery_g01_c01.avi 1", "v_Archery_g01 c02.avi")
    assert problems(got) == {"v_Archery_g01 c02.avi": "no class"}


def test_a_clip_that_is_listed_twice_is_told(tmp_path):
    put(tmp_path, "a.mp4", "b.mp4")
    train, val = write(tmp_path / "train.txt", "a.mp4 0", "b.mp4 1"), write(tmp_path / "val.txt", "a.mp4 0")
    got = read_text_lists([(train, "train"), (val, "validation")])
    assert problems(got) == {"a.mp4": "listed twice"}
    assert got.problems[0].where == "val.txt, line 1"
    assert "train.txt, line 1 (train)" in got.problems[0].problem


def test_numbers_of_classes_keep_their_order_and_their_gaps(tmp_path):
    put(tmp_path, *(f"{n}.mp4" for n in range(12)))
    got = read(tmp_path, *(f"{n}.mp4 {n}" for n in range(12) if n != 5))
    assert got.table.class_names == tuple(map(str, range(12)))
    assert got.ordered
    assert [s.label for s in got.table.samples] == [n for n in range(12) if n != 5]
    got = read(tmp_path, "1.mp4 1", "2.mp4 2", "3.mp4 10")
    assert got.table.class_names == ("1", "2", "10")
    assert any("class 0" in note for note in got.notes)


def test_classes_have_their_names_from_a_file_beside_the_list_or_one_that_is_given(tmp_path):
    put(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    write(tmp_path / "category.txt", "Waving a hand", "Bowing, slowly", end="\r\n")
    got = read(tmp_path, "a.mp4 0", "b.mp4 1", "c.mp4 2")
    assert got.table.class_names == ("Waving a hand", "Bowing, slowly")
    assert got.ordered
    assert clips(got)["b.mp4"] == ("Bowing, slowly", "train")
    assert problems(got) == {"c.mp4": "unknown class"}
    assert any("category.txt" in note for note in got.notes)
    other = write(tmp_path / "sub" / "classInd.txt", "1 Archery", "2 Bowling")
    got = read(tmp_path, "a.mp4 1", "b.mp4 2", classes=other)
    assert clips(got) == {"a.mp4": ("Archery", "train"), "b.mp4": ("Bowling", "train")}
    write(tmp_path / "labels.txt", "x", "y")
    with pytest.raises(UserError, match=names("category.txt", "labels.txt", "--classes")):
        read(tmp_path, "a.mp4 0")


def test_a_list_that_counts_classes_from_1_and_a_file_that_does_not_are_suspected(tmp_path):
    put(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "classes.txt", "x", "y", "z")
    assert any("class 0" in note and "--classes" in note for note in read(tmp_path, "a.mp4 1", "b.mp4 2").notes)


def test_labels_that_are_words_are_names(tmp_path):
    put(tmp_path, "a b.mp4", "c.mp4")
    write(tmp_path / "category.txt", "not", "these")
    got = read(tmp_path, "a b.mp4 waving", "c.mp4 bowing")
    assert got.table.class_names == ("bowing", "waving")
    assert not got.ordered
    ordered = write(tmp_path / "order" / "names.txt", "waving", "bowing")
    assert read(tmp_path, "a b.mp4 waving", "c.mp4 bowing", classes=ordered).table.class_names == ("waving", "bowing")


def test_paths_from_windows_are_found(tmp_path):
    put(tmp_path, "some/path/0.mp4")
    assert read(tmp_path, r"some\path\0.mp4 1").table.samples[0].path == tmp_path / "some/path/0.mp4"


def test_empty_lists_and_wrong_bytes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"train\.txt"):
        read(tmp_path, "", " ")
    (tmp_path / "train.txt").write_bytes(b"\xff\xfea\0")
    with pytest.raises(UserError, match=names("train.txt", "UTF-8")):
        read_text_lists([(tmp_path / "train.txt", "train")])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["abseiling", "air drumming"], {0: "abseiling", 1: "air drumming"}),
        (["1 ApplyEyeMakeup", "2 Archery shot"], {1: "ApplyEyeMakeup", 2: "Archery shot"}),
        (["abseiling 0", "air drumming 1"], {0: "abseiling", 1: "air drumming"}),
        (["id,name", "0,abseiling", "1,air drumming"], {0: "abseiling", 1: "air drumming"}),
        (["1, b", "0, a"], {0: "a", 1: "b"}),
        (["2 fingers up", "3 fingers up"], {0: "2 fingers up", 1: "3 fingers up"}),
        (["level 0", "level 1"], {0: "level 0", 1: "level 1"}),
        (["open door", "close 1"], {0: "open door", 1: "close 1"}),
        (['{"Waving": "1", "Bowing": "0"}'], {0: "Bowing", 1: "Waving"}),
        (['["Waving", "Bowing"]'], {0: "Waving", 1: "Bowing"}),
    ],
)
def test_files_of_class_names_have_many_forms(tmp_path, lines, expected):
    file = tmp_path / ("c.json" if lines[0][0] in "{[" else "c.txt")
    write(file, *lines, end="\r\n")
    assert read_class_numbers(file) == expected
    assert list(read_class_numbers(file)) == sorted(expected)


def test_a_file_with_a_class_name_twice_or_without_any_is_refused(tmp_path):
    for lines in (["a", "b", "a"], [""]):
        with pytest.raises(UserError, match=r"c\.txt"):
            read_class_numbers(write(tmp_path / "c.txt", *lines))


def test_lists_of_mmaction2_whose_paths_begin_in_folders_beside_them_are_found(tmp_path):
    put(tmp_path / "videos_train", "abseiling/a.mp4", "air drumming/b.mp4")
    put(tmp_path / "videos_val", "abseiling/c.mp4")
    train = write(tmp_path / "train_list_videos.txt", "abseiling/a.mp4 0", "air drumming/b.mp4 1")
    val = write(tmp_path / "val_list_videos.txt", "abseiling/c.mp4 0")
    got = read_text_lists([(train, "train"), (val, "validation")])
    assert got.problems == ()
    assert [s.path for s in got.table.samples][2] == tmp_path / "videos_val/abseiling/c.mp4"
    assert any("val_list_videos.txt" in note and f"{tmp_path}/videos_val" in note for note in got.notes)
    put(tmp_path / "videos_val_small", "abseiling/c.mp4")
    assert problems(read_text_lists([(val, "validation")])) == {"abseiling/c.mp4": "missing video"}, "nobody could know"


def test_a_class_below_0_is_none_and_a_word_among_numbers_does_not_rename_the_classes(tmp_path):
    put(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4", "take one.mp4")
    write(tmp_path / "category.txt", "zero", "one", "two")
    got = read(tmp_path, "a.mp4 2", "b.mp4 -1", "c.mp4 zero", "d.mp4 three", "e.mp4 0", "take one.mp4 1")
    assert got.table.class_names == ("zero", "one", "two")
    assert problems(got) == {"b.mp4": "no class", "d.mp4": "unknown class"}
    assert clips(got)["c.mp4"] == ("zero", "train")


def test_paths_with_commas_may_stand_in_quotes_and_a_class_of_words_behind_a_comma(tmp_path):
    put(tmp_path, "a, b.mp4", "c.mp4", 'say "d".mp4')
    got = read(tmp_path, '"a, b.mp4",1', "c.mp4,0", '"say ""d"".mp4",1', name="train.csv")
    assert clips(got) == {"a, b.mp4": ("1", "train"), "c.mp4": ("0", "train"), 'say "d".mp4': ("1", "train")}
    got = read(tmp_path, '"a, b.mp4",air drumming', "c.mp4, abseiling", name="train.csv")
    assert clips(got) == {"a, b.mp4": ("air drumming", "train"), "c.mp4": ("abseiling", "train")}


def test_one_video_under_two_ways_to_write_its_path_is_noted(tmp_path):
    put(tmp_path, "a.mp4", "b.mp4")
    val = write(tmp_path / "val.txt", f"{tmp_path}/b.mp4 1")
    train = write(tmp_path / "train.txt", "a.mp4 0", "./a.mp4 0", "b.mp4 1")
    notes = read_text_lists([(train, "train"), (val, "validation")]).notes
    assert any(note.startswith("1 videos") and note.endswith(": b.mp4") for note in notes)
    assert any(note.startswith("1 clips") and note.endswith(": ./a.mp4") for note in notes)
