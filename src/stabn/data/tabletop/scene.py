"""Drawings of what is in a Tabletop scene: textured objects, a cup, a hand, the room with its table.

Lengths are fractions of the picture's side unless said otherwise; pictures are square PIL images.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

OVERSAMPLING = 4
TABLE_TOP = 0.74
TABLE_LEFT, TABLE_RIGHT = 0.12, 0.88

SHAPES = ("box", "ball", "cone", "diamond", "tower", "plate")
TEXTURES = ("plain", "striped", "checked", "dotted")

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Appearance:
    """What an object looks like: a shape of half width and half height, filled with a texture of two colours."""

    shape: str
    texture: str
    colours: tuple[Colour, Colour]
    half_width: float
    half_height: float

    @property
    def name(self) -> str:
        """The object in words, for the placeholders of an annotation."""
        return f"a {self.texture} {self.shape}"


def random_colour(rng: np.random.Generator, saturation: tuple[float, float] = (0.35, 1.0)) -> Colour:
    """A colour that is neither black nor white."""
    rgb = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(0.45, 1.0))
    return (round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255))


def random_appearance(rng: np.random.Generator, size: tuple[float, float] = (0.085, 0.12)) -> Appearance:
    """An object of random shape, texture, colours and size."""
    shape = str(rng.choice(SHAPES))
    half = rng.uniform(*size)
    stretch = {"tower": (0.65, 1.2), "plate": (1.2, 0.6)}.get(shape, (1.0, 1.0))
    return Appearance(
        shape=shape,
        texture=str(rng.choice(TEXTURES)),
        colours=(random_colour(rng), random_colour(rng)),
        half_width=half * stretch[0],
        half_height=half * stretch[1],
    )


def _textured(appearance: Appearance, width: int, height: int) -> Image.Image:
    first, second = appearance.colours
    image = Image.new("RGBA", (width, height), (*first, 255))
    draw = ImageDraw.Draw(image)
    step = max(width // 5, 4)
    if appearance.texture == "striped":
        for x in range(0, width, 2 * step):
            draw.rectangle((x, 0, x + step - 1, height), fill=second)
    elif appearance.texture == "checked":
        for x in range(0, width, step):
            for y in range((x // step % 2) * step, height, 2 * step):
                draw.rectangle((x, y, x + step - 1, y + step - 1), fill=second)
    elif appearance.texture == "dotted":
        for x in range(step // 2, width, 2 * step):
            for y in range(step // 2, height, 2 * step):
                draw.ellipse((x, y, x + step, y + step), fill=second)
    return image


def draw_object(appearance: Appearance, side: int) -> Image.Image:
    """The object as an RGBA image for pictures of `side` pixels."""
    width = max(4, round(2 * appearance.half_width * side)) * OVERSAMPLING
    height = max(4, round(2 * appearance.half_height * side)) * OVERSAMPLING
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    right, bottom = width - 1, height - 1
    if appearance.shape == "ball":
        draw.ellipse((0, 0, right, bottom), fill=255)
    elif appearance.shape == "cone":
        draw.polygon([(width / 2, 0), (right, bottom), (0, bottom)], fill=255)
    elif appearance.shape == "diamond":
        draw.polygon([(width / 2, 0), (right, height / 2), (width / 2, bottom), (0, height / 2)], fill=255)
    else:
        draw.rounded_rectangle((0, 0, right, bottom), radius=height // 8, fill=255)
    image = _textured(appearance, width, height)
    image.putalpha(mask)
    return _shrink(image)


def draw_cup(appearance: Appearance, side: int) -> Image.Image:
    """An upturned cup in the object's first colour, with a rim in the second: it hides what stands under it."""
    width = round(2 * appearance.half_width * side) * OVERSAMPLING
    height = round(2 * appearance.half_height * side) * OVERSAMPLING
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    slope, rim = width * 0.12, height * 0.14
    draw.polygon([(slope, 0), (width - slope, 0), (width, height), (0, height)], fill=(*appearance.colours[0], 255))
    draw.rectangle((0, height - rim, width, height), fill=(*appearance.colours[1], 255))
    return _shrink(image)


def _shrink(image: Image.Image) -> Image.Image:
    return image.resize((image.width // OVERSAMPLING, image.height // OVERSAMPLING), Image.Resampling.LANCZOS)


def draw_hand(skin: Colour, sleeve: Colour, tilt: float, side: int) -> Image.Image:
    """A hand reaching down from above, as a square RGBA image of 2.2 x `side`; its finger tips are at the centre.

    Args:
        skin: colour of the hand.
        sleeve: colour of the arm.
        tilt: rotation about the finger tips in degrees.
        side: the picture's side in pixels.
    """
    extent = 2 * round(1.1 * side)
    image = Image.new("RGBA", (extent * 2, extent * 2), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    scale = 2 * side
    cx = cy = extent
    draw.rounded_rectangle((cx - 0.055 * scale, -extent, cx + 0.055 * scale, cy - 0.2 * scale), 8, fill=(*sleeve, 255))
    draw.ellipse((cx - 0.075 * scale, cy - 0.24 * scale, cx + 0.075 * scale, cy - 0.07 * scale), fill=(*skin, 255))
    dark = (skin[0] * 3 // 4, skin[1] * 3 // 4, skin[2] * 3 // 4, 255)
    for offset, length in ((-0.062, 0.02), (-0.021, 0.0), (0.021, 0.0), (0.062, 0.03)):
        x = cx + offset * scale
        draw.rounded_rectangle(
            (x - 0.018 * scale, cy - 0.15 * scale, x + 0.018 * scale, cy - length * scale),
            radius=6,
            fill=(*skin, 255),
            outline=dark,
            width=2,
        )
    return image.rotate(tilt, Image.Resampling.BILINEAR).resize((extent, extent), Image.Resampling.LANCZOS)


def draw_room(rng: np.random.Generator, side: int) -> Image.Image:
    """Wall and table, with a margin of a quarter side on every edge so that the camera can shake."""
    extent = side + side // 2
    margin = side // 4
    wall = np.array(random_colour(rng, (0.05, 0.35)), dtype=np.float64)
    shade = np.linspace(rng.uniform(0.7, 1.1), rng.uniform(0.7, 1.1), extent)[None, :, None]
    grain = rng.normal(0, 3, (extent // 6 + 1, extent // 6 + 1, 1)).repeat(6, 0).repeat(6, 1)[:extent, :extent]
    image = Image.fromarray(np.clip(wall * shade + grain, 0, 255).astype(np.uint8).repeat(1, 2))
    draw = ImageDraw.Draw(image)
    wood = random_colour(rng, (0.2, 0.6))
    top, bottom = margin + round(TABLE_TOP * side), margin + round((TABLE_TOP + 0.07) * side)
    left, right = margin + round(TABLE_LEFT * side), margin + round(TABLE_RIGHT * side)
    draw.rectangle((left, top, right, bottom), fill=wood)
    dark = (wood[0] * 2 // 3, wood[1] * 2 // 3, wood[2] * 2 // 3)
    draw.line((left, bottom, right, bottom), fill=dark, width=2)
    for x in (left + side // 20, right - side // 12):
        draw.rectangle((x, bottom, x + side // 30, extent), fill=dark)
    return image


@dataclass(frozen=True)
class Sprite:
    """A picture to paste: its colours and its opacity, apart because that is how pasting wants them."""

    colours: Image.Image
    opacity: Image.Image

    @classmethod
    def of(cls, image: Image.Image) -> "Sprite":
        """The sprite of an RGBA image."""
        return cls(image.convert("RGB"), image.getchannel("A"))


def paste_sprite(
    canvas: Image.Image, sprite: Sprite, centre: tuple[float, float], angle: float = 0.0, opacity: float = 1.0
) -> tuple[float, float, float, float]:
    """Draw a sprite on the canvas and return its box (left, top, right, bottom) in pixels of the canvas.

    Args:
        canvas: RGB image, changed in place.
        sprite: what to draw.
        centre: where the sprite's centre goes, in pixels.
        angle: anticlockwise rotation in degrees.
        opacity: 0..1.
    """
    colours, mask = sprite.colours, sprite.opacity
    if angle:
        colours, mask = (part.rotate(angle, Image.Resampling.BILINEAR, expand=True) for part in (colours, mask))
    if opacity < 1:
        mask = Image.blend(Image.new("L", mask.size), mask, opacity)
    left, top = round(centre[0] - mask.width / 2), round(centre[1] - mask.height / 2)
    canvas.paste(colours, (left, top), mask)
    return (left, top, left + mask.width, top + mask.height)
