"""The differences of one layout file: what its network is, what it is asked, and how far it is off."""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stabn.errors import UserError
from stabn.nn import PlainNetwork, import_official, import_recogniser
from stabn.nn.backbone import map_of
from stabn.nn.network import VideoNetwork

LIMIT = 1e-9
FORMULA = Path(__file__).parents[2] / "tests" / "reference" / "formula_weights.py"
_spec = importlib.util.spec_from_file_location("formula_weights", FORMULA)
assert _spec is not None
assert _spec.loader is not None
formula = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(formula)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A network with formula weights, in evaluation mode and float64, and what its layout file says.

    Attributes:
        network: as the importer of official checkpoints gives it.
        layout: the layout file.
        arrays: the .npz beside it.
    """

    network: VideoNetwork
    layout: Mapping[str, Any]
    arrays: Arrays

    def clip(self, seed: int | None = None, size: int | None = None) -> Tensor:
        """The layout's clip, or one of another seed or size, as the network takes it."""
        layout = self.layout
        seed = layout["clip_seed"] if seed is None else seed
        clip = torch.from_numpy(formula.formula_clip(layout["frames"], size or layout["size"], seed)).double()
        # The formula's first channel is the first that the official loader feeds, which is blue for some.
        return clip.flip(1) if getattr(self.network.backbone, "blue_first", False) else clip

    @cached_property
    def features(self) -> Tensor:
        """Of the clip, at the split."""
        return map_of(self.network.encode(self.clip()))

    @cached_property
    def maps(self) -> Tensor:
        """The last maps of the clip."""
        return map_of(self.network.backbone.deepen(self.network.encode(self.clip())))

    def logits(self, clip: Tensor) -> Tensor:
        """The network's class scores."""
        return self.network(clip).logits


Question = Callable[[Subject], Tensor]


def _channels_of(values: Tensor, expected: np.ndarray, dim: int = 1) -> Tensor:
    """Every n-th channel, as many as the reference keeps."""
    step = values.shape[dim] // expected.shape[dim]
    return values.index_select(dim, torch.arange(0, values.shape[dim], step))


GENERIC: dict[str, Question] = {
    "logits": lambda s: s.logits(s.clip()),
    "logits_seed3": lambda s: s.logits(s.clip(seed=3)),
    "logits_reversed": lambda s: s.logits(s.clip().flip(2)),
    "logits_224": lambda s: s.logits(s.clip(size=224)),
    "features": lambda s: _channels_of(s.maps, s.arrays["features"]),
    "features_mean": lambda s: s.maps.mean(dim=1),
    "features_layer3": lambda s: _channels_of(s.features, s.arrays["features_layer3"]),
}
"""Name of an array -> how any network answers it."""

SPECIAL: dict[str, dict[str, Question]] = {}
"""Name of a family's class -> its own arrays, which go before `GENERIC`."""

ATTENTION: dict[str, Question] = {
    "logits_perception": lambda s: s.logits(s.clip()),
    "logits_attention": lambda s: s.network(s.clip()).attention_logits,
    "spatial": lambda s: s.network(s.clip()).attention.spatial,
    "temporal": lambda s: s.network(s.clip()).attention.temporal,
}
"""Arrays of ST-ABN itself."""

MODULES: dict[str, Callable[[Mapping[str, Tensor], Mapping[str, Any], Arrays], dict[str, Tensor]]] = {}
"""`model` of a layout of a single module -> its answers from tensors, layout and inputs in the arrays."""


def compare(layout: Path) -> dict[str, float]:
    """The greatest difference of each array, relative to its greatest value.

    Raises:
        UserError: a file is missing, no family has such tensors, or an array is not known.
    """
    about = json.loads(layout.read_text())
    with np.load(layout.with_suffix(".npz")) as stored:
        arrays = dict(stored)
    tensors = formula_tensors(layout, about)
    with torch.inference_mode():
        if about["model"] in MODULES:
            answers = MODULES[about["model"]](tensors, about, arrays)
        else:
            subject = Subject(imported(tensors, about), about, arrays)
            questions = questions_of(subject)
            if unknown := [name for name in arrays if name not in questions]:
                raise UserError(f"{layout}: array {unknown[0]}: not known for {subject.network.architecture}")
            answers = {name: questions[name](subject) for name in arrays}
    return {name: _difference(answer, arrays[name]) for name, answer in answers.items()}


def questions_of(subject: Subject) -> dict[str, Question]:
    """How the network answers each array."""
    own = {} if isinstance(subject.network, PlainNetwork) else ATTENTION
    return GENERIC | own | SPECIAL.get(type(subject.network.backbone).__name__, {})


def formula_tensors(layout: Path, about: Mapping[str, Any]) -> dict[str, Tensor]:
    """The formula's tensors in float64, those of 4 dimensions times the layout's gain."""
    gain = about.get("conv_gain", 1.0)
    tensors = {}
    for name, value in formula.formula_state_dict(layout).items():
        tensor = torch.from_numpy(value)
        if tensor.is_floating_point():
            tensor = tensor.double() * (gain if tensor.ndim == 4 else 1.0)
        tensors[name] = tensor
    return tensors


def imported(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> VideoNetwork:
    """The network of a checkpoint with these tensors."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{about['model']}.pth"
        torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, checkpoint)
        return import_recogniser(checkpoint, frames=about["frames"]) or import_official(checkpoint)


def _difference(answer: Tensor, expected: np.ndarray) -> float:
    own = answer.numpy()
    if own.shape != expected.shape:
        return float("inf")
    difference = float(np.abs(own - expected).max() / np.abs(expected).max())
    return difference if np.isfinite(difference) else float("inf")
