import math

import numpy as np
import pytest
from hand_made import NAMES, predictions

from stabn.cli.printing import print_seeds
from stabn.evaluation.comparison import NamedPredictions, compare_predictions
from stabn.evaluation.seeds import compare_over_seeds, seed_interval, student_quantile

TABLE = {  # published in every textbook: degrees of freedom, then the two-sided 95 % and 99 % points
    1: (12.706, 63.657),
    2: (4.303, 9.925),
    3: (3.182, 5.841),
    4: (2.776, 4.604),
    5: (2.571, 4.032),
    9: (2.262, 3.250),
    10: (2.228, 3.169),
    29: (2.045, 2.756),
    30: (2.042, 2.750),
    100: (1.984, 2.626),
}


@pytest.mark.parametrize("freedom", TABLE)
def test_students_quantiles_are_those_of_the_tables(freedom):
    assert (round(student_quantile(freedom), 3), round(student_quantile(freedom, 0.99), 3)) == TABLE[freedom]


def test_students_quantiles_are_exact_where_there_is_a_formula_and_normal_in_the_limit():
    for level in (0.01, 0.5, 0.95, 0.9999):
        assert student_quantile(1, level) == pytest.approx(math.tan(math.pi * level / 2), rel=1e-9)
        assert student_quantile(2, level) == pytest.approx(level * math.sqrt(2 / (1 - level**2)), rel=1e-9)
    assert student_quantile(100_000) == pytest.approx(1.959964, abs=3e-5)


def test_the_interval_of_the_mean_is_the_textbooks():
    found = seed_interval([4.0, 5.0, 6.0, 7.0, 8.0])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert found.mean == 6.0
    assert (found.low, found.high) == (pytest.approx(6 - half, abs=1e-5), pytest.approx(6 + half, abs=1e-5))


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [seed_interval(values) for values in rng.normal(3, 2, (2000, 3))]
    assert 0.94 <= np.mean([i.low <= 3 <= i.high for i in found]) <= 0.96


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: seed_interval([1.0]), "one seed has no interval"),
        (lambda: seed_interval([1.0, float("nan")]), "NaN"),
        (lambda: student_quantile(0), "got 0"),
        (lambda: student_quantile(3, 1.0), r"3 and 1\.0"),
    ],
)
def test_what_has_no_interval_over_seeds_is_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()


LABELS = [0, 0, 1, 1]
ANSWERS = {  # per seed: right are 1, 2, 3 of 4; 2, 2, 2; 2, 3, 4
    "before": ([2, 0, 2, 2], [0, 2, 1, 2], [0, 0, 1, 2]),
    "control": ([0, 0, 2, 2], [0, 0, 2, 2], [2, 2, 1, 1]),
    "edited": ([2, 0, 1, 2], [0, 0, 1, 2], [0, 0, 1, 1]),
}


def repetition(seed: int, names=tuple(ANSWERS), edited=("a",)):
    contestants = [NamedPredictions(f"{name}-{seed}", predictions(LABELS, ANSWERS[name][seed])) for name in names]
    return compare_predictions(contestants, NAMES, edited, control=contestants[-2].name)


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
    print_seeds(found)
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[2:5]] == ["before", "control", "edited"]
    assert "75.0 ± 62.1" in told[4]
    assert told[-1] == found["verdict"]


@pytest.mark.parametrize(
    ("methods", "seeds", "control", "told"),
    [
        (("before", "control", "edited"), 1, None, "got 1, expected at least two"),
        (("before", "edited"), 2, None, "got 3 runs"),
        (("a", "a", "b"), 2, None, "each name once"),
        (("before", "control", "edited"), 2, "other", "got 'other'"),
        (("before", "control", "edited"), 2, "edited", "before the last"),
    ],
)
def test_repetitions_that_do_not_fit_are_refused(methods, seeds, control, told):
    with pytest.raises(ValueError, match=told):
        compare_over_seeds(methods, [repetition(seed) for seed in range(seeds)], control=control)
