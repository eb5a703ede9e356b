import copy

import pytest
import torch
from captum.attr import LayerGradCam
from uneven import with_uneven_statistics

from stabn.nn import STABN, PlainNetwork, VideoNetwork
from stabn.nn.cam import branch_cam, cam, grad_cam, normalise_by_maximum, normalise_by_range

K, T = 5, 4
KINDS = pytest.mark.parametrize("kind", [STABN, PlainNetwork])


EXPLAINED_BY = {STABN: (cam, grad_cam, branch_cam), PlainNetwork: (cam, grad_cam)}


def network(kind=STABN, dtype=torch.float64) -> VideoNetwork:
    return with_uneven_statistics(kind("tiny", K, T).to(dtype))


def clip(dtype=torch.float64, count=3) -> torch.Tensor:
    return torch.randn(count, 3, T, 40, 40, dtype=dtype, generator=torch.Generator().manual_seed(1))


@KINDS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("classes", [[0, 1, 2], [4, 2, 1], [3, 3, 0]])
def test_grad_cam_is_captums(kind, dtype, classes):
    model, x, target = network(kind, dtype), clip(dtype), torch.tensor(classes)
    oracle = LayerGradCam(lambda given: model(given).logits, model.backbone.layer4)
    expected = oracle.attribute(x, target=target, relu_attributions=True)[:, 0]
    found = grad_cam(model, x, target)
    assert found.shape == expected.shape == (3, T, 2, 2)
    assert found.dtype == dtype
    assert expected.max() > 0
    assert torch.allclose(found, expected.detach(), rtol=1e-5, atol=1e-7)


@KINDS
def test_the_mean_of_cam_and_the_bias_are_the_logit(kind):
    model, x = network(kind), clip()
    logits = model(x).logits.detach()
    for k in range(K):
        evidence = cam(model, x, torch.full((3,), k))
        assert torch.allclose(evidence.mean((1, 2, 3)) + model.backbone.fc.bias[k], logits[:, k], atol=1e-12)


def test_the_attention_branchs_evidence_adds_up_to_its_logit():
    model, x = network(), clip()
    logits = model(x).attention_logits.detach()
    for k in range(K):
        evidence = branch_cam(model, x, torch.full((3,), k))
        assert evidence.shape == (3, T, 3, 3)
        total = evidence.mean((2, 3)).sum(1) + model.fc_att_out.bias[k]
        assert torch.allclose(total, logits[:, k], atol=1e-12)


@KINDS
def test_the_class_explained_is_by_default_the_one_that_the_network_answers(kind):
    model, x = network(kind), clip()
    answered = model(x).logits.argmax(1)
    for explain in EXPLAINED_BY[kind]:
        assert torch.equal(explain(model, x), explain(model, x, answered))
        assert not torch.equal(explain(model, x), explain(model, x, (answered + 1) % K))


@KINDS
@pytest.mark.parametrize("training", [True, False])
def test_explaining_leaves_the_network_as_it_was(kind, training):
    model = network(kind).train(training)
    model.backbone.layer1.train(not training)
    model.backbone.layer2.requires_grad_(False)
    model.backbone.fc.weight.grad = torch.ones_like(model.backbone.fc.weight)
    before = copy.deepcopy(model)
    for explain in EXPLAINED_BY[kind]:
        explained = explain(model, clip())
        assert not explained.requires_grad
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in model.state_dict().items())
    for part, old in zip(model.modules(), before.modules(), strict=True):
        assert part.training == old.training
        assert not any((part._forward_hooks, part._backward_hooks, part._forward_pre_hooks))
    for (name, parameter), old in zip(model.named_parameters(), before.parameters(), strict=True):
        assert parameter.requires_grad == old.requires_grad
        assert (parameter.grad is None) == (name != "backbone.fc.weight")
    assert torch.equal(model.backbone.fc.weight.grad, torch.ones_like(model.backbone.fc.weight))


@KINDS
def test_a_frozen_network_in_training_mode_and_under_inference_mode_is_explained_alike(kind):
    model, x = network(kind), clip()
    expected = grad_cam(model, x)
    with torch.inference_mode():
        assert torch.equal(grad_cam(model, clip()), expected)
        answered = model(x).logits.argmax(1)
    assert torch.equal(grad_cam(model, x, answered), expected)
    model.requires_grad_(False)
    assert torch.equal(grad_cam(model.train(), x), expected)


def test_a_failed_explanation_leaves_no_hook_and_the_mode():
    model = network().train()
    for explain in (cam, grad_cam, branch_cam):
        with pytest.raises(ValueError, match="clip: got 2 frames, expected 4"):
            explain(model, clip()[:, :, :2])
        with pytest.raises(ValueError, match=r"classes: got shape \(2,\), expected \(3,\)"):
            explain(model, clip(), torch.tensor([0, 1]))
        with pytest.raises(IndexError, match=r"classes: got -1, expected 0\.\.4"):
            explain(model, clip(), torch.tensor([0, -1, 1]))
    assert model.training
    assert not any(part._forward_hooks for part in model.modules())


def test_evidence_becomes_attention_clip_by_clip_as_computed_by_hand():
    evidence = torch.tensor([[[[-1.0, 1.0]], [[3.0, 3.0]]], [[[2.0, 2.0]], [[2.0, 2.0]]]])
    found = normalise_by_range(evidence)
    assert found.spatial.flatten(1).tolist() == [[0.0, 0.5, 1.0, 1.0], [0.0] * 4]
    assert found.temporal.tolist() == [[0.0, 1.0], [0.0, 0.0]]
    found = normalise_by_maximum(evidence.relu())
    assert found.spatial[0].flatten().tolist() == pytest.approx([0.0, 1 / 3, 1.0, 1.0])
    assert found.temporal.flatten().tolist() == pytest.approx([1 / 6, 1.0, 1.0, 1.0])
    nothing = normalise_by_maximum(torch.zeros(1, 2, 1, 2))
    assert not any((nothing.spatial.any(), nothing.temporal.any()))
