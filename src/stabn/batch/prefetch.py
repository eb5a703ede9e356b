"""Clips are read ahead by several processes, each of which may die: what it was reading is tried again, once."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from stabn.batch.clips import ArchiveClip
from stabn.data.segments import frames_of
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import Reader
from stabn.data.video.subprocess_worker import StoppedError
from stabn.engine.device import cores
from stabn.errors import UserError


@dataclass(frozen=True, eq=False)
class View:
    """What the network will see of a clip.

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
class Read:
    """What became of a clip.

    Attributes:
        seen: its view, or one line that says why there is none.
        seconds: how long it took, the waiting for its turn not counted.
    """

    seen: View | str
    seconds: float


def view_of(clip: ArchiveClip, reader: Reader, preprocessing: Preprocessing) -> View:
    """The central window of a clip.

    Raises:
        UserError: it cannot be read.
    """
    sampling = preprocessing.sampling
    if clip.segment is None:
        read = reader.read_sampled(clip.path, lambda num_frames: sampling.for_testing(num_frames)[0])
    else:
        within = frames_of(clip.path, clip.segment, clip.clip_id, reader.probe)
        read = reader.read_clip(clip.path, [within[index] for index in sampling.for_testing(len(within))[0]])
    return View(
        pixels=preprocessing.centre_square(preprocessing.resized(read.frames)).clone(),
        frame_indices=read.frame_indices,
        timestamps=read.timestamps,
        crop=preprocessing.crop_box(read.frames.shape[-2], read.frames.shape[-1]),
    )


class Readers:
    """Several processes that decode, and a thread for each.

    Threads, because they hand over frames without copying them and none of them can be killed alone.

    Args:
        preprocessing: how clips are prepared.
        count: how many; by default one per core.
        timeout: seconds that reading a clip may take; 0 for as long as it takes, without processes of their own.
    """

    def __init__(self, preprocessing: Preprocessing, count: int | None = None, timeout: float = 0.0) -> None:
        self.count = count or cores()
        self._preprocessing = preprocessing
        self._readers = [Reader(timeout, "pyav") for _ in range(self.count)]
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        for reader in self._readers:
            self._idle.put(reader)
        self._closed = False
        self._threads = ThreadPoolExecutor(self.count, "reader", initializer=_alone)

    def read(self, clips: Sequence[ArchiveClip]) -> list[Future[Read]]:
        """Begin to read clips, in their order."""
        return [self._threads.submit(self._read, clip) for clip in clips]

    def close(self) -> None:
        """End the processes, whatever they are reading."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for reader in self._readers:
            reader.close()
        self._threads.shutdown(wait=True)

    def _read(self, clip: ArchiveClip) -> Read:
        reader = self._idle.get()
        begun = time.perf_counter()
        try:
            seen: View | str = self._view_of(clip, reader)
        except UserError as error:
            seen = _one_line(str(error))
        except Exception as error:  # noqa: BLE001 -- no clip ends the work, whatever is wrong with it
            seen = _one_line(f"{clip.path}: cannot be read ({type(error).__name__}: {error}); give another video")
        finally:
            self._idle.put(reader)
        return Read(seen, time.perf_counter() - begun)

    def _view_of(self, clip: ArchiveClip, reader: Reader) -> View:
        try:
            return view_of(clip, reader, self._preprocessing)
        except StoppedError:
            if self._closed:
                raise
            # maybe it was not the clip: somebody killed the process, or the machine was too busy
            return view_of(clip, reader, self._preprocessing)


def _alone() -> None:
    # the threads are many already; this is for the thread that calls it
    torch.set_num_threads(1)


def _one_line(text: str) -> str:
    return " ".join(text.split())
