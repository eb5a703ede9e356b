import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from stabn.evaluation.predict import Predictions
from stabn.nn import load_pretrained
from stabn.records import Edit
from stabn.runs import open_run
from stabn.studio.jobs import outcome
from stabn.studio.jobs.outcome import has_outcome, measure_outcome, read_clip_outcome, read_outcome
from stabn.studio.not_found import NotFoundError


@pytest.fixture
def stubborn(trained, tmp_path):
    """Makes a run whose network answers one class, whatever it sees."""

    def make(name: str, label: int):
        folder = shutil.copytree(trained, tmp_path / name)
        model = load_pretrained(folder)
        with torch.no_grad():
            model.backbone.fc.bias[label] += 100
        model.save_pretrained(folder)
        return open_run(folder)

    return make


def test_mended_and_newly_wrong_clips_are_those_of_the_class_given_up_and_of_the_one_taken(stubborn, tmp_path):
    runs = {"before": stubborn("before", 3), "fine-tuned": stubborn("fine-tuned", 5)}
    table = runs["before"].source.table()
    clips = {
        label: [sample.clip_id for sample in table.of_split("validation") if sample.label == label] for label in (3, 5)
    }
    assert clips[3]
    assert clips[5]
    edited = table.of_split("train")[0]
    frames = tuple(range(3, 11))  # not those that the network would choose
    edit = Edit(edited.clip_id, frames, (0.5,) * 8, (0.25,) * 8, "Ann", "2026-01-31T09:30:00+00:00")
    assert not has_outcome(tmp_path)
    measure_outcome(tmp_path, runs, {edited.clip_id: edit})
    assert has_outcome(tmp_path)
    outcome_json = read_outcome(tmp_path)
    assert [row["id"] for row in outcome_json["mended"]] == clips[5]
    assert [row["id"] for row in outcome_json["newly_wrong"]] == clips[3]
    assert outcome_json["newly_wrong"][0] == {
        "id": clips[3][0],
        "label": table.class_names[3],
        "before": {"predicted": table.class_names[3], "confidence": 1.0},
        "after": {"predicted": table.class_names[5], "confidence": 1.0},
        "control": None,
    }
    before, after = outcome_json["methods"]
    assert (before["mended"], before["newly_wrong"]) == (0, 0)
    assert (after["mended"], after["newly_wrong"]) == (len(clips[5]), len(clips[3]))
    assert after["top1"] == pytest.approx(len(clips[5]) / 14, abs=1e-6)
    assert after["mean_class_accuracy"]["mean"] == pytest.approx(1 / 14, abs=1e-6)
    assert outcome_json["difference"] is None
    clip = read_clip_outcome(tmp_path, edited.clip_id)
    assert clip["frame_indices"] == list(frames)
    assert clip["edited"] == [0.25] * 8
    with pytest.raises(NotFoundError):
        read_clip_outcome(tmp_path, table.of_split("train")[1].clip_id)


def test_of_many_changed_clips_those_that_changed_most_are_kept_and_all_are_counted(stubborn, tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "MAX_CLIPS", 1)
    runs = {"before": stubborn("before", 0), "control": stubborn("control", 2), "fine-tuned": stubborn("fine-tuned", 1)}
    table = runs["before"].source.table()
    answers = {name: predictions(row) for name, row in ANSWERS.items()}
    ids = tuple(sample.clip_id for sample in table.of_split("validation"))
    answers = {name: replace(answer, clip_ids=ids[: len(answer.clip_ids)]) for name, answer in answers.items()}
    monkeypatch.setattr(outcome, "predict_split", lambda run, split: (answers[run.folder.name], ()))
    edited = table.of_split("train")[:2]
    edits = {s.clip_id: Edit(s.clip_id, tuple(range(8)), (0.0,) * 8, (1.0,) * 8, "Ann", TIME) for s in edited}
    measure_outcome(tmp_path, runs, edits)
    outcome_json = read_outcome(tmp_path)
    validation = table.of_split("validation")
    # Of clips 0 and 1, which are mended, 1 gained more; of 2 and 3, which are newly wrong, 2 lost more.
    assert [row["id"] for row in outcome_json["mended"]] == [validation[1].clip_id]
    assert [row["id"] for row in outcome_json["newly_wrong"]] == [validation[2].clip_id]
    assert [row["id"] for row in outcome_json["edited_clips"]] == [edited[0].clip_id]
    assert (outcome_json["methods"][2]["mended"], outcome_json["methods"][2]["newly_wrong"]) == (2, 2)
    (note,) = outcome_json["notes"]
    assert note.startswith("split validation: no clips of 13 of 14 classes")
    # The control mended the same two and broke none: 4 of 5 right, and fine-tuned 2 of 5.
    assert outcome_json["difference"]["points"] == pytest.approx(-0.4)
    assert outcome_json["difference"]["verdict"].startswith("This run cannot tell fine-tuned from control")


TIME = "2026-01-31T09:30:00+00:00"
ANSWERS = {  # probability of the true class, of two
    "before": (0.4, 0.1, 0.9, 0.6, 0.2),
    "control": (0.7, 0.7, 0.9, 0.6, 0.2),
    "fine-tuned": (0.6, 0.9, 0.1, 0.4, 0.2),
}


def predictions(right: tuple[float, ...]) -> Predictions:
    """Answers for clips whose true class is the first."""
    share = np.array(right, dtype=np.float32)
    probabilities = np.stack([share, 1 - share], axis=1)
    ids = tuple(str(number) for number in range(len(right)))
    return Predictions(ids, np.zeros(len(right), np.int64), probabilities, None, None, None, None, None)
