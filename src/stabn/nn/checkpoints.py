"""Loading networks from folders of `save_pretrained` and from checkpoints of the official code."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stabn.errors import UserError
from stabn.nn.backbone import Backbone
from stabn.nn.backbones import RECOGNISERS
from stabn.nn.backbones.resnet3d import ARCHITECTURES, OFFICIAL, ResNet3D
from stabn.nn.hub import CONFIG, read_config
from stabn.nn.network import PlainNetwork, VideoNetwork
from stabn.nn.stabn import STABN
from stabn.nn.state_dict import CONTAINERS, read_tensors, unwrap

_REMEDY = "expected a checkpoint of the official ST-ABN code"


def load_pretrained(folder: Path | str) -> VideoNetwork:
    """Load the network of a folder that `save_pretrained` wrote, of either kind; in evaluation mode, offline.

    Raises:
        UserError: the folder or a file in it is missing, damaged or of an unknown format; one line says which and why.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one that save_pretrained or a training run wrote")
    kinds: dict[str, type[VideoNetwork]] = {"stabn": STABN, "plain": PlainNetwork}
    kind, _ = read_config(folder)
    if kind not in kinds:
        raise UserError(f"{folder / CONFIG}: kind: got {kind!r}, expected one of {', '.join(kinds)}")
    return kinds[kind].from_folder(folder)


def import_official(
    path: Path | str,
    *,
    class_names: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    bgr: bool = False,
) -> STABN:
    """Load a checkpoint of the official ST-ABN code as a network; in evaluation mode, on the CPU.

    The file holds a state dict, alone or under "model_state_dict" or "state_dict"; names may start with "module.".
    Architecture, number of classes and number of frames are read from the tensors' names and shapes, after which
    every tensor is checked. Dtypes stay as they are. Batch counters, which old PyTorch versions lack, become 0.

    Args:
        path: the checkpoint; nothing in it is executed.
        class_names: K names in the order of the outputs, or None.
        preprocessing: how clips must be prepared, or None; the checkpoint does not contain it.
        bgr: whether it was trained on blue, green, red; the network then takes red, green, blue like all others.

    Raises:
        UserError: the file is missing or no such checkpoint; it names the first offending tensor.
    """
    source = str(path)
    content = read_tensors(path, inside=("model_state_dict", "state_dict"))
    tensors = {name.removeprefix("module."): value for name, value in content.items()}
    if len(tensors) != len(content):
        raise UserError(f"{source}: holds tensors with and without 'module.' under one name; {_REMEDY}")
    architecture = _architecture(tensors, source)
    model = STABN.without_weights(
        architecture=architecture,
        num_classes=_rows(tensors, "fc.weight", source),
        frames=_rows(tensors, "conv_temp_att3.0.weight", source),
        class_names=class_names,
        preprocessing=preprocessing,
    )
    for name, own in model.state_dict().items():
        if name.endswith(".num_batches_tracked"):
            tensors.setdefault(name, torch.zeros((), dtype=own.dtype))
    model = model.assign_tensors(tensors, source=source, remedy=f"{_REMEDY}, here for {architecture}")
    if bgr and isinstance(model.backbone, ResNet3D):
        model.backbone.reverse_colours()
    return model


def import_recogniser(
    path: Path | str,
    *,
    architecture: str | None = None,
    frames: int | None = None,
    class_names: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> PlainNetwork | None:
    """Load a checkpoint of the official code of one of `RECOGNISERS` or of SlowFast's slow pathway; in evaluation mode.

    Family, depth and classes, and in some families frames and options, are read from names and shapes, after which
    every tensor is checked. Dtypes stay as they are; missing batch counters become 0.

    Args:
        path: the checkpoint, with or without `module.`; nothing in it is executed.
        architecture: one of `RECOGNISERS` with the same tensors, for networks that differ in what no shape tells.
        frames: T of a clip, for families whose tensors do not tell; by default as published.
        class_names: K names in the order of the outputs, or None.
        preprocessing: how clips must be prepared, or None.

    Returns:
        The network, or None where the tensors have no family's names.

    Raises:
        UserError: the file is missing or damaged, the first offending tensor, or the network takes other frames.
    """
    source = str(path)
    tensors = unwrap(read_tensors(path, inside=CONTAINERS), ("module.",))
    families: tuple[type[Backbone], ...] = (*RECOGNISERS.values(), ResNet3D)
    for family in dict.fromkeys(families):
        try:
            found = family.official(tensors)
        except UserError as error:
            raise UserError(f"{source}: {error}; give a checkpoint of the official code") from None
        if found is not None:
            break
    else:
        return None
    if architecture is not None:
        found = replace(found, name=architecture)
    if found.frames is not None and frames not in (None, found.frames):
        raise UserError(f"frames: got {frames}, but {source} is of {found.name} for clips of {found.frames} frames")
    model = PlainNetwork.without_weights(
        architecture=found.name,
        num_classes=found.num_classes,
        frames=found.frames or frames or family.format_for(found.name, found.options).frames,
        class_names=class_names,
        preprocessing=preprocessing,
        backbone_options=found.options,
    )
    named = dict(found.tensors)
    for name, own in model.state_dict().items():
        if name.endswith(".num_batches_tracked"):
            named.setdefault(name, torch.zeros((), dtype=own.dtype))
    return model.assign_tensors(named, source=source, remedy=f"expected a checkpoint of {found.name}")


def _architecture(tensors: Mapping[str, Tensor], source: str) -> str:
    """The official architecture that has these blocks; shapes are checked later, by tensor."""
    blocks = {match.groups() for name in tensors if (match := re.match(r"layer([1-4])\.(\d+)\.", name))}
    depths = tuple(sum(layer == str(number) for layer, _ in blocks) for number in (1, 2, 3, 4))
    block = "bottleneck" if any(re.match(r"layer[1-4]\.\d+\.conv3\.", name) for name in tensors) else "basic"
    for name in OFFICIAL:
        if (ARCHITECTURES[name].block, ARCHITECTURES[name].depths) == (block, depths):
            return name
    layouts = "; ".join(f"{name} {ARCHITECTURES[name].block} {ARCHITECTURES[name].depths}" for name in OFFICIAL)
    raise UserError(f"{source}: got {block} blocks {depths} in layer1..layer4, expected one of {layouts}; {_REMEDY}")


def _rows(tensors: Mapping[str, Tensor], name: str, source: str) -> int:
    shape = list(tensors[name].shape) if name in tensors else None
    if shape is None or len(shape) != 2 or not shape[0]:
        raise UserError(f"{source}: tensor {name}: got {shape or 'none'}, expected shape [rows, columns]; {_REMEDY}")
    return shape[0]
