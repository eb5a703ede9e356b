"""Speed and memory of the systems of the paper's table at full size, plain and with ST-ABN's branch, on one GPU.

    python -m benchmarks.table1.full_size --out full_size.json

For each: parameters, GFLOP of a clip, clips per second and peak memory of a training step and of inference, bfloat16.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.settings import describe_machine
from benchmarks.tables import write_rows
from stabn.nn import STABN, PlainNetwork, VideoNetwork, recognition_loss
from stabn.nn.backbones import backbone_class
from stabn.nn.backbones.description import PAPER_SYSTEMS

NETWORKS = (
    *(name for name in PAPER_SYSTEMS if "flow" not in name),
    "resnet50",
    "slowfast_r50",
    "c3d",
    "abn2d_resnet50",
)
CLASSES = 174


def measure(model: VideoNetwork, clips_bcthw: torch.Tensor, steps: int) -> dict[str, float]:
    """Parameters, cost, speed and memory of a network on the clips' device."""
    labels_b = torch.zeros(len(clips_bcthw), dtype=torch.int64, device=clips_bcthw.device)

    def train() -> None:
        with torch.autocast(clips_bcthw.device.type, torch.bfloat16):
            loss = recognition_loss(model(clips_bcthw), labels_b)
        loss.backward()
        model.zero_grad(set_to_none=True)

    def infer() -> None:
        with torch.autocast(clips_bcthw.device.type, torch.bfloat16), torch.inference_mode():
            model(clips_bcthw)

    model.eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(clips_bcthw[:1])
    found = {
        "million parameters": sum(value.numel() for value in model.parameters()) / 1e6,
        "GFLOP": counter.get_total_flops() / 1e9,
    }
    for name, step in (("inference", infer), ("training", train)):
        model.train(step is train)
        seconds, memory = timed(step, clips_bcthw.device, steps)
        found |= {f"{name} clips/s": len(clips_bcthw) / seconds, f"{name} GB": memory}
    return {name: round(value, 2) for name, value in found.items()}


def timed(step: Callable[[], None], device: torch.device, steps: int) -> tuple[float, float]:
    """Seconds of a step after two to warm up, and the greatest memory in GB; 0 GB on a CPU."""
    on_gpu = device.type == "cuda"
    for number in range(steps + 2):
        if number == 2:
            if on_gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            begun = time.perf_counter()
        step()
    if on_gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / steps, torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0


def main(options: argparse.Namespace) -> None:
    """Measure and write."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, Any] = {"machine": describe_machine() | {"device": device.type}, "batch": options.batch}
    if device.type == "cuda":
        found["machine"]["device"] = torch.cuda.get_device_name()
    rows = found["networks"] = {}
    for name in options.networks:
        wanted = backbone_class(name).format_for(name, {})
        clips_bcthw = torch.randn(options.batch, 3, wanted.frames, wanted.size, wanted.size, device=device)
        for kind in (PlainNetwork, STABN):
            rows[f"{name}, {kind.kind}"] = measure(
                kind(name, CLASSES, wanted.frames).to(device), clips_bcthw, options.steps
            )
            write_rows(options.out, found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file; written after every network")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=4, help="clips")
    parser.add_argument("--steps", type=int, default=5)
    main(parser.parse_args())
