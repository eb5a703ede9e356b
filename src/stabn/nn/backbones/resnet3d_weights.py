"""Weights for 3D ResNets in other programs' names: PySlowFast's and pytorchvideo's slow pathways, and 2D ResNets."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from stabn.errors import UserError
from stabn.nn.backbone import PublishedWeights
from stabn.nn.hub import Triple, read_weights
from stabn.nn.imagenet import imagenet_state_dict
from stabn.nn.torchvision_weights import published_in

SLOW_MEAN: Triple = (0.45, 0.45, 0.45)
SLOW_STD: Triple = (0.225, 0.225, 0.225)
"""Of the clips that PySlowFast and pytorchvideo train on, in R, G, B."""

_FILES = (".pth", ".pyth", ".pt", ".ckpt", ".safetensors", ".pkl")
_SINGLE = {
    "s1.pathway0_stem.conv": "conv1",
    "s1.pathway0_stem.bn": "bn1",
    "head.projection": "fc",
    "blocks.0.conv": "conv1",
    "blocks.0.norm": "bn1",
    "blocks.5.proj": "fc",
}
_BLOCK = re.compile(r"(?:s(?P<stage>[2-5])\.pathway0_res|blocks\.(?P<layer>[1-4])\.res_blocks\.)(?P<block>\d+)\.(.+)")
_IN_BLOCK = {
    "branch1": "downsample.0",
    "branch1_bn": "downsample.1",
    "branch1_conv": "downsample.0",
    "branch1_norm": "downsample.1",
    **{f"branch2.{letter}": f"conv{n}" for n, letter in enumerate("abc", start=1)},
    **{f"branch2.{letter}_bn": f"bn{n}" for n, letter in enumerate("abc", start=1)},
    **{f"branch2.conv_{letter}": f"conv{n}" for n, letter in enumerate("abc", start=1)},
    **{f"branch2.norm_{letter}": f"bn{n}" for n, letter in enumerate("abc", start=1)},
}


def imagenet_weights(architecture: str) -> tuple[PublishedWeights, ...]:
    """torchvision's ImageNet weights of the 2D ResNet of the same depth."""
    from torchvision import models

    enumeration = getattr(models, f"{architecture.replace('resnet', 'ResNet')}_Weights", None)
    return () if enumeration is None else published_in(enumeration, "ImageNet-1k")


def is_local(weights: str) -> bool:
    """Whether weights are a file or a folder on this machine, or would be if they were there."""
    return Path(weights).exists() or Path(weights).suffix in _FILES


def resnet_tensors(weights: str, architecture: str) -> dict[str, Tensor]:
    """Weights of any origin in the names of the official ST-ABN code; those of 2D ResNets have flat kernels.

    Args:
        weights: a file, a folder of ours, a name of `imagenet_weights` or a repository on the hub.
        architecture: of the 3D ResNet.

    Raises:
        UserError: they cannot be read or downloaded, or are of a network with two pathways or of Caffe2.
    """
    if is_local(weights):
        refuse_caffe2(weights)
        return own_names(read_weights(weights, architecture), source=weights)
    names = [one.name for one in imagenet_weights(architecture)]
    if weights in names:
        weights = f"{architecture.replace('resnet', 'ResNet')}_Weights.{weights}"
    if "_Weights." not in weights and weights.count("/") != 1:
        raise UserError(
            f"--network.weights: got {weights!r}, expected a .pyth, .pth or .safetensors file, the folder of a "
            f"network, a repository of a 2D ResNet like timm/resnet50.a1_in1k, or a name: {', '.join(names) or 'none'}"
        )
    return imagenet_state_dict(weights)


def refuse_caffe2(weights: str) -> None:
    """Refuse PySlowFast's files of Caffe2.

    Raises:
        UserError: it is one.
    """
    if Path(weights).suffix == ".pkl":
        raise UserError(
            f"{weights}: a .pkl file of PySlowFast holds Caffe2's weights, whose names are others; take the .pyth "
            "file of the same network, or convert it with PySlowFast"
        )


def is_slow_pathway(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a ResNet in PySlowFast or pytorchvideo."""
    return any(name.startswith(("s1.pathway", "blocks.0.")) for name in tensors)


def own_names(tensors: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Tensors under the official ST-ABN code's names; names of no known program stay.

    Raises:
        UserError: the network has two pathways; it names `source`.
    """
    for name in tensors:
        if "pathway1" in name or ".multipathway_" in name:
            raise UserError(
                f"{source}: tensor {name}: of SlowFast, which has two pathways, expected the slow pathway alone "
                "(Slow R50, R101)"
            )
    return {single_pathway_name(name): value for name, value in tensors.items()}


def single_pathway_name(name: str) -> str:
    """The official ST-ABN code's name of a slow pathway's tensor; names of no known program stay."""
    module, _, tensor = name.rpartition(".")
    if module in _SINGLE:
        return f"{_SINGLE[module]}.{tensor}"
    match = _BLOCK.fullmatch(module)
    if match is None or match[4] not in _IN_BLOCK:
        return name
    layer = match["layer"] or int(match["stage"]) - 1
    return f"layer{layer}.{match['block']}.{_IN_BLOCK[match[4]]}.{tensor}"
