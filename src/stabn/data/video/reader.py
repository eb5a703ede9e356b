"""How clips of a data set are read: by which decoder, in which process, and for how long at most."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from stabn.data.video import clip as video
from stabn.data.video.backends import Decoder, VideoFiles
from stabn.data.video.clip import Clip, clip_of
from stabn.data.video.decode import VideoInfo, checked
from stabn.data.video.subprocess_worker import Guard, Here
from stabn.memory import KEPT_BY_READERS, keep_freed_memory

TIMEOUT = 60.0
"""Seconds that reading one clip may take; a long film at full size takes less."""


def begin_reading(worker: int = 0) -> None:
    """What a process that reads clips does first; give this to the data loader as `worker_init_fn`."""
    keep_freed_memory(KEPT_BY_READERS)


class Reader:
    """Reads video files in a process of its own, so that one that hangs or crashes its decoder costs itself alone.

    Folders of frames are read in this process. The methods and their errors are those of `stabn.data.video.clip`;
    a file that takes too long or crashes its decoder is a UserError, too.

    Args:
        timeout: seconds that reading a clip may take; 0 for as long as it takes, and in this process.
        decoder: which library.

    Raises:
        UserError: the decoder is not to be had here.
    """

    def __init__(self, timeout: float = TIMEOUT, decoder: Decoder = "auto") -> None:
        files = VideoFiles(decoder)
        self._files: Guard | Here = Guard(files, timeout) if timeout else Here(files)

    def probe(self, path: Path | str) -> VideoInfo:
        """As `stabn.data.video.clip.probe`."""
        if os.path.isdir(path):
            return video.probe(path)
        info: VideoInfo = self._files.call("probe", path)
        return info

    def read_clip(self, path: Path | str, frame_indices: Sequence[int]) -> Clip:
        """As `stabn.data.video.clip.read_clip`."""
        if os.path.isdir(path):
            return video.read_clip(path, frame_indices)
        indices = checked(frame_indices)
        return clip_of(path, indices, self._files.call("pictures", path, indices))

    def read_sampled(self, path: Path | str, choose: Callable[[int], Sequence[int]]) -> Clip:
        """As `stabn.data.video.clip.read_sampled`."""
        if os.path.isdir(path):
            return video.read_sampled(path, choose)
        with closing(self._files.stream("sampled", path)) as answers:
            indices = checked(choose(next(answers)))
            return clip_of(path, indices, answers.send(indices))

    def read_chunks(self, path: Path | str, size: int = 64) -> Iterator[Clip]:
        """As `stabn.data.video.clip.read_chunks`."""
        if os.path.isdir(path):
            yield from video.read_chunks(path, size)
            return
        with closing(self._files.stream("chunks", path, size)) as chunks:
            for chunk in chunks:
                yield clip_of(path, [picture.index for picture in chunk], chunk)

    def close(self) -> None:
        """End the process; the next reading starts another."""
        self._files.close()
