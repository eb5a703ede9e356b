import numpy as np
import pytest
import torch
from lanterns import FRAMES

from stabn.errors import UserError
from stabn.evaluation.attribution import METHODS, REFERENCE_METHODS, ExplainedNetwork, attribute_clips, methods_of
from stabn.nn import STABN, PlainNetwork
from stabn.nn.cam import branch_cam, cam, grad_cam, normalise_by_maximum, normalise_by_range


def clip(side: int = 56, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, FRAMES, side, side, generator=torch.Generator().manual_seed(seed))


def network(kind):
    torch.manual_seed(3)
    return kind("tiny", 4, FRAMES).eval()


@pytest.mark.parametrize("kind", [STABN, PlainNetwork])
@pytest.mark.parametrize("side", [56, 40])
def test_all_methods_of_a_network_answer_on_the_grid_of_its_features(kind, side):
    found = attribute_clips(network(kind), clip(side), methods_of(network(kind)), clip_ids=("a", "b"))
    size = -(-side // 16)
    for method, attention in found.items():
        assert attention.spatial.shape == (2, FRAMES, size, size), method
        assert attention.temporal.shape == (2, FRAMES)
        assert not attention.spatial.requires_grad
    assert tuple(found) == (METHODS if kind is STABN else ("cam", "grad-cam", *REFERENCE_METHODS))


def test_methods_are_those_of_their_sources_on_the_same_cells():
    model, x, k = network(STABN), clip(), torch.tensor([3, 1])
    found = attribute_clips(model, x, METHODS, clip_ids=("a", "b"), classes_b=k)
    assert torch.equal(found["attention"].spatial, model(x).attention.spatial)
    assert torch.equal(found["attention-branch"].spatial, normalise_by_range(branch_cam(model, x, k)).spatial)
    for name, own in (
        ("cam", normalise_by_range(cam(model, x, k))),
        ("grad-cam", normalise_by_maximum(grad_cam(model, x, k))),
    ):
        assert torch.equal(found[name].temporal, own.temporal)
        # every cell of layer4 lies over 2 x 2 of the features'
        assert torch.allclose(found[name].spatial, own.spatial.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_dummies_know_the_clips_name_at_most():
    model = network(PlainNetwork)
    one, same, other = (
        attribute_clips(model, clip(seed=n), REFERENCE_METHODS, clip_ids=ids, seed=5)
        for n, ids in ((0, ("a", "b")), (1, ("b", "a")), (0, ("c", "d")))
    )
    assert torch.equal(one["random"].spatial, same["random"].spatial.flip(0))
    assert not torch.equal(one["random"].temporal, other["random"].temporal)
    reseeded = attribute_clips(model, clip(), REFERENCE_METHODS, clip_ids=("a", "b"), seed=6)
    assert not torch.equal(one["random"].temporal, reseeded["random"].temporal)
    assert one["uniform"].spatial.unique().tolist() == one["uniform"].temporal.unique().tolist() == [0.5]
    centre = one["centre"]
    assert torch.equal(centre.temporal, centre.temporal.flip(1))
    assert centre.temporal[0].argsort(descending=True)[:2].sort().values.tolist() == [3, 4]
    # a quarter of the whole is one standard deviation: from the middle, cells 1/8 and 3/8 of four are away
    assert np.allclose(
        centre.spatial[0, 0, 0], np.exp(-0.5 * (1.5**2 + np.array([1.5, 0.5, 0.5, 1.5]) ** 2)), atol=1e-6
    )


def test_a_method_that_the_network_does_not_have_is_refused():
    with pytest.raises(UserError, match=r"--methods: got 'attention', .*cam, grad-cam, random"):
        attribute_clips(network(PlainNetwork), clip(), ["attention"], clip_ids=("a", "b"))
    with pytest.raises(UserError, match="--methods: got 'cam' twice"):
        attribute_clips(network(PlainNetwork), clip(), ["cam", "cam"], clip_ids=("a", "b"))


def test_a_subject_is_a_copy_that_answers_like_the_network():
    model = network(STABN).train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    subject = ExplainedNetwork.of(model)
    with torch.no_grad():
        subject.model.backbone.fc.bias.zero_()
    assert model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        model.backbone.fc.bias.zero_()
        expected = model.eval()(clip()).logits.softmax(1)
    assert torch.allclose(subject.probabilities(clip()), expected, atol=1e-5)
