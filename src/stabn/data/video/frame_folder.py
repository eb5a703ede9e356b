"""A folder of numbered images in place of a video file, as Something-Something v1, TSM and MMAction2 keep videos.

The images' numbers give the order: img_2.jpg comes before img_10.jpg, whatever the number that the first one has.
Frames are counted from 0 in that order.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from stabn.errors import UserError

FPS = 25
"""Frames per second of every folder: images do not tell it, and 25 is what FFmpeg takes for images, too."""
SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
_FLOW = re.compile(r"(flow_)?[xy]_|flow_")
"""What stands before the number in images of optical flow, which MMAction2 keeps in the same folder."""
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_ORIENTATION = 0x0112


def frame_numbers(path: Path | str) -> dict[int, str]:
    """The images of a folder by the number in their names, ascending; nothing is opened.

    The number is the last one in the name. Hidden files, images of optical flow, images without a number and other
    files do not count.

    Raises:
        UserError: the folder cannot be listed, or its images are several series, or two have the same number.
    """
    path = Path(path)
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be listed ({error.strerror}); check the name and its permissions") from None
    series: dict[tuple[str, str], dict[int, str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        numbered = _NUMBERED.fullmatch(stem)
        if name.startswith(".") or suffix.lower() not in SUFFIXES or not numbered:
            continue
        images = series.setdefault((numbered[1], numbered[3]), {})
        former = images.setdefault(int(numbered[2]), name)
        if former != name:
            raise UserError(f"{path}: holds {former} and {name}, both of them image {int(numbered[2])}; remove one")
    if len(series) > 1:
        series = {kind: images for kind, images in series.items() if not _FLOW.fullmatch(kind[0])}
    if len(series) > 1:
        first, second = (next(iter(images.values())) for images in list(series.values())[:2])
        raise UserError(f"{path}: holds {first} and {second}, images of different series; leave one in the folder")
    return dict(sorted(next(iter(series.values()), {}).items()))


@dataclass(frozen=True)
class FrameFolder:
    """A folder of frames as `open_frames` found it.

    Attributes:
        path: the folder.
        names: the images' names, in the order of time.
        width, height: pixels, of the first image and so of all.
    """

    path: Path
    names: tuple[str, ...]
    width: int
    height: int

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("names: got none, expected at least one image")

    def __len__(self) -> int:
        """How many frames."""
        return len(self.names)

    def seconds(self, index: int) -> float:
        """When a frame is shown, in seconds since the first one, at `FPS`."""
        return index / FPS

    def pixels(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """One frame, RGB and upright.

        Raises:
            UserError: the image is damaged, is none, has another size than the first one or more than 8 bits a colour.
        """
        file = self.path / self.names[index]
        with _opened(file) as image:
            if image.mode.startswith(("I", "F")):
                raise UserError(f"{file}: has more than 8 bits per colour; convert it to 8 bits")
            upright = ImageOps.exif_transpose(image).convert("RGB")
        if upright.size != (self.width, self.height):
            raise UserError(
                f"{file}: is {upright.width}x{upright.height} and {self.names[0]} {self.width}x{self.height}; "
                "all frames of a folder need the same size"
            )
        return torch.from_numpy(np.array(upright)).permute(2, 0, 1)


def open_frames(path: Path | str) -> FrameFolder:
    """The frames of a folder: it is listed, and the first image's header read.

    Raises:
        UserError: there is no numbered image, the images are several series, or the first one is no image.
    """
    path = Path(path)
    names = tuple(frame_numbers(path).values())
    if not names:
        raise UserError(
            f"{path}: is a directory without numbered images such as img_00001.jpg; give a video file or a folder of "
            "frames"
        )
    with _opened(path / names[0]) as image:
        turned = image.getexif().get(_ORIENTATION) in _TURNED
        width, height = reversed(image.size) if turned else image.size
    return FrameFolder(path, names, width, height)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """An image of which only the header is read yet; what goes wrong with it in the block is the user's to mend."""
    try:
        with Image.open(file) as image:
            yield image
    except UserError:
        raise
    except OSError as error:
        if error.strerror is not None:
            raise UserError(f"{file}: cannot be read ({error.strerror}); check the name and its permissions") from None
        raise _damaged(file, error) from None
    except Exception as error:  # noqa: BLE001 -- a damaged file makes Pillow's decoders raise nearly anything
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> UserError:
    told = "is not an image" if isinstance(error, UnidentifiedImageError) else f"cannot be decoded ({error})"
    return UserError(f"{file}: {told}; extract or copy this frame again")
