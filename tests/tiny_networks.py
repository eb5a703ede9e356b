"""The smallest network of every family that the library's own classes can build, and clips that it takes."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from torchvision.models import video
from torchvision.models.video.mvit import MSBlockConfig, MViT
from torchvision.models.video.resnet import (
    BasicBlock,
    BasicStem,
    Conv2Plus1D,
    Conv3DNoTemporal,
    Conv3DSimple,
    R2Plus1dStem,
    VideoResNet,
)
from torchvision.models.video.swin_transformer import SwinTransformer3d

from stabn.nn.backbones.torchvision_video import VIDEO_ARCHITECTURES, TorchvisionVideo

_RESIDUAL = {
    "r3d_18": partial(VideoResNet, BasicBlock, [Conv3DSimple] * 4, [1] * 4, BasicStem),
    "mc3_18": partial(VideoResNet, BasicBlock, [Conv3DSimple] + [Conv3DNoTemporal] * 3, [1] * 4, BasicStem),
    "r2plus1d_18": partial(VideoResNet, BasicBlock, [Conv2Plus1D] * 4, [1] * 4, R2Plus1dStem),
}
TRANSFORMERS = {
    "videomae": (transformers.VideoMAEConfig, transformers.VideoMAEForVideoClassification),
    "timesformer": (transformers.TimesformerConfig, transformers.TimesformerForVideoClassification),
    "vivit": (transformers.VivitConfig, transformers.VivitForVideoClassification),
    "vjepa2": (transformers.VJEPA2Config, transformers.VJEPA2ForVideoClassification),
}
"""Name of a base network of transformers -> the library's configuration and network."""


def tiny_mvit(num_classes: int, **options: bool) -> nn.Module:
    channels, strides = [8, 16, 32, 32, 32], [[1, 2, 2], [1, 2, 2], [1, 2, 2], []]
    blocks = [
        MSBlockConfig(2, channels[n], channels[n + 1], [3, 3, 3] if stride else [], [3, 3, 3], stride, [1, 2, 2])
        for n, stride in enumerate(strides)
    ]
    return MViT((64, 64), 4, blocks, num_classes=num_classes, dropout=0.5, stochastic_depth_prob=0.2, **options)


def tiny(name: str, num_classes: int) -> nn.Module:
    """torchvision's class in a small configuration, with as many parts as the split needs."""
    if name in _RESIDUAL:
        return _RESIDUAL[name](num_classes=num_classes)
    if name == "s3d":
        network = video.s3d(num_classes=num_classes)
        network.avgpool = nn.AvgPool3d((1, 2, 2), stride=1)
        return network
    if name == "mvit_v1_b":
        v1 = dict.fromkeys(("residual_pool", "residual_with_cls_embed", "rel_pos_embed", "proj_after_attn"), False)
        return tiny_mvit(num_classes, **v1)
    if name == "mvit_v2_s":
        v2 = {"residual_pool": True, "residual_with_cls_embed": False, "rel_pos_embed": True, "proj_after_attn": True}
        return tiny_mvit(num_classes, **v2)
    return SwinTransformer3d([2, 4, 4], 8, [1, 2, 2, 1], [1, 2, 2, 4], [2, 3, 3], num_classes=num_classes)


def use_tiny_networks(patch: pytest.MonkeyPatch) -> None:
    """Let torchvision's names stand for `tiny` networks."""
    patch.setattr(TorchvisionVideo, "build", staticmethod(tiny))
    for name, shape in VIDEO_ARCHITECTURES.items():
        if name.startswith("swin"):
            shape = replace(shape, channels=32)
        elif name.startswith("mvit"):
            shape = replace(shape, channels=32, format=replace(shape.format, frames=4, size=64))
        patch.setitem(VIDEO_ARCHITECTURES, name, shape)


def save_tiny_transformer(name: str, folder: Path, frames: int, size: int) -> Path:
    """A folder with a network of two blocks, as the library's `save_pretrained` writes it."""
    torch.manual_seed(3)
    configuration, network = TRANSFORMERS[name]
    sizes: dict[str, object] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 5}
    if name == "vjepa2":
        sizes |= {"crop_size": size, "frames_per_clip": frames, "mlp_ratio": 2.0, "num_pooler_layers": 1,
                  "pred_hidden_size": 8, "pred_num_attention_heads": 1, "pred_num_hidden_layers": 1}  # fmt: skip
    else:
        sizes |= {"image_size": size, "num_frames": frames, "intermediate_size": 32}
    network(configuration(**sizes)).save_pretrained(folder)
    return folder
