import numpy as np
import pytest

from stabn.data.class_balance import balanced_weights, baseline_notes, majority, missing_class_notes, single_clip_notes


def test_weights_are_those_that_scikit_learn_calls_balanced():
    # sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=[0] * 6 + [1] * 3 + [2] * 1)
    assert balanced_weights(np.array([6, 3, 1])) == pytest.approx([0.55555556, 1.11111111, 3.33333333])
    counts = np.array([7, 0, 2])
    weights = balanced_weights(counts)
    assert weights[1] == 1.0  # only a mirrored clip can be of a class without clips
    assert (weights * counts).tolist() == [4.5, 0.0, 4.5]


def test_notes_name_missing_and_single_classes_and_which_clips_cannot_be_recognised():
    counts = {"train": np.array([3, 0, 1, 0]), "validation": np.array([0, 2, 1, 0])}
    train, validation = missing_class_notes(counts, "abcd")
    assert train.startswith("split train: no clips of 2 of 4 classes (b, d), ")
    assert train.endswith("split validation: 2")
    assert validation.startswith("split validation: no clips of 2 of 4 classes (a, d), ")
    assert single_clip_notes(counts, "abcd") == [
        "split train: a single clip of 1 of 4 classes (c)",
        "split validation: a single clip of 1 of 4 classes (c)",
    ]
    assert missing_class_notes({"train": np.ones(4), "validation": np.ones(4)}, "abcd") == []


@pytest.mark.parametrize(
    ("top1", "mean", "titles"), [(0.7, 0.4, []), (0.6, 0.4, ["top-1"]), (0.7, 0.2, ["mean class"])]
)
def test_a_network_that_is_not_above_the_majority_class_is_named(top1, mean, titles):
    counts = np.array([6, 3, 1, 0])
    assert majority(counts, "abcd") == {"class": "a", "top1": 0.6, "mean_class_accuracy": 0.333333}
    notes = baseline_notes("test", top1, mean, counts, "abcd")
    assert [title in note for title, note in zip(titles, notes, strict=True)] == [True] * len(titles)
