"""Does the attention branch raise accuracy? ST-ABN beside the plain 3D ResNet, same data, steps and seeds.

Also ST-ABN with the gated mechanism, in which nothing passes the temporal attention by.

    python -m benchmarks.attention --data words --table clips.csv --word colour --out runs/evidence
    python -m benchmarks.attention --data tabletop --out runs/evidence

Two depths, one clip and two clips per video (evenly placed windows, averaged scores).
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.settings import (
    build_parser,
    build_source,
    choose_setting,
    get_trained_run,
    measure_run,
    run_seeds,
    write_report,
)

KINDS: dict[str, dict[str, Any]] = {
    "ST-ABN": {},
    "gated ST-ABN": {"mechanism": "gated"},
    "3D ResNet": {"attention": False},
}
DEPTHS = {"words": ("fine", "fine-deep"), "tabletop": ("small", "small-deep")}


def one_seed(options: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    setting = choose_setting(options)
    source = build_source(options, folder, seed)
    found = {}
    for depth in options.architectures or DEPTHS[options.data]:
        for kind, network in KINDS.items():
            # The first depth's ST-ABN is the network that the other experiments start from.
            first = kind == "ST-ABN" and depth == setting.architecture
            run = folder / ("before" if first else f"{depth}-{kind.replace(' ', '-')}")
            get_trained_run(setting, run, source, seed, backbone=depth, **network)
            for clips in (1, 2):
                found[f"{kind}, {depth}, {clips} clip"] = measure_run(run, options.split, clips=clips)
    return {"methods": found}


if __name__ == "__main__":
    parser = build_parser(__doc__)
    parser.add_argument("--architectures", nargs="+", help="which depths; by default two")
    parser.add_argument("--epochs", type=int, help="of every training")
    options = parser.parse_args()
    results = run_seeds(options, lambda folder, seed: one_seed(options, folder, seed))
    names = list(results[0]["methods"])
    against = {name: f"3D ResNet,{name.partition(',')[2]}" for name in names if "ST-ABN" in name}
    write_report(options, __file__, results, against)
