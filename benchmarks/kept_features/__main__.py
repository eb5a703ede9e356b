"""What kept features save: time of an epoch, and memory of a training step with a frozen network.

    python -m benchmarks.kept_features --out runs/kept

Time: an epoch that decodes and extracts against one on kept features, of the same frozen network with the attention
branch, on generated clips at 224 pixels; each is the difference between a training of three epochs and one of one, so
that starting and the first extraction are left out. Memory: peak of a process over its size before the first step, of
a step on kept features and of one that trains the network whole. All in turn; the medians' ratio counts.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.settings import ENGINE, write_results
from stabn.cli.data import tabletop_command
from stabn.data.annotations.source import DataSource
from stabn.data.transforms import Augmentation
from stabn.nn import STABN, recognition_loss
from stabn.training.recipes import (
    SMALL_OPTIMIZER,
    LoaderRecipe,
    NetworkRecipe,
    PreprocessingRecipe,
    SamplingRecipe,
)
from stabn.training.train import train

LITE0 = NetworkRecipe("timm/tf_efficientnet_lite0", mechanism="gated", weights="lite0", freeze="extractor")
FRAMES, SIDE, CLASSES, BATCH = 16, 224, 14, 4
REPETITIONS = 3


def seconds_of_training(data: DataSource, out: Path, views: int, epochs: int) -> float:
    """Seconds of a whole training; `views` 0 extracts at every step."""
    begun = time.perf_counter()
    train(
        out,
        data,
        preprocessing=PreprocessingRecipe(SamplingRecipe("uniform", FRAMES), crop=SIDE).resolve(LITE0),
        network=LITE0,
        augmentation=Augmentation(),
        optimizer=replace(SMALL_OPTIMIZER, batch_size=BATCH, epochs=epochs),
        loader=LoaderRecipe(views=views, features=str(out.parent / "features")),
        engine=ENGINE,
        seed=1,
    )
    return time.perf_counter() - begun


def seconds_per_epoch(folder: Path) -> dict[str, float]:
    """Seconds of an epoch on kept features and of one that decodes and extracts."""
    table = folder / "tabletop"
    if not (table / "clips.csv").exists():
        tabletop_command(table, train=24, validation=8, seed=1, workers=1)
    data, rounds = DataSource(str(table)), {1: [], 0: []}  # type: ignore[var-annotated]
    for repetition in range(REPETITIONS):
        for views, seconds in rounds.items():
            one, three = (
                seconds_of_training(data, folder / f"{views}-{epochs}-{repetition}", views, epochs) for epochs in (1, 3)
            )
            if views and not repetition:  # the first training has filled the store
                one = seconds_of_training(data, folder / "filled", views, 1)
            seconds.append((three - one) / 2)
    return {"kept": median(rounds[1]), "extracted": median(rounds[0])}


def step_memory(backbone: str, whole: bool) -> float:
    """Peak memory of this process over its size before the first of two steps, in MiB."""
    torch.manual_seed(0)
    model = STABN(backbone, CLASSES, FRAMES, mechanism="gated").train()
    clips = torch.randn(BATCH, 3, FRAMES, SIDE, SIDE)
    features = None
    if not whole:
        for module in model.extractor:
            module.requires_grad_(False).eval()
        # as the store is filled: clip by clip, before the first step
        with torch.no_grad():
            parts = [model.encode(clip[None]) for clip in clips]
        assert all(isinstance(part, torch.Tensor) for part in parts)
        features = torch.cat(parts)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    output: Callable[[], Any] = (lambda: model(clips)) if features is None else (lambda: model.recognise(features))
    before = size() if whole else SIZE_BEFORE_EXTRACTION
    for _ in range(2):
        optimizer.zero_grad()
        recognition_loss(output(), torch.zeros(BATCH, dtype=torch.int64)).backward()
        optimizer.step()
    return size() - before


def size() -> float:
    """Peak size of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


SIZE_BEFORE_EXTRACTION = size()


def memory(backbone: str) -> dict[str, float]:
    """Median MiB of a step on kept features, extraction included, and of one that trains the network whole."""
    found: dict[str, list[float]] = {"kept": [], "whole": []}
    for _ in range(REPETITIONS):
        for name, values in found.items():
            command = [sys.executable, "-m", "benchmarks.kept_features", "--out", ".", "--step", backbone, name]
            values.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    return {name: median(values) for name, values in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--backbone", default="swin3d_t", help="whose memory is measured")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(step_memory(args.step[0], args.step[1] == "whole")))
    else:
        epoch, mebibytes = seconds_per_epoch(args.out), memory(args.backbone)
        figures = {
            "clips": {"frames": FRAMES, "side": SIDE, "batch": BATCH},
            "seconds per epoch of 24 clips": {name: round(value, 3) for name, value in epoch.items()},
            "times as fast": round(epoch["extracted"] / epoch["kept"], 1),
            f"MiB of a step, {args.backbone}": {name: round(value) for name, value in mebibytes.items()},
            "share of memory": round(mebibytes["kept"] / mebibytes["whole"], 3),
        }
        write_results(__file__, {"repetitions": REPETITIONS, **figures}, OUT=args.out)
        print(json.dumps(figures, indent=1))
