"""Upper bound of better temporal attention: top-1 with the truth, and with the mean, in place of it.

    python -m benchmarks.oracle --data words --table clips.csv --word colour --out runs/evidence

On the networks of benchmarks.human_knowledge, which must have been trained into the same --out. "truth" gives the
perception branch the scores of a perfect editor of the clip, "uniform" the mean of the network's own in every frame. If
not even the truth raises top-1, better attention alone cannot.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.settings import build_parser, run_seeds, write_report
from stabn.data.dataset import VideoDataset
from stabn.files import read_json, write_json
from stabn.nn import Attention, has_attention
from stabn.runs import network_preprocessing, open_run

RUNS = ("before", "control", "edited", "whole-network-control", "whole-network-edited")


def top1_by_attention(folder: Path, split: str) -> dict[str, float]:
    """Top-1 in % of a run with its own temporal attention, the truth and its mean."""
    file = folder / f"oracle-{split}.json"
    if file.exists():
        return read_json(file, remedy="remove it")
    run = open_run(folder)
    model = run.model()
    assert has_attention(model)
    table = run.table(model)
    dataset = VideoDataset(
        table.of_split(split), network_preprocessing(model, str(folder)), class_names=table.class_names
    )
    correct: dict[str, list[bool]] = {"own": [], "truth": [], "uniform": []}
    for item in (dataset[i] for i in range(len(dataset))):
        scores = table.truth[item.clip_ids[0]].scores(item.frame_indices[0].numpy())
        truth = torch.from_numpy(scores).float()[None]
        replacements: dict[str, Callable[[Attention], Attention]] = {
            "own": lambda attention: attention,
            "truth": lambda attention, truth=truth: replace(attention, temporal=truth),
            "uniform": Attention.uniform_temporal,
        }
        with torch.inference_mode():
            features = model.encode(item.clips)
            attention, _ = model.attend(features)
            for name, change in replacements.items():
                predicted = int(model.perceive(features, change(attention)).argmax())
                correct[name].append(predicted == int(item.labels[0]))
    top1 = {name: 100 * float(np.mean(values)) for name, values in correct.items()}
    write_json(file, top1)
    return top1


if __name__ == "__main__":
    parser = build_parser(__doc__)
    args: argparse.Namespace = parser.parse_args()
    results = run_seeds(
        args, lambda folder, seed: {"methods": {run: top1_by_attention(folder / run, args.split) for run in RUNS}}
    )
    write_report(args, __file__, results, {})
