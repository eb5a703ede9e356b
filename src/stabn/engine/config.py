"""On what the work runs: the options of the engine."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from stabn.engine.device import _log_once, compute_settings, resolve_precision, describe_settings


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
        activation_checkpointing: in training, compute activations again in place of keeping them: much less memory
            for a third more time, the same numbers.
        fast: False computes in the plain way: float32, PyTorch's own memory layout, every operation by itself. It is
            the reference for what True (docs/speed.md) gives faster.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    nodes: int = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"] = "auto"
    activation_checkpointing: bool = False
    fast: bool = True

    def chosen_precision(self) -> str:
        """What `precision` means on this machine; never auto."""
        return resolve_precision(self.precision, self.accelerator, fast=self.fast)

    def keeps_memory(self) -> bool:
        """Whether freed memory is kept for what comes next: faster, but the heap has gaps."""
        return self.fast and not self.activation_checkpointing

    def announce(self) -> None:
        """Say on stderr, once, how it computes here, unless that is the plain way."""
        if self.fast:
            found = compute_settings(self.accelerator, self.precision)
            _log_once(describe_settings(found | {"keeps_memory": found["keeps_memory"] and self.keeps_memory()}))

    def settled(self) -> "EngineRecipe":
        """The same with the precision that auto means on this machine, for whoever asks several machines."""
        precision: Any = self.chosen_precision()
        return replace(self, precision=precision)

    def measuring(self) -> "EngineRecipe":
        """The same for measurements, which bfloat16 enters only where somebody asks for it."""
        return replace(self, precision="32-true") if self.precision == "auto" else self
