"""The options --engine.*: device, processes, precision and speed."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from stabn.engine.device import _log_once, compute_settings, describe_settings, resolve_precision


@dataclass(frozen=True)
class EngineRecipe:
    """Device, processes, precision and speed; most names are Lightning's.

    Attributes:
        accelerator: auto, cpu, gpu, ...
        devices: auto or how many; each has a process of its own.
        strategy: auto, ddp (each process has the whole network) or fsdp (the network is sharded over GPUs).
        nodes: machines; start the same command on each, by torchrun for instance, on a file system that they share.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true; auto is bf16-mixed where the device is faster in it (GPUs,
            processors with AMX) and 32-true elsewhere, and 32-true for accuracies and other measurements.
        activation_checkpointing: in training, recompute activations in place of keeping them: much less memory for a
            third more time, the same numbers.
        fast: False computes in float32, PyTorch's default memory layout and one operation at a time. It is the
            reference for the faster computation of True (docs/speed.md).
    """

    accelerator: str = "auto"
    devices: str = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    nodes: int = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"] = "auto"
    activation_checkpointing: bool = False
    fast: bool = True

    def resolved_precision(self) -> str:
        """`precision` on this machine, never auto."""
        return resolve_precision(self.precision, self.accelerator, fast=self.fast)

    def keeps_memory(self) -> bool:
        """Whether freed memory is kept by the process: faster, but the heap has gaps."""
        return self.fast and not self.activation_checkpointing

    def log_settings(self, *, can_fold: bool = True) -> None:
        """Log once per process how the fast path computes on this machine.

        Args:
            can_fold: whether the network has a copy for fast inference (`supports_fast_inference`).
        """
        if self.fast:
            settings = compute_settings(self.accelerator, self.precision)
            if not can_fold:
                settings |= {"folded": False, "winograd": False}
            settings["keeps_memory"] = settings["keeps_memory"] and self.keeps_memory()
            _log_once(describe_settings(settings))

    def with_resolved_precision(self) -> "EngineRecipe":
        """The same with this machine's precision in place of auto, for work on several machines."""
        precision: Any = self.resolved_precision()
        return replace(self, precision=precision)

    def for_measurement(self) -> "EngineRecipe":
        """The same with float32 in place of auto: measurements use bfloat16 only if it is set."""
        return replace(self, precision="32-true") if self.precision == "auto" else self
