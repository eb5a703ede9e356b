"""The network: torch only, no video."""

from stabn.nn.attention import Attention, Output
from stabn.nn.backbones import ARCHITECTURES, Architecture, ResNet3D
from stabn.nn.losses import recognition_loss, temporal_loss
from stabn.nn.stabn import STABN

__all__ = [
    "ARCHITECTURES",
    "STABN",
    "Architecture",
    "Attention",
    "Output",
    "ResNet3D",
    "recognition_loss",
    "temporal_loss",
]
