"""Read folders of numbered images in place of video files, as Something-Something v1, TSM and MMAction2 keep videos.

The images' numbers give the order: img_2.jpg comes before img_10.jpg, whatever the number that the first one has.
Frames are counted from 0 in that order.
"""

import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stabn.data.video.rgb_frames import FrameSource, RgbFrame, no_such_frame
from stabn.data.video.scan import VideoInfo
from stabn.errors import UserError

FPS = 25
"""Frames per second of every folder: images hold no rate, and 25 is FFmpeg's own default for images."""
SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
_FLOW = re.compile(r"(flow_)?[xy]_|flow_")
"""What precedes the number in the names of optical flow images, which MMAction2 keeps in the same folder."""
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
        other = images.setdefault(int(numbered[2]), name)
        if other != name:
            raise UserError(f"{path}: holds {other} and {name}, both of them image {int(numbered[2])}; remove one")
    if len(series) > 1:
        series = {kind: images for kind, images in series.items() if not _FLOW.fullmatch(kind[0])}
    if len(series) > 1:
        first, second = (next(iter(images.values())) for images in list(series.values())[:2])
        raise UserError(f"{path}: holds {first} and {second}, images of different series; leave one in the folder")
    return dict(sorted(next(iter(series.values()), {}).items()))


class FrameFolders(FrameSource):
    """RGB frames of folders of images, with the methods of `stabn.data.video.backends.VideoFiles`."""

    def probe(self, path: Path | str, most_pixels: int | None = None) -> VideoInfo:
        """Number, times and size of the frames: the folder is listed, and the first image's header read.

        Raises:
            UserError: there is no numbered image, the images are several series, or the first one is no image.
        """
        path = Path(path)
        names = list(frame_numbers(path).values())
        if not names:
            raise UserError(
                f"{path}: is a directory without numbered images such as img_00001.jpg; give a video file or a folder "
                "of frames"
            )
        with _open_image(path / names[0]) as image:
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            width, height = reversed(image.size) if turned else image.size
        return VideoInfo(len(names), tuple(index / FPS for index in range(len(names))), width, height, FPS)

    def frame_times(self, path: Path | str, seconds: float | None = None, count: int | None = None) -> np.ndarray:
        """As `FrameSource.frame_times`; all frames, because none is opened for it."""
        return np.array(self.probe(path).timestamps)

    def frame_size(self, path: Path | str) -> tuple[int, int]:
        """As `FrameSource.frame_size`."""
        info = self.probe(path)
        return info.width, info.height

    def stream_frames(self, path: Path | str, indices: Sequence[int] | None = None) -> Generator[RgbFrame]:
        """As `FrameSource.stream_frames`.

        Raises:
            UserError: as `probe`; or there are fewer frames, or an image is damaged, is none, has another size than the
                first one or more than 8 bits a colour.
        """
        info, names = self.probe(path), list(frame_numbers(path).values())
        indices = range(len(names)) if indices is None else indices
        if max(indices) >= len(names):
            raise no_such_frame(path, indices, len(names))
        for index in sorted(set(indices)):
            file = Path(path) / names[index]
            with _open_image(file) as image:
                if image.mode.startswith(("I", "F")):
                    raise UserError(f"{file}: has more than 8 bits per colour; convert it to 8 bits")
                upright = ImageOps.exif_transpose(image).convert("RGB")
            if upright.size != (info.width, info.height):
                raise UserError(
                    f"{file}: is {upright.width}x{upright.height} and {names[0]} {info.width}x{info.height}; "
                    "all frames of a folder need the same size"
                )
            yield RgbFrame(index, np.array(upright), index / FPS)

    def sampled_frames(self, path: Path | str) -> Generator[int | list[RgbFrame], Sequence[int], None]:
        """Choose frames by their number: yields how many frames there are, then those whose indices were sent."""
        yield self.frames(path, (yield self.probe(path).num_frames))


@contextmanager
def _open_image(file: Path) -> Iterator[Image.Image]:
    """Open an image, its header read; whatever is raised in the block becomes a UserError that names the file."""
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
    problem = "is not an image" if isinstance(error, UnidentifiedImageError) else f"cannot be decoded ({error})"
    return UserError(f"{file}: {problem}; extract or copy this frame again")
