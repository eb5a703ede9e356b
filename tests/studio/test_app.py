"""What the studio answers: clips, frames, what-if, edits, uploads, and to nonsense."""

import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import FRAMES
from studio_client import Client, change, check_refused, queue, uncollected

from stabn.data.video.reader import read_clip
from stabn.edits.agreement import krippendorff_alpha
from stabn.edits.project import open_project
from stabn.explain.explain_video import explain_video
from stabn.records import read_edits
from stabn.studio.app import STATIC

ONES, HALF = [1.0] * FRAMES, [0.5] * FRAMES


def clip_of(client: Client, clip_id: str, author: str = "Ann") -> dict:
    answer = client.get("/api/clip", params={"id": clip_id, "author": author})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_queue_starts_where_the_network_preferred_its_wrong_answer_most(shared: Client) -> None:
    answer = shared.get("/api/queue").json()
    worth = [clip["confidence"] - clip["label_probability"] for clip in answer["clips"]]
    assert all(first > second - 2e-6 for first, second in pairwise(worth)), "probabilities are rounded to 1e-6"
    assert all(clip["predicted"] != clip["label"] and not clip["correct"] for clip in answer["clips"])


def test_the_queue_and_the_changes_say_who_edited_what(client: Client) -> None:
    first, second, third = (clip["id"] for clip in queue(client)[:3])
    change(client, first, ONES, "request-1")
    change(client, first, HALF, "request-2", author="Bo")
    version = client.get("/api/changes").json()["version"]
    change(client, second, ONES, "request-3", author="Bo")
    edited = {clip["id"]: clip["edited_by"] for clip in queue(client)}
    assert (edited[first], edited[second], edited[third]) == (["Ann", "Bo"], ["Bo"], [])
    assert client.get("/api/changes", params={"since": version}).json()["clips"] == [second]


def test_frames_are_exactly_those_that_the_network_saw(shared: Client) -> None:
    clip = clip_of(shared, queue(shared)[0]["id"])
    project = next(c for c in shared.studio.catalogue.project.clips if c.clip_id == clip["id"])
    decoded = read_clip(project.path, clip["frame_indices"])
    assert clip["frame_indices"] == list(project.frame_indices)
    for position in range(FRAMES):
        answer = shared.get("/api/frame", params={"id": clip["id"], "position": position})
        assert answer.headers["content-type"] == "image/png"
        picture = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert (picture == decoded.frames[position].permute(1, 2, 0).numpy()).all()


NO_IDS = ["../../etc/passwd", "..", "", "/etc/passwd", "upload:", "a\0b", "%2e%2e%2f", "C:\\x", "🎬" * 300]
NO_PATHS = ["/../serve.py", "/..%2fserve.py", "/%2e%2e/serve.py", "//etc/passwd", "/static/../app.py"]


def test_ids_positions_and_paths_that_are_not_there_are_refused_whatever_they_look_like(shared: Client) -> None:
    for clip_id in NO_IDS:
        for path in ("/api/clip", "/api/frame", "/api/thumbnail"):
            check_refused(shared.get(path, params={"id": clip_id, "position": 0}), 404)
    first = queue(shared)[0]["id"]
    for position in ("-1", str(FRAMES), "x", "1e3", ""):
        check_refused(shared.get("/api/frame", params={"id": first, "position": position}), (404, 422), "position")
    for path in NO_PATHS:
        answer = shared.get(path)
        assert answer.status_code == 404
        assert "import" not in answer.text


def test_every_file_that_the_page_loads_exists() -> None:
    loads = re.compile(r"""(?:from|import\(|module:|href=|src=|src:) ?"(/|\.\.?/)([\w./-]+\.(?:js|css|svg))\"""")
    for file in (*STATIC.rglob("*.js"), STATIC / "index.html"):
        for start, name in loads.findall(file.read_text()):
            path = STATIC / name if start == "/" else file.parent / start / name
            assert path.is_file(), f"{file.name}: {name}"


def test_with_the_networks_own_attention_what_if_gives_the_networks_answer(shared: Client) -> None:
    clip = clip_of(shared, queue(shared)[0]["id"])
    for attention in ({"temporal": "original"}, {"temporal": "edited", "scores": clip["temporal"]}):
        answer = shared.post("/api/what-if", json={"id": clip["id"], "spatial": "original", **attention}).json()
        np.testing.assert_allclose(answer["probabilities"], clip["probabilities"], atol=2e-5)


def test_what_if_gives_what_a_whole_forward_with_that_attention_gives(shared: Client) -> None:
    clip, studio = clip_of(shared, queue(shared)[0]["id"]), shared.studio
    model, preprocessing = studio.viewer.model, studio.viewer.preprocessing
    path = next(c.path for c in studio.catalogue.project.clips if c.clip_id == clip["id"])
    view = preprocessing.test_view(read_clip(path, clip["frame_indices"]).frames)[None]
    scores = torch.linspace(0, 1, FRAMES)
    with torch.inference_mode():
        features = model.encode(view)
        attention, _ = model.attend(features)
        changed = type(attention)(1 - attention.spatial, scores[None])
        expected = model.perceive(features, changed)[0].softmax(0).numpy()
    request = {"id": clip["id"], "temporal": "edited", "scores": scores.tolist(), "spatial": "inverse"}
    answer = shared.post("/api/what-if", json=request).json()
    np.testing.assert_allclose(answer["probabilities"], expected, atol=2e-5)
    assert not np.allclose(answer["probabilities"], clip["probabilities"], atol=1e-4)


def test_an_edit_reaches_the_file_undo_survives_and_a_retried_request_counts_once(client: Client) -> None:
    clip_id = queue(client)[0]["id"]
    first = change(client, clip_id, ONES, "request-1")
    assert change(client, clip_id, ONES, "request-1") == first
    change(client, clip_id, HALF, "request-2")
    change(client, clip_id, ONES, "request-3", kind="undo", comment="the cup moves")
    history = clip_of(client, clip_id)["history"]
    assert (history["scores"], history["done"], history["undone"]) == (ONES, [None], [HALF])
    client.studio.edits_file.close()
    edit = open_project(client.studio.catalogue.project.folder).edits()[clip_id]  # as every other verb reads it
    assert (edit.scores, edit.author, edit.comment) == ((1.0,) * FRAMES, "Ann", "the cup moves")


def test_two_people_are_both_kept_and_their_agreement_is_reported(client: Client) -> None:
    clip_id = queue(client)[0]["id"]
    rising = [j / (FRAMES - 1) for j in range(FRAMES)]
    change(client, clip_id, rising, "request-1")
    change(client, clip_id, rising[::-1], "request-2", author="Bo")
    clip = clip_of(client, clip_id)
    assert [edit["author"] for edit in clip["edits"]] == ["Ann", "Bo"]
    assert clip["agreement"] == pytest.approx(krippendorff_alpha(np.array([rising, rising[::-1]])))
    people = client.get("/api/people").json()
    assert people["people"] == [{"name": "Ann", "clips": 1}, {"name": "Bo", "clips": 1}]
    assert people["agreement"]["project"] == clip["agreement"] == people["agreement"]["clips"][0]["alpha"]
    assert people["choices"] == ["latest", "mean", "median", "author:Ann", "author:Bo"]


def test_what_fine_tuning_uses_is_kept(client: Client) -> None:
    change(client, queue(client)[0]["id"], ONES, "request-1")
    assert client.get("/api/session").json()["use"] == "latest"
    assert client.put("/api/use", json={"use": "author:Ann", "author": "Bo"}).status_code == 200
    assert client.get("/api/session").json()["use"] == "author:Ann"
    for wrong in ("author:Cy", "most", "author:", ""):
        assert client.put("/api/use", json={"use": wrong, "author": "Bo"}).status_code == 400


def test_a_training_clip_joins_the_queue_when_somebody_corrects_it(client: Client) -> None:
    clip_id = uncollected(client, "train")
    clip = clip_of(client, clip_id)
    assert (clip["source"], clip["editable"]) == ("data", True)
    change(client, clip_id, ONES, "request-1")
    assert clip_id in [c["id"] for c in queue(client)]
    client.studio.edits_file.close()
    project = open_project(client.studio.catalogue.project.folder)
    assert project.edits()[clip_id].frame_indices == tuple(clip["frame_indices"])
    again = clip_of(client, clip_id)
    assert again["source"] == "queue"
    assert (again["temporal"], again["spatial"]) == (clip["temporal"], clip["spatial"])


def test_validation_clips_can_be_looked_at_but_not_corrected(client: Client) -> None:
    clip_id = uncollected(client, "validation")
    clip = clip_of(client, clip_id)
    assert not clip["editable"]
    assert "measure" in clip["why_not"]
    body = {"id": clip_id, "author": "Ann", "request": "request-1", "kind": "paint", "scores": ONES}
    assert client.post("/api/edit", json=body).status_code == 400
    assert client.get("/api/people").json()["people"] == []


def test_a_clip_that_was_not_collected_is_seen_as_explain_sees_it(shared: Client) -> None:
    clip, studio = clip_of(shared, uncollected(shared, "validation")), shared.studio
    path = studio.catalogue.clip(clip["id"]).path
    record, _ = explain_video(studio.viewer.model, studio.viewer.preprocessing, path, studio.catalogue.class_names)
    np.testing.assert_allclose(clip["temporal"], record.temporal, atol=1e-5)
    assert clip["frame_indices"] == record.frame_indices.tolist()
    assert clip["crop"] == list(record.crop)


def test_an_uploaded_video_is_opened_and_removed_and_only_the_last_are_kept(client: Client, film: bytes) -> None:
    name = "../<script>alert(1)</script>.mp4"
    answer = client.post("/api/uploads", params={"name": name}, content=film)
    clip = clip_of(client, answer.json()["id"])
    assert (clip["label"], clip["split"], clip["source"], clip["editable"]) == (None, None, "upload", False)
    assert "<script>" in clip["name"]
    assert len(list(client.studio.uploads.iterdir())) == 1
    assert client.delete("/api/uploads", params={"id": clip["id"]}).status_code == 200
    assert list(client.studio.uploads.iterdir()) == []
    ids = [client.post("/api/uploads", content=film).json()["id"] for _ in range(6)]
    assert len(list(client.studio.uploads.iterdir())) == 4
    for clip_id, status in ((clip["id"], 404), (ids[0], 404), (ids[-1], 200)):
        assert client.get("/api/clip", params={"id": clip_id}).status_code == status


NO_VIDEOS = (
    b"",
    b"PK\x03\x04" + bytes(200),
    b"#EXTM3U\nfile:///etc/passwd\n",
    b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    bytes(5000),
)


def test_uploads_that_are_no_videos_are_refused_by_decoding_and_removed(shared: Client) -> None:
    for content in NO_VIDEOS:
        answer = shared.post("/api/uploads", params={"name": "film.mp4"}, content=content)
        check_refused(answer, 422, "film.mp4")
        assert str(shared.studio.uploads) not in answer.json()["error"]
        assert list(shared.studio.uploads.iterdir()) == []


def test_a_missing_video_is_reported_and_does_not_stop_the_studio(client: Client) -> None:
    clip_id = uncollected(client, "validation")
    path = client.studio.catalogue.clip(clip_id).path
    away = path.rename(path.with_suffix(".away"))
    try:
        check_refused(client.get("/api/clip", params={"id": clip_id}), 400, path.name)
    finally:
        away.rename(path)
    assert client.get("/api/clip", params={"id": clip_id}).status_code == 200


@pytest.mark.parametrize("format", ["jsonl", "csv", "label-studio"])
def test_exported_edits_can_be_imported_again(client: Client, format: str) -> None:
    first, second = (clip["id"] for clip in queue(client)[:2])
    change(client, first, ONES, "request-1", comment='=HYPERLINK("x"), <b>&\n"')
    change(client, second, [0.123] * FRAMES, "request-2", author="Bo <script>")
    answer = client.get("/api/export", params={"format": format})
    assert "attachment" in answer.headers["content-disposition"]
    send = {"params": {"format": format}, "content": answer.content}
    assert client.post("/api/import", **send).json() == {"imported": 0, "unchanged": 2}
    before = {(e.clip_id, e.author): (e.scores, e.comment) for e in client.studio.store.current()}
    change(client, first, HALF, "request-3")
    assert client.post("/api/import", **send).json() == {"imported": 1, "unchanged": 1}
    assert {(e.clip_id, e.author): (e.scores, e.comment) for e in client.studio.store.current()} == before


def test_a_wrong_import_changes_nothing(client: Client) -> None:
    clip_id = queue(client)[0]["id"]
    change(client, clip_id, ONES, "request-1")
    good = client.get("/api/export", params={"format": "jsonl"}).text
    bad = json.dumps(json.loads(good) | {"scores": [2.0] * FRAMES, "author": "Bo"})
    for content in (good.replace("Ann", "Cy") + bad, "not json", b"\xff\xfe", good.replace(clip_id, "../x")):
        answer = client.post("/api/import", params={"format": "jsonl", "name": "bo.jsonl"}, content=content)
        check_refused(answer, (400, 422), "bo.jsonl")
    assert [edit.author for edit in client.studio.store.current()] == ["Ann"]


RIGHT: dict[str, dict] = {
    "what-if": {"temporal": "original", "spatial": "original"},
    "edit": {"author": "Ann", "request": "request-1", "kind": "paint", "scores": ONES},
    "jobs": {"author": "Ann"},
}
WRONG: dict[str, list[dict]] = {
    "what-if": [
        *({"temporal": "edited", "scores": scores} for scores in (None, [0.5], [1.5] * FRAMES, ["a"] * FRAMES)),
        {"temporal": "backwards"},
        {"spatial": "edited"},
        {"unknown": 1},
    ],
    "edit": [
        *({"scores": scores} for scores in (None, [1.0], [1e9] * FRAMES, ["1"] * FRAMES, [True] * FRAMES)),
        *({"author": author} for author in ("", " ", "x" * 81, "a\nb")),
        *({"request": name} for name in ("short", "../../../etc", "request 1", "request-1\n", "r" * 65)),
        *({"kind": kind} for kind in ("import", "use")),
        {"comment": "x" * 3000},
        {"extra": 1},
    ],
    "jobs": [{"author": ""}, {"epochs": 0}, {"epochs": 1.5}, {"gamma": 0}, {"gamma": "NaN"}, {"gamma": "inf"}],
}


@pytest.mark.parametrize(("path", "wrong"), [(path, wrong) for path, cases in WRONG.items() for wrong in cases])
def test_nonsense_is_refused_by_field_in_one_line(shared: Client, path: str, wrong: dict) -> None:
    clip = {} if path == "jobs" else {"id": queue(shared)[0]["id"]}
    answer = shared.post(f"/api/{path}", json=clip | RIGHT[path] | wrong)
    check_refused(answer, 422, "scores" if "scores" in wrong else next(iter(wrong)))
    assert shared.studio.store.current() == ()
    assert shared.studio.jobs.list() == []


def test_edits_made_by_hand_before_the_studio_started_are_there(client: Client) -> None:
    folder = client.studio.catalogue.project.folder
    clip = client.studio.catalogue.project.clips[0]
    client.studio.edits_file.close()
    open_project(folder).add([clip.edit(ONES, author="by hand", time="2026-01-31T09:30:00+00:00")])
    client.studio.edits_file.pull()
    assert [e["author"] for e in clip_of(client, clip.clip_id)["edits"]] == ["by hand"]
    assert len(read_edits(folder / "edits.jsonl")) == 1
