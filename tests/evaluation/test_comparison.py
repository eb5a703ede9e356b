import json

import numpy as np
import pytest
from hand_made import NAMES, predictions, sure

from stabn.cli.printing import print_comparison
from stabn.data.ground_truth import ClipTruth
from stabn.errors import UserError
from stabn.evaluation.comparison import FRAME_AP, compare_predictions, frame_precisions, mcnemar_test

LABELS = [0] * 4 + [1] * 4
BEFORE = ("before", predictions(LABELS, [1, 1, 0, 0, 1, 1, 1, 0]))
CONTROL = ("control", predictions(LABELS, [0, 1, 0, 0, 0, 1, 1, 0]))
AFTER = ("after", predictions(LABELS, [0, 0, 0, 1, 1, 1, 1, 0]))


@pytest.fixture(scope="module")
def three():
    """The comparison of all three runs."""
    return compare_predictions([BEFORE, CONTROL, AFTER], NAMES, ["a"], control="control")


def entry(found, of, against):
    (one,) = [d for d in found["differences"] if (d["of"], d["against"]) == (of, against)]
    return one


def test_a_comparison_counts_mended_and_newly_wrong_clips_and_splits_the_classes():
    found = compare_predictions([BEFORE, AFTER], NAMES, ["a"])
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
    wrong = ("control", predictions(labels, [2] * 100))
    right = ("after", predictions(labels, labels))
    better = compare_predictions([wrong, right], NAMES, ["a"], control="control")
    assert "after is better than control" in better["verdict"]
    assert "worse" in compare_predictions([right, wrong], NAMES, ["a"])["verdict"]
    assert "cannot tell" in compare_predictions([wrong, wrong], NAMES, ["a"])["verdict"]
    assert compare_predictions([wrong, right], NAMES, ["a", "b"])["methods"][0]["other classes"] is None


@pytest.mark.parametrize(("clips", "differing", "sure"), [(1, 1, False), (5, 5, False), (40, 5, False), (40, 6, True)])
def test_no_verdict_is_given_from_a_handful_of_clips_that_differ(clips, differing, sure):
    labels = [0] * clips
    before = ("before", predictions(labels, [1] * differing + [0] * (clips - differing)))
    after = ("after", predictions(labels, labels))
    told = compare_predictions([before, after], NAMES, [])["verdict"]
    assert ("after is better than before" in told) == sure
    p = 2 / 2**differing  # that coins fall all to one side, or all to the other
    assert told.endswith(f"(p {min(p, 1):.2g}).") == (not sure)


def test_answers_about_different_clips_are_not_compared():
    one = ("one", predictions([0, 1], [0, 1]))
    other = ("other", predictions([0, 1, 2], [0, 1, 2]))
    with pytest.raises(ValueError, match="other"):
        compare_predictions([one, other], NAMES, ["a"])


def test_frame_average_precision_is_one_for_the_right_order_and_computed_by_hand_otherwise():
    truth = {"0": ClipTruth((0.0, 1.0, 0.5, 1.0)), "1": ClipTruth((0.0, 0.0, 0.0, 0.0))}
    frames = np.tile(np.arange(4), (2, 1))
    good = predictions([0, 0], [0, 0], temporal=np.array([[0.1, 0.9, 0.2, 0.8]] * 2, np.float32), frame_indices=frames)
    poor = predictions([0, 0], [0, 0], temporal=np.array([[0.9, 0.8, 0.7, 0.1]] * 2, np.float32), frame_indices=frames)
    assert frame_precisions(good, truth) == pytest.approx([1.0, np.nan], nan_ok=True)
    assert frame_precisions(poor, truth) == pytest.approx([(1 / 2 + 2 / 4) / 2, np.nan], nan_ok=True)
    assert np.isnan(frame_precisions(good, {})).all()
    assert np.isnan(frame_precisions(predictions([0], [0]), truth)).all()


def test_formerly_wrong_and_formerly_right_clips_are_counted_apart(three):
    before, control, after = three["methods"]
    assert before["formerly wrong"] is None
    assert before["formerly right"] is None
    # Before, clips 0, 1 and 7 were wrong; after, 0 and 1 are right, and of the five others clip 3 is not.
    assert (after["formerly wrong"]["top1"], after["formerly wrong"]["count"]) == (pytest.approx(2 / 3, abs=1e-6), 3)
    assert (after["formerly right"]["top1"], after["formerly right"]["count"]) == (0.8, 5)
    assert control["formerly wrong"]["top1"] == pytest.approx(1 / 3, abs=1e-6)
    assert 1 - control["formerly right"]["top1"] == pytest.approx(control["newly_wrong"] / 5)
    for group in ("formerly wrong", "formerly right"):
        assert after[group]["low"] <= after[group]["top1"] <= after[group]["high"]


def test_every_run_is_set_against_the_control_and_the_first_group_by_group(three):
    assert three["against"] == "control"
    pairs = [("before", "control"), ("control", "before"), ("after", "control"), ("after", "before")]
    assert [(d["of"], d["against"]) for d in three["differences"]] == pairs
    ours = entry(three, "after", "control")
    assert ours["edited classes"]["points"] == pytest.approx(0)
    assert ours["other classes"]["points"] == pytest.approx(0.25)
    assert ours["formerly wrong"]["points"] == pytest.approx(1 / 3, abs=1e-6)
    assert ours["formerly right"]["points"] == pytest.approx(0)
    assert ours["mcnemar"] == {"only_ours": 2, "only_theirs": 1, "p": 1.0}
    assert entry(three, "control", "before")["mcnemar"] == {"only_ours": 1, "only_theirs": 1, "p": 1.0}
    kept = ("of", "against", *three["groups"], "mean class accuracy", "mcnemar")
    assert three["difference"] == {key: ours[key] for key in kept}
    by_name = {method["name"]: method["mean_class_accuracy"] for method in three["methods"]}
    gain = by_name["after"]["mean"] - by_name["control"]["mean"]
    assert ours["mean class accuracy"]["points"] == pytest.approx(gain, abs=1e-6)
    # The first one's answers made these groups, so a difference to it there would say nothing.
    assert entry(three, "after", "before")["formerly wrong"] is None
    assert entry(three, "before", "control")["formerly right"] is None


def test_differences_are_paired_clip_by_clip():
    rng = np.random.default_rng(0)
    hard = rng.random(200) < 0.5
    common = ("one", predictions([0] * 200, np.where(hard, 1, 0)))
    better = ("two", predictions([0] * 200, np.where(hard & (rng.random(200) < 0.9), 1, 0)))
    found = compare_predictions([common, better], NAMES, ["a"])
    change, shares = found["difference"]["all"], [m["all"] for m in found["methods"]]
    assert shares[0]["high"] > shares[1]["low"]  # apart, the two cannot be told from each other
    assert change["low"] > 0
    assert change["high"] - change["low"] < 0.6 * (shares[0]["high"] - shares[0]["low"])


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [
        (12, 2, 0.0129),  # Armitage and Berry 1994, p. 127
        *((1, 7, 0.0703), (0, 0, 1.0), (3, 3, 1.0)),  # the first is Fagerland, Lydersen and Laake 2013, 0.070
        *((0, 1, 1.0), (0, 6, 2 / 64)),
    ],
)
def test_mcnemars_test_is_the_published_one(ours, theirs, p):
    one = np.array([True] * ours + [False] * theirs + [True, False] * 10)
    other = np.array([False] * ours + [True] * theirs + [True, False] * 10)
    assert mcnemar_test(one, other) == {"only_ours": ours, "only_theirs": theirs, "p": pytest.approx(p, abs=5e-5)}
    assert mcnemar_test(other, one)["p"] == mcnemar_test(one, other)["p"]


def test_mcnemars_test_takes_whole_data_sets():
    right = np.arange(25000) < 13000
    assert mcnemar_test(right, ~right)["p"] == pytest.approx(2.6e-10, rel=0.05)  # two-sided at (1000 - 1) / sqrt(25000)
    assert mcnemar_test(right, np.zeros(25000, bool))["p"] == 0.0


def test_frame_precision_has_an_interval_and_a_paired_difference():
    count = 12
    truth = {str(i): ClipTruth((0.0, 1.0, 0.0, 0.0)) for i in range(count)} | {"3": ClipTruth(boxes=(None,) * 4)}
    frames = np.tile(np.arange(4), (count, 1))
    rng = np.random.default_rng(1)
    worse = rng.random((count, 4)).astype(np.float32)
    better = worse.copy()
    better[:, 1] += 1
    answers = [predictions([0] * count, [0] * count, temporal=t, frame_indices=frames) for t in (worse, better)]
    assert np.isnan(frame_precisions(answers[0], truth)[3])  # it is known only where, not when
    first, last = ("worse", answers[0]), ("better", answers[1])
    found = compare_predictions([first, last], NAMES, ["a"], truth=truth)
    low, high = found["methods"]
    assert high["frame_average_precision"] == 1.0
    assert high["frame_average_precision_interval"] == {"low": 1.0, "high": 1.0, "count": count - 1}
    assert low["frame_average_precision_interval"]["low"] < low["frame_average_precision"]
    change = entry(found, "better", "worse")[FRAME_AP]
    assert change["points"] == pytest.approx(1 - low["frame_average_precision"], abs=1e-6)
    assert change["low"] > 0
    assert compare_predictions([first, last], NAMES, ["a"])["methods"][0]["frame_average_precision_interval"] is None


def test_networks_without_attention_have_no_frame_precision_to_differ_in():
    frames = np.tile(np.arange(2), (1, 1))
    seeing = predictions([0], [0], temporal=np.array([[0.1, 0.9]], np.float32), frame_indices=frames)
    plain = ("plain", predictions([0], [0]))
    found = compare_predictions([plain, ("seeing", seeing)], NAMES, [], truth={"0": ClipTruth((0.0, 1.0))})
    assert [m["frame_average_precision"] for m in found["methods"]] == [None, 1.0]
    assert found["differences"][0][FRAME_AP] is None
    assert found["methods"][0]["edited classes"] is None


def test_truth_of_another_video_is_refused():
    answers = predictions([0], [0], temporal=np.array([[0.1, 0.9]], np.float32), frame_indices=np.array([[0, 5]]))
    with pytest.raises(UserError, match=r"clip 0: .*2 frames"):
        frame_precisions(answers, {"0": ClipTruth((0.0, 1.0))})


def test_calibration_errors_stand_beside_the_accuracies():
    surest = predictions([0, 0], [0, 1], probabilities=sure([0.9, 0.9], [0, 1]))
    found = compare_predictions([("one", surest)], NAMES, ["a"])
    assert found["methods"][0]["calibration_error"]["error"] == pytest.approx(0.4, abs=1e-6)


def test_the_table_says_what_was_mended_of_how_many(three, capsys):
    print_comparison(three)
    told = capsys.readouterr().out
    assert "2 of 3" in told
    assert "against control" in told
    assert told.splitlines()[-1] == three["verdict"]
    json.dumps(three, allow_nan=False)


def test_what_an_earlier_version_wrote_is_still_printed(capsys):
    found = compare_predictions([BEFORE, AFTER], NAMES, ["a"])
    for method in found["methods"]:
        for new in ("formerly wrong", "formerly right", "calibration_error", "frame_average_precision_interval"):
            del method[new]
    del found["differences"], found["against"]
    print_comparison(found)
    assert "after" in capsys.readouterr().out
