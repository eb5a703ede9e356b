"""Advice on faster training, from the times that `stabn.training.profile` measured."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from stabn.engine.config import EngineRecipe
from stabn.engine.device import bf16_is_faster, core_count, device_of
from stabn.training.profile import WAITING, ClipTime, StepTime

LONG_WAIT = 0.1
"""Share of a step from which on waiting for clips is worth advice."""
_CACHE_SHARE_BESIDE_WORKERS, _CACHE_SHARE = 0.1, 0.5
"""Shares of memory that cached videos may take, where enough workers would also do and where they would not."""


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
