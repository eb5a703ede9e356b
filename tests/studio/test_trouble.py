"""What goes wrong around a studio: damaged files, moved videos, many uploads, and an end while something is at work."""

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from small_run import FRAMES
from studio_client import Client, change, serving

from stabn.data.video.clip import write_video
from stabn.edits import project as projects
from stabn.errors import UserError
from stabn.runs import open_run
from stabn.studio.routes import clips as clip_routes
from stabn.studio.serve import studio_on
from stabn.studio.viewer import Looking


def fewer_rows(file: Path) -> None:
    arrays = load_file(file)
    save_file(arrays | {"spatial": arrays["spatial"][:1]}, file)


@pytest.mark.parametrize(
    "damage",
    [lambda file: os.truncate(file, 50), Path.unlink, fewer_rows, lambda file: save_file({}, file)],
    ids=["truncated", "missing", "fewer rows", "no arrays"],
)
def test_damaged_attention_is_told_in_one_line(
    trained: Path, collected: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    project = shutil.copytree(collected, tmp_path / "edits")
    damage(project / "attention.safetensors")
    told = pytest.raises(UserError, match=r"attention\.safetensors: is damaged .*collect the project again")
    with told, studio_on(open_run(trained), project):
        pass


def test_a_class_that_the_network_does_not_have_is_told(trained: Path, collected: Path, tmp_path: Path) -> None:
    project = shutil.copytree(collected, tmp_path / "edits")
    lines = (project / "clips.jsonl").read_text().replace('"predicted": "', '"predicted": "no ')
    (project / "clips.jsonl").write_text(lines)
    with pytest.raises(UserError, match="has no class 'no "), studio_on(open_run(trained), project):
        pass


def test_what_is_wrong_at_the_start_is_told_once(
    trained: Path, collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = shutil.copytree(collected, tmp_path / "edits")
    (project / "edits.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"edits\.jsonl, line 1"), studio_on(open_run(trained), project):
        pass
    assert capsys.readouterr().err == ""


def test_clips_of_the_queue_open_after_the_videos_have_moved(trained: Path, collected: Path, tmp_path: Path) -> None:
    project = shutil.copytree(collected, tmp_path / "edits")
    lines = (project / "clips.jsonl").read_text().replace('"path": "/', '"path": "/before-they-moved/')
    (project / "clips.jsonl").write_text(lines)
    with serving(trained, project) as client:
        clip_id = client.get("/api/queue").json()["clips"][0]["id"]
        assert client.get("/api/frame", params={"id": clip_id, "position": 0}).status_code == 200
        assert client.get("/api/thumbnail", params={"id": clip_id}).status_code == 200


def test_a_browser_asks_whether_a_picture_is_still_the_same(shared: Client) -> None:
    clip_id = shared.get("/api/queue").json()["clips"][0]["id"]
    for path in ("/api/frame", "/api/thumbnail"):
        params = {"id": clip_id, "position": 0}
        first = shared.get(path, params=params)
        assert "no-cache" in first.headers["cache-control"]
        again = shared.get(path, params=params, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert shared.get(path, params=params, headers={"If-None-Match": '"other"'}).content == first.content


def test_many_uploads_at_once_are_checked_one_by_one(client: Client, tmp_path: Path) -> None:
    write_video(tmp_path / "own.mp4", np.zeros((9, 48, 64, 3), np.uint8), 10)
    content = (tmp_path / "own.mp4").read_bytes()
    at_once, most = [0], [0]
    check = clip_routes._check_video

    def counted(*arguments: object) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        check(*arguments)
        at_once[0] -= 1

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(12) as pool:
        patch.setattr(clip_routes, "_check_video", counted)
        answers = list(pool.map(lambda _: client.post("/api/uploads", content=content), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert most == [1]
    assert len(list(client.studio.uploads.iterdir())) == 4


def test_an_upload_with_huge_frames_is_refused(shared: Client) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.zeros((6000, 6000), np.uint8)).save(picture, "png", compress_level=1)
    answer = shared.post("/api/uploads", params={"name": "huge.mp4"}, content=picture.getvalue())
    assert (answer.status_code, "6000x6000" in answer.json()["error"]) == (422, True)
    assert list(shared.studio.uploads.iterdir()) == []


def test_a_picture_is_no_video(shared: Client) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(picture, "png")
    answer = shared.post("/api/uploads", params={"name": "still.mp4"}, content=picture.getvalue())
    assert (answer.status_code, "is a picture" in answer.json()["error"]) == (422, True)


def test_edits_of_clips_whose_video_cannot_be_read_here_are_told_and_stop_nothing(
    trained: Path, collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, yours = (shutil.copytree(collected, tmp_path / name) for name in ("mine", "yours"))
    database = f"sqlite:///{tmp_path / 'team.db'}"
    with serving(trained, mine, database=database) as ann:
        found = ann.get("/api/data", params={"split": "train", "limit": 200}).json()["clips"]
        clip_id = next(clip["id"] for clip in found if not clip["in_queue"])
        change(ann, clip_id, [1.0] * FRAMES, "request-1")

    def unreadable(*_: object) -> None:
        raise UserError("no such file; give the videos")

    monkeypatch.setattr(Looking, "_open", unreadable)
    with serving(trained, yours, database=database) as bo:
        assert "left out" in bo.get("/api/changes").json()["problem"]
        assert bo.get("/api/people").status_code == 200


def test_a_full_disk_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clip_routes, "_check_video", full)
    answer = client.post("/api/uploads", content=b"x")
    assert answer.status_code == 507
    assert "No space left" in answer.json()["error"]


def test_a_disk_too_full_for_another_clip_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(projects, "save_file", full)
    found = client.get("/api/data", params={"split": "train", "limit": 200}).json()["clips"]
    clip_id = next(clip["id"] for clip in found if not clip["in_queue"])
    body = {"id": clip_id, "author": "Ann", "request": "request-1", "kind": "paint", "scores": [1.0] * FRAMES}
    answer = client.post("/api/edit", json=body)
    assert (answer.status_code, "No space left" in answer.json()["error"]) == (400, True)
    assert client.studio.store.current() == ()


def test_who_waits_for_a_removed_clip_is_told(shared: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = shared.studio.looking
    monkeypatch.setattr(looking, "_waiting", type(looking._waiting)())  # nobody opens it
    view = looking.open("upload:1", Path("nothing.mp4"))
    threading.Timer(0.1, looking.forget, ["upload:1"]).start()
    with pytest.raises(UserError, match="was removed"):
        view.picture(0)


def test_a_closed_studio_lets_nobody_wait(shared: Client) -> None:
    looking = Looking(shared.studio.looking.model, shared.studio.looking.preprocessing)
    looking.close()
    with pytest.raises(UserError, match="closing"):
        looking.open("1", Path("nothing.mp4")).picture(0)


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_the_studio_removes_uploads_and_ends_well(
    trained: Path, collected: Path, tmp_path: Path, word: signal.Signals
) -> None:
    project = shutil.copytree(collected, tmp_path / "edits")
    write_video(tmp_path / "own.mp4", np.zeros((9, 48, 64, 3), np.uint8), 10)
    command = [sys.executable, "-m", "stabn.cli", "studio", str(trained), "--edits", str(project), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        address = next(line.strip() for line in process.stdout if "token=" in line)
        base, _, token = address.partition("/?token=")
        headers = {"Authorization": f"token {token}"}
        answer = httpx.post(f"{base}/api/uploads", content=(tmp_path / "own.mp4").read_bytes(), headers=headers)
        assert answer.status_code == 200
        assert (project / ".uploads").exists()
        process.send_signal(word)
        printed = process.stdout.read()
    assert process.returncode == 0
    assert printed.strip() == "The studio has ended; every edit is saved."
    assert not (project / ".uploads").exists()
