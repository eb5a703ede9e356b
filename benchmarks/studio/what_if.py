"""Latency of a what-if request, compared with a whole forward pass.

    python -m benchmarks.studio.what_if --run demo/before --edits demo/edits

100 requests with random scores over HTTP for the given run and for a 3D ResNet-50 at 32x224x224 with random weights,
interleaved with whole forward passes of the same network in this process on the same clip shape, one at a time.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.studio.server import measure_copy, start_studio
from stabn.data.annotations.source import DataSource
from stabn.data.sampling import Sampling
from stabn.data.tabletop.generate import generate_tabletop
from stabn.data.transforms import Preprocessing
from stabn.evaluation.collect import collect_project
from stabn.nn import STABN, has_attention
from stabn.runs import open_run, write_run


def measure(run: Path, project: Path, repeats: int, forwards: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    model = open_run(run).model()
    assert has_attention(model)
    model.channels_last()
    assert model.preprocessing is not None
    side = model.preprocessing["crop"]
    clip = torch.randn(1, 3, model.frames, side, side)
    waits, inside, whole = [], [], []
    with start_studio(run, project) as studio:
        clip_id = studio.client.get("/api/queue").json()["clips"][0]["id"]
        studio.client.get("/api/clip", params={"id": clip_id})

        def ask() -> tuple[float, float]:
            body = {
                "id": clip_id,
                "temporal": "edited",
                "spatial": "original",
                "scores": rng.random(model.frames).tolist(),
            }
            started = time.perf_counter()
            answer = studio.client.post("/api/what-if", json=body).raise_for_status().json()
            return 1000 * (time.perf_counter() - started), answer["milliseconds"]

        for _ in range(3):
            ask()
            with torch.inference_mode():
                model(clip)
        for number in range(repeats):
            total, of_which = ask()
            waits.append(total)
            inside.append(of_which)
            if number % (repeats // forwards) == 0:
                started = time.perf_counter()
                with torch.inference_mode():
                    model(clip)
                whole.append(1000 * (time.perf_counter() - started))
    forward = statistics.median(whole)
    return {
        "requests": repeats,
        "median_ms": round(statistics.median(waits), 2),
        "p95_ms": round(float(np.percentile(waits, 95)), 2),
        "perceive_median_ms": round(statistics.median(inside), 2),
        "forward_median_ms": round(forward, 2),
        "ratio_to_forward": round(statistics.median(waits) / forward, 4),
    }


def resnet50(folder: Path) -> tuple[Path, Path]:
    """A run of the paper's size with random weights, and an edit project of it."""
    generate_tabletop(folder / "data", train=14, validation=14, seed=0, workers=1)
    run = folder / "run"
    torch.manual_seed(0)
    names = DataSource(str(folder / "data")).table().class_names
    preprocessing = Preprocessing(Sampling("uniform", 32), resize=256, crop=224)
    model = STABN("resnet50", len(names), 32, class_names=names, preprocessing=preprocessing.as_json())
    model.save_pretrained(run)
    write_run(run, DataSource(str(folder / "data")), {}, complete=True)
    collect_project(open_run(run), folder / "edits", bound=1.0, batch_size=1)
    return run, folder / "edits"


def measure_both(run: Path, project: Path) -> dict[str, dict[str, float]]:
    figures = {"demo": measure(run, project, 100, 50)}
    return figures | {"resnet50 32x224x224": measure(*resnet50(project.parent), 100, 10)}


if __name__ == "__main__":
    measure_copy(__doc__, __file__, measure_both)
