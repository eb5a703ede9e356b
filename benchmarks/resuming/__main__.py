"""Is a training that was killed at random moments the training that nobody disturbed?

    python -m benchmarks.resuming --out OUT --kills 10

Trains a tiny network on a small Tabletop, once undisturbed and once killed by SIGKILL (with two processes: one of them)
after a random time, and started again, until it has been killed so often; for one process and for two. Says whether the
weights and the curves are the same bits.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.settings import write_results
from stabn.data.tabletop.generate import generate_tabletop
from stabn.files import read_json

TRAIN = [
    "--preprocessing.sampling.mode=uniform",
    "--preprocessing.sampling.frames=8",
    "--preprocessing.resize=36",
    "--preprocessing.crop=32",
    "--network.backbone=tiny",
    "--optimizer.batch_size=6",
    "--engine.accelerator=cpu",
    "--tracking.kind=csv",
]
MOST = 16
"""Steps, at most, that a training goes on before it is killed; an epoch has 11."""


def command(data: Path, out: Path, processes: int, epochs: int) -> list[str]:
    together = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    words = ["train", "--data.annotations", str(data), "--out", str(out), *TRAIN, f"--optimizer.epochs={epochs}"]
    return [sys.executable, "-m", *together, "stabn.cli", *words, f"--engine.devices={processes}"]


def children(launcher: int) -> list[int]:
    stats = [(int(p.name), (p / "stat").read_text()) for p in Path("/proc").iterdir() if p.name.isdecimal()]
    return sorted(pid for pid, stat in stats if int(stat.rpartition(")")[2].split()[1]) == launcher)


def progress(out: Path) -> tuple[int, int, int]:
    """Epoch, step in it, and steps in all; what the training told last."""
    file = out / "progress.json"
    told = read_json(file, remedy="") if file.exists() else {"epoch": 1, "step": 0, "steps": 1}
    return told["epoch"], told["step"], (told["epoch"] - 1) * told["steps"] + told["step"]


def killed_once(words: list[str], out: Path, processes: int, chance: random.Random) -> tuple[int, int] | None:
    """Start it and kill it; the epoch and step that it had told last, or None where it had ended before."""
    (out / "progress.json").unlink(missing_ok=True)
    with (out.parent / "log.txt").open("a") as log:
        started = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    while started.poll() is None and not (out / "progress.json").exists():
        time.sleep(0.01)
    until = progress(out)[2] + chance.randint(0, MOST)
    while started.poll() is None and progress(out)[2] < until:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.5))  # progress is told twice a second
    if started.poll() is not None:
        return None
    found = progress(out)[:2]
    victim = started.pid if processes == 1 else chance.choice(children(started.pid) or [started.pid])
    os.kill(victim, signal.SIGKILL)
    started.wait()
    return found


def trial(data: Path, folder: Path, processes: int, kills: int, epochs: int, seed: int) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run(command(data, folder / "undisturbed", processes, epochs), check=True, capture_output=True)
    words, chance = command(data, folder / "killed", processes, epochs), random.Random(seed)
    moments: list[tuple[int, int]] = []
    while len(moments) < kills:
        moment = killed_once(words, folder / "killed", processes, chance)
        if moment is None:
            raise SystemExit(f"ended after {len(moments)} kills; give more --epochs")
        moments.append(moment)
        print(f"{processes} processes, kill {len(moments)}: epoch {moment[0]}, step {moment[1]}", flush=True)
    subprocess.run(words, check=True, capture_output=True)
    expected, found = (load_file(folder / name / "model.safetensors") for name in ("undisturbed", "killed"))
    curves = [read_json(folder / name / "curves.json", remedy="") for name in ("undisturbed", "killed")]
    return {
        "processes": processes,
        "killed at (epoch, step)": moments,
        "same weights, bit by bit": all(torch.equal(expected[name], found[name]) for name in expected),
        "same curves": curves[0] == curves[1],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = options.out / "tabletop"
    generate_tabletop(data, train=70, validation=14, seed=options.seed)
    runs = [
        trial(data, options.out / str(processes), processes, options.kills, options.epochs, options.seed)
        for processes in (1, 2)
    ]
    write_results(__file__, {"runs": runs}, OUT=options.out)
    for run in runs:
        print(run)
