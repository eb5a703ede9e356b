import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_videos import encode, numbered_frame
from hanging import HangingInspector
from PIL import Image

from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import ClipTruth
from stabn.data.quality import check as checking
from stabn.data.quality.check import check
from stabn.data.quality.inspect_video import Inspector, has_variable_rate
from stabn.data.segments import Segment
from stabn.data.video.subprocess_worker import WorkerProcess
from stabn.files import read_json


def table_of(*samples: Sample) -> Table:
    return Table(("a", "b", "c"), samples)


def kinds(found: dict, key: str = "faults") -> dict[str, list[str]]:
    """By kind, of which clips."""
    told: dict[str, list[str]] = {}
    for one in found[key]:
        told.setdefault(one["kind"], []).append(one["clip_id"])
        assert one["path"] in one["told"]
    return told


@pytest.fixture
def read(monkeypatch):
    """The files that checks have decoded, as often as they did."""
    files: list[str] = []
    call = WorkerProcess.call

    def watching(self, method, path, *arguments):
        if method == "inspect":
            files.append(Path(path).name)
        return call(self, method, path, *arguments)

    monkeypatch.setattr(WorkerProcess, "call", watching)
    return files


@pytest.fixture
def data(tmp_path, video):
    """A table with one clip of each kind, sound and not."""
    folder = tmp_path / "videos"
    folder.mkdir()
    sound = shutil.copy(video("mp4", 36), folder / "sound.mp4")
    shutil.copy(video("mp4", 3), folder / "short.mp4")
    (folder / "cut.mp4").write_bytes(sound.read_bytes()[:900])
    (folder / "text.mp4").write_text("no video\n" * 40)
    shutil.copy(sound, folder / "copy.mp4")
    encode(folder / "variable.mp4", map(numbered_frame, range(6)), pts=[0, 40, 240, 280, 1000, 1040])
    shutil.copy(video("webm", 36), folder / "other.webm")
    labels = {"sound.mp4": 0, "short.mp4": 1, "cut.mp4": 1, "text.mp4": 1, "variable.mp4": 1, "gone.mp4": 0}
    samples = [Sample(name, folder / name, label, "train") for name, label in labels.items()]
    samples += [
        Sample("copy", folder / "copy.mp4", 0, "validation"),
        Sample("o", folder / "other.webm", 1, "validation"),
    ]
    return table_of(*samples)


def test_every_kind_of_fault_is_reported_and_listed_for_exclusion(data, tmp_path):
    found = check(data, tmp_path / "check", frames=4, workers=2)
    assert kinds(found) == {"missing": ["gone.mp4"], "unreadable": ["cut.mp4", "text.mp4"], "too short": ["short.mp4"]}
    assert kinds(found, "remarks") == {"twice": ["sound.mp4", "copy"], "variable rate": ["variable.mp4"]}
    assert found["exclude"] == ["short.mp4", "cut.mp4", "text.mp4", "gone.mp4"]
    assert (tmp_path / "check" / "exclude.txt").read_text() == "short.mp4\ncut.mp4\ntext.mp4\ngone.mp4\n"
    assert (found["clips"], found["files"], found["read"]) == (8, 8, 7)
    counts = {"clips": 6, "usable": 2, "classes": 2, "missing": 1, "unreadable": 2, "too short": 1, "twice": 1}
    assert {name: found["splits"]["train"][name] for name in counts} == counts
    assert found["splits"]["validation"]["twice"] == 1
    assert [entry["clips"] for entry in found["classes"]] == [
        {"train": 2, "validation": 1}, {"train": 4, "validation": 1}, {"train": 0, "validation": 0},
    ]  # fmt: skip
    assert found["empty_classes"] == {"train": ["c"], "validation": ["c"]}
    told = {one["clip_id"]: one["told"] for one in found["remarks"]}
    assert "bytes" in told["copy"]
    assert "'sound.mp4'" in told["copy"]
    assert read_json(tmp_path / "check" / "check.json", remedy="") | {"read": 7} == found


def test_the_same_film_in_another_container_is_found_out(tmp_path, video, ffmpeg):
    (tmp_path / "copy.mkv").parent.mkdir(exist_ok=True)
    command = [ffmpeg, "-v", "error", "-i", str(video("mp4", 36)), "-c", "copy", str(tmp_path / "copy.mkv")]
    subprocess.run(command, check=True)
    table = table_of(
        Sample("a", video("mp4", 36), 0, "train"),
        Sample("b", tmp_path / "copy.mkv", 0, "test"),
        Sample("c", video("mp4", 3), 0, "test"),
    )
    found = check(table, tmp_path / "check")
    assert kinds(found, "remarks") == {"twice": ["a", "b"]}
    assert "frames" in found["remarks"][0]["told"]


def test_nothing_is_read_twice_and_a_killed_check_goes_on(data, tmp_path, read):
    whole = check(data, tmp_path / "whole", frames=4)
    assert len(read) == whole["read"] == 7
    lines = (tmp_path / "whole" / "files.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 7
    assert all({"path", "fingerprint", "bytes", "fault"} <= set(json.loads(line)) for line in lines)
    read.clear()
    assert check(data, tmp_path / "whole", frames=4)["read"] == 0
    assert read == []
    # Killed while it wrote the fourth line
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "files.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][: len(lines[3]) // 2])
    resumed = check(data, tmp_path / "killed", frames=4)
    assert len(read) == resumed["read"] == 4
    assert resumed | {"read": 7} == whole
    read.clear()
    unbounded = check(data, tmp_path / "killed")
    assert unbounded["read"] == 0
    assert "too short" not in kinds(unbounded)
    # More clips in the table cost what they cost, and a folder serves several tables
    assert check(table_of(data.samples[0]), tmp_path / "killed")["read"] == 0
    assert read == []


def test_a_file_that_was_replaced_is_read_again_and_said_to_be_another(data, tmp_path, read, video):
    check(data, tmp_path / "check")
    sound = data.samples[0].path
    read.clear()
    os.utime(sound, ns=(1, 1))  # the same bytes: another time alone costs no decoding
    assert "replaced" not in kinds(check(data, tmp_path / "check"), "remarks")
    assert read == []
    shutil.copy(video("mp4", 3), sound)
    for _ in range(2):
        found = check(data, tmp_path / "check")
        assert kinds(found, "remarks")["replaced"] == ["sound.mp4"]
        assert "sound.mp4" not in found["exclude"]
        assert read == ["sound.mp4"]


def test_verifying_finds_bytes_that_changed_behind_the_back_of_the_file_system(data, tmp_path, read):
    check(data, tmp_path / "check")
    sound = data.samples[0].path
    content, status = bytearray(sound.read_bytes()), sound.stat()
    content[-40] ^= 1
    sound.write_bytes(content)
    os.utime(sound, ns=(status.st_atime_ns, status.st_mtime_ns))
    read.clear()
    assert kinds(check(data, tmp_path / "check")).get("altered") is None
    assert read == []
    found = check(data, tmp_path / "check", verify=True)
    assert kinds(found)["altered"] == ["sound.mp4"]
    assert "sound.mp4" in found["exclude"]
    assert read == ["sound.mp4"]
    assert kinds(check(data, tmp_path / "check"))["altered"] == ["sound.mp4"]
    content[-40] ^= 1
    sound.write_bytes(content)
    assert "altered" not in kinds(check(data, tmp_path / "check"))


def test_files_that_hang_or_crash_the_decoder_are_named_and_tried_again_with_more_time(tmp_path, video, monkeypatch):
    for name in ("hang-a.mp4", "crash-b.mp4", "sound.mp4"):
        shutil.copy(video("mp4", 3), tmp_path / name)
    names = ("hang-a.mp4", "crash-b.mp4", "sound.mp4")
    table = table_of(*(Sample(name, tmp_path / name, 0, "train") for name in names))
    monkeypatch.setattr(checking, "Inspector", HangingInspector)
    found = check(table, tmp_path / "check", workers=2, timeout=1)
    assert kinds(found) == {"stopped": ["hang-a.mp4", "crash-b.mp4"]}
    assert "1 s" in found["faults"][0]["told"]
    assert "SIGSEGV" in found["faults"][1]["told"]
    assert check(table, tmp_path / "check", timeout=1)["read"] == 0
    monkeypatch.setattr(checking, "Inspector", Inspector)
    found = check(table, tmp_path / "check", timeout=2)
    assert (found["faults"], found["read"]) == ([], 2)


def test_clips_of_a_part_of_their_file_are_judged_by_that_part(tmp_path, video):
    path = video("mp4", 36)  # 12 frames a second
    parts = {
        "whole": None,
        "second": Segment(1.0, 2.0),
        "brief": Segment(0, 2, "frames"),
        "beyond": Segment(30, 40, "frames"),
        "nowhere": Segment(10.0, 12.0),
        "behind": Segment(50, 60, "frames"),
    }
    table = table_of(*(Sample(name, path, 0, "train", segment) for name, segment in parts.items()))
    found = check(table, tmp_path / "check", frames=4)
    assert found["read"] == found["files"] == 1
    assert kinds(found) == {"too short": ["brief"], "no frame": ["nowhere", "behind"]}
    assert kinds(found, "remarks") == {"wrong count": ["beyond", "behind"]}


def test_an_interval_beyond_the_end_of_its_video_is_reported(tmp_path, video):
    samples = [Sample(name, video("mp4", 36), 0, "train") for name in ("inside", "across", "beyond")]
    intervals = {"inside": (3.0, 9.0), "across": (30.0, 90.0), "beyond": (36.0, 40.0)}
    truth = {name: ClipTruth(interval=interval) for name, interval in intervals.items()}
    found = check(replace(table_of(*samples), truth=truth), tmp_path / "check")
    (remark,) = [one for one in found["remarks"] if one["kind"] == "wrong count"]
    assert remark["clip_id"] == "beyond"
    assert "36" in remark["told"]


def test_a_container_that_speaks_of_other_frames_than_it_shows_is_reported(tmp_path, video, ffmpeg):
    words = ["-v", "error", "-ss", "0.6", "-i", str(video("mp4", 36)), "-c", "copy", str(tmp_path / "cut.mp4")]
    subprocess.run([ffmpeg, *words], check=True)
    found = check(table_of(Sample("a", tmp_path / "cut.mp4", 0, "train")), tmp_path / "check")
    (remark,) = [one for one in found["remarks"] if one["kind"] == "wrong count"]
    assert "36" in remark["told"]
    assert "28" in remark["told"]


def test_folders_of_frames_are_checked_too(tmp_path):
    for name in ("good", "same", "bad"):
        (tmp_path / name).mkdir()
        for number in range(1, 6):
            picture = np.full((20, 30, 3), 40 * number, np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"img_{number:05d}.jpg")
    damaged = tmp_path / "bad" / "img_00003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    splits = {"good": "train", "same": "test", "bad": "train"}
    table = table_of(*(Sample(name, tmp_path / name, 0, split) for name, split in splits.items()))
    found = check(table, tmp_path / "check", frames=6)
    assert "img_00003.jpg" in found["faults"][1]["told"] or "img_00003.jpg" in found["faults"][2]["told"]
    assert {one["clip_id"]: one["kind"] for one in found["faults"]} == {
        "good": "too short", "same": "too short", "bad": "unreadable",
    }  # fmt: skip
    assert kinds(found, "remarks") == {"twice": ["good", "same"]}
    assert check(table, tmp_path / "check")["read"] == 0


def test_what_cannot_be_told_in_utf_8_is_told_all_the_same(tmp_path, video):
    name = os.fsdecode(b"clip-\xff.mp4")
    shutil.copy(video("mp4", 3), tmp_path / name)
    broken = (os.fsdecode(b"broken-\xff.mp4"), "new\nline.mp4")
    for other in broken:
        (tmp_path / other).write_text("no video")
    table = table_of(*(Sample(f"{i}", tmp_path / n, 0, "train") for i, n in enumerate((name, *broken))))
    found = check(table, tmp_path / "check")
    assert [one["clip_id"] for one in found["faults"]] == ["1", "2"]
    assert found["faults"][0]["told"].startswith(f"{tmp_path}/broken-\\udcff.mp4: ")
    assert found["faults"][1]["told"].startswith(f"{tmp_path}/new\\nline.mp4: ")
    assert check(table, tmp_path / "check")["read"] == 0


@pytest.mark.parametrize(
    ("times", "variable"),
    [
        ([0.0], False),
        ([0.0, 0.5], False),
        ([0.0, 0.033, 0.067, 0.1], False),  # what Matroska's milliseconds make of 30 a second
        ([0.0, 0.04, 0.08, 0.121], False),
        ([0.0, 0.04, 0.08, 0.16], True),
        ([0.0, 0.04, 0.0401], True),
    ],
)
def test_a_rate_is_variable_where_more_than_rounding_makes_it_so(times, variable):
    assert has_variable_rate(times) == variable
