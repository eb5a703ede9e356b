"""What a base network is and costs, found by building it without values."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from stabn.nn.backbone import PublishedWeights
from stabn.nn.backbones import backbone_class
from stabn.nn.backbones.resnet3d import ARCHITECTURES
from stabn.nn.backbones.timm_frames import LITE0
from stabn.nn.backbones.torchvision_video import VIDEO_ARCHITECTURES
from stabn.nn.backbones.transformers_video import TRANSFORMERS

PAPER_SYSTEMS = (
    "tsn_bninception",
    "trn_bninception",
    "trn_flow_bninception",
    "cpnet_resnet34",
    "tsm_resnet50",
    "stm_resnet50",
    "gst_resnet50",
    "abm_c_in_resnet50",
    "dfb_our_reading_resnet152",
    "blvnet_tam_101",
    "smallbig50",
    "pem_our_reading_resnet50",
    "zhou_densenet121_ssv2",
)
"""One of each system, in the order of the paper's table; docs/recognisers.md has the others."""

LISTED = (
    *ARCHITECTURES,
    *VIDEO_ARCHITECTURES,
    *TRANSFORMERS,
    *PAPER_SYSTEMS,
    LITE0,
    "timm/convnext_tiny",
    "timm/vit_small_patch14_dinov2",
)
"""The base networks that `stabn backbones` lists; "timm/" takes any 2D network of timm with feature maps."""

CLASSES = 400


@dataclass(frozen=True)
class BackboneDescription:
    """One base network as it is without options.

    Attributes:
        name: as `--network.backbone` takes it.
        frames: T of a clip.
        steps: T' of the features.
        size: side of a clip in pixels.
        grid: cells along a side of the features.
        channels: of the features.
        parameters: of the whole network for 400 classes, the layers that the attention branch does without left out.
        gflop: of one clip of this size, two for a multiplication with an addition.
        weights: published ones by name.
    """

    name: str
    frames: int
    steps: int
    size: int
    grid: int
    channels: int
    parameters: int
    gflop: float
    weights: tuple[PublishedWeights, ...]


def describe_backbone(name: str) -> BackboneDescription:
    """Build a base network on the meta device and count.

    Raises:
        UserError: there is no such network, or its library is not installed.
    """
    family = backbone_class(name)
    wanted = family.format_for(name, {})
    with torch.device("meta"):
        backbone = family(name, CLASSES, wanted.frames).eval()
        clip_bcthw = torch.empty(1, 3, wanted.frames, wanted.size, wanted.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.classify(backbone.deepen(backbone.extract(clip_bcthw)))
    return BackboneDescription(
        name=name,
        frames=wanted.frames,
        steps=backbone.steps(wanted.frames),
        size=wanted.size,
        grid=backbone.grid(wanted.size),
        channels=backbone.channels,
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        gflop=counter.get_total_flops() / 1e9,
        weights=family.published(name),
    )
