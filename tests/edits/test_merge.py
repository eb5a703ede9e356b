import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from stabn.edits.agreement import krippendorff_alpha, measure_agreement
from stabn.edits.merge import check_use, latest_edits, merge_edits
from stabn.errors import UserError
from stabn.records import Edit

TIME = "2026-01-31T09:30:00+00:00"
GAP = np.nan
# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: 4 observers, 12 units, gaps.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, GAP, GAP, GAP],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, GAP, 3],
        [GAP, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, GAP],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, GAP],
    ]
)


def edit(author, scores, clip_id="17", comment=""):
    frames = tuple(range(len(scores)))
    return Edit(clip_id, frames, tuple(i / 10 for i in frames), tuple(scores), author, TIME, comment)


def by_definition(scores):
    """Alpha from the coincidence matrix over all pairs of values, as Krippendorff writes it down."""
    units = [[float(v) for v in column if not np.isnan(v)] for column in scores.T]
    units = [unit for unit in units if len(unit) > 1]
    values = sorted({v for unit in units for v in unit})
    coincidence = dict.fromkeys(itertools.product(values, repeat=2), 0.0)
    for unit in units:
        for a, b in itertools.permutations(unit, 2):
            coincidence[a, b] += 1 / (len(unit) - 1)
    count = {c: sum(coincidence[c, k] for k in values) for c in values}
    n = sum(count.values())

    def distance(c, k):
        low, high = sorted((c, k))
        return sum(count[g] for g in values if low <= g <= high) - (count[c] + count[k]) / 2

    observed = sum(o * distance(c, k) ** 2 for (c, k), o in coincidence.items()) / n
    expected = sum(count[c] * count[k] * distance(c, k) ** 2 for c in values for k in values) / (n * (n - 1))
    return 1 - observed / expected


def test_alpha_is_that_of_the_published_example():
    assert krippendorff_alpha(PUBLISHED) == pytest.approx(0.815, abs=0.0005)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[0, 1, 0], [0, 1, 1]], 4 / 9),  # n 6, D_o 3, D_e 27/5
        ([[0, 0.5, 1], [0.5, 1, 1]], 19 / 36),  # distances 1.5, 2.5 and 4, D_o 17/6, D_e 6
        ([[0, 1], [1, 0]], -0.5),
        ([[0, 0.5, 1], [0, 0.5, 1]], 1.0),
    ],
)
def test_alpha_of_tiny_cases_is_what_one_computes_by_hand(scores, expected):
    assert krippendorff_alpha(np.array(scores, float)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_with_gaps_and_any_values_follows_the_definition(seed):
    rng = np.random.default_rng(seed)
    levels = rng.random(rng.integers(2, 9)) if seed else rng.random(60)
    scores = rng.choice(levels, (4, 15))
    scores[rng.random(scores.shape) < 0.4] = GAP
    assert krippendorff_alpha(scores) == pytest.approx(by_definition(scores))


def test_neither_the_order_of_people_nor_the_names_of_the_levels_matter():
    expected = krippendorff_alpha(PUBLISHED)
    for order in itertools.permutations(range(4)):
        assert krippendorff_alpha(PUBLISHED[list(order)]) == pytest.approx(expected)
    assert krippendorff_alpha(PUBLISHED**3 / 125) == pytest.approx(expected)
    assert krippendorff_alpha(-PUBLISHED) == pytest.approx(expected)
    assert krippendorff_alpha(PUBLISHED[:, ::-1]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "scores",
    [np.empty((0, 0)), np.zeros((1, 5)), [[0.1, GAP], [GAP, 0.2]], np.ones((3, 4)), [[1, 1, 0], [1, 1, GAP]]],
)
def test_alpha_is_undefined_where_nobody_or_nothing_can_be_compared(scores):
    assert krippendorff_alpha(np.array(scores, float)) is None


def test_agreement_is_measured_for_clips_classes_and_the_project():
    edits = [
        edit("Ann", (0, 0, 1), "a"),
        edit("Ann", (0, 0.5, 1), "a"),  # only a person's last edit of a clip counts
        edit("Bo", (0.5, 1, 1), "a"),
        edit("Bo", (0, 0.5, 1), "b"),
        edit("Cy", (0, 0.5, 1), "b"),
        edit("Ann", (1, 1, 0), "c"),
    ]
    measured = measure_agreement(edits, {"a": "up", "b": "up", "c": "down"})
    assert measured.clips == {"a": pytest.approx(19 / 36), "b": 1.0, "c": None}
    both = np.array([[0, 0.5, 1, 0, 0.5, 1], [0.5, 1, 1, 0, 0.5, 1]])
    assert measured.classes == {"down": None, "up": pytest.approx(by_definition(both))}
    assert measured.project == pytest.approx(by_definition(both))
    assert measure_agreement([], {}).project is None


def test_the_last_edit_of_each_person_is_current_in_the_order_of_the_file():
    old, bo, new = edit("Ann", (0, 0)), edit("Bo", (1, 1)), edit("Ann", (0.5, 0.5))
    assert latest_edits([old, bo, new]) == (bo, new)


@pytest.mark.parametrize(
    ("use", "scores", "author"),
    [
        ("latest", (0.0, 0.5, 0.5), "Ann"),
        ("mean", (0.25, 0.5, 0.75), "mean of Ann, Bo, Cy, Di"),
        ("median", (0.0, 0.5, 0.75), "median of Ann, Bo, Cy, Di"),
        ("author:Cy", (1.0, 0.5, 1.0), "Cy"),
    ],
)
def test_several_peoples_edits_become_one_as_asked(use, scores, author):
    edits = [
        edit("Ann", (1, 1, 1)),
        edit("Di", (0.0, 0.75, 1.0), comment="the end"),
        edit("Bo", (0.0, 0.25, 0.5)),
        edit("Cy", (1.0, 0.5, 1.0)),
        edit("Ann", (0.0, 0.5, 0.5)),
    ]
    merged = merge_edits(edits, use)["17"]
    assert (merged.scores, merged.author, merged.comment) == (scores, author, "")


def test_a_clip_that_one_person_edited_keeps_that_edit_and_the_order_of_people_does_not_matter():
    alone = edit("Bo", (0.1, 0.2), "b", "mine")
    pair = [edit("Bo", (0.1, 0.7)), edit("Ann", (0.2, 0.9))]
    for use in ("mean", "median"):
        assert merge_edits([*pair, alone], use)["b"] == alone
        assert merge_edits(pair, use) == merge_edits(pair[::-1], use)
    assert merge_edits([], "author:Ann") == {}


@pytest.mark.parametrize("use", ["", "newest", "author:", "Mean", "author"])
def test_a_wrong_use_is_refused_with_what_it_may_be(use):
    for call in (lambda: check_use(use), lambda: merge_edits([edit("Ann", (1,))], use)):
        with pytest.raises(UserError, match=re.escape(f"use: got {use!r}")):
            call()


def test_a_person_without_edits_is_answered_with_those_who_have_some():
    with pytest.raises(UserError, match=r"author:Zoe.*Ann, Bo"):
        merge_edits([edit("Bo", (1,)), edit("Ann", (1,))], "author:Zoe")


def test_edits_of_different_frames_are_not_mixed():
    other = replace(edit("Bo", (1, 0)), frame_indices=(3, 4))
    with pytest.raises(UserError, match=r"\[0, 1\].*\[3, 4\]"):
        merge_edits([edit("Ann", (1, 1)), other], "mean")
