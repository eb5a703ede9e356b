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
    arguments,
    measured,
    per_seed,
    report,
    setting_of,
    source_of,
    trained,
)

KINDS: dict[str, dict[str, Any]] = {
    "ST-ABN": {},
    "gated ST-ABN": {"mechanism": "gated"},
    "3D ResNet": {"attention": False},
}
DEPTHS = {"words": ("fine", "fine-deep"), "tabletop": ("small", "small-deep")}


def one_seed(asked: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    setting = setting_of(asked)
    source = source_of(asked, folder, seed)
    found = {}
    for depth in asked.architectures or DEPTHS[asked.data]:
        for kind, network in KINDS.items():
            # The first depth's ST-ABN is the network that the other experiments start from.
            first = kind == "ST-ABN" and depth == setting.architecture
            run = folder / ("before" if first else f"{depth}-{kind.replace(' ', '-')}")
            trained(setting, run, source, seed, architecture=depth, **network)
            for clips in (1, 2):
                found[f"{kind}, {depth}, {clips} clip"] = measured(run, asked.split, clips=clips)
    return {"methods": found}


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--architectures", nargs="+", help="which depths; by default two")
    parser.add_argument("--epochs", type=int, help="of every training")
    asked = parser.parse_args()
    results = per_seed(asked, lambda folder, seed: one_seed(asked, folder, seed))
    names = list(results[0]["methods"])
    against = {name: f"3D ResNet,{name.partition(',')[2]}" for name in names if "ST-ABN" in name}
    report(asked, __file__, results, against)
