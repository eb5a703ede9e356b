"""Advice on faster training, from the times that `stabn.training.profile` measured."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from stabn.engine.config import EngineRecipe
from stabn.engine.device import bf16_is_faster, core_count, device_of
from stabn.training.datamodule import ClipDataModule
from stabn.training.profile import WAITING, ClipTime, StepTime

LONG_WAIT = 0.1
"""Share of a step from which on waiting for clips is worth advice."""
_CACHE_SHARE_BESIDE_WORKERS, _CACHE_SHARE = 0.1, 0.5
"""Shares of memory that cached videos may take, where enough workers would also do and where they would not."""


@dataclass(frozen=True)
class ProfileContext:
    """Settings and machine, on which advice depends besides the measurements.

    Attributes:
        workers: of the loader.
        resize: shorter side of clips before they are cropped, in pixels.
        clips: of the training split.
        cores: that this process may use.
        memory_gib: that this process may use; None where the system does not say.
        device_gib: of the GPU; as `memory_gib` without one.
        engine: device and precision options.
        precision: resolved, never auto.
        bf16: whether the device is faster in bfloat16.
    """

    workers: int
    resize: int
    clips: int
    cores: int
    memory_gib: float | None
    device_gib: float | None
    engine: EngineRecipe
    precision: str
    bf16: bool


def advise(step: StepTime, clip: ClipTime, rates: Mapping[int, float], context: ProfileContext) -> list[str]:
    """Recommend changes, the most useful first, each with the measurement behind it.

    Args:
        step: measured times of a step.
        clip: measured times of a clip.
        rates: clips per second by number of workers; empty with a cache.
        context: settings and machine.
    """
    advice = []
    engine, peak, device_gib = context.engine, step.peak_gib, context.device_gib
    if step.seconds[WAITING] >= LONG_WAIT * step.total and rates:
        advice += _advise_loading(step, clip, rates, context)
    if not engine.fast:
        advice.append("--engine.fast true: the fast path is off; docs/speed.md says what it does")
    if context.precision == "32-true" and engine.fast and context.bf16:
        advice.append("--engine.precision bf16-mixed: this device is faster in bfloat16")
    if engine.activation_checkpointing and peak and device_gib and peak < device_gib / 2:
        advice.append(
            f"--engine.activation_checkpointing false: activations are computed twice, and only {peak:.1f} of "
            f"{device_gib:.0f} GiB are used"
        )
    return advice


def _advise_loading(step: StepTime, clip: ClipTime, rates: Mapping[int, float], context: ProfileContext) -> list[str]:
    advice = []
    # Without a worker, clips are never prepared while the network computes, however fast that is.
    enough = [workers for workers, rate in rates.items() if workers and rate >= step.wanted]
    best = enough[0] if enough else max(rates, key=lambda workers: rates[workers])
    waiting = (
        f"the network waits {step.seconds[WAITING] / step.total:.0%} of the time; it could take {step.wanted:.1f} "
        "clips/s, and "
    )
    cache_gib = clip.whole_bytes * context.clips / 2**30
    memory_share = _CACHE_SHARE_BESIDE_WORKERS if enough else _CACHE_SHARE
    if context.memory_gib and cache_gib < context.memory_gib * memory_share:
        advice.append(
            f"--loader.cache true --loader.workers 0: all videos at network size take {cache_gib:.1f} of "
            f"{context.memory_gib:.0f} GiB of memory, and after the first epoch nothing is decoded"
        )
    if best != context.workers:
        advice.append(f"--loader.workers {best}: {waiting}{best} of them prepare {rates[best]:.1f}")
    if not enough and clip.reading > clip.fitting and clip.short_side >= 1.5 * context.resize:
        advice.append(
            f"store the videos smaller: their shorter side has {clip.short_side} pixels, the network reads "
            f"{context.resize}, and decoding takes {clip.reading / (clip.reading + clip.fitting):.0%} of a clip's time"
        )
    if not advice:
        advice.append(f"more or faster cores: {waiting}{context.cores} cores prepare {rates[best]:.1f} at most")
    return advice


def profile_context(data_module: ClipDataModule, engine: EngineRecipe) -> ProfileContext:
    """The context of a training on this machine."""
    device = device_of(engine.accelerator)
    memory = _memory_gib()
    on_gpu = device.type == "cuda"
    return ProfileContext(
        workers=data_module.workers,
        resize=data_module.training_set.preprocessing.resize,
        clips=len(data_module.training_set),
        cores=core_count(),
        memory_gib=memory,
        device_gib=torch.cuda.get_device_properties(device).total_memory / 2**30 if on_gpu else memory,
        engine=engine,
        precision=engine.resolved_precision(),
        bf16=bf16_is_faster(device),
    )


def _memory_gib() -> float | None:
    """Memory of the machine, or of the container if that has less."""
    sizes = []
    with suppress(AttributeError, ValueError, OSError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError):  # "max" is no number
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(sizes) / 2**30 if sizes else None
