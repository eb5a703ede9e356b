"""The network: torch only, no video."""

from stabn.nn.answering import answering
from stabn.nn.attention import Attention, Output
from stabn.nn.backbones import ARCHITECTURES, Architecture, ResNet3D
from stabn.nn.inflation import Inflated, imagenet_state_dict, load_imagenet
from stabn.nn.losses import recognition_loss, spatial_loss, temporal_loss
from stabn.nn.stabn import STABN, Perceiver
from stabn.nn.weights import import_official, load_pretrained

__all__ = [
    "ARCHITECTURES",
    "STABN",
    "Architecture",
    "Attention",
    "Inflated",
    "Output",
    "Perceiver",
    "ResNet3D",
    "answering",
    "imagenet_state_dict",
    "import_official",
    "load_imagenet",
    "load_pretrained",
    "recognition_loss",
    "spatial_loss",
    "temporal_loss",
]
