"""Video files and frame folders become a `Clip` of RGB frames, and frames become a video file.

Frames are counted from 0 in the order in which a player shows them; `stabn.data.video.decode` says how files are read.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from stabn.data.video import decode as decoding
from stabn.data.video.decode import Picture, Sampled, VideoInfo, checked, out_of_range
from stabn.data.video.frame_folder import FPS, FrameFolder, open_frames
from stabn.files import replacing

_PTS_PER_SECOND = 90_000
_SMPTE170M, _LIMITED = 6, 1  # how FFmpeg converts RGB to YUV, in its own numbers


@dataclass(frozen=True, eq=False)
class Clip:
    """Some frames of one video.

    Attributes:
        frames: (T, 3, H, W) uint8 RGB, upright.
        frame_indices: (T,) int64, which frames of the file, counted from 0.
        timestamps: (T,) float64, seconds since the first frame of the file.
        path: the video file.
    """

    frames: UInt8[Tensor, "t 3 h w"]
    frame_indices: Int64[Tensor, " t"]
    timestamps: Float64[Tensor, " t"]
    path: str

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3 or self.frames.dtype != torch.uint8:
            raise ValueError(f"frames: got {self.frames.dtype} {tuple(self.frames.shape)}, expected uint8 (T, 3, H, W)")
        length = len(self.frames)
        for name, dtype in (("frame_indices", torch.int64), ("timestamps", torch.float64)):
            value = getattr(self, name)
            if value.shape != (length,) or value.dtype != dtype:
                raise ValueError(f"{name}: got {value.dtype} {tuple(value.shape)}, expected {dtype} ({length},)")


def probe(path: Path | str, most_pixels: int | None = None) -> VideoInfo:
    """Count and time the frames of a video by decoding all of it, without converting any to RGB.

    Packets are not counted: VP8 and VP9 have invisible frames, and edit lists hide frames. The answer is remembered
    until the file changes.

    Args:
        path: a video file, or a folder of frames.
        most_pixels: of all frames of a file, each counted as at least 65,536; a stranger's video may take hours.

    Raises:
        UserError: the file is missing, is no video, has no frames, is damaged or has more than `most_pixels`.
    """
    if os.path.isdir(path):
        folder = open_frames(path)
        times = tuple(map(folder.seconds, range(len(folder))))
        return VideoInfo(len(folder), times, folder.width, folder.height, FPS)
    return decoding.probe(path, most_pixels)


def read_clip(path: Path | str, frame_indices: Sequence[int]) -> Clip:
    """Decode from the beginning to the last wanted frame and give the wanted ones as RGB, in the order asked for.

    Args:
        path: a video file, or a folder of frames.
        frame_indices: T >= 1 frames, counted from 0; repeats are allowed.

    Raises:
        UserError: the file is missing, is no video, is damaged, or has no frame of such an index.
        ValueError: no index, or a negative one.
    """
    if os.path.isdir(path):
        return _of_folder(open_frames(path), frame_indices)
    indices = checked(frame_indices)
    return clip_of(path, indices, decoding.pictures(path, indices))


def stream_clip(path: Path | str, frame_indices: Sequence[int]) -> Iterator[Clip]:
    """The wanted frames in the order of the file, each as a clip of one frame as soon as it is decoded.

    Args:
        path: a video file, or a folder of frames.
        frame_indices: frames, counted from 0; a repeated one comes once.

    Raises:
        UserError: as `read_clip`; frames before the damage have been given by then.
        ValueError: no index, or a negative one.
    """
    if os.path.isdir(path):
        folder = open_frames(path)
        yield from (_of_folder(folder, [index]) for index in sorted(set(checked(frame_indices))))
        return
    for picture in decoding.pictures(path, checked(frame_indices)):
        yield clip_of(path, [picture.index], [picture])


def read_sampled(path: Path | str, choose: Callable[[int], Sequence[int]]) -> Clip:
    """The frames that `choose` picks once the number of frames is known, in one pass over the file if it is short.

    Args:
        path: a video file, or a folder of frames.
        choose: from the number of frames to T >= 1 indices.

    Raises:
        UserError: as `read_clip`.
    """
    if os.path.isdir(path):
        folder = open_frames(path)
        return _of_folder(folder, choose(len(folder)))
    sampled = Sampled(path)
    indices = checked(choose(sampled.count))
    return clip_of(path, indices, sampled.pictures(indices))


def read_chunks(path: Path | str, size: int = 64) -> Iterator[Clip]:
    """All frames of a video in order, as clips of `size` frames and a shorter last one.

    Raises:
        UserError: as `read_clip`; chunks before the damage have been given by then.
    """
    if os.path.isdir(path):
        folder = open_frames(path)
        starts = range(0, len(folder), size)
        yield from (_of_folder(folder, range(start, min(start + size, len(folder)))) for start in starts)
        return
    with closing(decoding.chunks(path, size)) as chunks:
        for chunk in chunks:
            yield clip_of(path, [picture.index for picture in chunk], chunk)


def clip_of(path: Path | str, indices: Sequence[int], pictures: Iterable[Picture]) -> Clip:
    """Pictures of a file as a clip, in the order of the indices.

    Args:
        path: the video file.
        indices: T >= 1 frames; repeats are allowed.
        pictures: one for each of them, in any order.
    """
    known = {picture.index: picture for picture in pictures}
    return Clip(
        # as they are decoded, the channels last: resizing reads that twice as fast
        frames=torch.from_numpy(np.stack([known[i].pixels for i in indices])).permute(0, 3, 1, 2),
        frame_indices=torch.tensor(indices, dtype=torch.int64),
        timestamps=torch.tensor([known[i].seconds for i in indices], dtype=torch.float64),
        path=os.fspath(path),
    )


def write_video(
    path: Path | str,
    frames: Iterable[np.ndarray] | np.ndarray,
    fps: int | Fraction,
    *,
    crf: int = 18,
    preset: str = "medium",
    timestamps: Sequence[float] | None = None,
) -> None:
    """Encode frames, atomically; the same frames give the same bytes.

    Args:
        path: .mp4 (H.264, header first so that browsers can start at once) or .webm (VP9).
        frames: at least one uint8 (H, W, 3) RGB picture, all of one size. 4:2:0 video needs even sizes: an odd width
            or height grows by one pixel that repeats the edge.
        fps: frames per second; with `timestamps` only a hint for players.
        crf: quality, 0 the best; 18 looks lossless to most eyes.
        preset: how hard libx264 tries to make the file small, ultrafast .. veryslow; VP9 has no such choice.
        timestamps: one ascending time in seconds per frame, for a variable rate.

    Raises:
        ValueError: no frames, a wrong dtype or shape, another suffix, times that are not one per frame and ascending.
    """
    path = Path(path)
    bitexact = {"fflags": "+bitexact"}  # no dates, versions or random ids in the file
    encoders = {
        ".mp4": (
            "libx264",
            {"crf": str(crf), "preset": preset, "threads": "1"},
            {"movflags": "+faststart", **bitexact},
        ),
        ".webm": ("libvpx-vp9", {"crf": str(crf), "b": "0", "threads": "1", "cpu-used": "4"}, bitexact),
    }
    if path.suffix.lower() not in encoders:
        raise ValueError(f"path: got {path}, expected a name ending in .mp4 or .webm")
    if fps <= 0:
        raise ValueError(f"fps: got {fps}, expected more than 0")
    codec, codec_options, container_options = encoders[path.suffix.lower()]
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("frames: got none, expected at least one")
    shape = first.shape
    ticks = _ticks(fps, timestamps)
    with replacing(path) as temporary, av.open(os.fspath(temporary), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(100_000), options=codec_options)
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        stream.codec_context.time_base = Fraction(1, _PTS_PER_SECOND)
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _SMPTE170M  # else players guess, by size
        context.color_range = _LIMITED
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = (side + side % 2 for side in shape[:2])
        for index, picture in enumerate(chain([first], pictures)):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.shape != shape:
                expected = shape if len(shape) == 3 and shape[2] == 3 else "(H, W, 3)"
                raise ValueError(f"frame {index}: got {picture.dtype} {picture.shape}, expected uint8 {expected}")
            even = np.pad(picture, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame.time_base = Fraction(1, _PTS_PER_SECOND)
            frame.pts = ticks(index)
            container.mux(stream.encode(frame))
        if timestamps is not None and len(timestamps) != index + 1:
            raise ValueError(f"timestamps: got {len(timestamps)} for {index + 1} frames, expected one per frame")
        container.mux(stream.encode(None))


def _of_folder(folder: FrameFolder, frame_indices: Sequence[int]) -> Clip:
    indices = checked(frame_indices)
    if max(indices) >= len(folder):
        raise out_of_range(folder.path, indices, len(folder))
    pixels = {index: folder.pixels(index) for index in set(indices)}
    return Clip(
        frames=torch.stack([pixels[index] for index in indices]),
        frame_indices=torch.tensor(indices, dtype=torch.int64),
        timestamps=torch.tensor([folder.seconds(index) for index in indices], dtype=torch.float64),
        path=os.fspath(folder.path),
    )


def _ticks(fps: int | Fraction, timestamps: Sequence[float] | None) -> Callable[[int], int]:
    """From a frame's number to its time in ticks."""
    if timestamps is None:
        return lambda index: round(index * _PTS_PER_SECOND / Fraction(fps))
    if not all(math.isfinite(t) and t >= 0 for t in timestamps):
        raise ValueError("timestamps: got a negative or infinite time, expected seconds from 0")
    ticks = [round(t * _PTS_PER_SECOND) for t in timestamps]
    if any(a >= b for a, b in pairwise(ticks)):
        raise ValueError("timestamps: got times that do not rise, expected ascending seconds")

    def tick(index: int) -> int:
        if index >= len(ticks):
            raise ValueError(f"timestamps: got {len(ticks)} for more frames, expected one per frame")
        return ticks[index]

    return tick
