"""A training's times on this machine, as `stabn.training.profile` measures them, and advice on a faster one."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything

from stabn.data.annotations.source import DataSource
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.engine.config import EngineRecipe
from stabn.engine.device import bf16_is_faster, core_count, device_of
from stabn.errors import UserError
from stabn.training.profile import WAITING, WARM_UP, ClipTime, StepTime, time_clips, time_step, try_workers
from stabn.training.recipes import LoaderRecipe, NetworkRecipe, OptimizerRecipe
from stabn.training.train import build_data_module, build_datasets, build_module, build_network, check_can_train

LONG_WAIT = 0.1
"""Share of a step from which on waiting for clips is worth advice."""
_CACHE_SHARE_BESIDE_WORKERS, _CACHE_SHARE = 0.1, 0.5
"""Shares of memory that cached videos may take, where enough workers would also do and where they would not."""


@dataclass(frozen=True)
class TrainingProfile:
    """Where the time of a training goes.

    Attributes:
        step: times of a step.
        clip: times of a clip.
        rates: clips per second by number of workers; empty with a cache.
        precision: that was used.
        advice: what to change, as `advise` gives it.
    """

    step: StepTime
    clip: ClipTime
    rates: Mapping[int, float]
    precision: str
    advice: list[str]

    def as_json(self) -> dict[str, Any]:
        """The times in seconds, rates per second and memory in GiB as JSON values, rounded."""
        return {
            "clips_per_step": self.step.clips,
            "steps": self.step.steps,
            "seconds_of_step": {part: round(seconds, 6) for part, seconds in self.step.seconds.items()},
            "seconds_of_clip": {"reading": round(self.clip.reading, 6), "fitting": round(self.clip.fitting, 6)},
            "clips_per_second_wanted": round(self.step.wanted, 3),
            "clips_per_second_by_workers": {str(workers): round(rate, 3) for workers, rate in self.rates.items()},
            "peak_gib": self.step.peak_gib and round(self.step.peak_gib, 3),
            "precision": self.precision,
            "advice": self.advice,
        }


def profile_training(
    data: DataSource,
    steps: int,
    *,
    preprocessing: Preprocessing,
    network: NetworkRecipe,
    augmentation: Augmentation,
    optimizer: OptimizerRecipe,
    loader: LoaderRecipe,
    engine: EngineRecipe,
    seed: int,
) -> TrainingProfile:
    """Train for a few steps on one device, forget them, and say where their time went.

    Args:
        data: the labelled videos.
        steps: to measure, from 1.
        preprocessing, network, augmentation, optimizer, loader, engine, seed: as for `stabn.training.train.train`.

    Raises:
        UserError: no steps, several devices, or data or settings that cannot be trained with.
    """
    if steps < 1:
        raise UserError(f"--steps: got {steps}, expected at least 1")
    if engine.devices not in ("auto", "1") or engine.nodes > 1:
        raise UserError(
            f"--engine.devices: got {engine.devices} on {engine.nodes} nodes, but one device is measured; give 1 and "
            "nodes 1, and its share of optimizer.batch_size"
        )
    engine = replace(engine, devices="1")
    check_can_train(engine, seed)
    table = data.table()
    seed_everything(seed, verbose=False)
    training_set, validation_set = build_datasets(table, preprocessing, augmentation, loader, seed)
    model = build_network(network, preprocessing, table.class_names)
    module = build_module(model, network, training_set, optimizer, seed, further_steps=WARM_UP + steps)
    data_module = build_data_module(training_set, validation_set, optimizer, loader)
    clip = time_clips(training_set, loader)
    rates = {} if loader.cache else try_workers(data_module)
    step = time_step(module, data_module, engine, steps)
    sizes = {"resize": preprocessing.resize, "clips": len(training_set)}
    suggestions = advise(step, clip, rates, engine, workers=data_module.workers, **sizes)
    return TrainingProfile(step, clip, rates, engine.resolved_precision(), suggestions)


def advise(
    step: StepTime,
    clip: ClipTime,
    rates: Mapping[int, float],
    engine: EngineRecipe,
    *,
    workers: int,
    resize: int,
    clips: int,
) -> list[str]:
    """Recommend changes, the most useful first, each with the measurement behind it.

    Args:
        step: measured times of a step.
        clip: measured times of a clip.
        rates: clips per second by number of workers; empty with a cache.
        engine: device and precision options.
        workers: of the loader.
        resize: shorter side of clips before they are cropped, in pixels.
        clips: of the training split.
    """
    advice = []
    device, memory_gib = device_of(engine.accelerator), _memory_gib()
    if step.seconds[WAITING] >= LONG_WAIT * step.total and rates:
        advice += _advise_loading(step, clip, rates, memory_gib, workers, resize, clips)
    if not engine.fast:
        advice.append("--engine.fast true: the fast path is off; docs/speed.md says what it does")
    if engine.resolved_precision() == "32-true" and engine.fast and bf16_is_faster(device):
        advice.append("--engine.precision bf16-mixed: this device is faster in bfloat16")
    on_gpu, peak = device.type == "cuda", step.peak_gib
    device_gib = torch.cuda.get_device_properties(device).total_memory / 2**30 if on_gpu else memory_gib
    if engine.activation_checkpointing and peak and device_gib and peak < device_gib / 2:
        advice.append(
            f"--engine.activation_checkpointing false: activations are computed twice, and only {peak:.1f} of "
            f"{device_gib:.0f} GiB are used"
        )
    return advice


def _advise_loading(
    step: StepTime,
    clip: ClipTime,
    rates: Mapping[int, float],
    memory_gib: float | None,
    workers: int,
    resize: int,
    clips: int,
) -> list[str]:
    advice = []
    # Without a worker, clips are never prepared while the network computes, however fast that is.
    enough = [number for number, rate in rates.items() if number and rate >= step.wanted]
    best = enough[0] if enough else max(rates, key=lambda number: rates[number])
    waiting = (
        f"the network waits {step.seconds[WAITING] / step.total:.0%} of the time; it could take {step.wanted:.1f} "
        "clips/s, and "
    )
    cache_gib = clip.whole_bytes * clips / 2**30
    memory_share = _CACHE_SHARE_BESIDE_WORKERS if enough else _CACHE_SHARE
    if memory_gib and cache_gib < memory_gib * memory_share:
        advice.append(
            f"--loader.cache true --loader.workers 0: all videos at network size take {cache_gib:.1f} of "
            f"{memory_gib:.0f} GiB of memory, and after the first epoch nothing is decoded"
        )
    if best != workers:
        advice.append(f"--loader.workers {best}: {waiting}{best} of them prepare {rates[best]:.1f}")
    if not enough and clip.reading > clip.fitting and clip.short_side >= 1.5 * resize:
        advice.append(
            f"store the videos smaller: their shorter side has {clip.short_side} pixels, the network reads "
            f"{resize}, and decoding takes {clip.reading / (clip.reading + clip.fitting):.0%} of a clip's time"
        )
    if not advice:
        advice.append(f"more or faster cores: {waiting}{core_count()} cores prepare {rates[best]:.1f} at most")
    return advice


def _memory_gib() -> float | None:
    """Memory of the machine, or of the container if that has less."""
    sizes = []
    with suppress(AttributeError, ValueError, OSError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError):  # "max" is no number
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(sizes) / 2**30 if sizes else None
