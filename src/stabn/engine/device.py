"""Precision, memory layout and other settings of fast computation, chosen per device.

docs/speed.md has the measurement behind every choice. Nothing is chosen at import, because a query initialises GPUs.
"""

import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from stabn.files import is_first_process
from stabn.memory import mallopt
from stabn.nn.fast_inference import DTYPES


def device_of(accelerator: str) -> torch.device:
    """The device of Lightning's name for an accelerator; auto is a GPU if torch can use one, and else the CPU."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if accelerator == "mps" else "cpu")


def bf16_is_faster(device: torch.device) -> bool:
    """Whether a device is faster in bfloat16 than in float32: a GPU with native bfloat16, or a processor with AMX.

    AVX-512 alone has instructions for it, too, but matrix products become slower with them (docs/speed.md).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    has_amx = bool(capabilities.get("amx_bf16", capabilities.get("amx_tile", False)))
    # oneDNN may have been built without bfloat16, or have it disabled.
    return has_amx and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def core_count() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_precision(precision: str, accelerator: str, *, fast: bool = True) -> str:
    """The precision on this machine: auto is bf16-mixed if that is faster, and else 32-true."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if fast and bf16_is_faster(device_of(accelerator)) else "32-true"


def compute_settings(accelerator: str = "auto", precision: str = "auto") -> dict[str, Any]:
    """The settings of the fast path on this machine.

    Returns:
        {"device", "precision": resolved, "bf16": whether bfloat16 is faster, "folded": whether prediction folds batch
        norm into convolutions, "winograd": whether it uses Winograd's, "keeps_memory": whether freed memory can be
        kept}. Only some base networks can be folded (`stabn.nn.fast_inference`).
    """
    device = device_of(accelerator)
    resolved = resolve_precision(precision, accelerator)
    return {
        "device": device.type,
        "precision": resolved,
        "bf16": bf16_is_faster(device),
        "folded": resolved in DTYPES,
        "winograd": device.type == "cpu" and resolved == "32-true",
        "keeps_memory": device.type == "cpu" and mallopt() is not None,
    }


def _reasons(settings: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Setting -> reason: those of all computation, the precision first, and those of prediction."""
    precision = settings["precision"]
    if precision == "bf16-mixed" and settings["bf16"]:
        reason = "bfloat16 is faster on this device and moves half of the memory; measurements use float32"
    elif precision == "32-true" and not settings["bf16"]:
        reason = "bfloat16 would be slower: it needs a GPU with native bfloat16, or a processor with AMX"
    else:
        reason = "set by --engine.precision"
    general = {precision: reason, "channels last": "convolutions read it without conversion"}
    if settings["keeps_memory"]:
        general["freed memory is kept"] = "the system need not clear pages again and again"
    prediction = {}
    if settings["folded"]:
        prediction["batch norm in the convolutions"] = "features are moved through memory once less"
    if settings["winograd"]:
        prediction["Winograd's convolutions"] = "half or a quarter of the multiplications"
    return general, prediction


def describe_settings(settings: Mapping[str, Any]) -> str:
    """The settings as one line."""
    faster = "faster" if settings["bf16"] else "not faster"
    general, prediction = map(list, _reasons(settings))
    names = [*general, *([f"for prediction {' and '.join(prediction)}"] if prediction else [])]
    return (
        f"fast path on {settings['device']}, {faster} in bfloat16: precision {', '.join(names)}; "
        "--engine.fast false computes in plain float32"
    )


def explain_settings(settings: Mapping[str, Any]) -> list[str]:
    """A line per setting with its reason."""
    general, prediction = _reasons(settings)
    return [f"{name}: {reason}" for name, reason in (general | prediction).items()]


@cache
def _log_once(line: str) -> None:
    if is_first_process():
        logging.getLogger(__name__).info(line)
