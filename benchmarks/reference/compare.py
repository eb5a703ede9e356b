"""The differences of one layout file: what its network is, what it is asked, and how far it is off."""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stabn.errors import UserError
from stabn.nn import PlainNetwork, import_official, import_recogniser, shows_attention
from stabn.nn.backbone import Features, map_of
from stabn.nn.backbones import RECOGNISERS
from stabn.nn.backbones.dfb import FilterBankHead
from stabn.nn.backbones.frame_network import unfold
from stabn.nn.backbones.pem import ProgressiveEnhancement, temporal_diversity
from stabn.nn.backbones.trn import ordered_tuples
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

    network: Any  # a VideoNetwork, of which some families offer more
    layout: Mapping[str, Any]
    arrays: Arrays

    def clip(self, seed: int | None = None, size: int | None = None) -> Tensor:
        """The layout's clip, or one of another seed or size, as the network takes it."""
        layout = self.layout
        seed = layout["clip_seed"] if seed is None else seed
        clip = torch.from_numpy(formula.formula_clip(layout["frames"], size or layout["size"], seed)).double()
        # The formula's first channel is the first that the official loader feeds, which is blue for some.
        return clip.flip(1) if getattr(self.network.backbone, "blue_first", False) else clip

    @property
    def backbone(self) -> Any:
        """The base network, with the parts of its family."""
        return self.network.backbone

    @cached_property
    def features(self) -> Tensor:
        """Of the clip, at the split."""
        return map_of(self.network.encode(self.clip()))

    @cached_property
    def last(self) -> Features:
        """What the classifier reads of the clip."""
        return self.network.backbone.deepen(self.network.encode(self.clip()))

    @property
    def maps(self) -> Tensor:
        """The last maps of the clip."""
        return map_of(self.last)

    def logits(self, clip: Tensor) -> Tensor:
        """The network's class scores."""
        return self.network(clip).logits


Question = Callable[[Subject], Tensor]


def _channels_of(values: Tensor, expected: np.ndarray, dim: int = 1) -> Tensor:
    """Every n-th channel, as many as the reference keeps."""
    step = values.shape[dim] // expected.shape[dim]
    return values.index_select(dim, torch.arange(0, values.shape[dim], step))


GENERIC: dict[str, Question] = {
    "logits": lambda s: s.backbone.classify(s.last),
    "logits_seed3": lambda s: s.logits(s.clip(seed=3)),
    "logits_reversed": lambda s: s.logits(s.clip().flip(2)),
    "logits_224": lambda s: s.logits(s.clip(size=224)),
    "features": lambda s: _channels_of(s.maps, s.arrays["features"]),
    "features_mean": lambda s: s.maps.mean(dim=1),
    "features_layer3": lambda s: _channels_of(s.features, s.arrays["features_layer3"]),
}
"""Name of an array -> how any network answers it."""


def _blocks(subject: Subject, layer: int) -> Tensor:
    """The input of a layer of a 2D ResNet of frames, (B T, C, h, w)."""
    backbone: Any = subject.backbone
    body = backbone.base_model
    x_nchw = body.stem(backbone.fold(subject.clip()))
    for before in range(1, layer):
        x_nchw = getattr(body, f"layer{before}")(x_nchw)
    return x_nchw


def _stm_motion(subject: Subject) -> Tensor:
    block = subject.backbone.base_model.layer1[0]
    motion_nchw = block.mb(block.relu(block.bn1(block.conv1(_blocks(subject, 1)))))
    return _channels_of(unfold(motion_nchw, subject.layout["frames"]), subject.arrays["cmm"])


def _stm_strided(subject: Subject) -> Tensor:
    maps_nchw = subject.backbone.base_model.layer2[0](_blocks(subject, 2))
    return _channels_of(unfold(maps_nchw, subject.layout["frames"]), subject.arrays["block_layer2_0"])


def _scale_sums(subject: Subject, clip: Tensor, tuples: Sequence[Tensor] | None = None) -> Tensor:
    """(scales, K), of all tuples or of some."""
    backbone: Any = subject.backbone
    features = backbone.frame_features(backbone.deepen(backbone.extract(clip)))
    relation = backbone.consensus
    every = [ordered_tuples(relation.steps, scale) for scale in relation.scales]
    return torch.cat(relation.sums(features, tuples or every))


def _drawn(subject: Subject) -> Tensor:
    tuples = [torch.tensor(one) for one in subject.layout["tuples"]]
    return _scale_sums(subject, subject.clip(), tuples).sum(dim=0, keepdim=True)


def _reversed_snippets(subject: Subject) -> Tensor:
    snippet = subject.backbone.time_stride
    return subject.clip().unflatten(2, (-1, snippet)).flip(2).flatten(2, 3)


def _matched(subject: Subject) -> Tensor:
    body: Any = subject.backbone.base_model
    inputs: list[Tensor] = []
    module = body.group1.block2.pointnet
    handle = module.register_forward_pre_hook(lambda _module, arguments: inputs.append(arguments[0]))
    subject.network(subject.clip())
    handle.remove()
    return module.matched(inputs[0][..., ::2, ::2]).transpose(1, 2)


def _slow_maps(subject: Subject) -> Tensor:
    """The slow pathway's last maps, once per step."""
    slow = subject.backbone.slow.widths[-1]
    return subject.maps[:, :slow, :: subject.backbone.time_stride]


def _fast_maps(subject: Subject) -> Tensor:
    return subject.maps[:, subject.backbone.slow.widths[-1] :]


def _with_map(subject: Subject, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """Class scores with another map in place of the network's own."""
    network, features = subject.network, subject.network.encode(subject.clip())
    own, _ = network.attend(features)
    return network.perceive(features, replace(own, spatial=edit(own.spatial)))


def _left_half(spatial_bthw: Tensor) -> Tensor:
    """1 in the left half of the columns, 0 in the others."""
    columns = torch.arange(spatial_bthw.shape[3])
    return (columns < spatial_bthw.shape[3] // 2).to(spatial_bthw).expand_as(spatial_bthw)


def _with_scores(subject: Subject, name: str) -> Tensor:
    """Class scores with edited temporal scores: those that the layout or its arrays name, or made by their name."""
    network, features = subject.network, subject.network.encode(subject.clip())
    own, _ = network.attend(features)
    given = subject.layout.get("edits", {}).get(name, subject.arrays.get(f"edit_{name}"))
    if given is not None:
        scores_bt = torch.as_tensor(given).reshape(own.temporal.shape).to(own.temporal)
    else:
        scores_bt = {"zeros": torch.zeros_like, "ones": torch.ones_like, "inverted": lambda m: 1 - m}[name](
            own.temporal
        )
    return network.perceive(features, replace(own, temporal=scores_bt))


def _with_strategy(subject: Subject) -> Subject:
    """The same weights in the paths that the layout's strategy keeps."""
    network = subject.network
    options = {"strategy": subject.layout["options"]["strategy"]}
    kept = PlainNetwork(network.architecture, network.num_classes, network.frames, backbone_options=options)
    kept = kept.double().eval()
    kept.load_state_dict({name: network.state_dict()[name] for name in kept.state_dict()})
    return replace(subject, network=kept)


SPECIAL: dict[str, dict[str, Question]] = {
    "TRN": {
        "logits": _drawn,
        "logits_all": lambda s: _scale_sums(s, s.clip()).sum(dim=0, keepdim=True),
        "logits_expected": lambda s: s.logits(s.clip()),
        "logits_all_seed3": lambda s: _scale_sums(s, s.clip(seed=3)).sum(dim=0, keepdim=True),
        "logits_all_reversed": lambda s: _scale_sums(s, _reversed_snippets(s)).sum(dim=0, keepdim=True),
        "scale_sums": lambda s: _scale_sums(s, s.clip()),
        "frame_features": lambda s: s.backbone.frame_features(s.maps),
    },
    "CPNet": {"cp_after_max": _matched},
    "STM": {
        "logits_frames": lambda s: s.backbone.new_fc(s.maps[0].mean(dim=(2, 3)).T),
        "cmm": _stm_motion,
        "block_layer2_0": _stm_strided,
    },
    "ABN2D": {
        "features": lambda s: _channels_of(s.features[:, :, 0], s.arrays["features"]),
        "features_mean": lambda s: s.features[:, :, 0].mean(dim=1),
        "logits_inverted": lambda s: _with_map(s, lambda own: 1 - own),
        "logits_zero": lambda s: _with_map(s, torch.zeros_like),
        "logits_left": lambda s: _with_map(s, _left_half),
    },
    "SlowFast": {
        "features_slow": lambda s: _channels_of(_slow_maps(s), s.arrays["features_slow"]),
        "features_fast": lambda s: _channels_of(_fast_maps(s), s.arrays["features_fast"]),
        "features_slow_mean": lambda s: _slow_maps(s).mean(dim=1),
        "features_fast_mean": lambda s: _fast_maps(s).mean(dim=1),
        "split_slow": lambda s: _channels_of(s.features, s.arrays["split_slow"]),
        "split_fast": lambda s: _channels_of(s.backbone.fast_map(s.network.encode(s.clip())), s.arrays["split_fast"]),
    },
    "C3D": {"features_pool5": lambda s: _channels_of(s.backbone.pool(s.maps), s.arrays["features_pool5"])},
    "ZhouDenseNet": {
        "features_transition3": lambda s: _channels_of(
            s.backbone.features.transition3(s.features), s.arrays["features_transition3"]
        ),
        "features_opt": lambda s: _channels_of(_with_strategy(s).maps, s.arrays["features_opt"]),
        "logits_opt": lambda s: _with_strategy(s).logits(s.clip()),
    },
}
"""Name of a family's class -> its own arrays, which go before `GENERIC`."""

ATTENTION: dict[str, Question] = {
    "logits_perception": lambda s: s.logits(s.clip()),
    "logits_attention": lambda s: s.network(s.clip()).attention_logits,
    "spatial": lambda s: s.network(s.clip()).attention.spatial,
    "temporal": lambda s: s.network(s.clip()).attention.temporal,
    "logits_zeros": lambda s: _with_scores(s, "zeros"),
    "logits_ones": lambda s: _with_scores(s, "ones"),
    "logits_third_quarter": lambda s: _with_scores(s, "third_quarter"),
    "logits_steps": lambda s: _with_scores(s, "steps"),
    "logits_inverted": lambda s: _with_scores(s, "inverted"),
}
"""Arrays of ST-ABN itself, and of its authors' editor of temporal scores."""


def _enhancement(tensors: Mapping[str, Tensor], about: Mapping[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    x_btchw = torch.from_numpy(arrays["x"])
    module = ProgressiveEnhancement(x_btchw.shape[2], about["options"]["reduction"]).double()
    module.load_state_dict(dict(tensors))
    enhanced = module(x_btchw)
    return {
        "y": enhanced.frames,
        "attention": enhanced.attention,
        "memory": enhanced.memory,
        "gate": enhanced.gate,
        "td_loss": temporal_diversity(x_btchw),
        "td_loss_identical_frames": temporal_diversity(x_btchw[:, :1].expand_as(x_btchw)),
    }


def _filter_bank(tensors: Mapping[str, Tensor], about: Mapping[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    global_bcthw, local_bcthw = (torch.from_numpy(arrays[name]) for name in ("global_maps", "local_maps"))
    head = FilterBankHead(global_bcthw.shape[1], about["num_classes"], about["options"]["filters_per_class"]).double()
    head.load_state_dict(dict(tensors))
    scores = head(global_bcthw, local_bcthw, torch.nn.Identity())
    return {
        "pooled": scores.pooled,
        "z_avg": scores.average,
        "z_max": scores.maximum,
        "z_xchannel": scores.cross_channel,
        "logits": scores.logits,
    }


MODULES: dict[str, Callable[[Mapping[str, Tensor], Mapping[str, Any], Arrays], dict[str, Tensor]]] = {
    "memory_gate.weight": _enhancement,
    "bank.weight": _filter_bank,
}
"""A tensor that only a layout of a single module has -> its answers from tensors, layout and inputs in the arrays."""

INPUTS = ("x", "global_maps", "local_maps")
"""Arrays that layouts of single modules are given."""


def compare(layout: Path, names: Collection[str] | None = None) -> dict[str, float]:
    """The greatest difference of each array, relative to its greatest value.

    Args:
        layout: the layout file.
        names: of arrays to compare; by default all.

    Raises:
        UserError: a file is missing, no family has such tensors, or an array is not known.
    """
    about = json.loads(layout.read_text())
    with np.load(layout.with_suffix(".npz")) as stored:
        arrays = {name: stored[name] for name in stored if names is None or name in names or name in INPUTS}
    tensors = formula_tensors(layout, about)
    module = next((answer for name, answer in MODULES.items() if name in tensors), None)
    with torch.inference_mode():
        if module is not None:
            answers = module(tensors, about, arrays)
        else:
            subject = Subject(imported(tensors, about), about, arrays)
            questions = questions_of(subject)
            answers = {name: questions[name](subject) for name in arrays if name in questions}
    if unknown := [name for name in arrays if name not in answers and name not in INPUTS]:
        raise UserError(f"{layout}: array {unknown[0]}: not known for {about['model']}")
    return {name: _difference(answer, arrays[name]) for name, answer in answers.items()}


def questions_of(subject: Subject) -> dict[str, Question]:
    """How the network answers each array."""
    own = ATTENTION if shows_attention(subject.network) else {}
    return GENERIC | own | SPECIAL.get(type(subject.backbone).__name__, {})


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
        recogniser = None
        if about["model"] in RECOGNISERS:
            # Names of some networks tell what no tensor's shape does; tensors of others go before the name.
            with suppress(UserError):
                recogniser = import_recogniser(checkpoint, architecture=about["model"], frames=about["frames"])
        return recogniser or import_recogniser(checkpoint, frames=about["frames"]) or import_official(checkpoint)


def _difference(answer: Tensor, expected: np.ndarray) -> float:
    own = answer.numpy()
    if own.shape != expected.shape:
        return float("inf")
    difference = float(np.abs(own - expected).max() / np.abs(expected).max())
    return difference if np.isfinite(difference) else float("inf")
