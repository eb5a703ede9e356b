"""Drawing with Pillow: the colour scale of attention, fonts, text that fits, and bars."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from importlib.metadata import distribution

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Box = tuple[int, int, int, int]

PAPER, INK, MUTED, TRACK, EDGE = (255, 255, 255), (26, 30, 36), (92, 101, 113), (236, 239, 243), (120, 128, 139)
RIGHT, WRONG = (0, 110, 84), (176, 32, 40)

COLOUR_SCALES: dict[str, tuple[tuple[float, tuple[int, int, int]], ...]] = {
    # ColorBrewer's RdYlBu reversed, with more colour in it because half of it is lost in the blend with a video. Blue
    # is 0 and red is 1 as in the paper. Unlike "jet" and "turbo" over the same frames it leaves the scene visible: its
    # lightness has a single peak, so that no false edges show, and it has no green that a colour-blind reader would
    # take for red.
    "blue-red": (
        (0.00, (34, 56, 176)),
        (0.18, (56, 118, 208)),
        (0.36, (128, 192, 232)),
        (0.44, (206, 222, 220)),
        (0.50, (250, 238, 158)),
        (0.64, (255, 176, 72)),
        (0.82, (236, 84, 40)),
        (1.00, (182, 4, 34)),
    ),
    # cividis: its lightness rises evenly, so that it reads alike with every kind of colour vision and in grey
    "safe": (
        (0.000, (0, 34, 78)),
        (0.125, (28, 53, 109)),
        (0.250, (66, 78, 108)),
        (0.375, (95, 103, 111)),
        (0.500, (124, 123, 120)),
        (0.625, (157, 148, 115)),
        (0.750, (192, 176, 103)),
        (0.875, (227, 205, 84)),
        (1.000, (254, 232, 56)),
    ),
}
"""By name: (attention, RGB) of the colours between which the others are interpolated."""


def attention_colour(values: np.ndarray | int | float, scale: str = "blue-red") -> UInt8[np.ndarray, "*shape 3"]:
    """Colours of attention values, from blue (0) over pale yellow to red (1) in the scale of pictures.

    Args:
        values: numbers of any shape; those outside of 0..1 take the colour of the nearer end.
        scale: one of `COLOUR_SCALES`.

    Returns:
        uint8 RGB with one more axis of length 3.
    """
    positions, colours = zip(*COLOUR_SCALES[scale], strict=True)
    channels = [np.interp(np.asarray(values, np.float64), positions, channel) for channel in zip(*colours, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


@lru_cache(maxsize=64)
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at a size in pixels, from matplotlib's package, so that pictures are the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    # found without importing matplotlib, which takes 0.15 s
    file = distribution("matplotlib").locate_file(f"matplotlib/mpl-data/fonts/ttf/{name}")
    return ImageFont.truetype(str(file), size)


def fit_text(text: str, face: ImageFont.FreeTypeFont, width: int | float) -> str:
    """The text, shortened with an ellipsis if it is wider than `width` pixels."""
    text = " ".join(text.split())
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text.rstrip() + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def wrap_text(text: str, face: ImageFont.FreeTypeFont, width: int | float, most: int) -> list[str]:
    """The text in at most `most` lines of `width` pixels, broken at spaces; the last line may end in an ellipsis."""
    words, lines = text.split(), list[str]()
    while words and len(lines) < most - 1:
        count = 1
        while count < len(words) and face.getlength(" ".join(words[: count + 1])) <= width:
            count += 1
        lines.append(fit_text(" ".join(words[:count]), face, width))
        words = words[count:]
    return [*lines, fit_text(" ".join(words), face, width)] if words else lines


def draw_bars(
    draw: ImageDraw.ImageDraw,
    box: Box,
    scores: Sequence[int | float] | np.ndarray,
    current: Collection[int] = (),
    *,
    plain: bool = False,
) -> None:
    """Draw one bar per score on a common scale 0..1, blue to red, with a dark frame and pointer at the current ones.

    Args:
        draw: of the image.
        box: (left, top, right, bottom) in pixels; the pointer needs 9 pixels more below it.
        scores: values in 0..1, in time order.
        current: positions to mark.
        plain: dark grey instead of the colour scale, for scores that do not come from a network.
    """
    left, top, right, bottom = box
    gap = 3 if (right - left) / len(scores) >= 14 else 1
    edges = [left + round(i * (right - left + gap) / len(scores)) for i in range(len(scores) + 1)]
    for i, score in enumerate(scores):
        x0, x1 = edges[i], edges[i + 1] - gap - 1
        draw.rectangle((x0, top, x1, bottom), fill=TRACK)
        # a score of 0 keeps a sliver: "not important" must look different from "no frame"
        y = min(bottom - 1, bottom - round(float(score) * (bottom - top)))
        draw.rectangle((x0, y, x1, bottom), fill=MUTED if plain else tuple(attention_colour(float(score)).tolist()))
    if current:
        x0, x1 = edges[min(current)], edges[max(current) + 1] - gap - 1
        draw.rectangle((x0 - 2, top - 2, x1 + 2, bottom + 2), outline=INK, width=2)
        middle = (x0 + x1) / 2
        draw.polygon(((middle, bottom + 3), (middle - 5, bottom + 9), (middle + 5, bottom + 9)), fill=INK)


def draw_scale(image: Image.Image, box: Box) -> None:
    """Draw the colour scale from 0 at the left to 1 at the right."""
    left, top, right, bottom = box
    row = attention_colour(np.linspace(0, 1, right - left))
    image.paste(Image.fromarray(np.broadcast_to(row, (bottom - top, *row.shape)).copy()), (left, top))
    ImageDraw.Draw(image).rectangle((left - 1, top - 1, right, bottom), outline=EDGE)
