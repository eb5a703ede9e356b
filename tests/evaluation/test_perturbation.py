import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from stabn.evaluation.perturbation import BASELINES, SCOPES, curve_area, perturb_clip, perturbation_curves, rank_cells
from stabn.nn import Attention

FRAMES = 4


def looking(temporal, spatial=None) -> Attention:
    temporal = torch.tensor([temporal])
    spatial = torch.full((1, temporal.shape[1], 1, 1), 0.5) if spatial is None else torch.tensor([spatial])
    return Attention(spatial, temporal)


def sees_frame(number: int):
    """A network whose probability of class 0 is the mean of one frame."""

    def answer(clip_bcthw: torch.Tensor) -> torch.Tensor:
        p = clip_bcthw[:, :, number].mean(dim=(1, 2, 3))
        return torch.stack((p, 1 - p), dim=1)

    return answer


def lit(frame: int, frames: int = FRAMES, side: int = 8) -> torch.Tensor:
    clip = torch.zeros(3, frames, side, side)
    clip[:, frame] = 1
    return clip


PERFECT, INVERSE = [0.1, 0.2, 0.9, 0.0], [0.9, 0.8, 0.1, 1.0]


@pytest.mark.parametrize(
    ("baseline", "temporal", "deletion", "insertion"),
    [
        ("mean", PERFECT, [1, 0.25, 0.25, 0.25, 0.25], [0.25, 1, 1, 1, 1]),
        ("mean", INVERSE, [1, 1, 1, 1, 0.25], [0.25, 0.25, 0.25, 0.25, 1]),
        # frame 2 shows frame 1, which is dark; alone it is seen everywhere
        ("freeze", PERFECT, [1, 0, 0, 0, 0], [0, 1, 1, 1, 1]),
        # frame 3 goes unseen, 0 and 1 then show what follows; first 3 alone is kept, then 0 and 1 hold until 2
        ("freeze", INVERSE, [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]),
        # a picture of one colour has nothing to blur
        ("blur", PERFECT, [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
    ],
)
def test_the_curves_of_a_network_that_sees_one_frame_are_those_computed_by_hand(
    baseline, temporal, deletion, insertion
):
    found = perturbation_curves(sees_frame(2), lit(2), {"it": looking(temporal)}, baselines=[baseline], steps=4)
    watched = found["it"]["frames"][baseline]
    assert watched["deletion"] == pytest.approx(deletion)
    assert watched["insertion"] == pytest.approx(insertion)


def test_the_area_is_the_trapezoid_rules():
    assert curve_area(np.array([[1, 0.25, 0.25, 0.25, 0.25]])) == pytest.approx([(0.625 + 3 * 0.25) / 4])
    assert curve_area(np.array([[0.0, 1.0], [1.0, 1.0]])).tolist() == [0.5, 1.0]


def test_a_perfect_explanation_beats_a_random_one_and_that_beats_its_inverse():
    areas = {name: [] for name in ("perfect", "random", "inverse")}
    for number in range(20):
        chance = torch.rand(FRAMES, generator=torch.Generator().manual_seed(number)).tolist()
        given = {"perfect": looking(PERFECT), "random": looking(chance), "inverse": looking(INVERSE)}
        found = perturbation_curves(sees_frame(2), lit(2), given, baselines=["mean"], steps=4)
        for name, of in found.items():
            watched = of["frames"]["mean"]
            areas[name].append(curve_area(np.stack((watched["deletion"], watched["insertion"]))))
    deletion, insertion = ({name: np.mean(values, axis=0)[i] for name, values in areas.items()} for i in (0, 1))
    assert deletion["perfect"] < deletion["random"] < deletion["inverse"]
    assert insertion["perfect"] > insertion["random"] > insertion["inverse"]


def test_comprehensiveness_and_sufficiency_average_a_tenth_a_fifth_and_half_of_the_frames():
    # of 10 frames the most important 1, 2 and 5 are removed, or alone kept; the answer is in the second of them
    temporal = [0.0, 0.8, 0.7, 0.6, 0.9, 0.0, 0.0, 0.5, 0.0, 0.0]
    found = perturbation_curves(sees_frame(1), lit(1, 10), {"it": looking(temporal)}, baselines=["mean"], steps=2)
    watched = found["it"]["frames"]["mean"]
    assert watched["comprehensiveness"] == pytest.approx((0 + 0.9 + 0.9) / 3)
    assert watched["sufficiency"] == pytest.approx((0.9 + 0 + 0) / 3)
    assert len(watched["deletion"]) == 3
    assert "comprehensiveness" not in found["it"]["regions"]["mean"]


def test_removed_regions_are_cells_of_each_frame_and_both_ranks_all_cells():
    # 2 frames of 1 x 2 cells; the answer is the right half of frame 1
    def answer(clip_bcthw):
        p = clip_bcthw[:, :, 1, :, 2:].mean(dim=(1, 2, 3))
        return torch.stack((p, 1 - p), dim=1)

    clip = torch.zeros(3, 2, 4, 4)
    clip[:, 1, :, 2:] = 1
    given = {"it": looking([0.2, 0.9], [[[0.9, 0.1]], [[0.3, 0.6]]])}
    found = perturbation_curves(answer, clip, given, baselines=["mean"], steps=4)["it"]
    # in every frame one of two cells: the count of 0, .5, 1, 1.5, 2 cells is rounded up
    assert found["regions"]["mean"]["deletion"] == pytest.approx([1, 0.25, 0.25, 0.25, 0.25])
    # products .18 .02 .27 .54: the answer's cell goes first
    assert found["both"]["mean"]["deletion"] == pytest.approx([1, 0.25, 0.25, 0.25, 0.25])
    assert found["both"]["mean"]["insertion"] == pytest.approx([0.25, 1, 1, 1, 1])
    given = {"it": looking([0.9, 0.2], [[[0.9, 0.1]], [[0.3, 0.6]]])}  # .81 .09 .06 .12
    found = perturbation_curves(answer, clip, given, baselines=["mean"], steps=4)["it"]
    assert found["both"]["mean"]["deletion"] == pytest.approx([1, 1, 0.25, 0.25, 0.25])


def test_a_frozen_frame_shows_the_nearest_earlier_kept_one_else_the_nearest_later_else_the_first():
    clip = torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 2, 2)

    def shown(kept):
        removed = torch.ones(1, 5, 1, 1, dtype=torch.bool)
        removed[0, kept] = False
        return perturb_clip(clip, removed, "freeze")[0, 0, :, 0, 0].tolist()

    assert shown([1, 3]) == [1, 1, 1, 3, 3]
    assert shown([0, 1, 2, 3, 4]) == [0, 1, 2, 3, 4]
    assert shown([4]) == [4] * 5
    assert shown([]) == [0] * 5
    # a region stands still where it was last kept
    clip = torch.arange(3.0).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    removed = torch.tensor([[[[0, 1]], [[1, 0]], [[1, 1]]]], dtype=torch.bool)  # (1, 3, 1, 2)
    assert perturb_clip(clip, removed, "freeze")[0, 0, :, 0].tolist() == [[0, 1], [0, 1], [0, 1]]


def test_the_blur_is_torchvisions_with_an_eighth_of_the_side():
    clip = torch.rand(3, 2, 16, 24, generator=torch.Generator().manual_seed(0))
    everything = torch.ones(1, 2, 1, 1, dtype=torch.bool)
    found = perturb_clip(clip, everything, "blur")[0]
    # reflected 6 rows and 9 columns far, three standard deviations: kernels of 13 and 19
    expected = gaussian_blur(clip.transpose(0, 1), kernel_size=[19, 13], sigma=[3.0, 2.0]).transpose(0, 1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert perturb_clip(clip, ~everything, "blur")[0].equal(clip)


def test_a_removed_cell_is_its_part_of_the_picture_and_nothing_else():
    clip = torch.ones(3, 1, 5, 4)
    removed = torch.tensor([[[[True, False], [False, False]]]])
    clip[:, :, 0, 0] = 5  # so that the mean is another colour
    changed = (perturb_clip(clip, removed, "mean")[0] != clip).any(0)[0]
    # 5 rows in 2 cells: the pixel in the middle has its centre on the border and belongs to the lower one
    assert changed.nonzero().tolist() == [[y, x] for y in (0, 1) for x in (0, 1)]


def test_equal_scores_come_in_a_random_order_that_is_the_same_every_time():
    alike = looking([0.5] * FRAMES)
    firsts = [int(rank_cells(alike, "frames", np.random.default_rng(n))[:, 0, 0].argmin()) for n in range(200)]
    assert all(35 < firsts.count(frame) < 65 for frame in range(FRAMES))
    one, other = (rank_cells(alike, "both", np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, other)
    # where scores differ chance has no say
    assert rank_cells(looking(PERFECT), "frames", np.random.default_rng())[:, 0, 0].tolist() == [2, 1, 0, 3]


def test_nothing_depends_on_how_many_copies_are_asked_about_at_once():
    clip = torch.rand(3, FRAMES, 8, 8, generator=torch.Generator().manual_seed(0))
    given = {
        "one": looking(PERFECT, torch.rand(FRAMES, 2, 2).tolist()),
        "other": looking(INVERSE, [[[0.5] * 2] * 2] * 4),
    }
    asked = []

    def answer(clip_bcthw):
        asked.append(len(clip_bcthw))
        return sees_frame(1)(clip_bcthw)

    found = [perturbation_curves(answer, clip, given, copies=copies) for copies in (1, 1000)]
    assert max(asked) > 10
    for name in given:
        for scope in SCOPES:
            for baseline in BASELINES:
                one, other = (of[name][scope][baseline] for of in found)
                assert np.allclose(one["deletion"], other["deletion"])
                assert np.allclose(one["insertion"], other["insertion"])
                # all curves begin and end at the same two clips
                assert one["deletion"][0] == one["insertion"][-1] == found[0]["one"]["frames"]["mean"]["deletion"][0]
                assert one["deletion"][-1] == one["insertion"][0]


def test_the_class_watched_is_the_one_answered_for_the_untouched_clip():
    found = perturbation_curves(sees_frame(2), lit(1), {"it": looking(PERFECT)}, baselines=["mean"], steps=1)
    assert found["it"]["frames"]["mean"]["deletion"] == pytest.approx([1, 0.75])  # class 1
