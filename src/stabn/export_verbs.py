"""The verbs that look beyond this machine; as in `stabn.verbs`, parameters and docstring are options and help."""

from pathlib import Path
from typing import Any, Literal

from stabn.data.sampling import Sampling
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.errors import UserError
from stabn.exporting import EXPORT_FORMAT, Input, check_export
from stabn.exporting import export as export_network
from stabn.nn import load_pretrained
from stabn.pace import EngineRecipe
from stabn.planning import GIB, GPUS, SOMETHING_V2
from stabn.planning import plan as plan_training
from stabn.runs import DataSource, open_run
from stabn.tables import print_table
from stabn.tracking import TrackingRecipe
from stabn.training.recipes import (
    SMALL_AUGMENTATION,
    SMALL_OPTIMISER,
    LoaderRecipe,
    NetworkRecipe,
    OptimiserRecipe,
)


def export(
    run: Path, out: Path, input: Input = "float32", batch: Literal["dynamic"] | int = "dynamic"
) -> dict[str, Any]:
    """Write a run's network as one file for other programs, and compare its answers with the network's own.

    FILE.onnx is for ONNX Runtime and its like, FILE.pt2 for PyTorch (torch.export). Both give logits, and of a network
    with attention attention_logits, temporal_attention and spatial_attention; class names and how clips are prepared
    travel in the file. docs/export.md has a program that uses one.

    Args:
        run: a run, or any folder with config.json and model.safetensors.
        out: the file to write; ends in .onnx or .pt2.
        input: what the file takes: float32 clips (B, 3, T, H, W), normalised; or uint8 frames (B, T, H, W, 3), RGB, of
            which the file takes care itself.
        batch: clips per call; dynamic for any number.
    """
    clips = None if batch == "dynamic" else batch
    check_export(out, clips)
    model = load_pretrained(run)
    opened = open_run(run) if (run / "run.json").exists() else None
    exported = export_network(model, out, source=str(run), wanted=input, batch=clips, run=opened)
    rows = [
        (name, " x ".join(str(side) for side in ("B", *shape)), f"{exported.differences[name]:.1e}")
        for name, shape in exported.outputs.items()
    ]
    print_table(("output", "shape", "largest difference"), rows)
    shape = " x ".join("B" if side is None else str(side) for side in exported.shape)
    print(f"compared with the network's own answers on {exported.checked_on}")
    print(f"{out}: takes {input} {exported.name}, {shape}")
    return {
        "format": EXPORT_FORMAT,
        "file": str(out),
        "input": {"name": exported.name, "type": input, "shape": list(exported.shape)},
        "outputs": [
            {"name": name, "shape": [exported.shape[0], *shape], "largest_difference": exported.differences[name]}
            for name, shape in exported.outputs.items()
        ],
        "compared_on": exported.checked_on,
    }


def plan(
    data: DataSource | None = None,
    clips: int | None = None,
    classes: int | None = None,
    gpus: int = 1,
    preprocessing: Preprocessing = Preprocessing(Sampling("uniform", 16), resize=63, crop=56),  # noqa: B008
    network: NetworkRecipe = NetworkRecipe(dropout=0.1),  # noqa: B008
    augmentation: Augmentation = SMALL_AUGMENTATION,
    optimiser: OptimiserRecipe = SMALL_OPTIMISER,
    loader: LoaderRecipe = LoaderRecipe(),  # noqa: B008
    engine: EngineRecipe = EngineRecipe(),  # noqa: B008
    tracking: TrackingRecipe = TrackingRecipe(),  # noqa: B008
    seed: int = 0,
) -> dict[str, Any]:
    """Tell what a training would need on GPUs that are not here: memory, hours, and how many clips fit.

    Give it the recipe and the options of `stabn train`. Nothing is trained or measured: docs/recipes.md says what is
    computed, what is assumed, and what is left out.

    Args:
        data: the labelled videos, to count training clips and classes.
        clips: training clips; by default those of the data, or Something-Something v2's.
        classes: likewise.
        gpus: how many GPUs share each batch.
        preprocessing: how videos become clips.
        network: which network.
        augmentation: as for `stabn train`; says nothing here, and so do loader, tracking and seed.
        optimiser: how weights move.
        loader: see augmentation.
        engine: in which precision it runs, and whether it computes activations again.
        tracking: see augmentation.
        seed: see augmentation.
    """
    for name, count, least in (("clips", clips, 1), ("classes", classes, 2), ("gpus", gpus, 1)):
        if count is not None and count < least:
            raise UserError(f"--{name}: got {count}, expected at least {least}")
    if gpus > optimiser.batch_size:
        raise UserError(f"--gpus: got {gpus}, but a batch has only {optimiser.batch_size} clips to share; take fewer")
    known = SOMETHING_V2
    if data is not None:
        table = data.table()
        known = len(table.of_split("train")), len(table.class_names)
    clips, classes = clips or known[0], classes or known[1]
    engine = engine.settled()
    found = plan_training(network, preprocessing, optimiser, engine, classes=classes, gpus=gpus)
    step, frames = found.step, preprocessing.sampling.frames
    print(
        f"{network.architecture}, {frames} x {preprocessing.crop} x {preprocessing.crop}, {engine.precision}: "
        f"{found.parameters / 1e6:.1f} million parameters, {found.forward_flop / 1e9:.0f} GFLOP per clip asked, "
        f"{step.flop / step.clips / 1e9:.0f} learnt"
    )
    print(
        f"a step of {step.clips} clips per GPU: {step.peak / GIB:.1f} GiB, of which {step.standing / GIB:.1f} stay; "
        f"{found.clip_bytes / GIB:.2f} GiB more with each clip\n"
    )
    hardware = [
        {
            "gpu": gpu.name,
            "memory_gib": gpu.memory,
            "clips_that_fit": found.fits(gpu),
            "hours_per_epoch": found.hours(gpu, clips) / gpus,
            "hours": found.hours(gpu, clips) / gpus * optimiser.epochs,
        }
        for gpu in GPUS
    ]
    rows = [(h["gpu"], h["clips_that_fit"], f"{h['hours_per_epoch']:.2f}", f"{h['hours']:.0f}") for h in hardware]
    on = "one GPU" if gpus == 1 else f"{gpus} GPUs"
    heading = ("GPU", "clips that fit on one", f"hours per epoch on {on}", f"hours of {optimiser.epochs} epochs")
    print_table(heading, rows)
    print(f"for {clips} training clips; computed, not measured: docs/recipes.md")
    return {
        "format": "stabn-plan/1",
        "parameters": found.parameters,
        "forward_gflop_per_clip": found.forward_flop / 1e9,
        "step_gflop_per_clip": step.flop / step.clips / 1e9,
        "clips_per_gpu": step.clips,
        "peak_gib": step.peak / GIB,
        "standing_gib": step.standing / GIB,
        "gib_per_clip": found.clip_bytes / GIB,
        "clips": clips,
        "gpus": gpus,
        "hardware": hardware,
    }
