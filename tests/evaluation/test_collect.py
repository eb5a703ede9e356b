import re

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_run import FRAMES, lines

from stabn.data.dataset import VideoDataset
from stabn.edits.project import open_project
from stabn.errors import UserError
from stabn.evaluation.collect import collect_project
from stabn.evaluation.predict import predict
from stabn.runs import network_preprocessing, open_run


def test_collect_takes_exactly_the_misrecognised_training_clips_of_the_weak_classes(run, tmp_path):
    found = collect_project(run, tmp_path / "p", bound=0.6)
    model = run.model()
    samples = run.source.table().of_split("train")
    answers = predict(model, VideoDataset(samples, network_preprocessing(model, "r"), class_names=model.class_names))
    expected = set()
    for k in range(14):
        of_class = answers.labels == k
        if answers.correct[of_class].mean() < 0.6:
            expected |= {samples[i].clip_id for i in np.flatnonzero(of_class & ~answers.correct)}
    project = open_project(tmp_path / "p")
    assert {clip.clip_id for clip in project.clips} == expected
    assert found["collected"] == len(expected) > 0
    assert project.edits() == {}
    assert {c["name"] for c in found["classes"]} == set(project.classes)
    arrays = load_file(tmp_path / "p" / "attention.safetensors")
    entries = lines(tmp_path / "p" / "clips.jsonl")
    assert arrays["temporal"].shape == (len(entries), FRAMES)
    assert np.allclose(arrays["temporal"], [e["temporal_attention"] for e in entries], atol=1e-5)
    assert all(e["label"] != e["predicted"] for e in entries)


def test_a_limit_takes_clips_evenly_from_the_weak_classes(run, tmp_path):
    found = collect_project(run, tmp_path / "p", bound=1.0, max_clips=5)
    assert sum(c["collected"] for c in found["classes"]) == found["collected"] == 5
    assert max(c["collected"] for c in found["classes"]) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bound": 0.0}, "--bound: got 0.0"),
        ({"bound": 1.5}, "--bound"),
        ({"max_clips": 0}, "--max_clips: got 0"),
        ({"weakest": 0}, "--weakest: got 0"),
    ],
)
def test_impossible_collections_are_refused(run, tmp_path, options, told):
    with pytest.raises(UserError, match=told):
        collect_project(run, tmp_path / "p", **options)
    assert not (tmp_path / "p").exists()


def test_the_plain_network_and_a_full_folder_are_refused(run, plain, tmp_path):
    with pytest.raises(UserError, match=re.escape(str(plain))):
        collect_project(open_run(plain), tmp_path / "p")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "edits.jsonl").write_text("precious")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "p"))):
        collect_project(run, tmp_path / "p")


@pytest.mark.parametrize(
    ("damaged", "text"), [("project.json", None), ("project.json", '{"format": "other"}'), ("clips.jsonl", "{}\n")]
)
def test_a_folder_that_is_no_project_is_refused(run, tmp_path, damaged, text):
    collect_project(run, tmp_path / "p", bound=1.0, max_clips=2)
    file = tmp_path / "p" / damaged
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(UserError, match=r"stabn collect"):
        open_project(tmp_path / "p")


def test_the_weakest_classes_are_collected_whatever_the_bound(run, tmp_path):
    found = collect_project(run, tmp_path / "project", bound=0.01, weakest=3)
    everything = collect_project(run, tmp_path / "all", weakest=14)
    assert len(found["classes"]) == 3
    worst = sorted(entry["top1"] for entry in everything["classes"])[:3]
    assert sorted(entry["top1"] for entry in found["classes"]) == worst


def test_recognised_clips_are_collected_as_a_control(run, tmp_path):
    collect_project(run, tmp_path / "right", weakest=14, recognised=True)
    collect_project(run, tmp_path / "wrong", weakest=14)
    right, wrong = (open_project(tmp_path / name).clips for name in ("right", "wrong"))
    assert all(clip.predicted == clip.label for clip in right)
    assert all(clip.predicted != clip.label for clip in wrong)
    assert len(right) + len(wrong) == 28
