"""Activation checkpointing: less memory, the same numbers."""

import copy
from dataclasses import replace

import pytest
import torch

from stabn.nn import STABN, recognition_loss
from stabn.nn.backbones.resnet3d import ARCHITECTURES


def step(model, clips, labels):
    torch.manual_seed(5)
    recognition_loss(model(clips), labels).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("architecture", ["tiny", "small-deep", "bottlenecks", "of several GPUs"])
def test_gradients_and_batch_norm_statistics_are_those_without_it(monkeypatch, architecture, blocks, lean):
    small = ARCHITECTURES["small-deep"]
    monkeypatch.setitem(ARCHITECTURES, "bottlenecks", replace(small, block="bottleneck", widths=(4, 8, 12, 16)))
    torch.manual_seed(0)
    kept = STABN("tiny" if architecture == "of several GPUs" else architecture, 3, 4).train()
    if architecture == "of several GPUs":
        kept = torch.nn.SyncBatchNorm.convert_sync_batchnorm(kept)
    again = copy.deepcopy(kept)
    again.checkpoint_activations(blocks)
    again.checkpoint_norms(lean)
    clips, labels = torch.randn(2, 3, 4, 32, 32), torch.tensor([0, 2])
    expected, found = step(kept, clips, labels), step(again, clips, labels)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert all(torch.equal(a, b) for a, b in zip(kept.buffers(), again.buffers(), strict=True))
    assert again.backbone.bn1.momentum == again.backbone.layer2[0].bn1.momentum == 0.1


def test_less_is_kept_for_the_gradients():
    model = STABN("small-deep", 3, 4).train()
    clips = torch.randn(2, 3, 4, 32, 32)

    def kept() -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(clips)
        return sum(sizes)

    everything = kept()
    model.checkpoint_norms()
    lean = kept()
    assert lean < 0.9 * everything
    model.checkpoint_activations()
    assert kept() < min(lean, 0.6 * everything)
