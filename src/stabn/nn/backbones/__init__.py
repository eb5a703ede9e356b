"""The base networks, one family a file, and the one function that builds any of them by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from stabn.errors import UserError
from stabn.nn.backbone import Backbone
from stabn.nn.backbones.abm import ABM
from stabn.nn.backbones.abn2d import ABN2D
from stabn.nn.backbones.blvnet import BLVNet
from stabn.nn.backbones.c3d import C3D
from stabn.nn.backbones.cpnet import CPNet
from stabn.nn.backbones.dfb import DFBNet
from stabn.nn.backbones.gst import GST
from stabn.nn.backbones.pem import PEM
from stabn.nn.backbones.resnet3d import ARCHITECTURES, ResNet3D
from stabn.nn.backbones.slowfast import SlowFast
from stabn.nn.backbones.smallbig import SmallBig
from stabn.nn.backbones.stm import STM
from stabn.nn.backbones.timm_frames import TimmFrames
from stabn.nn.backbones.torchvision_video import VIDEO_ARCHITECTURES
from stabn.nn.backbones.transformers_video import TRANSFORMERS
from stabn.nn.backbones.trn import TRN
from stabn.nn.backbones.tsm import TSM
from stabn.nn.backbones.tsn import TSN
from stabn.nn.backbones.zhou import ZhouDenseNet

RECOGNISERS: dict[str, type[Backbone]] = {
    name: family
    for family in (
        TSN,
        TRN,
        CPNet,
        TSM,
        STM,
        GST,
        ABM,
        DFBNet,
        BLVNet,
        SmallBig,
        PEM,
        ZhouDenseNet,
        SlowFast,
        C3D,
        ABN2D,
    )
    for name in family.architectures
}
"""The systems of the paper's comparison: name of a base network -> its family."""


def backbone_class(name: str) -> type[Backbone]:
    """The class of a base network.

    Raises:
        UserError: there is no such network.
    """
    if name in ARCHITECTURES:
        return ResNet3D
    if name in VIDEO_ARCHITECTURES:
        return VIDEO_ARCHITECTURES[name].family
    if name in TRANSFORMERS:
        return TRANSFORMERS[name]
    if name in RECOGNISERS:
        return RECOGNISERS[name]
    if name.partition("/")[0] == "timm":
        return TimmFrames
    known = (*ARCHITECTURES, *VIDEO_ARCHITECTURES, *TRANSFORMERS, *RECOGNISERS)
    similar = get_close_matches(name, known, 3) if isinstance(name, str) else []
    hint = f"; did you mean {', '.join(similar)}?" if similar else ""
    raise UserError(f"--network.backbone: got {name!r}, which is none{hint}; `stabn backbones` lists them")


def build_backbone(
    name: str, num_classes: int, frames: int, dropout: float = 0.5, options: Mapping[str, Any] | None = None
) -> Backbone:
    """A base network with random weights.

    Args:
        name: one of `stabn backbones`.
        num_classes: K.
        frames: T, frames per clip.
        dropout: probability in 0..1 (1 excluded) of dropping an input of the classifier while training.
        options: the family's further options, as `Backbone.options` gives them.

    Raises:
        UserError: there is no such network, or it does not take so many frames.
    """
    return backbone_class(name)(name, num_classes, frames, dropout=dropout, **(options or {}))
