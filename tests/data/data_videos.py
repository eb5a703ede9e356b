"""Small videos whose frames spell their own number, so that a wrong frame cannot pass for the right one."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_BLOCK = 8
_COLUMNS, _ROWS = 5, 2  # 10 bits


def numbered_frame(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey, with the number in white and black blocks at the top left and a bar that moves."""
    frame = np.full((height, width, 3), 90, np.uint8)
    frame[-8:, : 4 + 3 * number % width] = (200, 40, 40)
    for bit in range(_ROWS * _COLUMNS):
        top, left = _BLOCK * (bit // _COLUMNS), _BLOCK * (bit % _COLUMNS)
        frame[top : top + _BLOCK, left : left + _BLOCK] = 255 * (number >> bit & 1)
    return frame


def numbers_in(frames: Iterable) -> list[int]:
    """The numbers that (3, H, W) frames spell."""
    numbers = []
    for frame in frames:
        grey = np.asarray(frame, dtype=np.float32).mean(0)
        blocks = grey[: _ROWS * _BLOCK, : _COLUMNS * _BLOCK].reshape(_ROWS, _BLOCK, _COLUMNS, _BLOCK)
        bits = (blocks[:, 2:-2, :, 2:-2].mean((1, 3)) > 127).ravel()
        numbers.append(int((bits * (1 << np.arange(bits.size))).sum()))
    return numbers


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    fps: int = 12,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    matrix: list[int] | None = None,
) -> Path:
    """Encode by PyAV alone, independently of `write_video`; `pts` counts in 1/1000 s."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for index, pixels in enumerate(frames):
            if index == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
