"""What each switch of the fast path is worth: seconds and memory beside the plain float32 network of the same file.

    python -m benchmarks.speed                        every work, every arm; three hours on 2 cores
    python -m benchmarks.speed --arms fast            only what is on by default beside the plain way; half an hour
    python -m benchmarks.speed --work inference-1     one of them
    python -m benchmarks.speed --architecture small --frames 16 --side 56     some minutes

Every arm is a process of its own, which keeps its network; the arms take turns, so that whatever else the machine does
meets all of them, and the ratios of the medians count. A work of which no more than two arms fit into memory at once
starts more than two anew for every turn. The plain arm is PyTorch as it comes: float32, its own layout, no fast
inference, glibc as it is. Memory is the process's peak, import of PyTorch included. Arithmetic is that of the plain
network, counted by PyTorch's own counter, so Winograd's convolutions may seem to compute faster than the machine
multiplies.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from stabn.engine.device import bf16_is_faster
from stabn.files import read_json
from stabn.memory import keep_freed_memory, keep_freed_memory_later
from stabn.nn import STABN, recognition_loss
from stabn.nn.fast_inference import fast_inference_copy

CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Work:
    """What is timed: `kind` is inference, what-if or step; `together` whether more than two arms fit into memory."""

    kind: str
    clips: int
    frames: int
    side: int
    repetitions: int
    together: bool = True


WORKS = {
    "inference-1": Work("inference", 1, 32, 224, 7),
    "inference-4": Work("inference", 4, 32, 224, 7),
    "what-if": Work("what-if", 1, 32, 224, 7),
    "step-8x112": Work("step", 8, 8, 112, 7, together=False),
    "step-32x224": Work("step", 2, 32, 224, 7, together=False),
}


@dataclass(frozen=True)
class Arm:
    """Which switches are on.

    Attributes:
        keep: freed memory is kept by the process; in training from the end of its first step on.
        layout: channels last; in fast inference always.
        fast_inference: a fast-inference copy; without, the network itself.
        winograd: in that copy.
        dtype: of features and activations; bfloat16 is autocast while training.
        fused: the optimizer moves all weights in one call.
        norm_checkpointing: normalisations are recomputed in the backward pass.
        activation_checkpointing: everything inside residual blocks is.
        compiled: by torch.compile; its start-up is in `start`, not in `seconds`.
    """

    keep: bool = True
    layout: bool = True
    fast_inference: bool = True
    winograd: bool = True
    dtype: str = "float32"
    fused: bool = True
    norm_checkpointing: bool = True
    activation_checkpointing: bool = False
    compiled: bool = False


PLAIN = Arm(keep=False, layout=False, fast_inference=False, winograd=False, fused=False, norm_checkpointing=False)
BEST = "bfloat16" if bf16_is_faster(DEVICE) else "float32"
FAST = Arm(dtype=BEST, winograd=BEST == "float32" and DEVICE == CPU)
ARMS = {
    "inference": {
        "plain": PLAIN,
        "fast": FAST,
        "plain, memory kept": Arm(layout=False, fast_inference=False),
        "channels last, memory kept": Arm(fast_inference=False),
        "fast, no Winograd": replace(FAST, winograd=False),
        "fast, memory not kept": replace(FAST, keep=False),
    },
    "what-if": {"plain": PLAIN, "fast": FAST, "fast, no Winograd": replace(FAST, winograd=False)},
    "step": {
        "plain": PLAIN,
        "fast": FAST,
        "plain, memory kept": Arm(layout=False, fused=False, norm_checkpointing=False),
        "fast, all kept for gradients": Arm(norm_checkpointing=False, dtype=BEST),
        "fast, memory not kept": Arm(keep=False, dtype=BEST),
        "fast, optimizer not fused": Arm(fused=False, dtype=BEST),
        "fast, recomputing": Arm(keep=False, activation_checkpointing=True, dtype=BEST),
    },
}
OTHER = "float32" if BEST == "bfloat16" else "bfloat16"
if OTHER == "float32" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
    for kind in ARMS:
        ARMS[kind][f"fast, {OTHER}"] = replace(FAST, dtype=OTHER, winograd=OTHER == "float32" and DEVICE == CPU)
# The compiler refuses norm checkpointing.
COMPILED = Arm(compiled=True, winograd=False, norm_checkpointing=False, dtype=BEST)


def prepared(work: Work, arm: Arm, architecture: str, classes: int) -> Callable[[], Any]:
    """One repetition of the work, ready to be called."""
    if arm.keep:
        (keep_freed_memory_later if work.kind == "step" else keep_freed_memory)()
    torch.manual_seed(0)
    model = STABN(architecture, classes, work.frames).to(DEVICE)
    clips = torch.randn(work.clips, 3, work.frames, work.side, work.side, device=DEVICE)
    if arm.layout:
        model.channels_last()
    if work.kind == "step":
        return _step(model, clips, arm, classes)
    model.eval()
    dtype = getattr(torch, arm.dtype)
    network = fast_inference_copy(model, dtype, winograd=arm.winograd) if arm.fast_inference else model
    if arm.fast_inference:
        clips = clips.to(dtype)
        del model
    if work.kind == "inference":
        asked = torch.compile(network) if arm.compiled else network
        return torch.inference_mode()(lambda: asked(clips))
    with torch.inference_mode():
        features = network.encode(clips)
        attention, _ = network.attend(features)
        perceive = network.perceiver(features)
    return torch.inference_mode()(lambda: perceive(attention.inverse_temporal()))


def _step(model: STABN, clips: torch.Tensor, arm: Arm, classes: int) -> Callable[[], Any]:
    model.train()
    model.checkpoint_activations(arm.activation_checkpointing)
    model.checkpoint_norms(arm.norm_checkpointing)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4, fused=arm.fused)
    labels = torch.arange(len(clips), device=DEVICE) % classes
    asked = torch.compile(model) if arm.compiled else model

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=arm.dtype == "bfloat16"):
            loss = recognition_loss(asked(clips), labels)
        loss.backward()
        optimizer.step()

    return step


def serve(name: str, work: Work, arm: Arm, architecture: str, classes: int) -> None:
    """A child: a repetition for every line that comes in, a line of JSON for every repetition."""
    begun = time.perf_counter()
    once = prepared(work, arm, architecture, classes)
    answer = once()
    if DEVICE != CPU:
        torch.cuda.synchronize()
    if arm.keep:
        keep_freed_memory()
    logits = answer.logits.float().flatten().tolist() if work.kind == "inference" else []
    print(json.dumps({"start": time.perf_counter() - begun, "logits": logits}), flush=True)
    for _ in sys.stdin:
        spent = os.times()
        begun = time.perf_counter()
        once()
        if DEVICE != CPU:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
        used = os.times()
        cpu = used.user + used.system - spent.user - spent.system
        print(json.dumps({"seconds": seconds, "cpu": cpu, "gib": _peak()}), flush=True)


def _peak() -> float:
    if DEVICE != CPU:
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measured(name: str, work: Work, arms: dict[str, Arm], architecture: str, classes: int) -> dict[str, Any]:
    """Medians of every arm, and its ratios to the plain one."""
    rounds: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    starts: dict[str, float] = {}
    logits: dict[str, torch.Tensor] = {}
    children: dict[str, Any] = {}
    for _ in range(work.repetitions):
        for arm, switches in arms.items():
            if arm not in children:
                words = json.dumps([name, asdict(work), asdict(switches), architecture, classes])
                children[arm] = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.speed", "--child", words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                reply = json.loads(children[arm].stdout.readline())
                starts[arm], logits[arm] = reply["start"], torch.tensor(reply["logits"])
            child = children[arm]
            child.stdin.write("go\n")
            child.stdin.flush()
            rounds[arm].append(json.loads(child.stdout.readline()))
            if not work.together and len(arms) > 2:
                children.pop(arm).communicate()
    for child in children.values():
        child.communicate()
    result: dict[str, Any] = {"architecture": architecture, "classes": classes, **asdict(work)}
    result["gflop"] = round(arithmetic(work, architecture, classes), 1)
    result["arms"] = {
        arm: {
            **{key: round(median(one[key] for one in rounds[arm]), 4) for key in ("seconds", "cpu", "gib")},
            "all seconds": [round(one["seconds"], 4) for one in rounds[arm]],
            "start": round(starts[arm], 2),
        }
        for arm in arms
    }
    plain = result["arms"]["plain"]
    for arm, figures in result["arms"].items():
        figures["times as fast"] = round(plain["seconds"] / figures["seconds"], 2)
        figures["memory"] = round(figures["gib"] / plain["gib"], 2)
        if work.kind == "inference":
            same, spread = logits["plain"], float(logits["plain"].std())
            figures["logits' difference, of their spread"] = float((logits[arm] - same).abs().max()) / spread
            best = (of.view(work.clips, classes).argmax(1) for of in (logits[arm], same))
            figures["same top-1"] = bool(torch.equal(*best))
        figures["gflop/s"] = round(result["gflop"] / figures["seconds"], 1)
    return result


def arithmetic(work: Work, architecture: str, classes: int) -> float:
    """GFLOP of one repetition by the plain network; multiply and add count as two."""
    with torch.device("meta"):
        model = STABN(architecture, classes, work.frames)
        clips = torch.randn(work.clips, 3, work.frames, work.side, work.side)
        if work.kind == "what-if":
            features = model.eval().encode(clips)
            attention, _ = model.attend(features)
        with FlopCounterMode(display=False) as counter:
            if work.kind == "step":
                recognition_loss(model(clips), torch.zeros(work.clips, dtype=torch.int64)).backward()
            elif work.kind == "what-if":
                model.perceive(features, attention)
            else:
                model.eval()(clips)
    return counter.get_total_flops() / 1e9


def ceiling() -> dict[str, float]:
    """GFLOP/s of a square matrix product, the best of several, by dtype; on a GPU rounded as its convolutions are."""
    result = {}
    side = 2048 if DEVICE == CPU else 8192
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    for dtype in sorted({arm.dtype for arms in ARMS.values() for arm in arms.values()}):
        a, b = (torch.randn(side, side, device=DEVICE).to(getattr(torch, dtype)) for _ in range(2))
        seconds = []
        for _ in range(12):
            begun = time.perf_counter()
            a @ b
            if DEVICE != CPU:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
        result[dtype] = round(2 * side**3 / min(seconds) / 1e9, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=list(WORKS), choices=list(WORKS))
    parser.add_argument("--arms", nargs="+", help="only these, and plain")
    parser.add_argument("--compiled", action="store_true", help="an arm with torch.compile as well")
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--classes", type=int, default=174)
    for option in ("frames", "side", "repetitions"):
        parser.add_argument(f"--{option}", type=int, help="in place of each work's own")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, work, arm, architecture, classes = json.loads(args.child)
        return serve(name, Work(**work), Arm(**arm), architecture, classes)
    from benchmarks.settings import (
        describe_machine,
        reproducing_command,
    )  # only here, for the children need not know all verbs
    from benchmarks.tables import write_rows

    results = read_json(args.out, remedy="remove it") if args.out.exists() else {}
    for name in args.work:
        changed = {o: getattr(args, o) for o in ("frames", "side", "repetitions") if getattr(args, o) is not None}
        work = Work(**{**asdict(WORKS[name]), **changed})
        arms = ARMS[work.kind] | ({"compiled": COMPILED} if args.compiled else {})
        arms = {arm: how for arm, how in arms.items() if args.arms is None or arm in ("plain", *args.arms)}
        before = ceiling()
        result = measured(name, work, arms, args.architecture, args.classes)
        after = ceiling()
        result["ceiling gflop/s"] = {dtype: max(before[dtype], after[dtype]) for dtype in before}
        for arm, figures in result["arms"].items():
            figures["share of ceiling"] = round(figures["gflop/s"] / result["ceiling gflop/s"][arms[arm].dtype], 2)
        command = reproducing_command(__file__, OUT=args.out)
        where = {"machine": describe_machine(), "device": _device(), "threads": torch.get_num_threads()}
        unlike = "".join(f", {option} {value}" for option, value in changed.items() if option != "repetitions")
        unlike += f", architecture {args.architecture}" * (args.architecture != "resnet50")
        unlike += ", compiled" * args.compiled
        results[f"{name} {DEVICE.type}{unlike}"] = {"command": command, **where, **result}
        write_rows(args.out, results)
        for arm, f in result["arms"].items():
            print(
                f"{name}  {arm:28}  {f['seconds']:8.3f} s  {f['times as fast']:5.2f} times  {f['gib']:5.1f} GiB  "
                f"{f['share of ceiling']:5.0%} of the ceiling",
                flush=True,
            )
    return None


def _device() -> str:
    return torch.cuda.get_device_name() if DEVICE != CPU else "CPU"


if __name__ == "__main__":
    main()
