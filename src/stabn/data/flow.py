"""Optical flow between consecutive frames, by OpenCV, kept as folders of images that are read like any others.

Red holds the horizontal and green the vertical component of a pixel's way to the next frame, 8 bits each:

    value = 128 + 128 / BOUND * pixels, rounded and clipped to 0..255;  128 is no motion

Blue is 128 and means nothing. A clip of N frames has N - 1 fields, one of a single frame has one without motion.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stabn.data.dataset import Sample, Table
from stabn.data.segments import segment_frames
from stabn.data.video.reader import Reader
from stabn.errors import UserError
from stabn.files import short_name

BOUND = 20.0
"""The longest way in pixels that a value holds."""
SHORTER_SIDE = 256
"""Frames are shrunk to it before, as the videos of the published trainings were."""
STILL = 128


def encoded_flow(before_hwc: UInt8[np.ndarray, "h w 3"], after_hwc: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    """(h, w, 3) uint8: the flow by dense inverse search (Kroeger et al. 2016), as this module stores it.

    Raises:
        UserError: OpenCV is not installed.
    """
    cv2 = _opencv()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before_hwc, after_hwc)]
    # It needs pictures of some size; what it adds at the borders is cut off again.
    height, width = grey[0].shape
    padded = [np.pad(one, ((0, max(64 - height, 0)), (0, max(64 - width, 0))), mode="edge") for one in grey]
    flow_hw2 = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(padded[0], padded[1], None)
    encoded = np.full((height, width, 3), STILL, np.uint8)
    encoded[..., :2] = np.clip(np.rint(STILL + STILL / BOUND * flow_hw2[:height, :width]), 0, 255)
    return encoded


def write_flow(sample: Sample, folder: Path, reader: Reader) -> None:
    """Write the flow of a clip as 000001.png, 000002.png, ... in a folder that is complete once it is there.

    Args:
        sample: the clip; of one that is a segment, the fields of that segment.
        folder: is replaced.
        reader: reads the video.

    Raises:
        UserError: the video cannot be read, or OpenCV is not installed.
    """
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        before, count = None, 0
        for frame_hwc in _shrunk_frames(sample, reader):
            if before is not None:
                count += 1
                Image.fromarray(encoded_flow(before, frame_hwc)).save(unfinished / f"{count:06}.png")
            before = frame_hwc
        if not count:
            assert before is not None
            Image.fromarray(np.full_like(before, STILL)).save(unfinished / "000001.png")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def flow_table(table: Table, folder: Path) -> Iterator[tuple[Sample, Sample]]:
    """Each clip, and the clip of its flow in a folder of its own, which `write_flow` makes."""
    for sample in table.samples:
        own = folder / short_name(quote(sample.clip_id, safe=" "))
        yield sample, replace(sample, path=own, segment=None)


def _shrunk_frames(sample: Sample, reader: Reader) -> Iterator[np.ndarray]:
    cv2 = _opencv()
    indices = segment_frames(sample.path, sample.segment, sample.clip_id, reader)
    for clip in reader.stream_clip(sample.path, indices):
        frame_hwc = clip.frames[0].permute(1, 2, 0).numpy()
        share = SHORTER_SIDE / min(frame_hwc.shape[:2])
        if share < 1:
            size = (round(frame_hwc.shape[1] * share), round(frame_hwc.shape[0] * share))
            frame_hwc = cv2.resize(frame_hwc, size, interpolation=cv2.INTER_AREA)
        yield np.ascontiguousarray(frame_hwc)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise UserError("flow: OpenCV is not installed; pip install 'stabn[flow]'") from None
    return cv2
