"""Initialisation from ImageNet: weights of a 2D ResNet, inflated along time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.hub import download
from stabn.nn.state_dict import check_tensors, read_tensors
from stabn.nn.torchvision_weights import torchvision_tensors

_SHARED = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class InflationReport:
    """Which tensors `load_imagenet` filled, by name in the network's order.

    Attributes:
        loaded: tensors with values of the 2D network.
        left_random: tensors without a counterpart, which keep their values.
    """

    loaded: tuple[str, ...]
    left_random: tuple[str, ...]


def load_imagenet(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    inflation: Literal["centre", "average"] = "centre",
    source: str = "2D state dict",
) -> InflationReport:
    """Fill a network with the weights of a 2D ResNet of the same depth, in place.

    Temporal taps of kernels are filled in one of two ways:

        "centre"    the 2D kernel in the middle tap, zeros in the others
        "average"   the 2D kernel / n in each of the n taps (the official code's way)

    On a clip that repeats one picture, "centre" answers in every frame exactly what the 2D network answers, because
    the zeros beyond the clip's ends meet zero taps. "average" loses 1/n of each temporal convolution at the first
    and last frame, and each further such layer carries the loss one frame inwards. Measured against the 2D layer3
    features of the same picture (8 frames of 112 x 112, random weights and statistics, float64; mean absolute
    difference relative to the mean feature; the clip's second half mirrors the first):

        frame                 1      2      3      4
        resnet18  centre      3e-16 everywhere
        resnet18  average     0.26   0.087  0.027  0.0098
        resnet50  centre      5e-16 everywhere
        resnet50  average     0.15   0.020  0.0020 0.00016

    Normalisation statistics are copied. The attention branch's own copy of layer4 gets layer4's weights too. The
    classifier is copied only when its shape fits. Everything else keeps its values. Nothing is changed when an error
    is raised.

    Args:
        model: the network to fill, of any dtype and on any device: one around a 3D ResNet, or a 3D ResNet alone.
        state_dict: of the 2D ResNet, in the names that torchvision and timm share: conv1.weight, layer1.0.bn1.bias ...
        inflation: "centre" or "average".
        source: where the state dict is from, for messages.

    Returns:
        Which tensors were loaded and which were not.

    Raises:
        UserError: the 2D network is of another depth or kind; the first offending tensor is named.
        ValueError: `inflation` is neither.
    """
    if inflation not in ("centre", "average"):
        raise ValueError(f"inflation: got {inflation!r}, expected 'centre' or 'average'")
    own = model.state_dict()
    counters = {name for name in own if name.endswith(".num_batches_tracked")}
    shared = {
        name: value[:, :, 0] if value.ndim == 5 else value
        for name, value in own.items()
        if name.split(".")[0] in _SHARED and (name in state_dict or name not in counters)
    }
    check_tensors(
        {name: value for name, value in state_dict.items() if name.split(".")[0] != "fc"},
        shared,
        source=source,
        remedy="expected a plain 2D ResNet of the same depth",
    )
    counterparts = {name: name.replace("layer_att_common.", "layer4.", 1) for name in own}
    origins = {name: origin for name, origin in counterparts.items() if origin in shared}
    fc = ("fc.weight", "fc.bias")
    if all(name in state_dict and state_dict[name].shape == own[name].shape for name in fc):
        origins.update({name: name for name in fc})
    with torch.no_grad():
        for name, origin in origins.items():
            own[name].copy_(_inflate(state_dict[origin], own[name], inflation))
    return InflationReport(
        tuple(name for name in own if name in origins),
        tuple(name for name in own if name not in origins and name not in counters),
    )


def _inflate(flat: Tensor, like: Tensor, inflation: str) -> Tensor:
    if like.ndim != 5:
        return flat
    taps = like.shape[2]
    flat = flat.to(like)[:, :, None]
    if inflation == "average":
        return flat.expand_as(like) / taps
    kernel = torch.zeros_like(like)
    kernel[:, :, taps // 2] = flat[:, :, 0]
    return kernel


def imagenet_state_dict(source: str) -> dict[str, Tensor]:
    """Read or download the state dict of a 2D network.

    Args:
        source: an existing .pth, .pt or .safetensors file; or the name of torchvision weights like
            "ResNet50_Weights.IMAGENET1K_V2"; or a repository on the Hugging Face hub with a model.safetensors, like
            "timm/resnet50.a1_in1k". Only the latter two need the network, unless they are in the local cache.

    Returns:
        Named tensors on the CPU.

    Raises:
        UserError: it is none of the three, or cannot be read or downloaded; the message says what was tried.
    """
    inside = ("state_dict", "model")
    if Path(source).is_file() or Path(source).suffix in (".pth", ".pt", ".safetensors"):
        return read_tensors(source, inside=inside)
    if "_Weights." in source:
        return _torchvision_state_dict(source)
    if source.count("/") != 1:
        raise UserError(
            f"{source}: got neither an existing file, nor a torchvision name like ResNet50_Weights.IMAGENET1K_V2, nor "
            "a hub repository like timm/resnet50.a1_in1k; a file path works without network"
        )
    return read_tensors(download(source, "model.safetensors"), inside=inside)


def _torchvision_state_dict(name: str) -> dict[str, Tensor]:
    # Imported here because it takes a second.
    from torchvision.models import get_weight

    try:
        weights = get_weight(name)
    except (ValueError, KeyError):
        raise UserError(
            f"{name}: torchvision has no weights of this name, expected one like ResNet50_Weights.IMAGENET1K_V2; "
            "a file path works too, without network"
        ) from None
    return torchvision_tensors(weights)
