"""The network: torch only, no video."""

from stabn.nn.attention import Attention, Output
from stabn.nn.checkpoints import import_official, load_pretrained
from stabn.nn.fast_inference import answering
from stabn.nn.imagenet import Inflated, imagenet_state_dict, load_imagenet
from stabn.nn.losses import recognition_loss, spatial_loss, temporal_loss
from stabn.nn.resnet3d import ARCHITECTURES, Architecture, ResNet3D
from stabn.nn.stabn import STABN, Perceiver

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
