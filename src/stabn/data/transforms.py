"""Turn frames of any size into the network's input: resize, crop, vary colours, mirror, normalise.

Shapes: t frames, c = 3 channels (RGB), h and w pixels, s the side of the network's square view.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn import functional

from stabn.data.sampling import Sampling
from stabn.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How a network sees a video: the same for new videos as for its training videos.

    Attributes:
        sampling: which frames.
        resize: the shorter side of a frame after resizing, in pixels.
        crop: S, the side of the square that the network reads, in pixels; at most `resize`.
        region: (left, top, right, bottom), the part of every frame to use, as fractions of its width and height, such
            as a mouth or one place of a production line; cut out before resizing. None for the whole frame.
        mean: of R, G and B in 0..1, subtracted.
        std: of R, G and B in 0..1, divided by.
    """

    sampling: Sampling
    resize: int
    crop: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    region: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: got {value!r}, expected an integer from 1")
        if self.crop > self.resize:
            raise ValueError(f"crop: got {self.crop}, expected at most resize = {self.resize}")
        for name, low in (("mean", -math.inf), ("std", 0.0)):
            value = getattr(self, name)
            numbers = [v for v in value if isinstance(v, int | float) and math.isfinite(v) and v > low]
            if len(value) != 3 or len(numbers) != 3:
                above = "" if low < 0 else " above 0"
                raise ValueError(f"{name}: got {value!r}, expected three numbers{above}")
        if self.region is not None:
            left, top, right, bottom = self.region
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(f"region: got {self.region!r}, expected left < right and top < bottom, all in 0..1")

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values; `from_json` reads them back. Without a region there is no "region"."""
        value = asdict(self) | {"sampling": self.sampling.as_json(), "mean": list(self.mean), "std": list(self.std)}
        region = value.pop("region")
        return value if region is None else value | {"region": list(region)}

    @classmethod
    def from_json(cls, value: Any, source: str = "preprocessing") -> "Preprocessing":
        """The preprocessing that `as_json` wrote.

        Args:
            value: the JSON value.
            source: where it was read, for the message.

        Raises:
            UserError: a key is missing or unknown, or a value is out of range.
        """
        try:
            outer = _exact_fields(cls, {"region": None, **value} if isinstance(value, Mapping) else value)
            sampling = outer.pop("sampling")
            sampling = {"snippet": 1, **sampling} if isinstance(sampling, Mapping) else sampling
            inner = _exact_fields(Sampling, sampling, "sampling.")
            for name, count in (("mean", 3), ("std", 3), ("region", 4)):
                if name != "region" or outer[name] is not None:
                    outer[name] = _numbers(name, outer[name], count)
            return cls(sampling=Sampling(**inner), **outer)
        except ValueError as error:
            raise UserError(f"{source}: {error}; give the values that the network was trained with") from None

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a frame after `resized`; the longer side is rounded down, as torchvision does."""
        left, top, right, bottom = self._region_pixels(height, width)
        height, width = bottom - top, right - left
        short, long = min(height, width), max(height, width)
        long = int(self.resize * long / short)
        return (self.resize, long) if height <= width else (long, self.resize)

    def resized(self, frames_tchw: UInt8[Tensor, "t 3 h w"]) -> UInt8[Tensor, "t 3 h2 w2"]:
        """The region of source frames with `resize` as its shorter side, aspect kept (bilinear, antialiased)."""
        left, top, right, bottom = self._region_pixels(*frames_tchw.shape[-2:])
        size = self.resized_size(*frames_tchw.shape[-2:])
        # what torchvision's resize calls; torchvision itself takes longer to load than a clip to explain
        region_tchw = frames_tchw[..., top:bottom, left:right]
        if tuple(region_tchw.shape[-2:]) == size:
            return region_tchw
        return functional.interpolate(region_tchw, size, mode="bilinear", antialias=True)

    def test_view(self, frames_tchw: UInt8[Tensor, "t 3 h w"]) -> Float32[Tensor, "3 t s s"]:
        """The network's view of source frames: the centre square of what `resized` gives, normalised."""
        return self.centre_view(self.resized(frames_tchw))

    def centre_corner(self, resized_tchw: UInt8[Tensor, "t 3 h w"]) -> tuple[int, int]:
        """(top, left) of the centre square in pixels of frames that `resized` gave."""
        return _centre(resized_tchw.shape[-2], resized_tchw.shape[-1], self.crop)

    def centre_view(self, resized_tchw: UInt8[Tensor, "t 3 h w"]) -> Float32[Tensor, "3 t s s"]:
        """The network's view of frames that `resized` gave."""
        return self.normalised(self.centre_square(resized_tchw))

    def centre_square(self, resized_tchw: UInt8[Tensor, "t 3 h w"]) -> UInt8[Tensor, "t 3 s s"]:
        """`centre_view` before it is normalised; a view of the frames' own memory."""
        top, left = self.centre_corner(resized_tchw)
        return resized_tchw[..., top : top + self.crop, left : left + self.crop]

    def test_squares(self, resized_tchw: UInt8[Tensor, "t 3 h w"], crops: int) -> list[UInt8[Tensor, "t 3 s s"]]:
        """The views of resized frames in a test: the centre square, or three squares of the shorter side.

        The three lie at the beginning, in the middle and at the end of the longer side and so leave nothing out, as in
        Wang et al., Non-local Neural Networks (arXiv 1711.07971, section 4.1).

        Returns:
            Views of the frames' own memory; S is `crop` for one, and `resize` for three.
        """
        if crops == 1:
            return [self.centre_square(resized_tchw)]
        height, width = resized_tchw.shape[-2:]
        side = min(height, width)
        corners = [(round((height - side) * share), round((width - side) * share)) for share in (0, 0.5, 1)]
        return [resized_tchw[..., top : top + side, left : left + side] for top, left in corners]

    def normalised(self, frames_tchw: UInt8[Tensor, "t 3 s s"]) -> Float32[Tensor, "3 t s s"]:
        """(frames / 255 - mean) / std, channels first as the network reads them."""
        return self.network_clips(frames_tchw.transpose(0, 1)[None])[0]

    def network_clips(
        self, pixels_bcthw: UInt8[Tensor, "b 3 t s s"], colours: "Sequence[ColorFactors]" = ()
    ) -> Float32[Tensor, "b 3 t s s"]:
        """The network's input of a batch of clips, on the pixels' device: colours varied, then (x / 255 - mean) / std.

        Args:
            pixels_bcthw: RGB.
            colours: B, how the colours of each clip are varied; empty to leave all as they are.
        """
        # every operation takes Python numbers, not tensors, so that a GPU does not wait for them
        clips_bcthw = pixels_bcthw.contiguous().to(torch.float32).div_(255)
        if colours:
            for clip_cthw, factors in zip(clips_bcthw, colours, strict=True):
                factors.vary(clip_cthw)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            clips_bcthw[:, channel].sub_(mean).div_(std)
        return clips_bcthw

    def crop_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of a source frame of this size in pixels that `test_view` shows.

        Returns:
            (left, top, right, bottom), fractions of the source frame's width and height.
        """
        return self.view_box(height, width, _centre(*self.resized_size(height, width), self.crop))

    def view_box(self, height: int, width: int, corner: tuple[int, int]) -> tuple[float, float, float, float]:
        """As `crop_box`, of the square at a corner: (top, left) in pixels of the resized frame."""
        rows, columns = self.resized_size(height, width)
        left, top, right, bottom = self._region_pixels(height, width)
        across, down = (right - left) / columns, (bottom - top) / rows  # source pixels per resized pixel
        y, x = corner
        return (
            (left + x * across) / width,
            (top + y * down) / height,
            (left + (x + self.crop) * across) / width,
            (top + (y + self.crop) * down) / height,
        )

    def _region_pixels(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The region in whole pixels of a source frame, at least one in each direction."""
        if self.region is None:
            return 0, 0, width, height
        left, top = min(int(self.region[0] * width), width - 1), min(int(self.region[1] * height), height - 1)
        right, bottom = round(self.region[2] * width), round(self.region[3] * height)
        return left, top, max(right, left + 1), max(bottom, top + 1)


_CACHE_BYTES = 2**20
"""Size of frames that fit into a core's cache together with their results."""


class ColorFactors(NamedTuple):
    """Factors by which the colours of all frames of a clip are varied, in this order, as torchvision defines them.

    Attributes:
        brightness: factor from 0.
        contrast: factor from 0, towards the mean grey of each frame.
        saturation: factor from 0, towards each pixel's grey.
        hue: turns of the colour circle, -0.5..0.5.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def vary(self, clip_cthw: Float32[Tensor, "3 t s s"]) -> None:
        """Change a clip in 0..1 in place, on its device."""
        from torchvision.transforms.v2 import functional as tv  # takes seconds to load

        # few frames at a time stay in a core's cache between the changes, which halves the time
        count = max(1, _CACHE_BYTES // clip_cthw[0, 0].nbytes // 3) if clip_cthw.is_cpu else clip_cthw.shape[1]
        for part_cthw in clip_cthw.split(count, dim=1):
            frames_tchw = part_cthw.transpose(0, 1)
            frames_tchw = tv.adjust_brightness(frames_tchw, self.brightness)
            frames_tchw = tv.adjust_contrast(frames_tchw, self.contrast)
            frames_tchw = tv.adjust_saturation(frames_tchw, self.saturation)
            if self.hue:
                frames_tchw = tv.adjust_hue(frames_tchw, self.hue)
            part_cthw.copy_(frames_tchw.transpose(0, 1))


class TrainingView(NamedTuple):
    """An augmented clip.

    Attributes:
        pixels: (T, 3, S, S) uint8, RGB, mirrored already.
        colours: how the colours are to be varied on the network's device; None to leave them as they are.
        flipped: whether left and right are swapped, so that the class may be another one.
        corner: (top, left) of the square in pixels of the resized frames, before any swap.
    """

    pixels: Tensor
    colours: ColorFactors | None
    flipped: bool
    corner: tuple[int, int]


@dataclass(frozen=True)
class Augmentation:
    """How training clips are varied besides their random crop; all frames of a clip alike.

    Attributes:
        jitter: strength of changes of brightness, contrast and saturation: factors in max(0, 1 - jitter)..1 + jitter.
        hue: strength of the change of hue, in 0..0.5 turns of the colour circle; it costs more time than all the rest.
        flip: mirror half of the clips, where their class has a mirror image.
    """

    jitter: float = 0.0
    hue: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, high in (("jitter", math.inf), ("hue", 0.5)):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= high):
                raise ValueError(f"{name}: got {value!r}, expected a number in 0..{high:g}")

    def training_view(
        self,
        resized_tchw: UInt8[Tensor, "t 3 h w"],
        preprocessing: Preprocessing,
        rng: np.random.Generator,
        *,
        may_flip: bool = True,
    ) -> TrainingView:
        """A random square of resized frames, and how to vary it; a pure function of the generator's state.

        Args:
            resized_tchw: frames that `preprocessing.resized` gave.
            preprocessing: gives the crop.
            rng: the only source of randomness.
            may_flip: False for a clip whose class has no mirror image.

        Raises:
            ValueError: a frame smaller than the crop.
        """
        side = preprocessing.crop
        height, width = resized_tchw.shape[-2:]
        if min(height, width) < side:
            raise ValueError(f"resized_tchw: got {height}x{width} pixels, expected at least {side}x{side}")
        # the same draws for all settings, so that two settings can be compared on the same crops
        top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
        flipped = bool(rng.random() < 0.5) and self.flip and may_flip
        brightness, contrast, saturation = (max(1 + self.jitter * u, 0.0) for u in rng.uniform(-1, 1, 3))
        hue = self.hue * float(rng.uniform(-1, 1))

        crop = resized_tchw[..., top : top + side, left : left + side]
        colours = ColorFactors(brightness, contrast, saturation, hue) if self.jitter > 0 or self.hue > 0 else None
        return TrainingView(crop.flip(-1) if flipped else crop, colours, flipped, (top, left))


def mirrored_classes(class_names: Sequence[str]) -> tuple[int | None, ...]:
    """For each class, the class that its mirror image belongs to.

    "Moving up" stays itself; "from left to right" becomes "from right to left"; clockwise swaps with counterclockwise.
    Only whole words count ("upright" does not), in any case, also between underscores or hyphens.

    Returns:
        One class index per class; None where the mirror image is none of the classes, or not a single one, so that a
        clip must not be flipped.
    """
    marked_names = [_mark_sides(name) for name in class_names]
    classes: dict[str, list[int]] = {}
    for index, name in enumerate(marked_names):
        classes.setdefault(name, []).append(index)

    def mirror(index: int, name: str) -> int | None:
        swapped = name.translate(_SWAP)
        if swapped == name:
            return index
        partners = classes.get(swapped, [])
        return partners[0] if len(partners) == 1 and len(classes[name]) == 1 else None

    return tuple(mirror(index, name) for index, name in enumerate(marked_names))


# Control characters stand for the sides, so that they cannot be confused with a class name's own text.
_LEFT, _RIGHT, _CLOCKWISE, _COUNTER = "\x01", "\x02", "\x03", "\x04"
_SWAP = str.maketrans({_LEFT: _RIGHT, _RIGHT: _LEFT, _CLOCKWISE: _COUNTER, _COUNTER: _CLOCKWISE})
_SIDES = re.compile(
    r"(?<![^\W_])"  # no letter or digit before
    r"(?:(?P<side>left|right)(?P<ending>wards?|hand|handed)?|(?P<counter>(?:counter|anti)[-_ ]?)?clockwise)"
    r"(?![^\W_])"
)


def _mark_sides(name: str) -> str:
    def mark(match: re.Match[str]) -> str:
        if match["side"]:
            return (_LEFT if match["side"] == "left" else _RIGHT) + (match["ending"] or "")
        return _COUNTER if match["counter"] else _CLOCKWISE

    return _SIDES.sub(mark, name.lower())


def _centre(height: int, width: int, side: int) -> tuple[int, int]:
    """Top and left of the centre square, rounded as torchvision's center_crop does."""
    return round((height - side) / 2), round((width - side) / 2)


def _exact_fields(cls: type[Preprocessing | Sampling], value: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a JSON object that has all fields of a dataclass and no others."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{prefix.rstrip('.') or 'value'}: got {value!r}, expected an object")
    types = {field.name: field.type for field in fields(cls)}
    for name, expected in types.items():
        if name not in value:
            raise ValueError(f"{prefix}{name}: missing")
        if expected is int and type(value[name]) is not int:
            raise ValueError(f"{prefix}{name}: got {value[name]!r}, expected an integer")
    for name in value:
        if name not in types:
            raise ValueError(f"{prefix}{name}: unknown")
    return dict(value)


def _numbers(name: str, value: Any, count: int) -> tuple[float, ...]:
    """A JSON list of numbers as floats."""
    if not isinstance(value, list | tuple) or [type(v) in (int, float) for v in value] != [True] * count:
        raise ValueError(f"{name}: got {value!r}, expected {'three' if count == 3 else 'four'} numbers")
    return tuple(float(v) for v in value)
