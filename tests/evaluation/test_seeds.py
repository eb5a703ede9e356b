import math

import numpy as np
import pytest
from hand_made import NAMES, predictions

from stabn.cli.printing import print_comparison
from stabn.evaluation.comparison import compare_predictions
from stabn.evaluation.intervals import seed_interval
from stabn.evaluation.seeds import compare_over_seeds


# the two-sided 95 % points by degrees of freedom, as in every textbook
@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (29, 2.045)])
def test_the_interval_of_the_mean_uses_students_quantiles(freedom, quantile):
    values = np.arange(freedom + 1.0)
    interval = seed_interval(values)
    standard_error = values.std(ddof=1) / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert (interval.high - interval.mean) / standard_error == pytest.approx(quantile, abs=6e-4)
    assert interval.mean - interval.low == pytest.approx(interval.high - interval.mean)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [seed_interval(values) for values in rng.normal(3, 2, (2000, 3))]
    assert 0.94 <= np.mean([i.low <= 3 <= i.high for i in found]) <= 0.96


@pytest.mark.parametrize(("values", "told"), [([1.0], r"\(1,\)"), ([1.0, float("nan")], "NaN")])
def test_what_has_no_interval_over_seeds_is_refused(values, told):
    with pytest.raises(ValueError, match=told):
        seed_interval(values)


LABELS = [0, 0, 1, 1]
ANSWERS = {  # per seed: right are 1, 2, 3 of 4; 2, 2, 2; 2, 3, 4
    "before": ([2, 0, 2, 2], [0, 2, 1, 2], [0, 0, 1, 2]),
    "control": ([0, 0, 2, 2], [0, 0, 2, 2], [2, 2, 1, 1]),
    "edited": ([2, 0, 1, 2], [0, 0, 1, 2], [0, 0, 1, 1]),
}


def repetition(seed: int, names=tuple(ANSWERS), edited=("a",)):
    contestants = [(f"{name}-{seed}", predictions(LABELS, ANSWERS[name][seed])) for name in names]
    return compare_predictions(contestants, NAMES, edited, control=contestants[-2][0])


@pytest.fixture(scope="module")
def found():
    return compare_over_seeds(tuple(ANSWERS), [repetition(seed) for seed in range(3)], control="control")


def test_methods_have_the_mean_of_their_seeds_and_its_interval(found):
    assert [m["name"] for m in found["methods"]] == ["before", "control", "edited"]
    assert found["methods"][2]["runs"] == ["edited-0", "edited-1", "edited-2"]
    before, control, edited = (m["all"] for m in found["methods"])
    assert before["values"] == [0.25, 0.5, 0.75]
    assert (before["mean"], control["mean"], edited["mean"]) == (0.5, 0.5, 0.75)
    assert before["high"] - before["mean"] == pytest.approx(4.302653 * 0.25 / math.sqrt(3), abs=1e-5)
    assert control["low"] == control["high"] == 0.5


def test_differences_are_taken_seed_by_seed(found):
    pairs = [(d["of"], d["against"]) for d in found["differences"]]
    assert pairs == [("before", "control"), ("control", "before"), ("edited", "control"), ("edited", "before")]
    against_first = found["differences"][3]["all"]
    assert against_first["values"] == [0.25, 0.25, 0.25]
    assert against_first["low"] == against_first["high"] == 0.25  # although before and edited vary
    assert found["difference"]["all"]["values"] == [0.0, 0.25, 0.5]
    assert "3 seeds cannot tell edited from control: +25.0 points" in found["verdict"]
    first = compare_over_seeds(tuple(ANSWERS), [repetition(seed) for seed in range(3)])
    assert "Over 3 seeds, edited is better than before" in first["verdict"]
    assert first["against"] == "before"


def test_formerly_wrong_is_what_each_seeds_own_first_run_got_wrong(found):
    edited = found["methods"][2]
    assert edited["formerly wrong"]["values"] == pytest.approx([1 / 3, 0.5, 1.0], abs=1e-6)
    assert edited["formerly right"]["values"] == [1.0, 1.0, 1.0]
    assert found["methods"][0]["formerly wrong"] is None
    assert found["differences"][3]["formerly wrong"] is None
    assert found["differences"][2]["formerly wrong"] is not None


def test_a_group_that_a_seed_does_not_have_is_left_out_of_its_mean():
    some = [repetition(0), repetition(1), repetition(2, edited=())]
    found = compare_over_seeds(tuple(ANSWERS), some, control="control")
    assert found["methods"][0]["edited classes"]["values"][2] is None
    found = compare_over_seeds(tuple(ANSWERS), [repetition(s, edited=()) for s in range(3)])
    assert found["methods"][0]["edited classes"] is None


def test_the_table_names_methods_and_the_verdict_follows(found, capsys):
    print_comparison(found)
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[2:5]] == ["before", "control", "edited"]
    assert "75.0 ± 62.1" in told[4]
    assert told[-1] == found["verdict"]
