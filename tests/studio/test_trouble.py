"""What goes wrong around a studio: damaged files, moved videos, many uploads, and an end while something is at work."""

import io
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import other_process
import pytest
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from small_run import FRAMES
from studio_client import Client, change, check_refused, queue, serving, uncollected

from stabn.edits import project as projects
from stabn.errors import UserError
from stabn.runs import open_run
from stabn.studio.catalogue import CatalogueClip
from stabn.studio.routes import clips as clip_routes
from stabn.studio.serve import open_studio
from stabn.studio.viewer import Viewer

NO_VIDEO = CatalogueClip("upload:1", "nothing", Path("nothing.mp4"), None, None, "upload")


def fewer_rows(file: Path) -> None:
    arrays = load_file(file)
    save_file(arrays | {"spatial": arrays["spatial"][:1]}, file)


def replace_in(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("attention.safetensors", lambda file: os.truncate(file, 50), "attention.safetensors"),
        ("attention.safetensors", Path.unlink, "attention.safetensors"),
        ("attention.safetensors", fewer_rows, "1 rows"),
        ("attention.safetensors", lambda file: save_file({}, file), "attention.safetensors"),
        ("clips.jsonl", lambda file: replace_in(file, '"predicted": "', '"predicted": "no '), "'no "),
        ("edits.jsonl", lambda file: file.write_text("{"), "edits.jsonl, line 1"),
    ],
    ids=["truncated", "missing", "fewer rows", "no arrays", "unknown class", "half a line"],
)
def test_a_damaged_project_is_reported_once_in_one_line(trained, project, capsys, name, damage, words):
    damage(project / name)
    with pytest.raises(UserError, match=re.escape(words)) as caught, open_studio(open_run(trained), project):
        pass
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""


def test_clips_of_the_queue_open_after_the_videos_have_moved(trained: Path, project: Path) -> None:
    replace_in(project / "clips.jsonl", '"path": "/', '"path": "/before-they-moved/')
    with serving(trained, project) as client:
        for path in ("/api/frame", "/api/thumbnail"):
            assert client.get(path, params={"id": queue(client)[0]["id"], "position": 0}).status_code == 200


def test_a_browser_asks_whether_a_picture_is_still_the_same(shared: Client) -> None:
    params = {"id": queue(shared)[0]["id"], "position": 0}
    for path in ("/api/frame", "/api/thumbnail"):
        first = shared.get(path, params=params)
        assert "no-cache" in first.headers["cache-control"]
        again = shared.get(path, params=params, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert shared.get(path, params=params, headers={"If-None-Match": '"other"'}).content == first.content


def test_many_uploads_at_once_are_checked_one_by_one(client: Client, film: bytes) -> None:
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
        answers = list(pool.map(lambda _: client.post("/api/uploads", content=film), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert most == [1]
    assert len(list(client.studio.uploads.iterdir())) == 4


@pytest.mark.parametrize(("side", "words"), [(6000, "6000x6000"), (60, "still.mp4")])
def test_pictures_and_huge_frames_are_refused(shared: Client, side: int, words: str) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(picture, "png", compress_level=1)
    answer = shared.post("/api/uploads", params={"name": "still.mp4"}, content=picture.getvalue())
    check_refused(answer, 422, words)
    assert list(shared.studio.uploads.iterdir()) == []


def test_edits_of_clips_whose_video_cannot_be_read_here_are_reported_and_stop_nothing(
    trained: Path, collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, yours = (shutil.copytree(collected, tmp_path / name) for name in ("mine", "yours"))
    database = f"sqlite:///{tmp_path / 'team.db'}"
    with serving(trained, mine, database=database) as ann:
        change(ann, uncollected(ann, "train"), [1.0] * FRAMES, "request-1")
    monkeypatch.setattr(Viewer, "_read_and_predict", raising(UserError("no such file; give the videos")))
    with serving(trained, yours, database=database) as bo:
        assert bo.get("/api/changes").json()["problem"].startswith("1 ")
        assert bo.get("/api/people").status_code == 200


def raising(error: Exception) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def test_a_full_disk_is_reported(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_routes, "_check_video", raising(OSError(28, "No space left on device")))
    check_refused(client.post("/api/uploads", content=b"x"), 507, "No space left")
    monkeypatch.setattr(projects, "save_file", raising(SafetensorError("I/O error: No space left on device")))
    body = {"author": "Ann", "request": "request-1", "kind": "paint", "scores": [1.0] * FRAMES}
    answer = client.post("/api/edit", json={"id": uncollected(client, "train"), **body})
    check_refused(answer, 400, "No space left")
    assert client.studio.store.current() == ()


def test_a_removed_clip_and_a_closed_studio_let_nobody_wait(shared: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = Viewer(shared.studio.viewer.model, shared.studio.viewer.preprocessing)
    with monkeypatch.context() as patch:
        patch.setattr(viewer, "_requests", type(viewer._requests)())  # nobody opens it
        clip = viewer.open(NO_VIDEO)
    threading.Timer(0.1, viewer.forget, [NO_VIDEO.clip_id]).start()
    with pytest.raises(UserError, match="removed"):
        clip.picture(0)
    viewer.close()
    with pytest.raises(UserError, match="closing"):
        viewer.open(NO_VIDEO).picture(0)


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_asked_to_stop_the_studio_removes_uploads_and_ends_well(trained, project, film, tmp_path, word):
    log = tmp_path / "log"
    process = other_process.start(["studio", trained, "--edits", project, "--port", "0"], log)
    while not (log.exists() and (address := re.search(r"http\S+/\?token=[\w-]+\s", log.read_text()))):
        assert process.is_alive(), log.read_text()
        time.sleep(0.05)
    base, _, token = address[0].strip().partition("/?token=")
    answer = httpx.post(f"{base}/api/uploads", content=film, headers={"Authorization": f"token {token}"})
    assert answer.status_code == 200
    assert (project / ".uploads").exists()
    os.kill(process.pid, word)
    process.join(120)
    printed = log.read_text().partition(address[0])[2]
    assert process.exitcode == 128 + word
    assert word.name in printed
    assert len(printed.strip().splitlines()) == 1
    assert not (project / ".uploads").exists()
