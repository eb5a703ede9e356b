"""What the attention branch costs: time and memory of a training step as `stabn train` computes it, ST-ABN beside the
plain 3D ResNet.

    python -m benchmarks.cost

Each network in a process of its own, taking turns; the medians' ratio counts, for the machine may be shared. Memory is
the process's peak over its size before the first step. Arithmetic is counted by PyTorch's own counter.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.settings import write_results
from stabn.nn import STABN, PlainNetwork, recognition_loss

SIZES = {
    "small": (8, 16, 56, 14),
    "fine": (8, 32, 32, 4),
    "resnet18": (2, 16, 112, 174),
}
"""Architecture -> clips per step, frames, side in pixels, classes."""
REPETITIONS = 7


def one_step(architecture: str, attention: bool, repetitions: int) -> dict[str, float]:
    """Seconds per training step, and peak memory of this process in MiB."""
    batch, frames, side, classes = SIZES[architecture]
    torch.manual_seed(0)
    model = (STABN if attention else PlainNetwork)(architecture, classes, frames)
    model.channels_last()
    model.checkpoint_norms()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    clips, labels = torch.randn(batch, 3, frames, side, side), torch.randint(0, classes, (batch,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repetitions + 1):
        begun = time.perf_counter()
        optimizer.zero_grad()
        recognition_loss(model(clips), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": median(seconds[1:]), "mebibytes": (peak - before) / 1024}


def arithmetic(architecture: str, attention: bool) -> dict[str, float]:
    """Parameters in millions, and GFLOP of one clip's forward pass (multiply and add counted as two)."""
    _, frames, side, classes = SIZES[architecture]
    with torch.device("meta"):
        model = (STABN if attention else PlainNetwork)(architecture, classes, frames).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(1, 3, frames, side, side))
    return {
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "gflop": counter.get_total_flops() / 1e9,
    }


def measured(architecture: str) -> dict[str, Any]:
    kinds = {"ST-ABN": True, "3D ResNet": False}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(REPETITIONS):
        for name, attention in kinds.items():
            command = [sys.executable, "-m", "benchmarks.cost", "--step", architecture, str(int(attention))]
            rounds[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    results: dict[str, Any] = {"clips, frames, side, classes": SIZES[architecture]}
    for name, attention in kinds.items():
        figures = {key: median(one[key] for one in rounds[name]) for key in ("seconds", "mebibytes")}
        results[name] = {k: round(v, 4) for k, v in (figures | arithmetic(architecture, attention)).items()}
    results["ratio"] = {k: round(v / results["3D ResNet"][k], 3) for k, v in results["ST-ABN"].items()}
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(one_step(args.step[0], bool(int(args.step[1])), 3)))
    else:
        results = {architecture: measured(architecture) for architecture in args.architectures}
        write_results(__file__, {"repetitions": REPETITIONS, **results})
        for architecture, row in results.items():
            print(architecture, json.dumps(row["ratio"]))
