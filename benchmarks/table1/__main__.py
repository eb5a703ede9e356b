"""The systems of the paper's table 1 at small width under one protocol, plain and with ST-ABN's branch.

    python -m benchmarks.table1 --data tabletop --out runs/table1 --seeds 1 2 3
    python -m benchmarks.table1 --data words --table clips.csv --word colour --out runs/table1 --seeds 1 2 3

Same videos, frames, epochs and augmentation for all; random start, one clip, one centre crop, mirror images with their
classes exchanged. Measured are top-1, and how far it falls when the frames of every clip come in reverse order
("reversed drop": what a system knows of order); what ST-ABN's branch and Grad-CAM point at, where the truth is known;
parameters, and GFLOP of one clip. `stabn compare` takes the runs in the folder too.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.settings import (
    ENGINE,
    Setting,
    build_parser,
    build_source,
    choose_setting,
    folder_name,
    get_trained_run,
    measure_run,
    run_seeds,
    write_report,
)
from stabn.data.dataset import VideoDataset
from stabn.data.sampling import Sampling
from stabn.evaluation.attribution import ExplainedNetwork, clip_batches
from stabn.evaluation.localisation import measure_localisation
from stabn.files import read_json, write_json
from stabn.nn.backbones import backbone_class
from stabn.runs import network_preprocessing, open_run

SYSTEMS = {
    "TSN": "tsn_small",
    "TRN multiscale": "trn_small",
    "CPNet": "cpnet_tiny_basic",
    "TSM": "tsm_small",
    "STM": "stm_small",
    "GST": "gst_small",
    "ABM-C-in": "abm_c_in_small",
    "DFB-Net (our reading)": "dfb_our_reading_small",
    "bLVNet-TAM": "blvnet_tam_small",
    "SmallBig as released": "smallbig_small",
    "SmallBig with a temporal kernel (ours)": "smallbig_small_temporal",
    "PEM (our reading)": "pem_our_reading_small",
    "Zhou et al., S+ST": "zhou_small",
    "3D ResNet": "small",
    "SlowFast": "slowfast_small",
    "C3D": "c3d_small",
    "2D ABN": "abn2d_small",
}
"""Name -> base network, in the order of the paper's table; the last three are named in its text."""
MOST_FRAMES = {"TRN multiscale": 16}
"""Systems that take no more frames."""
BRANCH = ", with ST-ABN's branch"


def setting_of(setting: Setting, system: str) -> Setting:
    """The setting with as many frames as the system takes of the budget, in snippets where it reads those."""
    backbone = SYSTEMS[system]
    wanted = backbone_class(backbone).format_for(backbone, {})
    budget = min(setting.preprocessing.sampling.frames, MOST_FRAMES.get(system, 10**6))
    step = wanted.multiple_of if wanted.snippet == 1 else wanted.snippet
    mode = setting.preprocessing.sampling.mode if wanted.snippet == 1 else "segments"
    sampling = Sampling(mode, budget // step * step, snippet=wanted.snippet)
    return replace(setting, preprocessing=replace(setting.preprocessing, sampling=sampling))


def one_seed(options: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    setting = choose_setting(options)
    source = build_source(options, folder, seed)
    found = {}
    for system in options.systems or SYSTEMS:
        kinds: dict[str, Mapping[str, Any]] = {"": {"attention": False}, BRANCH: {"mechanism": options.mechanism}}
        for kind, network in kinds.items():
            name = system + kind
            run = get_trained_run(
                setting_of(setting, system),
                folder / folder_name(name),
                source,
                seed,
                backbone=SYSTEMS[system],
                **network,
            )
            found[name] = measure_run(run, options.split) | measure_order_and_place(run, options.split)
    return {"methods": found}


def measure_order_and_place(folder: Path, split: str) -> dict[str, float]:
    """What `measure_run` does not: the fall in reverse order, where Grad-CAM points, parameters and cost."""
    file = folder / f"table1-{split}.json"
    if file.exists():
        return read_json(file, remedy="remove it")
    run = open_run(folder)
    model = run.model()
    table = run.table(model)
    dataset = VideoDataset(
        table.of_split(split), network_preprocessing(model, str(folder)), class_names=table.class_names
    )
    network = ExplainedNetwork.of(model, ENGINE)
    right = torch.zeros(2)
    with torch.inference_mode(), network.precision():
        for batch in clip_batches(dataset, range(len(dataset)), batch_size=16, workers=0, desc="reversed"):
            clips_bcthw = network.clips(batch)
            for way, ordered_bcthw in enumerate((clips_bcthw, clips_bcthw.flip(2))):
                answers = network.model(ordered_bcthw).logits.argmax(1).cpu()
                right[way] += int((answers == batch.labels).sum())
    found = {"reversed drop": 100 * float(right[0] - right[1]) / len(dataset)}
    if table.truth:
        located = measure_localisation(network, dataset, table.truth, ["grad-cam"]) or {}
        if (in_space := located.get("grad-cam", {}).get("spatial")) is not None:
            found["Grad-CAM pointing"] = in_space["pointing"]["mean"]
    found["parameters / 1000"] = sum(value.numel() for value in model.parameters()) / 1e3
    crop = dataset.preprocessing.crop
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, model.frames, crop, crop))
    found["GFLOP"] = counter.get_total_flops() / 1e9
    found = {name: round(value, 4) for name, value in found.items()}
    write_json(file, found)
    return found


if __name__ == "__main__":
    parser = build_parser(__doc__)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), help="which; by default all")
    parser.add_argument("--epochs", type=int, help="of every training")
    parser.add_argument("--mechanism", default="gated", choices=["paper", "gated", "gated-both"], help="of the branch")
    parser.set_defaults(seeds=[1, 2, 3])
    options = parser.parse_args()
    results = run_seeds(options, lambda folder, seed: one_seed(options, folder, seed))
    names = list(results[0]["methods"])
    against = {name: name.removesuffix(BRANCH) for name in names if name.endswith(BRANCH)}
    write_report(options, __file__, results, against)
