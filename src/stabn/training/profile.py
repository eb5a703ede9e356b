"""Where the time of a training step goes, measured on this machine with the user's own clips, and what to change."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler
from torch.utils.data import DataLoader
from tqdm import tqdm

from stabn.data.dataset import VideoDataset, collate
from stabn.data.quality.unreadable import SkipUnreadable
from stabn.data.segments import segment_frames
from stabn.data.video.clip import Clip
from stabn.data.video.reader import Reader, init_reader_process
from stabn.data.video.scan import VideoInfo
from stabn.engine.config import EngineRecipe
from stabn.engine.device import bf16_is_faster, core_count, device_of
from stabn.engine.trainer import build_trainer, progress_bar, silence_lightning
from stabn.errors import UserError
from stabn.training.datamodule import ClipDataModule, ResumableLoader
from stabn.training.distributed import SyncBatchNorm
from stabn.training.module import TrainingModule
from stabn.training.recipes import LoaderRecipe

WARM_UP = 3
"""Batches before those that are measured, or as many as the first step takes: memory is asked for, GPUs choose their
algorithms, workers start."""
WAITING = "waiting for clips"
PARTS = {
    WAITING: "train_dataloader_next",
    "moving them, colours": "batch_to_device",
    "forward": ".training_step",
    "backward": ".backward",
    "optimizer": "optimizer_step",
}
"""Parts of a step, and how Lightning's names for them end."""
REST = "all else"
MUCH = 0.1
"""Share of a step from which on waiting is worth a remedy."""
_LITTLE, _HALF = 0.1, 0.5
"""Shares of the memory that keeping all videos may take: where workers would do, too, and where they would not."""
_SECONDS = 3.0
"""For how long one number of workers is tried."""
_MOST_TRIED = 16
_CLIPS = 16
"""How many clips are read one by one."""


@dataclass(frozen=True)
class StepTime:
    """What one step costs.

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
    """What one clip costs the process that prepares it; medians.

    Attributes:
        reading: seconds of decoding, and of handing frames over.
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


@dataclass(frozen=True)
class ProfileContext:
    """What advice depends on besides what was measured.

    Attributes:
        workers: of the loader.
        resize: shorter side of clips before they are cropped.
        clips: of the training split.
        cores: that this process may use.
        memory_gib: that this process may use; None where the system does not say.
        device_gib: of the GPU; as `memory_gib`, where there is none.
        engine: on what it runs.
        precision: never auto.
        bf16: whether the device is faster by it.
    """

    workers: int
    resize: int
    clips: int
    core_count: int
    memory_gib: float | None
    device_gib: float | None
    engine: EngineRecipe
    precision: str
    bf16: bool


def time_step(module: TrainingModule, feeding: ClipDataModule, engine: EngineRecipe, steps: int) -> StepTime:
    """Train for a few steps, which are forgotten, and look at the clock.

    Videos that the loader keeps are read before: only the first epoch waits for them.

    Raises:
        UserError: this machine has no such engine, or clips cannot be read.
    """
    device = device_of(engine.accelerator)
    if feeding.loader.cache:
        _fill(feeding, WARM_UP + steps)
    clock = _Clock(device, steps, max(WARM_UP, module.optimizer.accumulate))
    module.configure_engine(engine)
    engine.announce()
    with silence_lightning(), TemporaryDirectory() as nowhere:
        trainer = build_trainer(
            engine,
            plugins=[SyncBatchNorm()],
            accumulate_grad_batches=module.optimizer.accumulate,
            default_root_dir=nowhere,
            max_epochs=-1,
            max_steps=WARM_UP + steps,  # of which some may be of several batches; the clock stops by itself
            limit_val_batches=0,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            enable_checkpointing=False,
            profiler=clock,
            callbacks=progress_bar(),
        )
        trainer.fit(module, datamodule=feeding)
    seconds = {part: clock.spent[part] / clock.batches for part in PARTS}
    seconds[REST] = max(0.0, clock.lasted / clock.batches - sum(seconds.values()))
    clips = min(module.optimizer.batch_size, len(feeding.training_set))
    return StepTime(seconds, clips, clock.batches, _peak(device))


def _fill(feeding: ClipDataModule, steps: int) -> None:
    first = list(islice(ResumableLoader(feeding.training_set, feeding.batch_size, 0).batches, steps))
    rows = [row for batch in first for _, row in batch]
    for row in tqdm(rows, desc="keeping videos", unit="clip", disable=None, leave=False):
        with suppress(UserError):
            feeding.training_set[row]


class _Clock(Profiler):
    """How long each part took by itself, without the parts inside it."""

    def __init__(self, device: torch.device, steps: int, warm_up: int = WARM_UP) -> None:
        super().__init__()
        self.device = device
        self.warm_up = warm_up
        self.steps = steps
        self.spent = dict.fromkeys(PARTS, 0.0)
        self.batches = 0
        self.lasted = 0.0
        self._open: list[tuple[str, float]] = []
        self._inside: list[float] = []
        self._done = 0
        self._began = 0.0

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def start(self, action_name: str) -> None:
        self._open.append((action_name, self._now()))
        self._inside.append(0.0)

    def stop(self, action_name: str) -> None:
        now = self._now()
        name, begun = self._open.pop()
        inside = self._inside.pop()
        if self._inside:
            self._inside[-1] += now - begun
        if self._done < self.warm_up + self.steps:
            for part, ending in PARTS.items():
                if name.endswith(ending):
                    self.spent[part] += now - begun - inside
        if name == "run_training_batch":
            self._done += 1
            if self._done == self.warm_up:
                self.spent = dict.fromkeys(PARTS, 0.0)
                self._began = now
            elif self.warm_up < self._done <= self.warm_up + self.steps:
                self.batches, self.lasted = self._done - self.warm_up, now - self._began


def time_clips(dataset: VideoDataset, loader: LoaderRecipe) -> ClipTime:
    """Read some training clips one by one, each in this process but for its decoding.

    Raises:
        UserError: none of them can be read.
    """
    rows = range(0, len(dataset), math.ceil(len(dataset) / _CLIPS))
    reading, fitting, infos, frames = [], [], [], []
    with closing(Reader(loader.timeout, loader.decoder)) as reader:
        clock = _TimedReader(reader)
        timed = dataset.read_by(clock)
        for row in tqdm(rows, desc="reading clips", unit="clip", disable=None, leave=False):
            sample = dataset.samples[row]
            clock.seconds, begun = 0.0, time.perf_counter()
            try:
                timed[row]
                lasted = time.perf_counter() - begun
                info = reader.probe(sample.path)
                frames.append(len(segment_frames(sample.path, sample.segment, sample.clip_id, reader.probe)))
            except UserError as error:
                fault = error
                continue
            infos.append(info)
            reading.append(clock.seconds)
            fitting.append(lasted - clock.seconds)
    if not infos:
        raise fault
    sizes = [dataset.preprocessing.resized_size(info.height, info.width) for info in infos]
    return ClipTime(
        median(reading),
        median(fitting),
        round(median(min(info.height, info.width) for info in infos)),
        round(median(frames)),
        round(median(3 * h * w * count for (h, w), count in zip(sizes, frames, strict=True))),
    )


class _TimedReader(Reader):
    """Another reader, and the seconds that it took."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.seconds = 0.0

    def _timed(self, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds += time.perf_counter() - begun

    def probe(self, path: Path | str) -> VideoInfo:
        info: VideoInfo = self._timed(partial(self.reader.probe, path))
        return info

    def read_clip(self, path: Path | str, frame_indices: Sequence[int]) -> Clip:
        clip: Clip = self._timed(partial(self.reader.read_clip, path, frame_indices))
        return clip

    def read_sampled(self, path: Path | str, choose: Callable[[int], Sequence[int]]) -> Clip:
        clip: Clip = self._timed(partial(self.reader.read_sampled, path, choose))
        return clip

    def read_chunks(self, path: Path | str, size: int = 64) -> Iterator[Clip]:
        chunks = self.reader.read_chunks(path, size)
        while (chunk := self._timed(lambda: next(chunks, None))) is not None:
            yield chunk


def try_workers(feeding: ClipDataModule) -> dict[int, float]:
    """Clips per second by number of workers, with nothing else to do: 0, 1, 2, 4, ... up to one per core, at most 16.

    It ends with the last number for which there is enough memory.
    """
    most = min(core_count(), _MOST_TRIED)
    tried = sorted({0, *(2**n for n in range(most.bit_length())), most})
    rates: dict[int, float] = {}
    for workers in tqdm(tried, desc="trying workers", disable=None, leave=False):
        try:
            rates[workers] = _rate(feeding.training_set, feeding.batch_size, workers)
        except (RuntimeError, OSError) as error:
            if not rates:
                raise
            print(f"{workers} workers: {str(error).splitlines()[0]}", file=sys.stderr)
            break
    return rates


def _rate(dataset: VideoDataset, batch_size: int, workers: int) -> float:
    loader = DataLoader(
        SkipUnreadable(dataset),
        batch_size,
        sampler=cycle(range(len(dataset))),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=init_reader_process,
    )
    batches = iter(loader)
    for _ in range(max(1, 2 * workers)):  # what was read ahead while the workers started
        next(batches)
    begun, clips, given = time.perf_counter(), 0, 0
    # workers that began together are ready together: whole turns of all of them count
    while not given or given % max(1, workers) or time.perf_counter() - begun < _SECONDS:
        clips, given = clips + len(next(batches).clip_ids), given + 1
    return clips / (time.perf_counter() - begun)


def advise(step: StepTime, clip: ClipTime, rates: Mapping[int, float], on: ProfileContext) -> list[str]:
    """What to change, most useful first; each with the measurement that says so.

    Args:
        step: what a step costs.
        clip: what a clip costs.
        rates: clips per second by number of workers; empty where the loader keeps decoded videos.
        on: the circumstances.
    """
    told = []
    share = step.seconds[WAITING] / step.total
    if share >= MUCH and rates:
        told += _faster_clips(step, clip, rates, on, share)
    if not on.engine.fast:
        told.append("--engine.fast true: the fast path is off; docs/speed.md says what it does")
    if on.precision == "32-true" and on.engine.fast and on.bf16:
        told.append("--engine.precision bf16-mixed: this device is faster in bfloat16")
    if on.engine.activation_checkpointing and step.peak_gib and on.device_gib and step.peak_gib < on.device_gib / 2:
        told.append(
            f"--engine.activation_checkpointing false: activations are computed twice, and only {step.peak_gib:.1f} of "
            f"{on.device_gib:.0f} GiB are used"
        )
    return told


def _faster_clips(
    step: StepTime, clip: ClipTime, rates: Mapping[int, float], on: ProfileContext, share: float
) -> list[str]:
    told = []
    # without a worker clips are prepared and learnt in turns, however fast
    enough = [workers for workers, rate in rates.items() if workers and rate >= step.wanted]
    best = enough[0] if enough else max(rates, key=lambda workers: rates[workers])
    waits = f"the network waits {share:.0%} of the time; it could take {step.wanted:.1f} clips/s, and "
    room = clip.whole_bytes * on.clips / 2**30
    if on.memory_gib and room < on.memory_gib * (_LITTLE if enough else _HALF):
        told.append(
            f"--loader.cache true --loader.workers 0: all videos at network size take {room:.1f} of "
            f"{on.memory_gib:.0f} GiB of memory, and after the first epoch nothing is decoded"
        )
    if best != on.workers:
        told.append(f"--loader.workers {best}: {waits}with {best} of them {rates[best]:.1f} are prepared")
    if not enough and clip.reading > clip.fitting and clip.short_side >= 1.5 * on.resize:
        told.append(
            f"store the videos smaller: they are {clip.short_side} pixels high or wide, the network looks at "
            f"{on.resize}, and decoding takes {clip.reading / (clip.reading + clip.fitting):.0%} of a clip's time"
        )
    if not told:
        told.append(f"more or faster cores: {waits}{rates[best]:.1f} is the most that {on.cores} cores prepare")
    return told


def profile_context(feeding: ClipDataModule, engine: EngineRecipe) -> ProfileContext:
    """Those of a training on this machine."""
    device = device_of(engine.accelerator)
    memory = _memory()
    own = torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else memory
    return ProfileContext(
        workers=feeding.workers,
        resize=feeding.training_set.preprocessing.resize,
        clips=len(feeding.training_set),
        cores=core_count(),
        memory_gib=memory,
        device_gib=own,
        engine=engine,
        precision=engine.chosen_precision(),
        bf16=bf16_is_faster(device),
    )


def _memory() -> float | None:
    """GiB of the machine, or of the container if that has less."""
    known = []
    with suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError):  # "max" is no number
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(known) / 2**30 if known else None


def _peak(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return None
    # bytes on macOS, and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
