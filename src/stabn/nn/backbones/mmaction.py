"""Checkpoints of 2D recognisers under MMAction2's names, which its TSN, TRN and TSM share."""

import re
from collections.abc import Mapping

from torch import Tensor

_CONVOLUTION = re.compile(r"(conv\d|downsample)\.(conv|bn)\.")
_CLASSIFIER = "cls_head.fc_cls."


def frame_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the official code's names, `base_model.` and `new_fc.`; other names stay.

    MMAction2 puts each convolution with its norm into a module: `conv1.conv`, `conv1.bn`, `downsample.conv`; the names
    are from its source.
    """
    if not any(name.startswith(_CLASSIFIER) for name in tensors):
        return dict(tensors)
    return {_official_name(name): value for name, value in tensors.items()}


def _official_name(name: str) -> str:
    if name.startswith(_CLASSIFIER):
        return f"new_fc.{name.removeprefix(_CLASSIFIER)}"

    def rename(match: re.Match[str]) -> str:
        module, part = match.groups()
        if module == "downsample":
            return f"downsample.{0 if part == 'conv' else 1}."
        return f"{module}." if part == "conv" else f"bn{module[-1]}."

    return _CONVOLUTION.sub(rename, name.replace("backbone.", "base_model.", 1), count=1)
