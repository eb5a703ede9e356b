"""Reading clips ahead in several subprocesses; a clip whose subprocess dies is read once more."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from stabn.batch.clips import ArchiveClip
from stabn.data.segments import segment_frames
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import Reader
from stabn.data.video.subprocess_worker import StoppedError
from stabn.engine.device import core_count
from stabn.errors import UserError


@dataclass(frozen=True, eq=False)
class ClipView:
    """The frames of a clip for the network.

    Attributes:
        pixels: (T, 3, S, S) uint8 RGB, resized and cropped, not yet normalised.
        frame_indices: (T,) int64, counted from 0 in the source.
        timestamps: (T,) float64, seconds since the source's first frame.
        crop: (left, top, right, bottom) of the view, as fractions of the source frame's width and height.
    """

    pixels: UInt8[Tensor, "t 3 s s"]
    frame_indices: Int64[Tensor, " t"]
    timestamps: Float64[Tensor, " t"]
    crop: tuple[float, float, float, float]


@dataclass(frozen=True)
class ClipRead:
    """The result of reading a clip.

    Attributes:
        result: its view, or the error in one line.
        seconds: how long reading took, without waiting for a free subprocess.
    """

    result: ClipView | str
    seconds: float


def read_view(clip: ArchiveClip, reader: Reader, preprocessing: Preprocessing) -> ClipView:
    """Read the central window of a clip.

    Raises:
        UserError: it cannot be read.
    """
    sampling = preprocessing.sampling
    if clip.segment is None:
        read = reader.read_sampled(clip.path, lambda num_frames: sampling.for_testing(num_frames)[0])
    else:
        within = segment_frames(clip.path, clip.segment, clip.clip_id, reader)
        read = reader.read_clip(clip.path, [within[index] for index in sampling.for_testing(len(within))[0]])
    return ClipView(
        pixels=preprocessing.centre_square(preprocessing.resized(read.frames)).clone(),
        frame_indices=read.frame_indices,
        timestamps=read.timestamps,
        crop=preprocessing.crop_box(read.frames.shape[-2], read.frames.shape[-1]),
    )


class ReaderPool:
    """Subprocesses that decode, each with a thread of this process.

    Threads, because they pass frames on without a copy, and cannot be killed one by one like processes.

    Args:
        preprocessing: of the clips.
        count: number of subprocesses; by default one per core.
        timeout: seconds that reading a clip may take; 0 for no limit, and then without subprocesses.
    """

    def __init__(self, preprocessing: Preprocessing, count: int | None = None, timeout: float = 0.0) -> None:
        self.count = count or core_count()
        self._preprocessing = preprocessing
        self._readers = [Reader(timeout, "pyav") for _ in range(self.count)]
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        for reader in self._readers:
            self._idle.put(reader)
        self._closed = False
        # The number of PyTorch's threads is set for each thread that calls it; ours are many already.
        self._threads = ThreadPoolExecutor(self.count, "reader", initializer=partial(torch.set_num_threads, 1))

    def read(self, clips: Sequence[ArchiveClip]) -> list[Future[ClipRead]]:
        """Begin to read clips, in their order."""
        return [self._threads.submit(self._read, clip) for clip in clips]

    def close(self) -> None:
        """End the subprocesses, whatever they are reading."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for reader in self._readers:
            reader.close()
        self._threads.shutdown(wait=True)

    def _read(self, clip: ArchiveClip) -> ClipRead:
        reader = self._idle.get()
        start = time.perf_counter()
        try:
            result: ClipView | str = self._read_with_retry(clip, reader)
        except UserError as error:
            result = str(error)
        except Exception as error:  # noqa: BLE001 -- no clip ends the work, whatever is wrong with it
            result = f"{clip.path}: cannot be read ({type(error).__name__}: {error}); give another video"
        finally:
            self._idle.put(reader)
        if isinstance(result, str):
            result = " ".join(result.split())
        return ClipRead(result, time.perf_counter() - start)

    def _read_with_retry(self, clip: ArchiveClip, reader: Reader) -> ClipView:
        try:
            return read_view(clip, reader, self._preprocessing)
        except StoppedError:
            if self._closed:
                raise
            # The cause may not be the clip: the process was killed, or the machine was too busy.
            return read_view(clip, reader, self._preprocessing)
