import math
import re

import pytest
import torch

from stabn.nn import Output, recognition_loss, spatial_loss, temporal_loss

NAN = float("nan")


# Softmax of (ln 3, 0) is (3/4, 1/4), of (0, 0) is (1/2, 1/2).
LOGITS = [math.log(3), 0.0]


@pytest.mark.parametrize(
    ("output", "labels", "expected"),
    [
        (Output(torch.tensor([LOGITS]), torch.zeros(1, 2)), [1], math.log(4) + math.log(2)),
        (Output(torch.tensor([LOGITS] * 2), torch.zeros(2, 2)), [0, 1], math.log(16 / 3) / 2 + math.log(2)),
        (Output(torch.tensor([LOGITS])), [0], math.log(4 / 3)),
    ],
    ids=["both branches", "the mean over the batch", "without an attention branch"],
)
def test_recognition_costs_the_cross_entropies_of_the_branches(output, labels, expected):
    assert recognition_loss(output, torch.tensor(labels)).item() == pytest.approx(expected, abs=1e-6)


def test_labels_must_fit_the_clips_and_the_classes():
    output = Output(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"labels: got shape \(1,\), expected \(2,\)"):
        recognition_loss(output, torch.tensor([0]))
    with pytest.raises(IndexError):
        recognition_loss(output, torch.tensor([0, 3]))


@pytest.mark.parametrize(
    ("has_edit", "expected"), [([True, True], (1 + 2.5) / 2), ([True, False], 1 / 2), ([False, False], 0)]
)
def test_temporal_loss_is_gamma_over_n_times_the_squared_differences_over_the_whole_batch(has_edit, expected):
    temporal = torch.tensor([[0.2, 0.6], [0.5, 0.5]], requires_grad=True)
    edited = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    # First clip: 10 / 2 * (0.04 + 0.16) = 1; second clip: 10 / 2 * (0.25 + 0.25) = 2.5.
    loss = temporal_loss(temporal, edited, torch.tensor(has_edit), 10.0)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    # gamma / (B n) * 2 (M - M') = 10 / 4 * 2 * (M - M')
    gradient = torch.tensor([[1.0, -2.0], [-2.5, 2.5]]) * torch.tensor(has_edit)[:, None]
    assert torch.allclose(temporal.grad, gradient)


def test_nothing_leaks_from_a_clip_without_an_edit_not_even_nan():
    temporal = torch.tensor([[0.2, 0.6], [NAN, 0.5]], requires_grad=True)
    edited = torch.tensor([[0.0, 1.0], [NAN, float("inf")]])
    loss = temporal_loss(temporal, edited, torch.tensor([True, False]), 10.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert torch.equal(temporal.grad[1], torch.zeros(2))


@pytest.mark.parametrize(
    ("loss", "attention", "edited", "has_edit"),
    [(temporal_loss, (2, 3), (2, 1), (2,)), (spatial_loss, (2, 3, 4, 4), (2, 3, 4, 5), (2, 3))],
)
def test_edits_must_fit_the_attention_and_gamma_be_a_finite_number_from_0(loss, attention, edited, has_edit):
    attention_values, has_edits = torch.zeros(attention), torch.ones(has_edit, dtype=torch.bool)
    with pytest.raises(ValueError, match=re.escape(f"edited: got shape {edited}, expected {attention}")):
        loss(attention_values, torch.zeros(edited), has_edits, 1.0)
    with pytest.raises(ValueError, match=r"has_edit: got shape \(1.*, expected \(2,"):
        loss(attention_values, attention_values, has_edits[:1], 1.0)
    for gamma in (-1.0, NAN, float("inf")):
        with pytest.raises(ValueError, match=r"gamma: got .*, expected a finite number from 0"):
            loss(attention_values, attention_values, has_edits, gamma)


@pytest.mark.parametrize(
    ("has_edit", "expected", "gradient"),
    [
        # First clip, first frame: 10 / 2 * (0.04 + 0.16) = 1. Second clip, both frames: 10 / 4 * (0.5 + 1) = 3.75.
        # gamma / (B n) * 2 (M - M'): n is 2 cells in the first clip, 4 in the second.
        ([[True, False], [True, True]], (1 + 3.75) / 2, [[1.0, -2.0, 0.0, 0.0], [-1.25, 1.25, 0.0, -2.5]]),
        ([[True, False], [False, False]], (1 + 0) / 2, [[1.0, -2.0, 0.0, 0.0], [0.0] * 4]),
        ([[False, False], [False, False]], 0, [[0.0] * 4] * 2),
    ],
)
def test_spatial_loss_is_gamma_over_n_times_the_squared_differences_in_the_edited_frames(has_edit, expected, gradient):
    spatial = torch.tensor([[[[0.2, 0.6]], [[0.1, 0.1]]], [[[0.5, 0.5]], [[1.0, 0.0]]]], requires_grad=True)
    edited = torch.tensor([[[[0.0, 1.0]], [[0.9, 0.9]]], [[[1.0, 0.0]], [[1.0, 1.0]]]])
    loss = spatial_loss(spatial, edited, torch.tensor(has_edit), 10.0)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(spatial.grad.flatten(1), torch.tensor(gradient))


def test_a_map_that_is_off_by_as_much_costs_as_much_as_temporal_scores_that_are():
    temporal, edited = torch.rand(3, 4), torch.rand(3, 4)
    has_edit = torch.tensor([True, False, True])
    maps = [scores[..., None, None].expand(3, 4, 2, 5) for scores in (temporal, edited)]
    spatial = spatial_loss(*maps, has_edit[:, None].expand(3, 4), 7)
    assert spatial.item() == pytest.approx(temporal_loss(temporal, edited, has_edit, 7).item(), rel=1e-5)


def test_balanced_gives_the_cells_of_the_object_in_each_frame_half_of_the_weight():
    spatial = torch.tensor([[[[0.2, 0.4, 0.4, 0.6]], [[0.5, 0.5, 0.5, 0.5]]]], dtype=torch.float64)
    edited = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]], dtype=torch.float64)

    def cost(*has_edit):
        return spatial_loss(spatial, edited, torch.tensor([has_edit]), 10, "balanced").item()

    # First frame: half of 0.64, and half of the mean of 0.16, 0.16, 0.36. Second: no object, half of 0.25.
    first, second = 0.32 + 0.34 / 3, 0.125
    assert cost(True, False) == pytest.approx(10 * first)
    assert cost(True, True) == pytest.approx(10 * (first + second) / 2)
    assert cost(False, False) == 0


def test_cross_entropy_counts_in_space_as_in_time():
    spatial = torch.tensor([[[[0.75, 0.5]], [[NAN, 0.1]]]], requires_grad=True)
    edited = torch.tensor([[[[1.0, 0.0]], [[1.0, NAN]]]])
    loss = spatial_loss(spatial, edited, torch.tensor([[True, False]]), 2, "cross-entropy")
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4 / 3) + math.log(2))
    assert torch.allclose(spatial.grad, torch.tensor([[[[-4 / 3, 2.0]], [[0.0, 0.0]]]]))


def test_nothing_leaks_from_frames_without_a_spatial_edit_not_even_nan():
    spatial = torch.tensor([[[[0.2]], [[NAN]]], [[[NAN]], [[0.5]]]], requires_grad=True)
    edited = torch.tensor([[[[1.0]], [[float("inf")]]], [[[NAN]], [[NAN]]]])
    loss = spatial_loss(spatial, edited, torch.tensor([[True, False], [False, False]]), 10.0)
    loss.backward()
    assert loss.item() == pytest.approx(10 * 0.64 / 2)
    assert torch.allclose(spatial.grad, torch.tensor([[[[-8.0]], [[0.0]]], [[[0.0]], [[0.0]]]]))
