import numpy as np
import pytest
from lanterns import FRAMES, SIDE, Honest, Inverted, Lanterns

from stabn.data.boxes import box_map
from stabn.data.ground_truth import ClipTruth
from stabn.errors import UserError
from stabn.evaluation import localisation
from stabn.evaluation.attribution import ExplainedNetwork
from stabn.evaluation.localisation import (
    MEASURES,
    average_precision,
    best_iou,
    cells_in_box,
    energy_in_box,
    measure_localisation,
    pointing_game,
)

WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def square_videos(monkeypatch):
    monkeypatch.setattr(localisation, "frame_size", lambda path: (SIDE, SIDE))


def localised(data, truth, methods=("attention",), network=Honest):
    return measure_localisation(ExplainedNetwork.of(network()), data, truth, methods)


def test_average_precision_is_what_one_computes_by_hand():
    decisive = np.array([False, True, False, True])
    assert average_precision(np.array([0.1, 0.9, 0.2, 0.8]), decisive) == pytest.approx(1)
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.1]), decisive) == pytest.approx((1 / 2 + 2 / 4) / 2)
    # equal scores gain nothing from their order
    assert average_precision(np.full(4, 0.5), decisive) == pytest.approx(0.5)
    assert average_precision(np.full(4, 0.5), decisive[::-1].copy()) == pytest.approx(0.5)


def test_the_pointing_game_asks_about_the_highest_score_alone():
    decisive = np.array([False, True, False, True])
    assert pointing_game(np.array([0.1, 0.2, 0.3, 0.4]), decisive) == 1
    assert pointing_game(np.array([0.1, 0.2, 0.5, 0.4]), decisive) == 0
    assert pointing_game(np.array([0.5, 0.5, 0.5, 0.1]), decisive) == pytest.approx(1 / 3)


def test_the_best_threshold_is_one_for_all_clips():
    decisive = np.array([[True, True, False, False], [False, True, False, False]])
    scores = np.array([[0.9, 0.6, 0.5, 0.1], [0.3, 0.7, 0.2, 0.6]])
    threshold, ious = best_iou(scores, decisive)
    # at .6 {0, 1} is right and {1, 3} half; at .7 {0} is half and {1} right; both 3/4, and nothing is better
    assert ious.mean() == pytest.approx(0.75)
    assert threshold in (0.6, 0.7)
    # however narrow the range of the scores is
    assert best_iou(0.5 + scores / 1000, decisive)[1].tolist() == ious.tolist()


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_best_threshold_is_the_best_of_all_scores(levels):
    chance = np.random.default_rng(levels)
    scores, decisive = chance.integers(levels, size=(40, 16)) / levels, chance.random((40, 16)) < 0.2
    threshold, ious = best_iou(scores, decisive)
    each = {
        t: ((scores >= t) & decisive).sum(1) / np.maximum(((scores >= t) | decisive).sum(1), 1)
        for t in np.unique(scores)
    }
    assert ious.mean() == pytest.approx(max(value.mean() for value in each.values()))
    assert ious.tolist() == each[threshold].tolist()


def test_a_threshold_between_rare_decisive_frames_and_all_others_is_found():
    chance = np.random.default_rng(0)
    decisive = np.arange(32) == chance.integers(32, size=(100, 1))
    scores = np.where(decisive, 0.6 + 0.4 * chance.random((100, 32)), 0.5 * chance.random((100, 32)))
    assert best_iou(scores, decisive)[1].tolist() == [1.0] * 100


def test_the_cells_centres_inside_a_box_are_found_in_the_sources_pixels():
    # the view is the middle half of 40 x 80 pixels: 20 x 40, in 2 x 2 cells with centres at y 15, 25 and x 30, 50
    crop = (0.25, 0.25, 0.75, 0.75)
    assert cells_in_box((30, 15, 31, 16), crop, (40, 80), 2, 2).tolist() == [[True, False], [False, False]]
    assert cells_in_box((29, 14, 30, 15), crop, (40, 80), 2, 2).sum() == 0
    assert cells_in_box((40, 0, 80, 40), crop, (40, 80), 2, 2).tolist() == [[False, True], [False, True]]


def test_energy_inside_counts_cut_cells_by_their_area():
    weights = np.array([[0.5, 0.1], [0.3, 0.1]])
    half = box_map((0, 0, 3, 4), WHOLE, (4, 4), 2, 2).double().numpy()  # all of the left cells, half of the right ones
    assert energy_in_box(weights, half) == pytest.approx(0.8 + 0.5 * 0.2)
    corner = box_map((0, 0, 1, 1), WHOLE, (4, 4), 2, 2).double().numpy()
    assert energy_in_box(weights, corner) == pytest.approx(0.25 * 0.5)
    # by chance the box's share of the view, and so for a map without energy
    assert energy_in_box(np.ones((2, 2)), half) == pytest.approx(0.75)
    assert energy_in_box(np.zeros((2, 2)), half) == pytest.approx(0.75)


def test_a_network_that_looks_where_it_should_is_told_from_dummies_and_from_its_inverse():
    data = Lanterns()
    methods = ["attention", "random", "centre", "uniform"]
    found = localised(data, data.truth(), methods)
    ours = found["attention"]
    assert ours["temporal"]["clips"] == ours["spatial"]["clips"] == [sample.clip_id for sample in data.samples]
    for side, measure in list(MEASURES)[:-1]:
        assert ours[side][measure]["mean"] == 1
        assert ours[side][measure]["low"] > found["random"][side][measure]["high"]
        assert ours[side][measure]["chance"] == 0.25
        assert len(ours[side][measure]["per_clip"]) == len(data)
    assert ours["spatial"]["energy"]["mean"] > 0.7
    assert ours["spatial"]["energy"]["chance"] == 0.25
    assert ours["spatial"]["pointing"]["attainable"] == 1
    uniform = found["uniform"]
    assert uniform["temporal"]["average_precision"]["mean"] == uniform["temporal"]["pointing"]["mean"] == 0.25
    assert uniform["spatial"]["pointing"]["mean"] == uniform["spatial"]["energy"]["mean"] == 0.25
    inverse = localised(data, data.truth(), network=Inverted)["attention"]
    assert inverse["temporal"]["average_precision"]["mean"] == 0.25  # two frames of eight, together in the last place
    assert inverse["temporal"]["average_precision"]["high"] < found["random"]["temporal"]["average_precision"]["low"]
    assert inverse["temporal"]["pointing"]["mean"] == inverse["spatial"]["pointing"]["mean"] == 0
    assert inverse["spatial"]["energy"]["high"] < 0.1


def test_clips_that_say_only_when_or_only_where_count_where_they_can():
    data = Lanterns(6)
    known = data.truth()
    half = {clip_id: ClipTruth(relevance=truth.relevance) for clip_id, truth in list(known.items())[:2]}
    half |= {clip_id: ClipTruth(boxes=truth.boxes) for clip_id, truth in list(known.items())[2:4]}
    half["clip 4"] = ClipTruth(relevance=(0.0,) * FRAMES, boxes=known["clip 4"].boxes)  # nothing is decisive
    half["clip 5"] = ClipTruth(interval=(0.0, float(FRAMES)))  # everything is
    found = localised(data, half)["attention"]
    assert found["temporal"]["clips"] == ["clip 0", "clip 1"]
    assert found["spatial"]["clips"] == ["clip 2", "clip 3"]
    only_when = {"clip 0": half["clip 0"]}
    assert localised(data, only_when)["attention"]["spatial"] is None
    assert localised(data, {"clip 5": half["clip 5"]}) is None
    assert localised(data, {"another": known["clip 0"]}) is None
    outside = ((SIDE + 4, 0, SIDE + 8, 4),) * FRAMES  # of the view
    assert localised(data, {"clip 0": ClipTruth(boxes=outside)}) is None


def test_truth_for_fewer_frames_than_a_clip_has_is_refused_by_the_clips_name():
    data = Lanterns(2)
    with pytest.raises(UserError, match=r"clip clip 1: .*3 frames"):
        localised(data, {"clip 1": ClipTruth(relevance=(0.0, 1.0, 0.0))})
    with pytest.raises(UserError, match=r"clip clip 1: .*1 frames.*7"):
        localised(data, {"clip 1": ClipTruth(boxes=(None,))})
