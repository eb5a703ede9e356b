"""Read clips from video files and folders of frames, in this process or in one of their own with a time limit.

Frames are counted from 0 in the order in which a player shows them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from stabn.data.video.backends import Decoder, VideoFiles
from stabn.data.video.clip import Clip
from stabn.data.video.frame_folder import FrameFolders
from stabn.data.video.rgb_frames import RgbFrame
from stabn.data.video.scan import VideoInfo
from stabn.data.video.subprocess_worker import SameProcess, WorkerProcess
from stabn.memory import KEPT_BY_READERS, keep_freed_memory

TIMEOUT = 60.0
"""Seconds that reading one clip may take; a long film at full size takes less."""


def init_reader_process(worker: int = 0) -> None:
    """Prepare a process that reads clips; give this to the data loader as `worker_init_fn`."""
    keep_freed_memory(KEPT_BY_READERS)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C is for the process that owns the loader: it finishes its step, and needs clips for it


class Reader:
    """Reads videos in a process of its own, so that a file that hangs or crashes its decoder fails alone.

    Folders of frames are read in the calling process. The process remembers which files it has decoded to their end,
    and later decodes only what is needed of them.

    Args:
        timeout: seconds that reading a clip may take; 0 for no limit, and in the calling process.
        decoder: which library.

    Raises:
        UserError: the decoder is not installed or does not load.
    """

    def __init__(self, timeout: float = TIMEOUT, decoder: Decoder = "auto") -> None:
        files = VideoFiles(decoder)
        self._files: WorkerProcess | SameProcess = WorkerProcess(files, timeout) if timeout else SameProcess(files)
        self._folders = SameProcess(FrameFolders())

    def probe(self, path: Path | str, most_pixels: int | None = None) -> VideoInfo:
        """Count and time the frames of a video by decoding all of it, without converting any to RGB.

        The result is kept until the file changes.

        Args:
            path: a video file, or a folder of frames.
            most_pixels: limit for the pixels of all frames of a file, each counted as at least 65,536; None for none.

        Raises:
            UserError: the file is missing, is no video, has no frames, is damaged or has more than `most_pixels`;
                or decoding it took too long or crashed.
        """
        info: VideoInfo = self._source(path).call("probe", path, most_pixels)
        return info

    def frame_times(self, path: Path | str, seconds: float | None = None, count: int | None = None) -> np.ndarray:
        """When the frames of a video are shown, at least up to one at or after `seconds` or up to `count` of them.

        Nothing is decoded for it but the first frames, if the packets of the file say it; else no more than is needed.
        What lies beyond is not examined.

        Args:
            path: a video file, or a folder of frames.
            seconds: since the first frame; None for no such limit.
            count: of frames; None for no such limit. Without either all frames are meant.

        Returns:
            (N,) float64, ascending seconds since the first frame, valid until the next call; N is the number of all
            frames if it is fewer.

        Raises:
            UserError: as `read_clip`.
        """
        times: np.ndarray = self._source(path).call("frame_times", path, seconds, count)
        return times

    def frame_size(self, path: Path | str) -> tuple[int, int]:
        """Width and height of the frames of a video, of which only the first is decoded.

        Raises:
            UserError: as `read_clip`.
        """
        width, height = self._source(path).call("frame_size", path)
        return width, height

    def read_clip(self, path: Path | str, frame_indices: Sequence[int]) -> Clip:
        """Some frames of a video in the order of the indices; a file is decoded no further than to the last of them.

        Args:
            path: a video file, or a folder of frames.
            frame_indices: T >= 1 frames, counted from 0; repeats are allowed.

        Raises:
            UserError: the file is missing, is no video, is damaged, or has no frame of such an index; or decoding it
                took too long or crashed.
            ValueError: no index, or a negative one.
        """
        indices = _check_indices(frame_indices)
        return _stack_frames(path, indices, self._source(path).call("frames", path, indices))

    def stream_clip(self, path: Path | str, frame_indices: Sequence[int]) -> Iterator[Clip]:
        """Some frames in the order of the file, each once, as a clip of one frame as soon as it is decoded.

        Raises:
            UserError, ValueError: as `read_clip`; the frames before the damage have been yielded by then.
        """
        indices = _check_indices(frame_indices)
        with closing(self._source(path).stream("stream_frames", path, indices)) as frames:
            for frame in frames:
                yield _stack_frames(path, [frame.index], [frame])

    def read_sampled(self, path: Path | str, choose: Callable[[int], Sequence[int]]) -> Clip:
        """The frames that `choose` picks once the number of frames is known, in one pass over the file if it is short.

        Args:
            path: a video file, or a folder of frames.
            choose: from the number of frames to T >= 1 indices.

        Raises:
            UserError, ValueError: as `read_clip`.
        """
        with closing(self._source(path).stream("sampled_frames", path)) as replies:
            indices = _check_indices(choose(next(replies)))
            return _stack_frames(path, indices, replies.send(indices))

    def read_chunks(self, path: Path | str, size: int = 64) -> Iterator[Clip]:
        """All frames of a video in order, as clips of `size` frames and a shorter last one.

        Raises:
            UserError: as `read_clip`; the chunks before the damage have been yielded by then.
        """
        with closing(self._source(path).stream("frame_chunks", path, size)) as chunks:
            for chunk in chunks:
                yield _stack_frames(path, [frame.index for frame in chunk], chunk)

    def close(self) -> None:
        """End the process; the next read starts another."""
        self._files.close()

    def _source(self, path: Path | str) -> SameProcess | WorkerProcess:
        return self._folders if os.path.isdir(path) else self._files


IN_PROCESS = Reader(timeout=0, decoder="pyav")
"""Reads in the calling process without a time limit."""
probe = IN_PROCESS.probe
frame_size = IN_PROCESS.frame_size
read_clip = IN_PROCESS.read_clip
stream_clip = IN_PROCESS.stream_clip
read_sampled = IN_PROCESS.read_sampled
read_chunks = IN_PROCESS.read_chunks


def _check_indices(frame_indices: Sequence[int]) -> list[int]:
    indices = [int(i) for i in frame_indices]
    if not indices or min(indices) < 0:
        raise ValueError(f"frame_indices: got {indices}, expected at least one, counted from 0")
    return indices


def _stack_frames(path: Path | str, indices: Sequence[int], frames: Iterable[RgbFrame]) -> Clip:
    """Frames of a file, one for each index and in any order, as a clip in the order of the indices."""
    by_index = {frame.index: frame for frame in frames}
    return Clip(
        # as they are decoded, the channels last: resizing reads that twice as fast
        frames=torch.from_numpy(np.stack([by_index[i].pixels for i in indices])).permute(0, 3, 1, 2),
        frame_indices=torch.tensor(indices, dtype=torch.int64),
        timestamps=torch.tensor([by_index[i].seconds for i in indices], dtype=torch.float64),
        path=os.fspath(path),
    )
