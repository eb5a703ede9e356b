"""Convert boxes in a video's pixels to maps on the grid of a network's features."""

import torch
from jaxtyping import Float32
from torch import Tensor

Box = tuple[float, float, float, float]


def box_map(
    box: Box | None, crop: tuple[float, float, float, float], size: tuple[int, int], height: int, width: int
) -> Float32[Tensor, "h w"]:
    """The share of each cell of a view that a box covers: the spatial attention M'_s of a person who drew the box.

    A mirrored view has the mirrored map: `box_map(...).flip(-1)`.

    Args:
        box: (left, top, right, bottom) in pixels of the source frame, fractional, right and bottom exclusive; it may
            reach beyond the view. None for a map of zeros.
        crop: the part that the view shows, (left, top, right, bottom) as fractions of the source frame, as from
            `Preprocessing.crop_box`.
        size: (height, width) of the source frame in pixels.
        height, width: h and w, the cells.

    Returns:
        (h, w) in 0..1, the covered share of each cell's area, exact to float32's rounding.

    Raises:
        ValueError: a box or crop without area, a crop beyond the frame, a size or number of cells below 1.
    """
    if min(*size, height, width) < 1:
        raise ValueError(f"size, cells: got {size}, {(height, width)}, expected at least 1 in each direction")
    left, top, right, bottom = crop
    if not (0 <= left < right <= 1 + 1e-9 and 0 <= top < bottom <= 1 + 1e-9):
        raise ValueError(f"crop: got {crop}, expected left < right and top < bottom, all in 0..1")
    if box is None:
        return torch.zeros(height, width)
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"box: got {box}, expected left < right and top < bottom")
    rows = _covered(box[1] / size[0], box[3] / size[0], top, bottom, height)
    columns = _covered(box[0] / size[1], box[2] / size[1], left, right, width)
    return torch.outer(rows, columns).float()


def _covered(low: float, high: float, start: float, stop: float, cells: int) -> Tensor:
    """The share of each of `cells` equal parts of start..stop that lies in low..high; float64."""
    edges = start + (stop - start) / cells * torch.arange(cells + 1, dtype=torch.float64)
    inside = edges.clamp(low, high)
    return inside.diff() * cells / (stop - start)
