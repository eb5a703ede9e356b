"""How fast this machine can compute, and with what: precision, layout and memory, chosen per device.

docs/speed.md has the measurement behind every choice. Nothing is chosen at import, for asking about GPUs starts them.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import torch

from stabn.allocator import mallopt
from stabn.files import first_process
from stabn.nn import STABN, ResNet3D, answering
from stabn.nn.answering import Network

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Of the features of a network that only answers, by Lightning's word for the precision."""


def device_of(accelerator: str) -> torch.device:
    """What Lightning's word for an accelerator means on this machine; auto is a GPU where torch can use one."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if accelerator == "mps" else "cpu")


def bf16_pays(device: torch.device) -> bool:
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


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def precision_of(precision: str, accelerator: str, *, fast: bool = True) -> str:
    """What a precision means here: auto is bf16-mixed where that is faster, and 32-true elsewhere."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if fast and bf16_pays(device_of(accelerator)) else "32-true"


def can_quicken(model: ResNet3D) -> bool:
    """Whether there can be a copy that only answers; of a class of its own nobody knows what it computes."""
    return type(model) in (STABN, ResNet3D)


def quick(model: Network, precision: str, device: torch.device, *, fast: bool = True) -> Network:
    """A network that gives the model's answers on a device, in evaluation mode; put it there.

    Args:
        model: is not changed, except that it is put into evaluation mode.
        precision: a key of `DTYPES`, or 64-true for the model's own arithmetic in its own dtype.
        device: on what it will run.
        fast: a copy by `stabn.nn.answering` where there can be one; False gives the model itself, the plain reference.
    """
    if not fast or precision not in DTYPES or not can_quicken(model):
        return model.eval()
    dtype = DTYPES[precision]
    return answering(model, dtype, winograd=dtype == torch.float32 and device.type == "cpu")


def examine(accelerator: str = "auto", precision: str = "auto") -> dict[str, Any]:
    """What is chosen on this machine.

    Returns:
        {"device", "precision": never auto, "bf16": whether it is the faster way, "winograd", "keeps_memory": whether
        freed memory can be kept}.
    """
    device = device_of(accelerator)
    chosen = precision_of(precision, accelerator)
    return {
        "device": device.type,
        "precision": chosen,
        "bf16": bf16_pays(device),
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


def told(found: Mapping[str, Any]) -> str:
    """The same as one line."""
    able = "faster" if found["bf16"] else "not faster"
    precision, *used = _used(found)
    words = [
        f"fast path on {found['device']}, {able} in bfloat16: precision {precision}",
        *(what for what in used if what not in _FOR_ANSWERS),
        *([f"for answers {' and '.join(means)}"] if (means := [what for what in used if what in _FOR_ANSWERS]) else []),
    ]
    return ", ".join(words) + "; --engine.fast false is the plain float32 way"


def reasons(found: Mapping[str, Any]) -> list[str]:
    """Why it is so: a line for each that is in use."""
    return [f"{what}: {why}" for what, why in _used(found).items()]


@dataclass(frozen=True)
class EngineRecipe:
    """On what the work runs; Lightning's own words.

    Attributes:
        accelerator: auto, cpu, gpu, ...
        devices: auto or how many; with more than one, as many processes work together.
        strategy: auto, ddp (each process has the whole network) or fsdp (it is cut into pieces; GPUs).
        nodes: machines; start the same command on each, by torchrun for instance, on a file system that they share.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true; auto is bf16-mixed where the device is faster by it (GPUs,
            processors with AMX) and 32-true elsewhere, and 32-true for accuracies and other measurements.
        recompute: in training, compute activations again in place of keeping them: much less memory for a third more
            time, the same numbers.
        fast: False computes in the plain way: float32, PyTorch's own memory layout, every operation by itself. It is
            the reference for what True (docs/speed.md) gives faster.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    nodes: int = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"] = "auto"
    recompute: bool = False
    fast: bool = True

    def chosen_precision(self) -> str:
        """What `precision` means on this machine; never auto."""
        return precision_of(self.precision, self.accelerator, fast=self.fast)

    def keeps_memory(self) -> bool:
        """Whether freed memory is kept for what comes next: faster, but the heap has gaps."""
        return self.fast and not self.recompute

    def announce(self) -> None:
        """Say on stderr, once, how it computes here, unless that is the plain way."""
        if self.fast:
            found = examine(self.accelerator, self.precision)
            _say(told(found | {"keeps_memory": found["keeps_memory"] and self.keeps_memory()}))

    def settled(self) -> "EngineRecipe":
        """The same with the precision that auto means on this machine, for whoever asks several machines."""
        precision: Any = self.chosen_precision()
        return replace(self, precision=precision)

    def measuring(self) -> "EngineRecipe":
        """The same for measurements, which bfloat16 enters only where somebody asks for it."""
        return replace(self, precision="32-true") if self.precision == "auto" else self


@cache
def _say(line: str) -> None:
    if first_process():
        print(line, file=sys.stderr, flush=True)
