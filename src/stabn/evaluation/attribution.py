"""Explanation methods by name: each gives temporal and spatial importances of a clip for one class."""

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

from stabn.data.clip_batch import ClipBatch, collate
from stabn.data.dataset import VideoDataset
from stabn.data.video.reader import init_reader_process
from stabn.engine.config import EngineRecipe
from stabn.engine.trainer import build_predictor, silence_lightning
from stabn.errors import UserError
from stabn.nn import Attention, VideoNetwork, has_attention, shows_attention
from stabn.nn.backbone import map_of
from stabn.nn.cam import branch_cam, cam, evaluation_mode, grad_cam, normalise_by_maximum, normalise_by_range

EXPLAINERS: dict[str, Callable[[Any, Tensor, Tensor | None], Attention]] = {
    "attention": lambda model, clip, _classes: model(clip).attention,
    "attention-branch": lambda model, clip, classes: normalise_by_range(branch_cam(model, clip, classes)),
    "cam": lambda model, clip, classes: normalise_by_range(cam(model, clip, classes)),
    "grad-cam": lambda model, clip, classes: normalise_by_maximum(grad_cam(model, clip, classes)),
}
"""Methods that use the network: (model, clip (B, 3, T, H, W), classes (B,) or None for the top one) -> `Attention`."""

REFERENCE_METHODS = ("random", "centre", "uniform")
"""Dummy explanations to compare with: random values, a Gaussian about the middle, the same value everywhere."""

METHODS = (*EXPLAINERS, *REFERENCE_METHODS)


def methods_of(model: VideoNetwork) -> tuple[str, ...]:
    """The methods that fit a network: attention needs the branch, and CAM a classifier of the maps' mean."""
    return tuple(
        method
        for method in METHODS
        if (has_attention(model) or method != "attention-branch")
        and (shows_attention(model) or method != "attention")
        and (method != "cam" or model.backbone.linear is not None)
    )


def check_methods(model: VideoNetwork, methods: Sequence[str]) -> None:
    """Check the names of explanation methods.

    Raises:
        UserError: no method, or one that is unknown, comes twice, or does not fit the network.
    """
    available = methods_of(model)
    if not methods:
        raise UserError(f"--methods: got none, expected some of {', '.join(available)}")
    for number, method in enumerate(methods):
        if method not in available:
            raise UserError(f"--methods: got {method!r}, expected some of {', '.join(available)} for this network")
        if method in methods[:number]:
            raise UserError(f"--methods: got {method!r} twice, expected each once")


def attribute_clips(
    model: VideoNetwork,
    clip_bcthw: Tensor,
    methods: Sequence[str],
    *,
    clip_ids: Sequence[str],
    classes_b: Tensor | None = None,
    seed: int = 0,
) -> dict[str, Attention]:
    """Explanations of a batch of clips by each method, on the grid of the network's features.

    Maps on a coarser grid (those of layer4) are enlarged by repeating cells, so that all methods of a network are
    compared on the same cells.

    Args:
        model: the network; its weights, mode and gradients stay as they are.
        clip_bcthw: (B, 3, T, H, W) as for the network.
        methods: of `methods_of(model)`.
        clip_ids: B names, which with `seed` make the `random` explanations reproducible.
        classes_b: (B,) int64, the class explained; by default the predicted one. `attention` and dummies ignore it.
        seed: for the `random` explanations, from 0.

    Returns:
        By method `Attention` of (B, T, h, w) and (B, T), without gradient; h and w are those of the features.

    Raises:
        UserError: as `check_methods`.
        ValueError, IndexError: as the network and `stabn.nn.cam.cam`.
    """
    check_methods(model, methods)
    with evaluation_mode(model), torch.no_grad():
        features_bcthw = map_of(model.encode(clip_bcthw))
        size = (clip_bcthw.shape[2], *features_bcthw.shape[-2:])
        explanations = {}
        for method in methods:
            if method in EXPLAINERS:
                explanations[method] = _on_grid(EXPLAINERS[method](model, clip_bcthw, classes_b), size[1:])
            else:
                rows = [_dummy(method, size, np.random.default_rng([seed, *name.encode()])) for name in clip_ids]
                parts = (torch.stack(part).to(features_bcthw) for part in zip(*rows, strict=True))
                explanations[method] = Attention(*parts)
        return explanations


def _on_grid(attention: Attention, size: tuple[int, int]) -> Attention:
    """The maps on another grid by area: each new cell has the mean of the old cells that it overlaps.

    Bilinear interpolation would move the highest value of a coarse map towards the corners.
    """
    if tuple(attention.spatial.shape[-2:]) == size:
        return attention
    return replace(attention, spatial=F.interpolate(attention.spatial, size, mode="area"))


def _dummy(method: str, size: tuple[int, int, int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Spatial maps (T, h, w) and temporal scores (T,) that depend on the size of the clip alone."""
    if method == "random":
        return torch.from_numpy(rng.random(size)), torch.from_numpy(rng.random(size[0]))
    if method == "uniform":
        return torch.full(size, 0.5), torch.full(size[:1], 0.5)
    frames, height, width = (_bell(length) for length in size)
    return (height[:, None] * width).expand(size), frames


def _bell(length: int) -> Tensor:
    """(length,) Gaussian about the middle, its standard deviation a quarter of the length."""
    position = (torch.arange(length, dtype=torch.float64) + 0.5) / length - 0.5
    return (-0.5 * (position / 0.25).square()).exp()


@dataclass(frozen=True, eq=False)
class ExplainedNetwork:
    """A copy of a network on an engine; the original is never changed.

    Attributes:
        model: the copy, in evaluation mode, on the engine's device; possibly converted for fast inference.
        plain: a copy whose weights can be changed; the same object where `model` is not specialised for inference.
        precision: context manager in which the network runs at the engine's precision.
    """

    model: VideoNetwork
    plain: VideoNetwork
    precision: Callable[[], AbstractContextManager[Any]]

    @classmethod
    def of(cls, model: VideoNetwork, engine: EngineRecipe | None = None) -> "ExplainedNetwork":
        """A copy of `model` on an engine; by default the one that `auto` selects.

        Raises:
            UserError: this machine has no such engine.
        """
        with silence_lightning():
            plain = deepcopy(model).eval()
            predictor, trainer = build_predictor(plain, (engine or EngineRecipe(devices="1")).for_measurement())
        for copy in (plain, predictor):
            trainer.precision_plugin.convert_module(copy.to(trainer.strategy.root_device))  # in place
        return cls(predictor, plain, trainer.precision_plugin.forward_context)

    def clips(self, batch: ClipBatch) -> Tensor:
        """The clips of a batch, (B, 3, T, S, S), on the device and in the dtype of the weights."""
        parameter = next(self.model.parameters())
        return batch.to(parameter.device).clips.to(parameter.dtype)

    @torch.inference_mode()
    def probabilities(self, clip_bcthw: Tensor) -> Tensor:
        """(B, K) float32 softmax scores of the perception branch, computed at the engine's precision."""
        with self.precision():
            return self.model(clip_bcthw).logits.float().softmax(1)


def clip_batches(
    dataset: VideoDataset, rows: Sequence[int], *, batch_size: int, workers: int, desc: str
) -> Iterator[ClipBatch]:
    """Batches of some clips of a data set, one window each, under a progress bar labelled `desc`."""
    loader = DataLoader(
        Subset(dataset, list(rows)),
        batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=init_reader_process,
    )
    with tqdm(total=len(rows), desc=desc, unit="clip", disable=None, leave=False) as bar:
        for batch in loader:
            yield batch
            bar.update(len(batch.pixels))
