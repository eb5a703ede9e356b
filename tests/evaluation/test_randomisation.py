import numpy as np
import pytest
import torch
from lanterns import FRAMES, Honest, Lanterns
from torchmetrics.functional import spearman_corrcoef

from stabn.evaluation.attribution import ExplainedNetwork, methods_of
from stabn.evaluation.randomisation import (
    measure_randomisation,
    randomise_weights,
    rank_correlation,
)
from stabn.nn import STABN, PlainNetwork


def test_rank_correlation_is_spearmans_with_shared_ranks():
    rng = np.random.default_rng(0)
    a, b = rng.integers(5, size=40).astype(float), rng.integers(5, size=40).astype(float)
    expected = spearman_corrcoef(torch.from_numpy(a), torch.from_numpy(b))
    assert rank_correlation(a, b) == pytest.approx(float(expected), abs=1e-5)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    # 1 2 3 4 against 1 2 4 3: 1 - 6 * 2 / (4 * 15)
    assert rank_correlation(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])) == pytest.approx(0.8)


def test_what_is_the_same_everywhere_is_unchanged_only_if_it_stays_so():
    flat, sloping = np.full(4, 0.5), np.arange(4.0)
    assert rank_correlation(flat, flat * 0.2) == 1
    assert rank_correlation(flat, sloping) == rank_correlation(sloping, flat) == 0


@pytest.mark.parametrize("kind", [STABN, PlainNetwork])
def test_every_weight_is_forgotten_from_the_answer_down(kind):
    model = kind("tiny", 3, FRAMES)
    stages = model.stages()
    assert next(iter(stages)) == "stem"
    assert list(stages)[-1] == "fc"
    parts = [p for modules in stages.values() for module in modules for p in module.parameters()]
    assert {id(p) for p in parts} == {id(p) for p in model.parameters()}
    assert len(parts) == len(list(model.parameters()))
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.backbone.bn1.running_mean.fill_(7)
    for modules in stages.values():
        for module in modules:
            randomise_weights(module)
    assert model.backbone.bn1.running_mean.eq(0).all()
    for name, value in model.named_parameters():
        assert (value.ndim == 1 and ".fc." not in name) or not torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", [STABN, PlainNetwork])
def test_explanations_that_read_the_network_change_with_it_and_dummies_are_said_not_to(kind):
    torch.manual_seed(1)
    model = kind("tiny", 3, FRAMES)
    subject = ExplainedNetwork.of(model)
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    found = measure_randomisation(subject, Lanterns(4), range(4), methods_of(model), seed=2)
    assert found == measure_randomisation(subject, Lanterns(4), range(4), methods_of(model), seed=2, batch_size=3)
    for method in ("random", "centre", "uniform"):
        assert found[method]["changes"] == {"temporal": False, "spatial": False}
        assert all(step["mean"] == 1 for step in found[method]["temporal"] + found[method]["spatial"])
    for method in set(methods_of(model)) - {"random", "centre", "uniform"}:
        assert found[method]["spatial"][-1]["mean"] < 0.9
    assert [step["part"] for step in found["cam"]["temporal"]] == list(reversed(model.stages()))
    assert found["cam"]["spatial"][0]["mean"] < 1  # it reads the classifier's weights
    if kind is STABN:
        # attention comes before the classifier and layer4, and does not know them
        assert [step["mean"] for step in found["attention"]["spatial"][:3]] == [1, 1, 1]
        assert found["attention"]["spatial"][3]["mean"] < 1
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())


def test_attention_that_no_weight_has_a_part_in_is_said_not_to_change():
    found = measure_randomisation(ExplainedNetwork.of(Honest()), Lanterns(4), range(4), ["attention"])
    assert found["attention"]["changes"] == {"temporal": False, "spatial": False}
