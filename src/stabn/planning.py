"""What a training will need on machines that one does not have: the memory and the time of a step, without doing it.

The step runs on PyTorch's meta device, whose tensors have shapes and no values. Every operation says what it reads,
writes and calculates, and every tensor when it comes and goes. So memory is exact but for what libraries take besides
(cuDNN's workspaces, the allocator's gaps, the driver). Time is a roofline: an operation takes as long as its arithmetic
or its memory traffic, whichever is longer, at an assumed share of what the data sheet promises (Williams, Waterman and
Patterson, Roofline, CACM 52(4), 2009). Reading videos and talking to other GPUs are not in it.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from stabn.data.transforms import Preprocessing
from stabn.nn import STABN, ResNet3D, recognition_loss
from stabn.pace import EngineRecipe
from stabn.training.module import Training
from stabn.training.recipes import NetworkRecipe, OptimiserRecipe

GIB = 2**30
HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Precisions in which convolutions and linear layers, and nothing else, calculate with half of the bits."""
SOMETHING_V2 = (168_913, 174)
"""Training clips and classes of Something-Something v2."""


@dataclass(frozen=True)
class Gpu:
    """What a data sheet says.

    Attributes:
        name: of the product.
        memory: GiB.
        arithmetic: by bytes per number the highest FLOP per second of dense matrices: 2 for bfloat16 with sums in
            float32, 4 for TF32, with which PyTorch convolves float32 unless told otherwise, 8 for float64.
        bandwidth: bytes per second from and to its memory.
    """

    name: str
    memory: float
    arithmetic: Mapping[int, float]
    bandwidth: float


# Dense figures: data sheets like to show twice as much, for matrices half of which is zeros.
GPUS = (
    Gpu("A100 80 GB", 80, {2: 312e12, 4: 156e12, 8: 19.5e12}, 2.039e12),
    Gpu("H100 SXM", 80, {2: 989.4e12, 4: 494.7e12, 8: 66.9e12}, 3.35e12),
    Gpu("RTX 4090", 24, {2: 165.2e12, 4: 82.6e12, 8: 1.3e12}, 1.008e12),
)
ARITHMETIC_SHARE, BANDWIDTH_SHARE, MEMORY_SHARE = 0.5, 0.8, 0.8
"""Of what the data sheet promises, as much as we assume a program gets."""


@dataclass(frozen=True)
class Step:
    """One step of training on one GPU.

    Attributes:
        clips: in it.
        peak: bytes of all tensors at the moment when there are most.
        standing: bytes between steps: weights and the optimiser's state.
        operations: (FLOP, bytes read and written, bytes per number) of each.
    """

    clips: int
    peak: int
    standing: int
    operations: tuple[tuple[int, int, int], ...]

    @property
    def flop(self) -> int:
        """Multiply and add count as two."""
        return sum(flop for flop, _, _ in self.operations)

    def seconds(self, gpu: Gpu) -> float:
        """By the roofline."""
        return sum(
            max(
                flop / (gpu.arithmetic[width] * ARITHMETIC_SHARE) if flop else 0.0,
                moved / (gpu.bandwidth * BANDWIDTH_SHARE),
            )
            for flop, moved, width in self.operations
        )


@dataclass(frozen=True)
class Plan:
    """What a recipe needs.

    Attributes:
        parameters: numbers that are learnt.
        forward_flop: of one clip when the network is only asked.
        step: with as many clips as one GPU has of a batch.
        clip_bytes: by how much the peak rises with one more clip.
    """

    parameters: int
    forward_flop: int
    step: Step
    clip_bytes: float

    def fits(self, gpu: Gpu) -> int:
        """How many clips may be in a step on this GPU; 0 where not one fits."""
        room = gpu.memory * GIB * MEMORY_SHARE - self.step.peak
        return max(0, int(self.step.clips + room // self.clip_bytes))

    def hours(self, gpu: Gpu, clips: int) -> float:
        """To learn from so many clips on one GPU, in steps of any size that fits."""
        return clips / self.step.clips * self.step.seconds(gpu) / 3600


def plan(
    network: NetworkRecipe,
    preprocessing: Preprocessing,
    optimiser: OptimiserRecipe,
    engine: EngineRecipe,
    *,
    classes: int,
    gpus: int = 1,
) -> Plan:
    """What training by these recipes needs; takes seconds, on any machine.

    Args:
        network, preprocessing, optimiser, engine: as for `stabn train`.
        classes: K.
        gpus: how many share a batch.
    """
    engine = engine.settled()
    model = _model(network, preprocessing, classes)
    learnt = sum(parameter.numel() for parameter in model.parameters())
    clips = -(-optimiser.batch_size // gpus)
    step, twice = (_step(model, preprocessing, optimiser, engine, clips=count) for count in (clips, 2 * clips))
    model = _model(network, preprocessing, classes).eval()
    asked = _Watched(())
    with torch.no_grad(), asked:
        model(_clips(preprocessing, 1))
    return Plan(learnt, asked.flop, step, (twice.peak - step.peak) / clips)


def _model(network: NetworkRecipe, preprocessing: Preprocessing, classes: int) -> STABN | ResNet3D:
    shape: Any = (network.architecture, classes, preprocessing.sampling.frames, network.dropout)
    with torch.device("meta"):
        return STABN(*shape, mechanism=network.mechanism) if network.attention else ResNet3D(*shape)


def _clips(preprocessing: Preprocessing, count: int) -> Tensor:
    side = preprocessing.crop
    return torch.empty(count, 3, preprocessing.sampling.frames, side, side, device="meta")


def _step(
    model: STABN | ResNet3D,
    preprocessing: Preprocessing,
    optimiser: OptimiserRecipe,
    engine: EngineRecipe,
    *,
    clips: int,
) -> Step:
    """The second step of a training: the first one lacks the optimiser's state."""
    model = model.double() if engine.precision == "64-true" else model
    if engine.precision in HALVES:
        for part in model.modules():
            if isinstance(part, nn.Conv3d | nn.Conv2d | nn.Linear):
                part.forward = _in_half(type(part).forward.__get__(part), HALVES[engine.precision])  # type: ignore[assignment]
    model.recompute = engine.recompute
    model.keep_less(engine.fast)
    module = Training(model, optimiser, total_steps=2, seed=0)
    moving: Any = module.configure_optimizers()["optimizer"]
    dtype = next(model.parameters()).dtype
    watched = _Watched(model.state_dict(keep_vars=True).values())
    for _ in range(2):
        watched.begin()
        with watched:
            batch, labels = _clips(preprocessing, clips).to(dtype), torch.zeros(clips, dtype=torch.int64, device="meta")
            loss = recognition_loss(model(batch), labels, optimiser.label_smoothing)
            moving.zero_grad()
            loss.backward()
            moving.step()
            moving.zero_grad()
            del batch, labels, loss
    return Step(clips, watched.peak, watched.now, tuple(watched.operations))


def _in_half(forward: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """What a layer does under torch.autocast, which the meta device lacks."""

    def cast(input: Tensor) -> Tensor:
        with _Cast(dtype):
            return forward(input)

    return cast


class _Cast(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.conv3d, torch.conv2d, F.linear):
            args = tuple(value.to(self.dtype) if isinstance(value, Tensor) else value for value in args)
        return func(*args, **(kwargs or {}))


class _Watched(TorchDispatchMode):
    """Counts the bytes of all living tensors, and notes what each operation does."""

    def __init__(self, existing: Iterable[Tensor]) -> None:
        super().__init__()
        self.operations: list[tuple[int, int, int]] = []
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}
        for tensor in existing:
            self._see(tensor)

    def begin(self) -> None:
        """Forget what was done, but not what there is."""
        self.operations, self.peak = [], self.now

    @property
    def flop(self) -> int:
        """Of all operations."""
        return sum(flop for flop, _, _ in self.operations)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        result = func(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        for tensor in made:
            self._see(tensor)
        if made and not _is_view(func, given, made):
            # The table behind torch.utils.flop_counter.FlopCounterMode, which itself keeps tensors alive.
            count = flop_registry.get(func._overloadpacket)
            flop = 0 if count is None else count(*args, **(kwargs or {}), out_val=result)
            moved = sum(value.numel() * value.element_size() for value in (*given, *made))
            self.operations.append((flop, moved, made[0].element_size()))
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive[key] = size
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._lose, key)

    def _lose(self, key: int) -> None:
        self.now -= self._alive.pop(key)


def _is_view(func: Any, given: list[Tensor], made: list[Tensor]) -> bool:
    """Whether an operation only looks at its input in another way, which moves nothing."""
    if func._schema.is_mutable:
        return False
    storages = {value.untyped_storage()._cdata for value in given}
    return all(value.untyped_storage()._cdata in storages for value in made)
