from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from stabn.nn import Attention, Output


def attention() -> Attention:
    spatial = torch.tensor([0.0, 0.25, 0.5, 1.0]).reshape(1, 2, 1, 2)
    return Attention(spatial, torch.tensor([[0.2, 0.6]]))


def test_a_replacement_changes_one_half_and_shares_the_other():
    original, other = attention(), Attention(torch.full((1, 2, 1, 2), 0.75), torch.tensor([[0.5, 0.1]]))
    spatial, temporal = original.spatial.clone(), original.temporal.clone()
    for replaced, expected in (
        (original.inverse_spatial(), 1 - spatial),
        (original.uniform_spatial(), torch.tensor([0.125, 0.125, 0.75, 0.75]).view(1, 2, 1, 2)),
        (original.with_spatial_of(other), other.spatial),
    ):
        assert torch.allclose(replaced.spatial, expected)
        assert replaced.temporal is original.temporal
    for replaced, expected in (
        (original.inverse_temporal(), 1 - temporal),
        (original.uniform_temporal(), torch.tensor([[0.4, 0.4]])),
        (original.with_temporal_of(other), other.temporal),
        (replace(original, temporal=torch.zeros(1, 2)), torch.zeros(1, 2)),
    ):
        assert torch.allclose(replaced.temporal, expected)
        assert replaced.spatial is original.spatial
    with pytest.raises(FrozenInstanceError):
        original.temporal = torch.zeros(1, 2)
    assert torch.equal(original.spatial, spatial)
    assert torch.equal(original.temporal, temporal)
    with pytest.raises(ValueError, match=r"temporal: got shape \(2, 2\), expected \(1, 2\)"):
        original.with_temporal_of(Attention(torch.zeros(2, 2, 1, 2), torch.zeros(2, 2)))


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


def test_rows_of_attention_are_those_of_the_clips():
    several = Attention(torch.rand(3, 2, 1, 2), torch.rand(3, 2))
    assert torch.equal(several.rows(torch.tensor([2, 0])).temporal, several.temporal[[2, 0]])
    assert torch.equal(several.rows(slice(1, 3)).spatial, several.spatial[1:])
