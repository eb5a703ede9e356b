"""Spatial attention as a heat map over the frames, and the size at which frames are drawn."""

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from stabn.data.video.clip import Clip
from stabn.explain.drawing import attention_colour
from stabn.records import Record

_FLAT = 1e-6  # a map with a smaller range counts as constant


def readable_size(width: int, height: int) -> tuple[int, int]:
    """The (width, height) at which a video is drawn: small videos enlarged by a whole factor, large ones reduced.

    The shorter side becomes 240 to 480 pixels, and 360 if it was longer than that.
    """
    shorter = min(width, height)
    if shorter <= 360:
        factor = max(1, round(360 / shorter))
        return width * factor, height * factor
    return max(1, round(width * 360 / shorter)), max(1, round(height * 360 / shorter))


def shown_range(spatial: np.ndarray) -> tuple[float, float]:
    """The values at the blue and red end of the scale: the range of the map, or (0, 1) for a constant one."""
    low, high = float(spatial.min()), float(spatial.max())
    return (low, high) if high - low > _FLAT else (0.0, 1.0)


def overlay(
    frames: Tensor,
    spatial: np.ndarray,
    crop: tuple[float, float, float, float],
    opacity: int | float = 0.5,
) -> UInt8[np.ndarray, "t h w 3"]:
    """Blend spatial attention as a heat map over the part of each frame that was the network's input.

    The smallest value of the clip is drawn blue and the largest red (see `shown_range`).

    Args:
        frames: (T, 3, H, W) uint8 RGB, source frames.
        spatial: (T, h, w) floats in 0..1, interpolated bilinearly onto the crop.
        crop: (left, top, right, bottom) of the network's input as fractions of width and height. Outside of it the
            frame is grey and dim.
        opacity: of the heat map, 0..1.

    Returns:
        (T, H, W, 3) uint8 RGB.
    """
    left, top, right, bottom = _pixels(crop, frames.shape[3], frames.shape[2])
    low, high = shown_range(spatial)
    relative = torch.from_numpy(np.ascontiguousarray((spatial - low) / (high - low), dtype=np.float32))
    pictures = np.empty((len(frames), *frames.shape[2:], 3), np.uint8)
    for picture, frame, small in zip(pictures, frames.permute(0, 2, 3, 1).numpy(), relative, strict=True):
        # outside of the crop: dim grey, so that no colour competes with the heat map
        grey = frame @ np.array([0.299, 0.587, 0.114], np.float32)
        picture[:] = (0.4 * grey + 20).round().astype(np.uint8)[..., None]
        size = (bottom - top, right - left)
        heat = torch.nn.functional.interpolate(small[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        inside = frame[top:bottom, left:right]
        blend = (1 - opacity) * inside + opacity * attention_colour(heat.numpy()).astype(np.float32)
        picture[top:bottom, left:right] = blend.round().astype(np.uint8)
    return pictures


def overlay_record(record: Record, clip: Clip, size: tuple[int, int]) -> np.ndarray:
    """`overlay` of a record on its clip, drawn at a size (width, height).

    Frames are resized before the maps are blended in, so that enlarged pictures have smooth maps.

    Raises:
        ValueError: the clip's frames are not the record's.
    """
    if clip.frame_indices.tolist() != record.frame_indices.tolist():
        raise ValueError(
            f"clip: got frames {clip.frame_indices.tolist()}, expected the record's {record.frame_indices.tolist()}"
        )
    frames = [
        np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
        for frame in clip.frames.permute(0, 2, 3, 1).contiguous().numpy()
    ]
    return overlay(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), record.spatial, record.crop)


def _pixels(crop: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """The crop in whole pixels, at least one pixel wide and high."""
    left, top, right, bottom = crop
    x0, y0 = min(round(left * width), width - 1), min(round(top * height), height - 1)
    return x0, y0, max(round(right * width), x0 + 1), max(round(bottom * height), y0 + 1)
