"""How players show the frames of a file: turned and mirrored by its display matrix, and with square pixels.

Frames are converted to RGB by the filters that the `ffmpeg` command inserts for it, so that they are the same bit by
bit. Where pixels are not square the width changes, as `-vf scale=iw*sar:ih` changes it after the frame was turned.

The display matrix: ISO 14496-12, track header. What FFmpeg makes of it: `configure_input_video_filter` in its
fftools/ffmpeg_filter.c.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type

_MOST_PIXELS = 2**27
"""Of a frame, 400 MB as RGB: a damaged header may claim any shape."""


class Display(NamedTuple):
    """How players show a frame.

    Attributes:
        turn: FFmpeg's filters that turn and mirror it, as (name, arguments); none if it is upright.
        width: in pixels, when it is upright and its pixels are square.
        height: likewise.
    """

    turn: tuple[tuple[str, str | None], ...]
    width: int
    height: int


def frame_display(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> Display:
    """How players show a decoded frame.

    Args:
        frame: with the display matrix as side data, if there is one.
        pixel_aspect: width of a stored pixel by its height; None or 0 where the file does not say.

    Raises:
        ValueError: the pixels are so far from square that the frame would be larger than any that is read.
    """
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    turn = () if matrix is None else turning_filters(np.frombuffer(bytes(matrix), np.int32).tolist())
    width, height, aspect = frame.width, frame.height, Fraction(pixel_aspect or 1)
    if any(name == "transpose" for name, _ in turn):
        width, height, aspect = height, width, 1 / aspect
    if aspect != 1:
        width = max(int(width * aspect), 1)
        if width * height > _MOST_PIXELS:
            raise ValueError(f"pixels of shape {pixel_aspect}")
    return Display(turn, width, height)


def turning_filters(matrix: Sequence[int]) -> tuple[tuple[str, str | None], ...]:
    """FFmpeg's filters for a display matrix (a b u c d v x y w); none where it holds no rotation."""
    a, b, c, d = (float(matrix[i]) for i in (0, 1, 3, 4))
    first, second = math.hypot(a, c), math.hypot(b, d)
    if not first or not second:
        return ()
    degrees = round(math.degrees(math.atan2(b / second, a / first))) % 360
    if degrees == 90:
        return (("transpose", "cclock_flip" if c > 0 else "clock"),)
    if degrees == 270:
        return (("transpose", "clock_flip" if c < 0 else "cclock"),)
    if degrees == 180:
        return (*((("hflip", None),) if a < 0 else ()), *((("vflip", None),) if d < 0 else ()))
    if degrees:
        return (("rotate", f"{degrees}*PI/180"),)
    return (("vflip", None),) if d < 0 else ()


class DisplayGraph:
    """FFmpeg's filters from decoded frames of one kind to shown RGB frames.

    Args:
        frame: a frame of that kind.
        display: how it is shown.
    """

    def __init__(self, frame: av.VideoFrame, display: Display) -> None:
        graph = av.filter.Graph()
        time_base = frame.time_base or Fraction(1, 1000)  # FFmpeg asks for one
        graph.threads = 1  # data loaders already run a process per core
        filters = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base),
            *(graph.add(name, arguments) for name, arguments in display.turn),
            graph.add("scale", f"{display.width}:{display.height}:flags=bicubic"),
            graph.add("format", "pix_fmts=rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*filters).configure()
        self._graph, self._source, self._sink = graph, filters[0], filters[-1]

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8."""
        self._source.push(frame)
        shown = self._sink.pull()
        assert isinstance(shown, av.VideoFrame)
        return np.ascontiguousarray(shown.to_ndarray())
