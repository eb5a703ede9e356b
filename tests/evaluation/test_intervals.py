import math

import numpy as np
import pytest

from stabn.evaluation.intervals import bootstrap_interval, paired_interval


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


@pytest.mark.parametrize(
    ("values", "told"),
    [([], r"values: .*\(0,\)"), ([[1.0]], r"values: .*\(1, 1\)"), ([1.0, float("nan")], "NaN")],
)
def test_what_has_no_interval_is_refused(values, told):
    with pytest.raises(ValueError, match=told):
        bootstrap_interval(np.array(values))
    with pytest.raises(ValueError, match=r"b: .*\(2,\).*\(3,\)"):
        paired_interval(np.zeros(3), np.zeros(2))
