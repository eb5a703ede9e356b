"""What happens to archives while they are explained: kills, interruptions, full disks, a second command."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from archive_folder import BROKEN, OPTIONS, PART, assert_same, explained, files_of, rows_of, write_rows
from filelock import FileLock
from pyarrow import parquet

from stabn.batch import prefetch
from stabn.batch.clips import ArchiveClip
from stabn.batch.predictor import ArchivePredictor
from stabn.batch.prefetch import ClipView, ReaderPool
from stabn.batch.summary import speed_report
from stabn.batch.worker import ProcessingTimes
from stabn.cli.main import main
from stabn.data.sampling import Sampling
from stabn.data.transforms import Preprocessing
from stabn.data.video.subprocess_worker import StoppedError
from stabn.errors import UserError

SOME = [str(n) for n in range(1, 6)]
PREPROCESSING = Preprocessing(Sampling("uniform", 8), resize=36, crop=32)


def command(run: Path, table: Path, out: Path) -> list[str]:
    words = ["explain", str(run), "--batch", str(table), "--out", str(out), "--part-clips", str(PART), "--workers", "1"]
    return [*words, "--batch-size", "3", "--engine.accelerator", "cpu", "--engine.precision", "32-true"]


@pytest.fixture
def many(tabletop: Path, tmp_path: Path) -> Path:
    """A table that takes a while: the same few videos under many names."""
    rows = [(str(tabletop / "videos" / f"{1 + n % 5}.mp4"), f"clip {n}") for n in range(80)]
    return write_rows(tmp_path / "many.csv", ("path", "id"), rows)


def children(process: int) -> set[int]:
    while True:
        try:
            files = Path(f"/proc/{process}/task").glob("*/children")
            return {int(n) for file in files for n in file.read_text().split()}
        except (FileNotFoundError, ProcessLookupError):
            assert Path(f"/proc/{process}").exists()  # a thread ended meanwhile; its children are another's now


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux to find a process's children")


@linux
def test_killed_processes_lose_nothing_and_do_nothing_twice(trained, many, tmp_path):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "stabn.cli", *command(trained, many, out)]
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        killed = wait_for(lambda: len(list(out.glob("clips/part-*"))) > 0 and children(first.pid), first)
        for decoder in killed:
            os.kill(decoder, signal.SIGKILL)
        so_far = len(list(out.glob("clips/part-*")))
        wait_for(lambda: len(list(out.glob("clips/part-*"))) > so_far + 1, first)
    finally:
        first.kill()
        first.wait()
    written = {file: file.stat().st_mtime_ns for file in (out / "clips").glob("part-*")}
    assert 0 < len(written) < 20
    assert not json.loads((out / "summary.json").read_text())["complete"]
    (out / "clips" / ".part-00099-x.parquet").touch()  # as if it had been killed while it wrote
    damaged = out / "clips" / "part-00000.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    main(command(trained, many, out))
    del written[damaged]
    assert {file: file.stat().st_mtime_ns for file in written} == written
    rows = rows_of(out)
    assert [row["id"] for row in rows] == [f"clip {n}" for n in range(80)]
    assert all(row["error"] is None for row in rows)
    few = write_rows(tmp_path / "few.csv", ("path", "id"), [(row["path"], row["id"]) for row in rows[:5]])
    explained(trained, few, tmp_path / "undisturbed")
    undisturbed = rows_of(tmp_path / "undisturbed")  # 80 clips of five videos
    assert_same(rows, [undisturbed[n % 5] | {"id": f"clip {n}"} for n in range(80)])


def wait_for(found, process: subprocess.Popen):
    while process.poll() is None:
        value = found()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError("the command came to its end before it could be disturbed")


@linux
def test_an_interrupted_command_goes_on(trained, archive, answered, tmp_path, monkeypatch, capsys):
    rows, calls = ArchivePredictor.rows, []

    def interrupted(self, views):
        calls.append(len(views))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rows(self, views)

    monkeypatch.setattr(ArchivePredictor, "rows", interrupted)
    out, before = tmp_path / "out", children(os.getpid())
    with pytest.raises(SystemExit) as stopped:
        main(command(trained, archive, out))
    assert stopped.value.code == 130
    assert "give the same command again to go on" in capsys.readouterr().err
    assert children(os.getpid()) <= before
    monkeypatch.setattr(ArchivePredictor, "rows", rows)
    main(command(trained, archive, out))
    assert files_of(out) == files_of(answered)
    shown = capsys.readouterr().out
    assert "14" in shown
    assert "cut: " in shown


def test_a_command_that_is_given_again_does_nothing(out, trained, archive, monkeypatch):
    before, told = files_of(out), json.loads((out / "summary.json").read_text())
    monkeypatch.setattr(ArchivePredictor, "__init__", lambda *_: pytest.fail("a network was made"))
    assert explained(trained, archive, out) == told
    assert files_of(out) == before


@pytest.fixture
def clips(tabletop: Path) -> list[ArchiveClip]:
    return [ArchiveClip(n, str(tabletop / "videos" / f"{n}.mp4")) for n in SOME]


@linux
def test_a_decoder_that_is_killed_is_replaced_and_its_clip_read_again(clips):
    before = children(os.getpid())
    with closing(ReaderPool(PREPROCESSING, 1, timeout=20)) as readers:
        assert isinstance(readers.read(clips[:1])[0].result().result, ClipView)
        (decoder,) = children(os.getpid()) - before
        os.kill(decoder, signal.SIGKILL)
        assert all(isinstance(read.result().result, ClipView) for read in readers.read(clips))


def test_a_clip_that_stops_its_decoder_twice_or_makes_it_fail_is_broken(clips, monkeypatch):
    seen, read_view = [], prefetch.read_view

    def fragile(clip, *rest):
        seen.append(clip.clip_id)
        if clip.clip_id == "2" or (clip.clip_id == "1" and seen.count("1") == 1):
            raise StoppedError(f"{clip.path}: did not end")
        if clip.clip_id == "3":
            raise RuntimeError("what\nnobody expected")
        return read_view(clip, *rest)

    monkeypatch.setattr(prefetch, "read_view", fragile)
    with closing(ReaderPool(PREPROCESSING, 1)) as readers:
        found = [read.result().result for read in readers.read(clips)]
    assert seen == ["1", "1", "2", "2", "3", "4", "5"]
    assert [isinstance(view, ClipView) for view in found] == [True, False, False, True, True]
    assert found[1] == f"{clips[1].path}: did not end"
    assert found[2] == f"{clips[2].path}: cannot be read (RuntimeError: what nobody expected); give another video"


def test_broken_clips_are_tried_again_on_request_and_no_others(trained, tabletop, tmp_path, monkeypatch):
    folder, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(tabletop / "videos", folder, ignore=lambda _, names: [n for n in names if n[:-4] not in SOME])
    for name in ("2.mp4", "5.mp4"):
        (folder / name).write_bytes(b"")
    assert explained(trained, folder, out)["errors"] == 2
    for name in ("2.mp4", "5.mp4"):
        shutil.copy(tabletop / "videos" / name, folder)
    assert explained(trained, folder, out)["errors"] == 2
    read, begin = [], ReaderPool.read
    monkeypatch.setattr(ReaderPool, "read", lambda self, clips: read.extend(clips) or begin(self, clips))
    assert explained(trained, folder, out, options=replace(OPTIONS, retry_errors=True))["errors"] == 0
    assert sorted(clip.clip_id for clip in read) == ["2.mp4", "5.mp4"]
    assert [row["id"] for row in rows_of(out)] == [f"{name}.mp4" for name in SOME]
    assert all(row["predicted"] and row["error"] is None for row in rows_of(out))


def test_a_table_may_grow_at_its_end(trained, archive, out, answered):
    grown = archive.with_name("grown.csv")
    grown.write_text(archive.read_text() + "text.mp4,text again,,\n")
    told = explained(trained, grown, out)
    assert (told["clips"], told["errors"]) == (15, len(BROKEN) + 1)
    before, after = files_of(answered), files_of(out)
    assert [name for name in before if after[name] != before[name]] == ["part-00003.parquet"]


def test_an_archive_that_has_moved_goes_on_and_says_so(trained, tabletop, tmp_path, caplog):
    here, there, out = tmp_path / "here", tmp_path / "there", tmp_path / "out"
    shutil.copytree(tabletop / "videos", here, ignore=lambda _, names: [n for n in names if n[:-4] not in SOME])
    explained(trained, here, out, part_clips=3)
    before = files_of(out)
    shutil.copytree(here, there)
    with pytest.raises(UserError, match=f"{len(SOME)} of {here}, now {len(SOME)} of {there}"):
        explained(trained, there, out, part_clips=3)  # the videos are still there: these may be others
    shutil.rmtree(here)
    (out / "clips" / "part-00000.parquet").unlink()
    caplog.set_level("INFO", "stabn")
    assert explained(trained, there, out, part_clips=3)["errors"] == 0
    assert f"{here} to {there}" in caplog.text
    assert [name for name, content in files_of(out).items() if content != before[name]] == ["part-00000.parquet"]
    assert Path(rows_of(out)[0]["path"]).parent == there
    shutil.move(out, tmp_path / "moved-out")
    assert explained(trained, there, tmp_path / "moved-out", part_clips=3)["errors"] == 0


def test_another_job_in_the_folder_is_refused_in_one_line(trained, plain, archive, out, tmp_path):
    def check_refused(words: str, run: Path = trained, table: Path = archive, folder: Path = out, **options) -> None:
        with pytest.raises(UserError, match=words):
            explained(run, table, folder, **options)

    before, lines = files_of(out), archive.read_text().splitlines()
    for name, changed in (("fewer", lines[:-1]), ("other", [lines[0], *lines[2:], lines[1]])):
        table = archive.with_name(f"{name}.csv")
        table.write_text("\n".join(changed) + "\n")
        check_refused(r"14 of .*clips\.csv", table=table)
    check_refused(r"weights.* --out", run=plain)
    check_refused("part_clips = 4, now 5", part_clips=5)
    with FileLock(out / ".lock"):  # of another command that is at work
        check_refused(re.escape(str(out)))
    assert files_of(out) == before
    check_refused(re.escape(f"{trained}: "), folder=trained)
    (tmp_path / "job.json").write_text("[]")
    check_refused(r"job\.json: .*stabn-archive/1", folder=tmp_path)


def test_a_full_disk_ends_the_command_in_one_line(trained, archive, tmp_path, monkeypatch, one_line):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", full)
    message = one_line(*command(trained, archive, tmp_path / "out"))
    assert "part-00000.parquet: " in message
    assert "No space left on device" in message


@pytest.mark.parametrize(
    ("words", "token"),
    [
        (["--batch-size", "0"], "--batch-size: got 0"),
        (["--workers", "0"], "--workers: got 0"),
        (["--timeout", "-1"], "--timeout: got -1"),
        (["--part-clips", "0"], "--part-clips: got 0"),
        (["--price-per-hour", "-2"], "--price-per-hour: got -2"),
        (["--clips", "3"], "--clips"),
        (["--split", "test"], "--split: got 'test'"),
        (["--engine.devices", "2"], "--ray"),
        (["--batch", "nowhere.csv"], "nowhere.csv: "),
    ],
)
def test_mistakes_in_options_are_refused_before_anything_is_written(words, token, trained, archive, tmp_path, one_line):
    assert token in one_line(*command(trained, archive, tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_explaining_needs_videos_or_an_archive(trained, archive, tabletop, tmp_path, one_line):
    assert "--batch TABLE" in one_line("explain", trained, "--out", tmp_path / "out")
    video = tabletop / "videos" / "1.mp4"
    assert "--batch: got" in one_line("explain", trained, video, "--batch", archive, "--out", tmp_path / "out")


def test_a_million_clips_cost_what_the_measured_ones_tell():
    times = ProcessingTimes(clips=500, seconds=250.0, reading=300.0, network=100.0, waiting=60.0)
    report = speed_report(times, price_per_hour=3.6)
    assert (report["clips_per_second"], report["price_per_million"]) == (2.0, 500.0)
    assert report["hours_per_million"] == 139.0  # 500,000 s, to three digits
    assert (report["reading_share"], report["waiting_share"]) == (0.75, 0.375)
    assert "clips_per_second" not in speed_report(ProcessingTimes())


def test_without_ray_the_option_says_what_to_install(trained, archive, tmp_path, one_line, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    message = one_line(*command(trained, archive, tmp_path / "out"), "--ray")
    assert re.search(r"--ray: .*pip install 'stabn\[ray\]'", message)
