"""The networks, in PyTorch alone: no video, no files but weights."""

from stabn.nn.attention import Attention, Output
from stabn.nn.backbone import Backbone, ClipFormat, Features, TokenMap
from stabn.nn.backbones import build_backbone
from stabn.nn.checkpoints import import_official, import_recogniser, load_pretrained
from stabn.nn.fast_inference import fast_inference_copy
from stabn.nn.imagenet import InflationReport, imagenet_state_dict, load_imagenet
from stabn.nn.losses import recognition_loss, spatial_loss, temporal_loss
from stabn.nn.network import Perceiver, PlainNetwork, VideoNetwork
from stabn.nn.stabn import STABN, has_attention, shows_attention

__all__ = [
    "STABN",
    "Attention",
    "Backbone",
    "ClipFormat",
    "Features",
    "InflationReport",
    "Output",
    "Perceiver",
    "PlainNetwork",
    "TokenMap",
    "VideoNetwork",
    "build_backbone",
    "fast_inference_copy",
    "has_attention",
    "imagenet_state_dict",
    "import_official",
    "import_recogniser",
    "load_imagenet",
    "load_pretrained",
    "recognition_loss",
    "shows_attention",
    "spatial_loss",
    "temporal_loss",
]
