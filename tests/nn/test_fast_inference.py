"""Copies for fast inference: the same function as the networks they are made from."""

import re
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from uneven import parts, with_uneven_statistics
from uneven import random_clip as clip

from stabn.nn import STABN, Attention, PlainNetwork, has_attention
from stabn.nn.cam import branch_cam, cam, grad_cam
from stabn.nn.fast_inference import fast_inference_copy, fold_batch_norm
from stabn.nn.stabn import MECHANISMS
from stabn.nn.winograd import SpatialWinogradConv, TemporalWinogradConv


@pytest.mark.parametrize("reference", [50], indirect=True)
def test_the_official_outputs_come_out_in_float64(reference):
    model = STABN(reference.architecture, reference.num_classes, reference.frames)
    model.load_state_dict(reference.tensors)
    # By Winograd, which nobody would use in float64: rounding is no excuse there.
    copy = fast_inference_copy(model.double().eval(), winograd=True)
    kinds = [type(part) for part in copy.modules()]
    assert (kinds.count(TemporalWinogradConv), kinds.count(SpatialWinogradConv)) == (6 + 3 + 3, 3 + 5 + 2 + 3)
    output = parts(copy(reference.clip.double()))
    for name, value in output.items():
        np.testing.assert_allclose(value, reference.answers[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("architecture", ["tiny", "small", "fine-deep"])
def test_float32_answers_agree_to_a_ten_thousandth(architecture, mechanism):
    model = with_uneven_statistics(STABN(architecture, 5, 4, mechanism=mechanism))
    found, expected = parts(fast_inference_copy(model)(clip(batch=2))), parts(model(clip(batch=2)))
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-4 * float(value.std())), name


def test_the_plain_network_has_a_copy_too():
    model = with_uneven_statistics(PlainNetwork("tiny", 5, 4))
    copy = fast_inference_copy(model)
    assert isinstance(copy, PlainNetwork)
    assert not has_attention(copy)
    for frames in (1, 4, 7):
        assert torch.allclose(copy(clip(frames)).logits, model(clip(frames)).logits, rtol=1e-4, atol=1e-4)


def test_a_copy_knows_what_the_network_knows_and_leaves_it_as_it_is():
    names, preprocessing = ("a", "b", "c", "d", "e"), {"crop": 32}
    model = STABN("tiny", 5, 4, class_names=names, preprocessing=preprocessing, mechanism="gated")
    model = with_uneven_statistics(model).train()
    before = deepcopy(model.state_dict())
    copy = fast_inference_copy(model)
    copy(clip())
    assert copy.config() == model.config()
    assert model.training
    assert not copy.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in copy.parameters())
    shared = {p.data_ptr() for p in model.state_dict().values()} & {p.data_ptr() for p in copy.state_dict().values()}
    assert not shared


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_perceiver_answers_for_any_attention_of_its_features_and_changes_none(mechanism):
    model = with_uneven_statistics(STABN("tiny", 5, 4, mechanism=mechanism))
    copy = fast_inference_copy(model)
    features = copy.encode(clip(batch=2))
    kept = features.clone()
    own, _ = copy.attend(features)
    edited = replace(own, temporal=torch.tensor([[0.0, 0.5, 1.0, 0.0], [1.0, 1.0, 0.0, 0.2]]))
    for network in (model, copy):
        perceive = network.perceiver(features)
        for attention in (own, edited, own.inverse_spatial(), own.uniform_temporal(), own):
            assert torch.allclose(perceive(attention), model.perceive(features, attention), rtol=1e-4, atol=1e-5)
            assert torch.equal(perceive(attention), network.perceive(features, attention))
    assert torch.equal(features, kept)


def test_a_perceiver_refuses_an_attention_of_another_shape():
    copy = fast_inference_copy(STABN("tiny", 5, 4))
    perceive = copy.perceiver(torch.zeros(1, 32, 4, 2, 2))
    with pytest.raises(ValueError, match="attention: got spatial shape"):
        perceive(Attention(torch.zeros(2, 4, 2, 2), torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="features: got 3 frames, expected 4"):
        copy.perceiver(torch.zeros(1, 32, 3, 2, 2))


def test_features_in_bfloat16_give_attention_and_scores_in_float32_near_the_exact_ones():
    model = with_uneven_statistics(STABN("tiny", 5, 4))
    copy = fast_inference_copy(model, torch.bfloat16)
    assert copy.encode(clip().bfloat16()).dtype == torch.bfloat16
    found, expected = parts(copy(clip().bfloat16())), parts(model(clip()))
    for name, value in expected.items():
        assert found[name].dtype == torch.float32, name
        assert (found[name] - value).abs().max() < 2e-2 * max(1, float(value.abs().max())), name
    with pytest.raises(ValueError, match=r"clip: got torch.float32, expected torch.bfloat16"):
        copy(clip())


def test_winograd_is_for_float32_only():
    model = STABN("tiny", 5, 4)

    def uses(copy: nn.Module) -> bool:
        return any(isinstance(part, TemporalWinogradConv | SpatialWinogradConv) for part in copy.modules())

    assert uses(fast_inference_copy(model))
    for copy in (
        fast_inference_copy(model, torch.bfloat16),
        fast_inference_copy(model, winograd=False),
        fast_inference_copy(model.double()),
    ):
        assert not uses(copy)


def test_explanations_of_the_copy_are_those_of_the_network():
    model = with_uneven_statistics(STABN("tiny", 5, 4))
    copy = fast_inference_copy(model)
    for method in (cam, grad_cam, branch_cam):
        assert torch.allclose(method(copy, clip()), method(model, clip()), rtol=1e-3, atol=1e-6), method.__name__


def test_one_thread_gives_the_same_answer():
    model = with_uneven_statistics(STABN("tiny", 3, 2))
    copy = fast_inference_copy(model)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = copy(clip(2)).logits
        torch.set_num_threads(2)
        together = copy(clip(2)).logits
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(alone, together, rtol=1e-4, atol=1e-6)


def test_a_copy_is_not_saved():
    with pytest.raises(TypeError, match="got a copy"):
        fast_inference_copy(STABN("tiny", 5, 4)).save_pretrained("nowhere")


def test_norms_on_both_sides_of_a_convolution_are_folded():
    torch.manual_seed(0)
    before, mix, after = nn.BatchNorm3d(4), nn.Conv3d(4, 6, 1, bias=False), nn.BatchNorm3d(6)
    plain = with_uneven_statistics(nn.Sequential(before, mix, after).double())
    x = torch.randn(2, 4, 3, 3, 3, dtype=torch.float64)
    weight, bias = fold_batch_norm(mix, after, before)
    assert torch.allclose(nn.functional.conv3d(x, weight, bias), plain(x), rtol=0, atol=1e-12)


def test_what_cannot_be_folded_is_refused():
    with pytest.raises(ValueError, match="Conv3d"):
        fold_batch_norm(nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2))
    with pytest.raises(ValueError, match=re.escape("padding=(1, 1, 1)")):
        fold_batch_norm(nn.Conv3d(2, 2, 3, padding=1, bias=False), nn.BatchNorm3d(2), nn.BatchNorm3d(2))
