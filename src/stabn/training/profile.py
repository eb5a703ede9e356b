"""Profile a training: where the time of a step and of a clip goes on this machine."""

import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning.pytorch.profilers import Profiler
from torch.utils.data import DataLoader
from tqdm import tqdm

from stabn.data.dataset import VideoDataset
from stabn.data.quality.unreadable import SkipUnreadable
from stabn.data.segments import segment_frames
from stabn.data.video.clip import Clip
from stabn.data.video.reader import Reader
from stabn.data.video.scan import VideoInfo
from stabn.engine.config import EngineRecipe
from stabn.engine.device import core_count, device_of
from stabn.engine.trainer import build_trainer, progress_bar, silence_lightning
from stabn.errors import UserError
from stabn.nn.fast_inference import supports_fast_inference
from stabn.training.datamodule import ClipDataModule, ResumableLoader, loader_options
from stabn.training.distributed import SyncBatchNorm
from stabn.training.module import TrainingModule
from stabn.training.recipes import LoaderRecipe

WARM_UP = 3
"""Batches before the measured ones, at least those of the first step: memory is allocated, GPUs choose algorithms."""
WAITING = "waiting for clips"
PARTS = {
    WAITING: "train_dataloader_next",
    "moving them, colours": "batch_to_device",
    "forward": ".training_step",
    "backward": ".backward",
    "optimizer": "optimizer_step",
}
"""Part of a step -> how Lightning's name for it ends."""
REST = "all else"
_SECONDS = 3.0
"""For how long each number of workers is tried."""
_MOST_TRIED = 16
_CLIPS = 16
"""How many clips are read one by one."""


@dataclass(frozen=True)
class StepTime:
    """The time of one training step.

    Attributes:
        seconds: by part, the mean over the measured steps; `REST` included.
        clips: of one step.
        steps: how many were measured.
        peak_gib: highest memory: of the GPU, or of the process; None where the system does not say.
    """

    seconds: Mapping[str, float]
    clips: int
    steps: int
    peak_gib: float | None

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(self.seconds.values())

    @property
    def wanted(self) -> float:
        """Clips per second that the network would take if it never had to wait."""
        return self.clips / (self.total - self.seconds[WAITING])


@dataclass(frozen=True)
class ClipTime:
    """The time that one clip takes the process that prepares it; medians.

    Attributes:
        reading: seconds of decoding, and of moving frames between processes.
        fitting: seconds of resizing and cropping.
        short_side: of the videos, in pixels.
        num_frames: of the clips.
        whole_bytes: of all frames of a clip at network size, which a cache would keep.
    """

    reading: float
    fitting: float
    short_side: int
    num_frames: int
    whole_bytes: int


def time_step(module: TrainingModule, data_module: ClipDataModule, engine: EngineRecipe, steps: int) -> StepTime:
    """Measure some training steps, whose results are discarded.

    With a cache, its videos are read before: only the first epoch of a training waits for them.

    Raises:
        UserError: this machine has no such engine, or clips cannot be read.
    """
    device = device_of(engine.accelerator)
    if data_module.loader.cache:
        batches = islice(ResumableLoader(data_module.training_set, data_module.batch_size, 0), WARM_UP + steps)
        for _ in tqdm(batches, desc="keeping videos", unit="batch", disable=None, leave=False):
            pass
    profiler = _StepProfiler(device, steps, max(WARM_UP, module.optimizer.accumulate))
    module.configure_engine(engine)
    engine.log_settings(can_fold=supports_fast_inference(module.model))
    with silence_lightning(), TemporaryDirectory() as folder:
        trainer = build_trainer(
            engine,
            plugins=[SyncBatchNorm()],
            accumulate_grad_batches=module.optimizer.accumulate,
            default_root_dir=folder,
            max_epochs=-1,
            max_steps=WARM_UP + steps,  # at least as many batches; the profiler ignores what is too many
            limit_val_batches=0,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            enable_checkpointing=False,
            profiler=profiler,
            callbacks=progress_bar(),
        )
        trainer.fit(module, datamodule=data_module)
    seconds = {part: profiler.seconds[part] / profiler.batches for part in PARTS}
    seconds[REST] = max(0.0, profiler.total / profiler.batches - sum(seconds.values()))
    clips = min(module.optimizer.batch_size, len(data_module.training_set))
    return StepTime(seconds, clips, profiler.batches, _peak_gib(device))


class _StepProfiler(Profiler):
    """Exclusive time of each part of a step, without the parts nested in it.

    Attributes:
        seconds: by part, over the measured batches.
        batches: measured so far.
        total: seconds from the end of the warm-up to the end of the last measured batch.
    """

    def __init__(self, device: torch.device, steps: int, warm_up: int = WARM_UP) -> None:
        super().__init__()
        self.device = device
        self.warm_up = warm_up
        self.steps = steps
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.batches = 0
        self.total = 0.0
        self._stack: list[list[float]] = []  # [start, seconds of nested actions] of open actions
        self._batches_done = 0
        self._start = 0.0

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def start(self, action_name: str) -> None:
        self._stack.append([self._now(), 0.0])

    def stop(self, action_name: str) -> None:
        now = self._now()
        start, nested = self._stack.pop()
        if self._stack:
            self._stack[-1][1] += now - start
        if self._batches_done < self.warm_up + self.steps:
            for part, ending in PARTS.items():
                if action_name.endswith(ending):
                    self.seconds[part] += now - start - nested
        if action_name == "run_training_batch":
            self._batches_done += 1
            if self._batches_done == self.warm_up:
                self.seconds = dict.fromkeys(PARTS, 0.0)
                self._start = now
            elif self.warm_up < self._batches_done <= self.warm_up + self.steps:
                self.batches, self.total = self._batches_done - self.warm_up, now - self._start


def time_clips(dataset: VideoDataset, loader: LoaderRecipe) -> ClipTime:
    """Measure reading some training clips one by one, each in this process but for its decoding.

    Raises:
        UserError: none of them can be read.
    """
    rows = range(0, len(dataset), math.ceil(len(dataset) / _CLIPS))
    measured: list[tuple[float, float, int, int, int]] = []
    with closing(Reader(loader.timeout, loader.decoder)) as reader:
        timed_reader = _TimedReader(reader)
        timed = dataset.with_reader(timed_reader)
        for row in tqdm(rows, desc="reading clips", unit="clip", disable=None, leave=False):
            sample = dataset.samples[row]
            timed_reader.seconds, start = 0.0, time.perf_counter()
            try:
                timed[row]
                seconds = time.perf_counter() - start
                width, height = reader.frame_size(sample.path)
                frames = len(segment_frames(sample.path, sample.segment, sample.clip_id, reader))
            except UserError as error:
                last_error = error
                continue
            reading, short_side = timed_reader.seconds, min(height, width)
            height, width = dataset.preprocessing.resized_size(height, width)
            measured.append((reading, seconds - reading, short_side, frames, 3 * height * width * frames))
    if not measured:
        raise last_error
    reading, fitting, *sizes = map(median, zip(*measured, strict=True))
    return ClipTime(reading, fitting, *map(round, sizes))


class _TimedReader(Reader):
    """Another reader, and the seconds that its calls took."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.seconds = 0.0

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def probe(self, *arguments: Any, **options: Any) -> VideoInfo:
        with self._timed():
            return self.reader.probe(*arguments, **options)

    def read_clip(self, *arguments: Any, **options: Any) -> Clip:
        with self._timed():
            return self.reader.read_clip(*arguments, **options)

    def read_sampled(self, *arguments: Any, **options: Any) -> Clip:
        with self._timed():
            return self.reader.read_sampled(*arguments, **options)

    def frame_times(self, *arguments: Any, **options: Any) -> np.ndarray:
        with self._timed():
            return self.reader.frame_times(*arguments, **options)

    def read_chunks(self, *arguments: Any, **options: Any) -> Iterator[Clip]:
        return self._timed_each(self.reader.read_chunks(*arguments, **options))

    def stream_clip(self, *arguments: Any, **options: Any) -> Iterator[Clip]:
        return self._timed_each(self.reader.stream_clip(*arguments, **options))

    def _timed_each(self, clips: Iterator[Clip]) -> Iterator[Clip]:
        while True:
            with self._timed():
                clip = next(clips, None)
            if clip is None:
                return
            yield clip


def try_workers(data_module: ClipDataModule) -> dict[int, float]:
    """Clips per second by number of workers, with nothing else to do: 0, 1, 2, 4, ... up to one per core, at most 16.

    It ends with the last number for which there is enough memory.
    """
    most = min(core_count(), _MOST_TRIED)
    rates: dict[int, float] = {}
    numbers = sorted({0, *(2**n for n in range(most.bit_length())), most})
    for workers in tqdm(numbers, desc="trying workers", disable=None, leave=False):
        try:
            rates[workers] = _clips_per_second(data_module.training_set, data_module.batch_size, workers)
        except (RuntimeError, OSError) as error:
            if not rates:
                raise
            logging.getLogger(__name__).warning("%s workers: %s", workers, str(error).splitlines()[0])
            break
    return rates


def _clips_per_second(dataset: VideoDataset, batch_size: int, workers: int) -> float:
    options = loader_options(workers, None)
    batches = iter(DataLoader(SkipUnreadable(dataset), batch_size, sampler=cycle(range(len(dataset))), **options))
    for _ in range(max(1, 2 * workers)):  # prefetched while the workers started
        next(batches)
    start, clips, count = time.perf_counter(), 0, 0
    # Workers that started together finish together, so only whole rounds of all of them count.
    while not count or count % max(1, workers) or time.perf_counter() - start < _SECONDS:
        clips, count = clips + len(next(batches).clip_ids), count + 1
    return clips / (time.perf_counter() - start)


def _peak_gib(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return None
    # bytes on macOS, and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
