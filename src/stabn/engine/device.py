"""How fast this machine can compute, and with what: precision, layout and memory, chosen per device.

docs/speed.md has the measurement behind every choice. Nothing is chosen at import, for asking about GPUs starts them.
"""

import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from stabn.files import is_first_process
from stabn.memory import mallopt
from stabn.nn.fast_inference import DTYPES


def device_of(accelerator: str) -> torch.device:
    """What Lightning's word for an accelerator means on this machine; auto is a GPU where torch can use one."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if accelerator == "mps" else "cpu")


def bf16_is_faster(device: torch.device) -> bool:
    """Whether a device is faster in bfloat16 than in float32: a GPU that computes it itself, a processor with AMX.

    AVX-512 alone also has instructions for it, but a matrix product takes longer by them (docs/speed.md).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Not the public torch.cpu.get_capabilities alone: oneDNN may have been built without it, or told to do without.
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16", able.get("amx_tile", False))) and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_precision(precision: str, accelerator: str, *, fast: bool = True) -> str:
    """What a precision means here: auto is bf16-mixed where that is faster, and 32-true elsewhere."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if fast and bf16_is_faster(device_of(accelerator)) else "32-true"


def compute_settings(accelerator: str = "auto", precision: str = "auto") -> dict[str, Any]:
    """What is chosen on this machine.

    Returns:
        {"device", "precision": never auto, "bf16": whether it is the faster way, "winograd", "keeps_memory": whether
        freed memory can be kept}.
    """
    device = device_of(accelerator)
    chosen = resolve_precision(precision, accelerator)
    return {
        "device": device.type,
        "precision": chosen,
        "bf16": bf16_is_faster(device),
        "winograd": device.type == "cpu" and chosen == "32-true",
        "keeps_memory": device.type == "cpu" and mallopt() is not None,
    }


_FOR_ANSWERS = ("batch norm in the convolutions", "Winograd's convolutions")


def _used(found: Mapping[str, Any]) -> dict[str, str]:
    """What is in use, and why; the precision first."""
    precision = found["precision"]
    if precision == "bf16-mixed" and found["bf16"]:
        why = "bfloat16 is faster here, and moves half of the memory; measurements take float32"
    elif precision == "32-true" and not found["bf16"]:
        why = "bfloat16 would be slower: it needs a GPU that computes it, or a processor with AMX"
    else:
        why = "it was asked for"
    normalised, winograd = _FOR_ANSWERS
    used = {precision: why, "channels last": "convolutions read it without conversion"}
    if found["keeps_memory"]:
        used["freed memory is kept"] = "cleared pages are not asked for again and again"
    if precision in DTYPES:
        used[normalised] = "features are moved through memory once less"
    if found["winograd"]:
        used[winograd] = "half or a quarter of the multiplications"
    return used


def describe_settings(found: Mapping[str, Any]) -> str:
    """The same as one line."""
    able = "faster" if found["bf16"] else "not faster"
    precision, *used = _used(found)
    words = [
        f"fast path on {found['device']}, {able} in bfloat16: precision {precision}",
        *(what for what in used if what not in _FOR_ANSWERS),
        *([f"for answers {' and '.join(means)}"] if (means := [what for what in used if what in _FOR_ANSWERS]) else []),
    ]
    return ", ".join(words) + "; --engine.fast false is the plain float32 way"


def explain_settings(found: Mapping[str, Any]) -> list[str]:
    """Why it is so: a line for each that is in use."""
    return [f"{what}: {why}" for what, why in _used(found).items()]


@cache
def _log_once(line: str) -> None:
    if is_first_process():
        print(line, file=sys.stderr, flush=True)
