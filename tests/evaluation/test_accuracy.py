import math
import re

import numpy as np
import pytest
import torch
from hand_made import NAMES, predictions, sure
from torchmetrics.functional.classification import multiclass_calibration_error

from stabn.cli.printing import print_accuracy
from stabn.errors import UserError
from stabn.evaluation.accuracy import accuracy
from stabn.evaluation.calibration import calibration
from stabn.evaluation.predict import predict, split_dataset
from stabn.runs import open_run


def test_accuracy_is_what_one_counts_by_hand():
    figures = accuracy(predictions([0, 0, 0, 1], [0, 0, 1, 1]), NAMES, split="test")
    # Class c has no clips and counts nowhere: (2 / 3 + 1 / 1) / 2.
    assert figures["perception"] == {"top1": 0.75, "top5": 1.0, "mean_class_accuracy": 0.833333}
    assert figures["attention_branch"] is None
    assert [c["top1"] for c in figures["classes"]] == [0.666667, 1.0, None]
    assert figures["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert [p["correct"] for p in figures["predictions"]] == [True, True, False, True]
    assert figures["predictions"][2]["predicted"] == "b"


def test_an_evaluation_says_which_classes_lack_clips_and_whether_a_trivial_network_is_as_good(capsys):
    given = predictions([0, 0, 0, 1], [0, 0, 0, 0])
    figures = accuracy(given, NAMES, split="test", training=np.array([5, 0, 1]))
    assert figures["majority"] == {"class": "a", "top1": 0.75, "mean_class_accuracy": 0.5}
    starts = ["split train: no clips of 1 of 3 classes (b)", "split test: no clips of 1 of 3 classes (c)"]
    starts += ["split train: a single clip of 1 of 3 classes (c)", "split test: a single clip of 1 of 3 classes (b)"]
    starts += ["split test: top-1 75.0% is not above 75.0%", "split test: mean class accuracy 50.0% is not above 50.0%"]
    assert [note.startswith(start) for note, start in zip(figures["notes"], starts, strict=True)] == [True] * 6
    print_accuracy(figures)
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("top-1 of 2 of 3 classes", "mean class accuracy", *figures["notes"]))
    whole = accuracy(predictions([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2]), NAMES, split="test")
    assert whole["notes"] == []


def test_top5_counts_the_truth_among_the_five_most_probable():
    rows = np.tile(np.linspace(0.3, 0.1, 8, dtype=np.float32), (2, 1))
    given = predictions([4, 5], [0, 0], probabilities=rows)
    assert accuracy(given, tuple("abcdefgh"), split="test")["perception"]["top5"] == 0.5


@pytest.fixture
def network(trained):
    """Makes the trained network and the first validation clips."""

    def make(folder=trained, count=None, **options):
        model, _, dataset = split_dataset(open_run(folder), "validation", **options)
        return model, dataset.subset(dataset.samples[:count])

    return make


@pytest.mark.parametrize("tensor", ["backbone.fc.weight", "conv_temp_att3.0.weight"])
def test_answers_that_are_no_numbers_are_refused(network, tensor):
    model, dataset = network()
    model.get_parameter(tensor).data.fill_(torch.nan)
    with pytest.raises(UserError, match=re.escape("--engine.precision 32-true")):
        predict(model, dataset)


def test_a_negative_seed_is_refused(trained, one_line):
    told = one_line("evaluate", trained, "--attention", "shuffled-spatial", "--seed", -1)
    assert told.startswith("stabn evaluate: error: --seed: got -1,")


def test_predictions_are_those_of_the_network_clip_by_clip(network):
    model, dataset = network()
    answers = predict(model, dataset, batch_size=3, keep_maps=True)
    assert answers.clip_ids == tuple(s.clip_id for s in dataset.samples)
    with torch.inference_mode():
        for row in (0, 5, 13):
            output = model(dataset[row].clips)
            assert np.allclose(answers.probabilities[row], output.logits.softmax(1)[0], atol=1e-5)
            assert np.allclose(answers.temporal[row], output.attention.temporal[0], atol=1e-5)
            assert np.allclose(answers.spatial[row], output.attention.spatial[0], atol=1e-5)


def test_several_windows_average_their_softmax_scores(network):
    model, dataset = network(count=4, clips=3)
    answers = predict(model, dataset, batch_size=3)
    assert answers.temporal is None
    with torch.inference_mode():
        for row in range(4):
            expected = model(dataset[row].clips).logits.softmax(1).mean(0)
            assert np.allclose(answers.probabilities[row], expected, atol=1e-5)


def test_inverse_spatial_attention_is_equation_7(network):
    model, dataset = network(count=5)
    as_is, inverse = (predict(model, dataset, attention=name, keep_maps=True) for name in ("as-is", "inverse-spatial"))
    assert np.allclose(inverse.spatial, 1 - as_is.spatial, atol=1e-6)
    assert not np.allclose(inverse.probabilities, as_is.probabilities, atol=1e-6)
    with torch.inference_mode():
        features = model.encode(dataset[0].clips)
        attention, _ = model.attend(features)
        expected = model.perceive(features, attention.inverse_spatial()).softmax(1)
    assert np.allclose(inverse.probabilities[0], expected[0], atol=1e-5)


def test_the_plain_network_answers_but_has_no_attention_to_change(network, plain):
    model, dataset = network(plain, count=3)
    assert predict(model, dataset).attention_probabilities is None
    with pytest.raises(UserError, match="'inverse-spatial'"):
        predict(model, dataset, attention="inverse-spatial")


def test_intervals_are_those_of_the_binomial_distribution_that_resampling_clips_is():
    labels = [0] * 40 + [1] * 60
    answers = [0] * 10 + [1] * 30 + [1] * 45 + [2] * 15
    given = predictions(labels, answers, attention_probabilities=np.eye(3, dtype=np.float32)[labels])
    figures = accuracy(given, NAMES, split="test")
    for count, share, found in (
        (100, 0.55, figures["intervals"]["perception"]["top1"]),
        (40, 0.25, figures["classes"][0]),
        (60, 0.75, figures["classes"][1]),
    ):
        cumulated = np.cumsum([math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)])
        low, high = (int(np.searchsorted(cumulated, level)) / count for level in (0.025, 0.975))
        assert found["low"] == pytest.approx(low, abs=1.01 / count)
        assert found["high"] == pytest.approx(high, abs=1.01 / count)
    assert figures["classes"][2] == {"name": "c", "count": 0, "top1": None, "low": None, "high": None}
    assert figures["intervals"]["attention_branch"]["top1"] == {"low": 1.0, "high": 1.0}
    assert accuracy(predictions([0], [0]), NAMES, split="test")["intervals"]["attention_branch"] is None


def test_the_calibration_error_is_what_one_computes_by_hand():
    rows = sure([0.9, 0.9, 0.62, 0.62], [0, 1, 2, 2])
    found = calibration(rows, np.array([0, 0, 2, 2]))
    assert found["error"] == pytest.approx(0.5 * abs(0.5 - 0.9) + 0.5 * abs(1 - 0.62), abs=1e-6)
    filled = {number: b for number, b in enumerate(found["bins"]) if b["count"]}
    assert list(filled) == [9, 13]
    assert (filled[9]["count"], filled[9]["accuracy"], filled[9]["confidence"]) == (2, 1.0, pytest.approx(0.62))
    assert (filled[13]["count"], filled[13]["accuracy"], filled[13]["confidence"]) == (2, 0.5, pytest.approx(0.9))
    assert found["bins"][0] == {"low": 0.0, "high": 0.066667, "count": 0, "confidence": None, "accuracy": None}


def test_a_certain_answer_belongs_to_the_last_bin():
    found = calibration(sure([1.0, 0.96], [0, 0]), np.array([0, 1]))
    assert found["bins"][14]["count"] == 2
    assert found["error"] == pytest.approx(abs(0.5 - 0.98), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_is_that_of_torchmetrics(seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.5] * 6, 200).astype(np.float32)
    labels = rng.integers(0, 6, 200)
    expected = multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(labels), 6, n_bins=15)
    assert calibration(probabilities, labels)["error"] == pytest.approx(float(expected), abs=1e-5)


def test_the_calibration_interval_covers_the_error_of_the_many_clips_that_the_few_are_of():
    covered = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.4, 0.99, 300).astype(np.float32)
        right = rng.random(300) < confidence - 0.2  # sure of itself by 20 points too many
        found = calibration(sure(confidence, np.zeros(300, int)), np.where(right, 0, 1))
        covered += found["low"] <= 0.2 <= found["high"]
        assert 0 <= found["low"] <= found["error"] <= found["high"] <= 1
    assert covered >= 17


def test_calibration_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        calibration(np.zeros((0, 3), np.float32), np.zeros(0, int))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3,\)"):
        calibration(np.ones((2, 3), np.float32), np.zeros(3, int))
