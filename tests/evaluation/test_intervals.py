import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_recall

from stabn.evaluation.intervals import bootstrap_interval, mean_class_interval, paired_interval


def test_the_interval_is_about_as_wide_as_the_normal_distribution_says():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_a_constant_has_an_interval_without_width_and_the_same_seed_gives_the_same():
    assert bootstrap_interval(np.full(5, 0.25)).as_json() == {"mean": 0.25, "low": 0.25, "high": 0.25}
    values = np.arange(10.0)
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_pairing_takes_what_clips_have_in_common_out_of_the_interval():
    clips = np.random.default_rng(2).normal(0, 10, 50)
    found = paired_interval(clips + 1, clips)
    assert found.mean == pytest.approx(1)
    assert found.high - found.low < 1e-9
    assert found.excludes_zero
    assert not paired_interval(clips, clips).excludes_zero


def test_the_mean_over_classes_has_the_interval_of_a_mean_of_independent_means():
    rng = np.random.default_rng(3)
    common, rare = rng.random(400) < 0.9, rng.random(40) < 0.5
    values, labels = np.r_[common, rare, True], np.repeat([4, 0, 7], [400, 40, 1])
    found = mean_class_interval(values, labels)
    truth = torch.tensor([0] * 400 + [1] * 40 + [2])
    answers = torch.where(torch.tensor(values), truth, (truth + 1) % 3)
    assert found.mean == pytest.approx(float(multiclass_recall(answers, truth, 3)))
    half = 1.96 / 3 * math.sqrt(common.var() / 400 + rare.var() / 40)  # the class of one clip adds none
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert mean_class_interval(np.ones(2), np.arange(2)).as_json() == {"mean": 1.0, "low": 1.0, "high": 1.0}
    with pytest.raises(ValueError, match=r"values: got shape \(2,\)"):
        mean_class_interval(np.ones(2), np.zeros(3))


@pytest.mark.parametrize(
    ("values", "told"),
    [([], r"values: .*\(0,\)"), ([[1.0]], r"values: .*\(1, 1\)"), ([1.0, float("nan")], "NaN")],
)
def test_what_has_no_interval_is_refused(values, told):
    with pytest.raises(ValueError, match=told):
        bootstrap_interval(np.array(values))
    with pytest.raises(ValueError, match=r"b: .*\(2,\).*\(3,\)"):
        paired_interval(np.zeros(3), np.zeros(2))
