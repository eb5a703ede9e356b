import numpy as np
import pytest
import torch

from stabn.data.datasets import VideoDataset
from stabn.errors import UserError
from stabn.evaluation.accuracy import accuracy
from stabn.evaluation.comparison import Contestant, compare, frame_average_precision
from stabn.evaluation.predict import Predictions, predict
from stabn.nn import load_pretrained
from stabn.runs import open_run, preprocessing_of

NAMES = ("a", "b", "c")


def predictions(labels, answers, **changes) -> Predictions:
    values = {
        "clip_ids": tuple(str(i) for i in range(len(labels))),
        "labels": np.array(labels),
        "probabilities": np.eye(3, dtype=np.float32)[list(answers)],
        "attention_probabilities": None,
        "temporal": None,
        "spatial": None,
        "frame_indices": None,
        "timestamps": None,
    }
    return Predictions(**values | changes)


def test_accuracy_is_what_one_counts_by_hand():
    figures = accuracy(predictions([0, 0, 1, 1], [0, 1, 1, 1]), NAMES)
    assert figures["perception"] == {"top1": 0.75, "top5": 1.0}
    assert figures["attention_branch"] is None
    assert [c["top1"] for c in figures["classes"]] == [0.5, 1.0, None]
    assert figures["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert [p["correct"] for p in figures["predictions"]] == [True, False, True, True]
    assert figures["predictions"][1]["predicted"] == "b"


def test_top5_counts_the_truth_among_the_five_most_probable():
    rows = np.tile(np.linspace(0.3, 0.1, 8, dtype=np.float32), (2, 1))
    given = predictions([4, 5], [0, 0], probabilities=rows)
    assert accuracy(given, tuple("abcdefgh"))["perception"] == {"top1": 0.0, "top5": 0.5}


def test_predictions_are_those_of_the_network_clip_by_clip(trained):
    run = open_run(trained)
    model = run.model()
    samples = run.source.table().of_split("validation")
    dataset = VideoDataset(samples, preprocessing_of(model, "run"), class_names=model.class_names)
    answers = predict(model, dataset, batch_size=3, keep_maps=True)
    assert answers.clip_ids == tuple(s.clip_id for s in samples)
    with torch.inference_mode():
        for row in (0, 5, 13):
            output = model(dataset[row].clips)
            assert np.allclose(answers.probabilities[row], output.logits.softmax(1)[0], atol=1e-5)
            assert np.allclose(answers.temporal[row], output.attention.temporal[0], atol=1e-5)
            assert np.allclose(answers.spatial[row], output.attention.spatial[0], atol=1e-5)


def test_several_windows_average_their_softmax_scores(trained):
    run = open_run(trained)
    model = run.model()
    samples = run.source.table().of_split("validation")[:4]
    common = {"class_names": model.class_names, "clips": 3}
    dataset = VideoDataset(samples, preprocessing_of(model, "run"), **common)
    answers = predict(model, dataset, batch_size=3)
    assert answers.temporal is None
    with torch.inference_mode():
        for row in range(4):
            expected = model(dataset[row].clips).logits.softmax(1).mean(0)
            assert np.allclose(answers.probabilities[row], expected, atol=1e-5)


def test_inverse_spatial_attention_is_equation_7(trained):
    run = open_run(trained)
    model = run.model()
    dataset = VideoDataset(
        run.source.table().of_split("validation")[:5], preprocessing_of(model, "run"), class_names=model.class_names
    )
    as_is, inverse = (predict(model, dataset, attention=name, keep_maps=True) for name in ("as-is", "inverse-spatial"))
    assert np.allclose(inverse.spatial, 1 - as_is.spatial, atol=1e-6)
    assert not np.allclose(inverse.probabilities, as_is.probabilities, atol=1e-6)
    with torch.inference_mode():
        features = model.encode(dataset[0].clips)
        attention, _ = model.attend(features)
        expected = model.perceive(features, attention.inverse_spatial()).softmax(1)
    assert np.allclose(inverse.probabilities[0], expected[0], atol=1e-5)


def test_the_plain_network_answers_but_has_no_attention_to_change(plain):
    run = open_run(plain)
    model = load_pretrained(plain)
    dataset = VideoDataset(
        run.source.table().of_split("validation")[:3], preprocessing_of(model, "run"), class_names=model.class_names
    )
    assert predict(model, dataset).attention_probabilities is None
    with pytest.raises(UserError, match="plain network"):
        predict(model, dataset, attention="inverse-spatial")


def test_a_comparison_counts_mended_and_newly_wrong_clips_and_splits_the_classes():
    labels = [0] * 4 + [1] * 4
    before = Contestant("before", predictions(labels, [1, 1, 0, 0, 1, 1, 1, 0]))
    after = Contestant("after", predictions(labels, [0, 0, 0, 1, 1, 1, 1, 0]))
    found = compare([before, after], NAMES, ["a"])
    assert [m["all"]["top1"] for m in found["methods"]] == [0.625, 0.75]
    assert [m["edited classes"]["top1"] for m in found["methods"]] == [0.5, 0.75]
    assert [m["other classes"]["top1"] for m in found["methods"]] == [0.75, 0.75]
    assert (found["methods"][1]["mended"], found["methods"][1]["newly_wrong"]) == (2, 1)
    assert found["difference"]["all"]["points"] == pytest.approx(0.125)
    assert "cannot tell" in found["verdict"]
    for method in found["methods"]:
        assert method["all"]["low"] <= method["all"]["top1"] <= method["all"]["high"]


def test_a_verdict_claims_a_gain_only_where_the_interval_excludes_none():
    labels = [0, 1] * 50
    wrong = Contestant("control", predictions(labels, [2] * 100))
    right = Contestant("after", predictions(labels, labels))
    assert "after is better than control" in compare([wrong, right], NAMES, ["a"], control="control")["verdict"]
    assert "worse" in compare([right, wrong], NAMES, ["a"])["verdict"]
    assert "cannot tell" in compare([wrong, wrong], NAMES, ["a"])["verdict"]
    assert compare([wrong, right], NAMES, ["a", "b"])["methods"][0]["other classes"] is None


def test_answers_about_different_clips_are_not_compared():
    one = Contestant("one", predictions([0, 1], [0, 1]))
    other = Contestant("other", predictions([0, 1, 2], [0, 1, 2]))
    with pytest.raises(ValueError, match="other clips"):
        compare([one, other], NAMES, ["a"])


def test_frame_average_precision_is_one_for_the_right_order_and_computed_by_hand_otherwise():
    truth = {"0": (0.0, 1.0, 0.5, 1.0), "1": (0.0, 0.0, 0.0, 0.0)}
    frames = np.tile(np.arange(4), (2, 1))
    good = predictions([0, 0], [0, 0], temporal=np.array([[0.1, 0.9, 0.2, 0.8]] * 2, np.float32), frame_indices=frames)
    poor = predictions([0, 0], [0, 0], temporal=np.array([[0.9, 0.8, 0.7, 0.1]] * 2, np.float32), frame_indices=frames)
    assert frame_average_precision(good, truth) == pytest.approx(1.0)
    assert frame_average_precision(poor, truth) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert frame_average_precision(good, {}) is None
    assert frame_average_precision(predictions([0], [0]), truth) is None
