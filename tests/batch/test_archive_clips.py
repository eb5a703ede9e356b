import json
import re
from dataclasses import replace

import pyarrow as pa
import pytest
from archive_folder import make_frames, write_rows
from pyarrow import parquet

from stabn.batch.clips import ArchiveClip, ArchiveSource, clips_digest, list_clips
from stabn.batch.manifest import split_into_parts
from stabn.data.annotations.columns import Columns
from stabn.data.segments import Segment
from stabn.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Some files; what is in them does not matter here."""
    for name in ("a b.mp4", "deep/ü.WEBM", "deep/er/c.mkv", "notes.txt", ".hidden.mp4", "old.dav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("kind", ["csv", "semicolons", "jsonl", "parquet"])
def test_a_table_needs_nothing_but_paths(kind, folder):
    names = ["deep/ü.WEBM", "a b.mp4", "gone.mp4"]
    table = folder / f"t.{'csv' if kind == 'semicolons' else kind}"
    if kind == "jsonl":
        table.write_text("".join(json.dumps({"path": name}) + "\n" for name in names))
    elif kind == "parquet":
        parquet.write_table(pa.table({"path": names}), table)
    else:
        sign = ";" if kind == "semicolons" else ","
        table.write_bytes(("\ufeff" + "\r\n".join([f"path{sign}n", *(f"{name}{sign}1" for name in names)])).encode())
    listed = list_clips(table)
    assert listed.clips == tuple(ArchiveClip(name, str(folder / name)) for name in names)
    assert [note[:6] for note in listed.notes] == ["1 of 3"]


def test_labels_splits_ids_and_segments_are_taken_over(folder):
    rows = [("1", "a b.mp4", "up", "test", "2.5", ""), ("2", "a b.mp4", "", "train", "", ""),
            ("3", "a b.mp4", "down", "test", "", "7")]  # fmt: skip
    heading = ("id", "path", "label", "split", "segment_start_seconds", "segment_end_seconds")
    table = write_rows(folder / "t.csv", heading, rows)
    path = str(folder / "a b.mp4")
    assert list_clips(table).clips == (
        ArchiveClip("1", path, "up", "test", Segment(2.5)),
        ArchiveClip("2", path, None, "train"),
        ArchiveClip("3", path, "down", "test", Segment(0, 7)),
    )
    assert [clip.clip_id for clip in list_clips(table, split="test").clips] == ["1", "3"]


def test_columns_have_other_names_and_videos_another_folder(folder):
    table = write_rows(folder / "deep" / "t.csv", ("n", "word"), [("c", "hello")])
    source = ArchiveSource(str(folder / "deep" / "er"), Columns(path="{n}.mkv", label="word"))
    assert list_clips(table, source).clips == (ArchiveClip("c.mkv", str(folder / "deep/er/c.mkv"), "hello"),)
    usual = write_rows(folder / "u.csv", ("Video_Path", "class"), [("a b.mp4", "x")])
    listed = list_clips(usual)
    assert listed.clips[0].label == "x"
    assert listed.notes == (f"{usual}: path from column 'Video_Path'", f"{usual}: label from column 'class'")


def test_a_folder_is_searched_for_videos_and_frames(folder, tabletop):
    make_frames(folder / "frames", tabletop / "videos" / "1.mp4")
    listed = list_clips(folder)
    assert [clip.clip_id for clip in listed.clips] == ["a b.mp4", "deep/ü.WEBM", "deep/er/c.mkv", "frames"]
    (note,) = listed.notes
    assert re.fullmatch(re.escape(f"{folder}: ") + ".*1 .txt, 1 .dav", note)


def test_annotations_of_something_something_are_read_and_missing_videos_stay(tabletop, tmp_path):
    for name in ("labels", "train", "validation"):
        file = f"something-something-v2-{name}.json"
        (tmp_path / file).write_bytes((tabletop / file).read_bytes())
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "3.mp4").touch()
    listed = list_clips(tmp_path)
    assert len(listed.clips) == 42
    assert [note[:8] for note in listed.notes] == ["41 of 42"]
    assert {clip.split for clip in listed.clips} == {"train", "validation"}
    there = next(clip for clip in listed.clips if clip.clip_id == "3")
    assert there.path == str(tmp_path / "videos" / "3.mp4")
    entries = json.loads((tabletop / "something-something-v2-train.json").read_text())
    assert there.label == next(e for e in entries if e["id"] == "3")["template"].replace("[", "").replace("]", "")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", ["t.csv"]),
        ("path\n", ["t.csv"]),
        ("name,label\na,b\n", ["t.csv", "'path'", "name, label"]),
        ("path,id\na b.mp4,1\n,2\n", ["t.csv", "line 3", "path"]),
        ("path\na b.mp4\na b.mp4\n", ["t.csv", "line 3", "'a b.mp4'"]),
        ("path,segment_start_seconds\na b.mp4,soon\n", ["t.csv", "line 2", "segment_start_seconds", "'soon'"]),
        ("path\nx.mp4\ny.mp4\n", ["x.mp4", "t.csv", "--data.videos"]),
    ],
)
def test_a_mistake_in_a_table_is_refused_by_line_column_and_value(text, tokens, folder):
    (folder / "t.csv").write_text(text)
    with pytest.raises(UserError) as stopped:
        list_clips(folder / "t.csv")
    message = str(stopped.value)
    assert "\n" not in message
    assert [token for token in tokens if token not in message] == []


def test_other_mistakes_are_refused_by_file_and_option(folder):
    (folder / "empty").mkdir()
    for token, table, options in (
        ("nowhere.csv", folder / "nowhere.csv", {}),
        ("--split: got 'test'", folder, {"split": "test"}),
        ("--data.columns", folder, {"source": ArchiveSource(columns=Columns(path="x"))}),
        (f"{folder / 'empty'}: ", folder / "empty", {}),
    ):
        with pytest.raises(UserError, match=re.escape(token)):
            list_clips(table, **options)


def test_lists_are_told_apart_by_everything_that_changes_a_row():
    clip = ArchiveClip("a", "/a", "x", "test", Segment(1))
    changes = [("clip_id", "b"), ("path", "/b"), ("label", None), ("split", None), ("segment", None)]
    others = [replace(clip, **{name: value}) for name, value in (*changes, ("segment", Segment(2)))]
    assert len({clips_digest([one]) for one in (clip, *others)}) == 7
    assert clips_digest([clip, others[0]]) != clips_digest([others[0], clip])


def test_parts_are_all_clips_once_and_in_order():
    clips = [ArchiveClip(str(n), f"/{n}") for n in range(10)]
    parts = split_into_parts(clips, 4)
    assert [part.number for part in parts] == [0, 1, 2]
    assert [clip for part in parts for clip in part.clips] == clips
    assert [len(part.clips) for part in parts] == [4, 4, 2]
