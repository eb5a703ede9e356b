"""How many edits does it take to unlearn a planted shortcut, in time and in space?

    python -m benchmarks.shortcut --data tabletop --where time --out runs/evidence
    python -m benchmarks.shortcut --data tabletop --where space --out runs/evidence
    python -m benchmarks.shortcut --data tabletop --where time --init scratch --out runs/evidence

In training clips a mark's colour tells the class; in validation clips it tells another one; "clean" are the same clips
without it. `time` puts the mark into frames that do not matter: edits are the truth of when. `space` puts it beside the
object while the act goes on: edits are also the truth of where (boxes of the handled object, our extension). Edited are
training clips of all classes that the network "recognises". "told" is the share of answers that are the mark's class.
With `--init scratch` the edits take part from the first step of the same training, as in benchmarks.from_start, and
"control" is the network that learnt without them: `gated`, in space `gated-both`. Else that network, by the paper's
mechanism, is fine-tuned, with edits and ("control") without.
"""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.settings import (
    BALANCED,
    ENGINE,
    GAMMA,
    SETTINGS,
    WHERE,
    build_parser,
    build_source,
    get_finetuned_run,
    get_trained_run,
    measure_run,
    run_seeds,
    write_boxes,
    write_report,
)
from stabn.cli import edits as edit_verbs
from stabn.data.annotations.source import DataSource
from stabn.edits.project import open_project
from stabn.evaluation.predict import predict_split
from stabn.files import read_json, write_json
from stabn.runs import open_run
from stabn.training.recipes import PAPER_CORRECTION

COUNTS = (10, 50, 200)
LATER = replace(PAPER_CORRECTION, mechanism="gated", freeze="none", views="any")


def looked_at(run: Path, table: Path, split: str) -> dict[str, float]:
    """Accuracy with misleading marks and without any, and how often the answer is what the mark says."""
    found = measure_run(run, split)
    file = run / f"shortcut-{split}.json"
    if not file.exists():
        answers, names = predict_split(open_run(run), split, engine=ENGINE)
        lines = (table / "truth.jsonl").read_text(encoding="utf-8").splitlines()
        marks = {entry["id"]: entry["mark_class"] for entry in map(json.loads, lines)}
        told = [marks[clip_id] == names[k] for clip_id, k in zip(answers.clip_ids, answers.predicted, strict=True)]
        clean, _ = predict_split(open_run(run, DataSource(str(table / "clean"))), "validation", engine=ENGINE)
        write_json(file, {"told": 100 * float(np.mean(told)), "clean": 100 * float(clean.correct.mean())})
    return found | read_json(file, remedy="remove it")


def one_seed(options: Namespace, folder: Path, seed: int) -> dict[str, Any]:
    # Mirrored clips exchange left and right, and the mark's colour would not follow.
    setting = SETTINGS[options.data]
    setting = replace(setting, augmentation=replace(setting.augmentation, flip=False))
    folder = folder / f"shortcut-{options.where}"
    source = build_source(options, folder, seed, shortcut=options.where)
    table = folder / "tabletop"
    how: dict[str, Any]
    if options.init == "scratch":
        folder = folder / "from-start"
        setting = setting.lasting(options.epochs or setting.epochs)
        correction, mechanism = (WHERE, "gated-both") if options.where == "space" else (BALANCED, "gated")
        how = {"optimizer": setting.optimizer, "gamma": GAMMA, "correction": correction}
        before = get_trained_run(setting, folder / "before", source, seed, mechanism=mechanism)
        found, counts = {"control": looked_at(before, table, options.split)}, options.counts
    else:
        how = {"optimizer": setting.finetuning, "gamma": 20.0, "correction": LATER}
        before = get_trained_run(setting, folder / "before", source, seed)
        found, counts = {"before": looked_at(before, table, options.split)}, (0, *options.counts)
    for count in counts:
        edits = folder / f"edits-{count or options.counts[-1]}"
        if not (edits / "project.json").exists():
            edit_verbs.collect_command(before, edits, weakest=14, recognised=True, engine=ENGINE)
        edit_verbs.simulate_edits_command(edits, count=count or options.counts[-1], seed=seed)
        project = open_project(edits)
        where = write_boxes(project, table) if options.where == "space" else None
        out = folder / (f"edited-{count}" if count else "control")
        get_finetuned_run(setting, before, project, out, seed, control=not count, where=where, **how)
        found[f"{count} edits" if count else "control"] = looked_at(out, table, options.split)
    return {"methods": found}


if __name__ == "__main__":
    parser = build_parser(__doc__)
    parser.add_argument("--where", choices=("time", "space"), required=True)
    parser.add_argument(
        "--init", choices=("checkpoint", "scratch"), default="checkpoint", help="of the edited training"
    )
    parser.add_argument("--epochs", type=int, help="of every training with --init scratch")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="how many clips are edited")
    options = parser.parse_args()
    if options.data != "tabletop":
        parser.error("--data: marks are planted in tabletop only")
    if options.epochs and options.init != "scratch":
        parser.error("--epochs: is for --init scratch; fine-tuning has its own")
    options.variant = f"-{options.where}" + ", from the start" * (options.init == "scratch")
    results = run_seeds(options, lambda folder, seed: one_seed(options, folder, seed))
    against = {} if options.init == "scratch" else {"before": "control"}
    against |= {f"{count} edits": "control" for count in options.counts}
    write_report(options, __file__, results, against)
