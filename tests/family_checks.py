"""What every family of base networks is checked for in the same way."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from uneven import random_clip

from stabn.nn import STABN, PlainNetwork, VideoNetwork, load_pretrained, recognition_loss

SIDE = 32


def clip_of(network: VideoNetwork, batch: int = 1) -> Tensor:
    """A float64 clip that the network takes."""
    return random_clip(network.frames, SIDE, SIDE, batch=batch, dtype=torch.float64)


def close(got: Tensor, expected: Tensor) -> bool:
    """Equal to a billionth of the largest value."""
    return torch.allclose(got, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def check_two_clips_are_answered_as_each_alone(network: VideoNetwork) -> None:
    clips = clip_of(network, batch=2)
    with torch.no_grad():
        both = network(clips).logits
        alone = torch.cat([network(clip[None]).logits for clip in clips])
    assert close(both, alone)
    assert not close(both[:1], both[1:])


def check_learns_and_comes_back(
    name: str,
    frames: int,
    side: int,
    folder: Path,
    *,
    kinds: Sequence[type[VideoNetwork]] = (STABN, PlainNetwork),
    unread: str | None = None,
) -> None:
    """Every weight has a gradient, but for those with `unread` in their names, and a saved network answers alike."""
    clip = random_clip(frames, side, side, batch=2)
    for kind in kinds:
        torch.manual_seed(0)
        model = kind(name, 3, frames).train()
        recognition_loss(model(clip), torch.tensor([0, 2])).backward()
        without = [key for key, value in model.named_parameters() if value.grad is None]
        assert [key for key in without if unread is None or unread not in key] == []
        model.eval().save_pretrained(folder / kind.__name__)
        again = load_pretrained(folder / kind.__name__)
        with torch.no_grad():
            output, expected = again(clip), model(clip)
        assert torch.equal(output.logits, expected.logits)
        if kind is STABN:
            grid = model.backbone.grid(side)
            assert output.attention.temporal.shape == (2, frames)
            assert output.attention.spatial.shape == (2, frames, grid, grid)
            assert torch.equal(output.attention.temporal, expected.attention.temporal)
