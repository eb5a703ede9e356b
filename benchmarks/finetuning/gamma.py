"""Which gamma (Eq. 6), and does correcting help at all? Tabletop, several seeds, every run against a control.

    python -m benchmarks.finetuning.gamma --out runs/gamma --seeds 101 102 103

Per seed: a Tabletop of that seed, one ST-ABN, the misrecognised training clips of its weak classes, truth as edits, and
fine-tunings that differ in gamma alone; "control" leaves L_temp out. Done work is not repeated. Writes results.json
beside this file. The seeds are not those of the demo.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.settings import describe_machine
from benchmarks.tables import write_rows
from stabn.cli import data as data_verbs
from stabn.cli import edits as edit_verbs
from stabn.cli import evaluate as measuring_verbs
from stabn.cli import train as verbs
from stabn.data.annotations.source import DataSource
from stabn.evaluation.intervals import seed_interval
from stabn.runs import is_finished_run
from stabn.training.recipes import LoaderRecipe

GAMMAS = (1.0, 5.0, 30.0)


def one_seed(folder: Path, seed: int) -> dict[str, Any]:
    table, before, edits, cached = folder / "tabletop", folder / "before", folder / "edits", LoaderRecipe(cache=True)
    data_verbs.tabletop_command(table, seed=seed)
    if not is_finished_run(before):
        verbs.train_command(before, DataSource(str(table)), loader=cached, seed=seed)
    if not (edits / "project.json").exists():
        edit_verbs.collect_command(before, edits)
    edit_verbs.simulate_edits_command(edits, table / "truth.jsonl")
    runs = {"control": folder / "control"} | {f"gamma {gamma:g}": folder / f"gamma-{gamma:g}" for gamma in GAMMAS}
    for name, out in runs.items():
        if not is_finished_run(out):
            gamma = GAMMAS[0] if name == "control" else float(name.split()[1])
            verbs.finetune_command(
                before,
                edits,
                out,
                gamma=gamma,
                control=name == "control",
                loader=cached,
                seed=seed,
            )
    found = measuring_verbs.compare_command(
        [before, *runs.values()], control=runs["control"], truth=table / "truth.jsonl"
    )
    names = ["before", *runs]
    return {
        "seed": seed,
        "edited_classes": len(found["edited_classes"]),
        "edits": len((edits / "edits.jsonl").read_text().splitlines()),
        "methods": dict(zip(names, found["methods"], strict=True)),
    }


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean difference to the control over seeds, with a 95 % interval of the mean (Student's t)."""
    rows: dict[str, Any] = {}
    for name in results[0]["methods"]:
        rows[name] = {}
        for group in ("edited classes", "other classes", "all"):
            pairs = [(r["methods"][name][group], r["methods"]["control"][group]) for r in results]
            kept = [(a["top1"], b["top1"]) for a, b in pairs if a and b]
            change = [100 * (a - b) for a, b in kept]
            interval = seed_interval(change) if len(change) > 1 else None
            rows[name][group] = {
                "top1": round(100 * float(np.mean([a for a, _ in kept])), 2),
                "points_against_control": round(float(np.mean(change)), 2),
                "half_interval": round((interval.high - interval.low) / 2, 2) if interval else None,
            }
        rows[name]["frame_average_precision"] = round(
            float(np.mean([r["methods"][name]["frame_average_precision"] for r in results])), 3
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    arguments = parser.parse_args()
    results = [one_seed(arguments.out / str(seed), seed) for seed in arguments.seeds]
    found = {"seeds": arguments.seeds, "machine": describe_machine(), "summary": summary(results), "results": results}
    write_rows(Path(__file__).with_name("results.json"), found)
    print(json.dumps(found["summary"], indent=2))
