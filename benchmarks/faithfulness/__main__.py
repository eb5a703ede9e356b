"""Is temporal attention a better explanation than CAM and Grad-CAM of the same network? Before and after edits.

    python -m benchmarks.faithfulness --data words --table clips.csv --word colour --out runs/evidence
    python -m benchmarks.faithfulness --data tabletop --out runs/evidence

On those networks of benchmarks.human_knowledge, benchmarks.attention ("gated") and benchmarks.from_start that have been
trained into the same --out; --runs says which of them. Areas under deletion and insertion curves over frames, and frame
average precision; per network the difference attention minus the other method, with t intervals over seeds. The other
method looks into the same network, or, where it is among --runs, into the plain 3D ResNet: what one has without ST-ABN.
Areas of two networks are compared minus those of random explanations, because a more confident network has larger ones.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.settings import ENGINE, SETTINGS, build_parser, run_seeds, write_report
from benchmarks.tables import BEYOND_RANDOM
from stabn.evaluation.attribution import methods_of
from stabn.evaluation.faithfulness import run_faithfulness
from stabn.files import read_json, write_json
from stabn.runs import is_finished_run, open_run

RUNS = {
    "before": "before",
    "control": "control",
    "edited": "edited",
    "whole network: control": "whole-network-control",
    "whole network: edited": "whole-network-edited",
    "gated": "{architecture}-gated-ST-ABN",
    "from the start: control": "from-start/control",
    "from the start: edited": "from-start/edited",
    "from the start: 3D ResNet": "from-start/3D-ResNet",
}
PLAIN = "from the start: 3D ResNet"
METHODS = ("attention", "cam", "grad-cam", "random")
BASELINES = ("blur", "freeze")


def measure_run(args: argparse.Namespace, run: Path) -> dict[str, dict[str, float]]:
    """Measures of one network by method; read from its folder if they were measured before."""
    file = run / f"faithfulness-{args.split}-{args.perturbed}.json"
    if not file.exists():
        opened = open_run(run)
        found = run_faithfulness(
            opened,
            args.split,
            methods=[method for method in METHODS if method in methods_of(opened.model())],
            baselines=BASELINES,
            steps=8,
            max_clips=args.perturbed,
            engine=ENGINE,
        )
        values: dict[str, dict[str, float]] = {}
        for method, measures in found["methods"].items():
            frames = measures["frames"]
            values[method] = {
                f"{direction}, {baseline}": frames[baseline][direction]["auc"]
                for direction in ("deletion", "insertion")
                for baseline in BASELINES
            }
            values[method]["frame AP"] = measures["truth"]["temporal"]["average_precision"]["mean"]
            values[method]["frame pointing"] = measures["truth"]["temporal"]["pointing"]["mean"]
        write_json(file, values)
    return read_json(file, remedy="remove it")


def measure_seed(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    found = {}
    for name in args.runs:
        run = folder / RUNS[name].format(architecture=SETTINGS[args.data].architecture)
        if not is_finished_run(run):
            print(f"{run}: {name} left out, not trained", file=sys.stderr)
            continue
        for method, values in measure_run(args, run).items():
            found[f"{name}, {method}"] = values
    return {"methods": found}


def compared(trained: set[str], other: str, network: str | None = None) -> dict[str, str]:
    """The attention of every network against another method of the same network, or of the one named, as far as both
    are among the networks and methods that were `trained`."""
    against = {f"{name}, attention": f"{network or name}, {other}" for name in RUNS}
    return {mine: theirs for mine, theirs in against.items() if {mine, theirs} <= trained}


if __name__ == "__main__":
    parser = build_parser(__doc__)
    parser.add_argument("--perturbed", type=int, default=40, help="number of clips that are perturbed")
    for option in ("--epochs", "--folds"):
        parser.add_argument(option, type=int, help="what benchmarks.from_start was given")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="only these networks")
    args = parser.parse_args()
    results = run_seeds(args, lambda folder, seed: measure_seed(args, folder))
    trained = {name for result in results for name in result["methods"]}
    against = {f"against {other}": compared(trained, other) for other in METHODS[1:]}
    for other in ("cam", "grad-cam"):
        for of in (f"against {other} of the 3D ResNet", f"against {other} of the 3D ResNet{BEYOND_RANDOM}"):
            against[of] = compared(trained, other, PLAIN)
    write_report(args, __file__, results, {title: rows for title, rows in against.items() if rows})
