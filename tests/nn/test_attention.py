from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from stabn.nn import Attention, Output


def attention() -> Attention:
    spatial = torch.tensor([0.0, 0.25, 0.5, 1.0]).reshape(1, 2, 1, 2)
    return Attention(spatial, torch.tensor([[0.2, 0.6]]))


def test_inverting_gives_one_minus_the_attention_and_leaves_the_original_alone():
    original = attention()
    spatial, temporal = original.spatial.clone(), original.temporal.clone()
    assert torch.equal(original.inverse_spatial().spatial, 1 - spatial)
    assert original.inverse_spatial().temporal is original.temporal
    assert torch.equal(original.inverse_temporal().temporal, 1 - temporal)
    assert original.inverse_temporal().spatial is original.spatial
    assert torch.equal(original.spatial, spatial)
    assert torch.equal(original.temporal, temporal)


def test_uniform_attention_keeps_the_amount_but_not_the_place():
    uniform = attention().uniform_spatial()
    assert uniform.spatial.flatten().tolist() == [0.125, 0.125, 0.75, 0.75]
    assert torch.allclose(attention().uniform_temporal().temporal, torch.tensor([[0.4, 0.4]]))


def test_attention_cannot_be_mutated_but_replaced():
    original = attention()
    with pytest.raises(FrozenInstanceError):
        original.temporal = torch.zeros(1, 2)
    assert torch.equal(replace(original, temporal=torch.zeros(1, 2)).temporal, torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("spatial", "temporal", "message"),
    [
        (torch.zeros(1, 2, 3), torch.zeros(1, 2), r"spatial: got shape \(1, 2, 3\), expected \(B, T, h, w\)"),
        (torch.zeros(1, 2, 3, 3), torch.zeros(1, 3), r"temporal: got shape \(1, 3\), expected \(1, 2\)"),
        (torch.zeros(1, 2, 3, 3), torch.zeros(2, 2), r"temporal: got shape \(2, 2\), expected \(1, 2\)"),
        (torch.full((1, 2, 3, 3), 1.5), torch.zeros(1, 2), r"spatial: got values in 1.5..1.5, expected 0..1"),
        (torch.zeros(1, 2, 3, 3), torch.tensor([[-0.1, 0.5]]), r"temporal: got values in -0.1..0.5, expected 0..1"),
        (torch.zeros(1, 2, 3, 3), torch.tensor([[float("nan"), 0.5]]), r"temporal: got NaN, expected 0\.\.1"),
        (torch.zeros(1, 2, 3, 3, dtype=torch.uint8), torch.zeros(1, 2), r"spatial: got torch.uint8"),
    ],
)
def test_wrong_attention_is_refused_with_what_it_got_and_expected(spatial, temporal, message):
    with pytest.raises(ValueError, match=message):
        Attention(spatial, temporal)


def test_an_output_whose_parts_do_not_belong_together_is_refused():
    with pytest.raises(ValueError, match=r"logits: got shape \(3,\), expected \(B, K\)"):
        Output(torch.zeros(3))
    with pytest.raises(ValueError, match=r"attention_logits: got shape \(1, 4\), expected \(1, 3\)"):
        Output(torch.zeros(1, 3), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="attention: got 1 clips, expected 2"):
        Output(torch.zeros(2, 3), torch.zeros(2, 3), attention())


def test_another_clips_attention_takes_the_place_of_one_half_and_leaves_the_other():
    own, other = attention(), Attention(torch.full((1, 2, 1, 2), 0.75), torch.tensor([[0.5, 0.1]]))
    assert own.with_spatial_of(other).spatial is other.spatial
    assert own.with_spatial_of(other).temporal is own.temporal
    assert own.with_temporal_of(other).temporal is other.temporal
    assert own.with_temporal_of(other).spatial is own.spatial
    with pytest.raises(ValueError, match=r"temporal: got shape \(2, 2\), expected \(1, 2\)"):
        own.with_temporal_of(Attention(torch.zeros(2, 2, 1, 2), torch.zeros(2, 2)))


def test_rows_of_attention_are_those_of_the_clips():
    several = Attention(torch.rand(3, 2, 1, 2), torch.rand(3, 2))
    assert torch.equal(several.rows(torch.tensor([2, 0])).temporal, several.temporal[[2, 0]])
    assert torch.equal(several.rows(slice(1, 3)).spatial, several.spatial[1:])
