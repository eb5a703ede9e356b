"""The networks, in PyTorch alone: no video, no files but weights."""

from stabn.nn.attention import Attention, Output
from stabn.nn.checkpoints import import_official, load_pretrained
from stabn.nn.fast_inference import fast_inference_copy
from stabn.nn.imagenet import InflationReport, imagenet_state_dict, load_imagenet
from stabn.nn.losses import recognition_loss, spatial_loss, temporal_loss
from stabn.nn.resnet3d import ARCHITECTURES, Architecture, ResNet3D
from stabn.nn.stabn import STABN, Perceiver

__all__ = [
    "ARCHITECTURES",
    "STABN",
    "Architecture",
    "Attention",
    "InflationReport",
    "Output",
    "Perceiver",
    "ResNet3D",
    "fast_inference_copy",
    "imagenet_state_dict",
    "import_official",
    "load_imagenet",
    "load_pretrained",
    "recognition_loss",
    "spatial_loss",
    "temporal_loss",
]
