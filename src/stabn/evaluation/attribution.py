"""Explanation methods by name, and the network that they explain: each says when and where a class was seen."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from stabn.data.dataset import ClipBatch, VideoDataset, collate
from stabn.data.video.reader import init_reader_process
from stabn.engine.config import EngineRecipe
from stabn.engine.trainer import build_predictor, silence_lightning
from stabn.errors import UserError
from stabn.nn import STABN, Attention, ResNet3D
from stabn.nn.cam import branch_cam, cam, evaluation_mode, grad_cam, normalise_by_maximum, normalise_by_range

EXPLAINERS: dict[str, Callable[[Any, Tensor, Tensor | None], Attention]] = {
    "attention": lambda model, clip, _classes: model(clip).attention,
    "attention-branch": lambda model, clip, classes: normalise_by_range(branch_cam(model, clip, classes)),
    "cam": lambda model, clip, classes: normalise_by_range(cam(model, clip, classes)),
    "grad-cam": lambda model, clip, classes: normalise_by_maximum(grad_cam(model, clip, classes)),
}
"""What reads the network: (model, clip (B, 3, T, H, W), classes (B,) or None for the predicted ones) -> `Attention`."""

REFERENCE_METHODS = ("random", "centre", "uniform")
"""What does not, and is compared with: each cell and frame at random, a Gaussian about the middle, everything alike."""

METHODS = (*EXPLAINERS, *REFERENCE_METHODS)


def methods_of(model: ResNet3D) -> tuple[str, ...]:
    """The methods that can explain a network; the plain one has neither attention nor a branch for it."""
    return METHODS if isinstance(model, STABN) else tuple(m for m in METHODS if not m.startswith("attention"))


def check_methods(model: ResNet3D, methods: Sequence[str]) -> None:
    """Make sure that a network can be explained so.

    Raises:
        UserError: there is none, or one is unknown, comes twice, or does not fit the network.
    """
    known = methods_of(model)
    if not methods:
        raise UserError(f"--methods: got none, expected some of {', '.join(known)}")
    for number, method in enumerate(methods):
        if method not in known:
            raise UserError(f"--methods: got {method!r}, expected some of {', '.join(known)} for this network")
        if method in methods[:number]:
            raise UserError(f"--methods: got {method!r} twice, expected each once")


def attribute_clips(
    model: STABN | ResNet3D,
    clip_bcthw: Tensor,
    methods: Sequence[str],
    *,
    clip_ids: Sequence[str],
    classes_b: Tensor | None = None,
    seed: int = 0,
) -> dict[str, Attention]:
    """When and where, according to each method, on the grid of the network's features.

    Maps of a coarser grid (those of layer4) give each cell the value over it. So all methods of a network are judged on
    the same cells.

    Args:
        model: the network; nothing about it changes.
        clip_bcthw: (B, 3, T, H, W) as for the network.
        methods: of `methods_of(model)`.
        clip_ids: B names, from which with the seed the `random` explanations are made.
        classes_b: (B,) int64, the class explained; by default the predicted one. `attention` and dummies have none.
        seed: of the `random` explanations, from 0.

    Returns:
        By method `Attention` of (B, T, h, w) and (B, T), without gradient; h and w are those of the features.

    Raises:
        UserError: as `check_methods`.
        ValueError, IndexError: as the network and `stabn.nn.cam.cam`.
    """
    check_methods(model, methods)
    with evaluation_mode(model), torch.no_grad():
        features_bcthw = model.encode(clip_bcthw)
        size = (clip_bcthw.shape[2], *features_bcthw.shape[-2:])
        found = {}
        for method in methods:
            if method in EXPLAINERS:
                found[method] = _on_grid(EXPLAINERS[method](model, clip_bcthw, classes_b), size[1:])
            else:
                rows = [_dummy(method, size, np.random.default_rng([seed, *name.encode()])) for name in clip_ids]
                found[method] = Attention(*(torch.stack(part).to(features_bcthw) for part in zip(*rows, strict=True)))
        return found


def _on_grid(attention: Attention, size: tuple[int, int]) -> Attention:
    """The maps on another grid: each new cell has the value of the old one over it, or the mean of those that it cuts.

    Interpolation would move the highest value of a coarse map to the picture's corners.
    """
    if tuple(attention.spatial.shape[-2:]) == size:
        return attention
    return replace(attention, spatial=F.interpolate(attention.spatial, size, mode="area"))


def _dummy(method: str, size: tuple[int, int, int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Maps (T, h, w) and importances (T,) that know nothing of the clip but its size."""
    if method == "random":
        return torch.from_numpy(rng.random(size)), torch.from_numpy(rng.random(size[0]))
    if method == "uniform":
        return torch.full(size, 0.5), torch.full(size[:1], 0.5)
    frames, height, width = (_bell(length) for length in size)
    return (height[:, None] * width).expand(size), frames


def _bell(length: int) -> Tensor:
    """A Gaussian about the middle of `length` places, its standard deviation a quarter of the whole."""
    place = (torch.arange(length, dtype=torch.float64) + 0.5) / length - 0.5
    return (-0.5 * (place / 0.25).square()).exp()


@dataclass(frozen=True, eq=False)
class ExplainedNetwork:
    """A copy of a network on an engine, to be asked and explained; whatever happens to it, the original stays.

    Attributes:
        model: the copy, in evaluation mode, on the engine's device, which may be one that only answers.
        plain: a copy that can be changed; the same one where the other does not only answer.
        precision: the engine's, as a context in which the network answers.
    """

    model: STABN | ResNet3D
    plain: STABN | ResNet3D
    precision: Callable[[], AbstractContextManager[Any]]

    @classmethod
    def of(cls, model: STABN | ResNet3D, engine: EngineRecipe | None = None) -> "ExplainedNetwork":
        """A copy of `model` on the engine, by default what `auto` finds.

        Raises:
            UserError: this machine has no such engine.
        """
        with silence_lightning():
            plain = deepcopy(model).eval()
            answerer, trainer = build_predictor(plain, (engine or EngineRecipe(devices="1")).measuring())
        for copy in (plain, answerer):
            trainer.precision_plugin.convert_module(copy.to(trainer.strategy.root_device))  # in place
        return cls(answerer, plain, trainer.precision_plugin.forward_context)

    def clips(self, batch: ClipBatch) -> Tensor:
        """The batch's clips, (B, 3, T, S, S), on the device and in the dtype of the weights."""
        parameter = next(self.model.parameters())
        return batch.to(parameter.device).clips.to(parameter.dtype)

    @torch.inference_mode()
    def probabilities(self, clip_bcthw: Tensor) -> Tensor:
        """(B, K) float32, the softmax of the perception branch, in the engine's precision."""
        with self.precision():
            return self.model(clip_bcthw).logits.float().softmax(1)


def clip_batches(
    dataset: VideoDataset, rows: Sequence[int], *, batch_size: int, workers: int, told: str
) -> Iterator[ClipBatch]:
    """Some clips of a data set, one window each, with a progress bar that is called `told`."""
    loader = DataLoader(
        Subset(dataset, list(rows)),
        batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=init_reader_process,
    )
    with tqdm(total=len(rows), desc=told, unit="clip", disable=None, leave=False) as bar:
        for batch in loader:
            yield batch
            bar.update(len(batch.pixels))
