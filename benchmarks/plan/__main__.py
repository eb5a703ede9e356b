"""What each recipe needs, computed; how far computed memory is from measured; and, on a GPU, how far both are.

    python -m benchmarks.plan            # computes, measures memory on the CPU, writes results.json and docs/recipes.md
    python -m benchmarks.plan --gpu 8    # where there is a GPU: steps of 8 clips, timed and weighed; adds gpu.json

On the CPU it is the bytes that PyTorch's allocator has handed out at the worst moment of a step, by its own profiler.
"""

import argparse
import io
import json
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.settings import machine
from stabn.cli import main
from stabn.data.sampling import Sampling
from stabn.data.transforms import Preprocessing
from stabn.errors import UserError
from stabn.files import read_json, write_json, write_text
from stabn.nn import STABN, recognition_loss
from stabn.pace import EngineRecipe
from stabn.planning import GIB, plan
from stabn.training.module import Training
from stabn.training.recipes import NetworkRecipe, OptimiserRecipe

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECIPES = ("paper-resnet50", "paper-resnet101", "modern-resnet50", "modern-resnet18")
CHECKS = (("small", 8, 16, 56, False), ("resnet18", 2, 16, 112, False), ("resnet50", 4, 8, 64, False),
          ("resnet50", 4, 8, 64, True))  # fmt: skip
"""Architecture, clips, frames, side, whether activations are computed again."""
GPU_WARM, GPU_STEPS = 5, 20


def planned(recipe: str, *options: str) -> dict[str, Any]:
    """What `stabn plan` says of a recipe."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        file = Path(folder) / "plan.json"
        main(["plan", "--config", str(ROOT / "recipes" / f"{recipe}.yaml"), "--json", str(file), *options])
        return read_json(file, remedy="see `stabn plan`")


def one_step(model: STABN, clips: torch.Tensor, labels: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
    loss = recognition_loss(model(clips), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def trained(architecture: str, clips: int, frames: int, side: int, recompute: bool) -> tuple[Any, ...]:
    model = STABN(architecture, 174, frames)
    model.recompute = recompute
    recipe = OptimiserRecipe(batch_size=clips)
    optimiser: Any = Training(model, recipe, total_steps=100, seed=0).configure_optimizers()["optimizer"]
    preprocessing = Preprocessing(Sampling("uniform", frames), resize=side, crop=side)
    engine = EngineRecipe(recompute=recompute)
    found = plan(NetworkRecipe(architecture), preprocessing, recipe, engine, classes=174)
    return model, optimiser, found


def measured_peak(architecture: str, clips: int, frames: int, side: int, recompute: bool) -> dict[str, float]:
    """MiB over what stays between steps: computed, and handed out by PyTorch on this CPU."""
    model, optimiser, found = trained(architecture, clips, frames, side, recompute)
    labels = torch.zeros(clips, dtype=torch.int64)
    one_step(model, torch.randn(clips, 3, frames, side, side), labels, optimiser)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        one_step(model, torch.randn(clips, 3, frames, side, side), labels, optimiser)
    now = peak = 0
    assert profiled.profiler is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    computed = found.step.peak - found.step.standing
    return {"computed_mib": computed / 2**20, "measured_mib": peak / 2**20, "computed_over_measured": computed / peak}


def on_gpu(recipe: str, clips: int) -> dict[str, Any]:
    """Seconds and GiB of a step on the GPU that is here, beside what was computed."""
    import yaml

    value = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text())
    frames, side = value["preprocessing"]["sampling"]["frames"], value["preprocessing"]["crop"]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.device("cuda"):
        model, optimiser, _ = trained(value["network"]["architecture"], clips, frames, side, False)
        batch, labels = torch.randn(clips, 3, frames, side, side), torch.zeros(clips, dtype=torch.int64)
    half = value["engine"]["precision"] == "bf16-mixed"
    for step in range(GPU_WARM + GPU_STEPS):
        if step == GPU_WARM:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            loss = recognition_loss(model(batch), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.cuda.synchronize()
    computed = planned(recipe, "--optimiser.batch_size", str(clips))
    return {
        "gpu": torch.cuda.get_device_name(),
        "clips": clips,
        "milliseconds_per_clip": 1000 * (time.perf_counter() - begun) / GPU_STEPS / clips,
        "allocated_gib": torch.cuda.max_memory_allocated() / GIB,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB,
        "computed_gib": computed["peak_gib"],
        "computed_milliseconds_per_clip": {
            one["gpu"]: one["hours_per_epoch"] * 3.6e6 / computed["clips"] for one in computed["hardware"]
        },
    }


def needs(found: dict[str, Any]) -> str:
    """The table of docs/recipes.md."""
    names = [one["gpu"] for one in next(iter(found.values()))["one"]["hardware"]]
    lines = [
        "| recipe | parameters | GFLOP per clip: asked, learnt | GiB: standing, per clip | "
        + " | ".join(f"{name}: clips that fit, hours per epoch, of all epochs on 8" for name in names)
        + " |",
        "|---|---|---|---|" + "---|" * len(names),
    ]
    for recipe, both in found.items():
        one, eight = both["one"], both["eight"]
        cells = [
            f"{a['clips_that_fit']}, {a['hours_per_epoch']:.2f}, {b['hours']:.0f}"
            for a, b in zip(one["hardware"], eight["hardware"], strict=True)
        ]
        lines.append(
            f"| `{recipe}` | {one['parameters'] / 1e6:.1f} M | {one['forward_gflop_per_clip']:.0f}, "
            f"{one['step_gflop_per_clip']:.0f} | {one['standing_gib']:.1f}, {one['gib_per_clip']:.2f} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


def errors(checks: list[dict[str, Any]]) -> str:
    lines = ["| network, clips | computed, MiB | measured, MiB | computed / measured |", "|---|---|---|---|"]
    lines += [
        f"| {one['network']} | {one['computed_mib']:.0f} | {one['measured_mib']:.0f} | "
        f"{one['computed_over_measured']:.2f} |"
        for one in checks
    ]
    return "\n".join(lines)


def replace_part(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    return text[: text.index(begin) + len(begin)] + table + text[text.index(end) :]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=int, metavar="CLIPS", help="measure steps of so many clips on this GPU")
    asked = parser.parse_args()
    if asked.gpu:
        if not torch.cuda.is_available():
            raise UserError("--gpu: there is none here that PyTorch can use")
        measured = {recipe: on_gpu(recipe, asked.gpu) for recipe in RECIPES}
        write_json(HERE / "gpu.json", measured)
        print(json.dumps(measured, indent=2))
        raise SystemExit
    found = {recipe: {"one": planned(recipe), "eight": planned(recipe, "--gpus", "8")} for recipe in RECIPES}
    found["modern-resnet50, recomputing"] = {
        "one": planned("modern-resnet50", "--engine.recompute", "true"),
        "eight": planned("modern-resnet50", "--engine.recompute", "true", "--gpus", "8"),
    }
    checks = []
    for architecture, clips, frames, side, recompute in CHECKS:
        again = ", recomputing" if recompute else ""
        named = {"network": f"{architecture}{again}, {clips} of {frames} x {side} x {side}"}
        checks.append(named | measured_peak(architecture, clips, frames, side, recompute))
    write_json(HERE / "results.json", {"machine": machine(), "recipes": found, "memory on the CPU": checks})
    docs = ROOT / "docs" / "recipes.md"
    text = replace_part(docs.read_text(encoding="utf-8"), "needs", needs(found))
    write_text(docs, replace_part(text, "errors", errors(checks)))
    print(needs(found), errors(checks), sep="\n\n")
