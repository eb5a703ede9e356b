"""What is human knowledge worth? Edits of misrecognised training clips of the weakest classes, against every control.

    python -m benchmarks.human_knowledge --data words --table clips.csv --word colour --out runs/evidence
    python -m benchmarks.human_knowledge --data tabletop --out runs/evidence

Per seed: one ST-ABN; the training clips of the weakest classes that it got wrong (words: that networks which had not
seen them got wrong); the truth as edits; fine-tunings that differ in one thing each. "control" is the same fine-tuning
without L_temp. The second group lets the whole network learn, with a control of its own. Accuracy with the inverse of
the spatial attention (Eq. 7) is measured on all of them. With --curve also the number of edits and the noise in them;
with --gated what benchmarks.from_start adds, but for the first step: the gated mechanism and the balanced L_temp from
fine-tuning on, for as long as other fine-tunings ("gated") and for as long as the first training ("gated, long").
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.settings import (
    BALANCED,
    CURVES,
    GAMMA,
    build_parser,
    build_source,
    choose_setting,
    folder_name,
    get_edited_project,
    get_finetuned_run,
    get_trained_run,
    has_enough_clips,
    measure_run,
    run_seeds,
    write_report,
)
from stabn.training.recipes import PAPER_CORRECTION, CorrectionRecipe

PAPER = PAPER_CORRECTION
WHOLE = replace(PAPER, freeze="none", views="any")
GATED = replace(BALANCED, init="checkpoint", mechanism="gated")


@dataclass(frozen=True)
class Arm:
    """One fine-tuning: which edits, how they enter the network, and what it is judged against."""

    against: str = "control"
    edits: str = "truth"
    simulation: tuple[tuple[str, Any], ...] = ()
    correction: CorrectionRecipe = PAPER
    gamma: float = 20.0
    control: bool = False
    long: bool = False


ARMS = {
    "control": Arm("before", control=True),
    "edited": Arm(),
    "edits of other clips": Arm(edits="shuffled", simulation=(("shuffle", True),)),
    "every frame 1": Arm(edits="ones", simulation=(("constant", 1.0),)),
    "edits of recognised clips": Arm(edits="recognised"),
    "whole network: control": Arm("before", correction=WHOLE, control=True),
    "whole network: edited": Arm("whole network: control", correction=WHOLE),
}
CURVE = {
    name: Arm("whole network: control", edits, tuple(simulation.items()), WHOLE)
    for name, (edits, simulation) in CURVES.items()
}
FROM_HERE = {
    f"{name}: {kind}": Arm(against, correction=GATED, gamma=GAMMA, control=kind == "control", long=long)
    for name, long in (("gated", False), ("gated, long", True))
    for kind, against in (("control", "before"), ("edited", f"{name}: control"))
}


def one_seed(options: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    setting = choose_setting(options)
    source = build_source(options, folder, seed)
    before = get_trained_run(setting, folder / "before", source, seed)
    truth = get_edited_project(setting, before, "truth", seed)
    found = {"before": measure_run(before, options.split, truth.classes)}
    for name, arm in (ARMS | (CURVE if options.curve else {}) | (FROM_HERE if options.gated else {})).items():
        if options.arms and name not in options.arms:
            continue
        if not has_enough_clips(name, dict(arm.simulation).get("count"), truth):
            continue
        project = truth if arm.control else get_edited_project(setting, before, arm.edits, seed, **dict(arm.simulation))
        out = folder / folder_name(name)
        how = {"gamma": arm.gamma, "control": arm.control, "correction": arm.correction}
        optimizer = setting.optimizer if arm.long else setting.finetuning
        get_finetuned_run(setting, before, project, out, seed, optimizer, **how)
        found[name] = measure_run(out, options.split, truth.classes) | (
            {} if arm.control else {"edits": len(project.edits())}
        )
    return {"edited_classes": list(truth.classes), "edits": len(truth.clips), "methods": found}


if __name__ == "__main__":
    parser = build_parser(__doc__)
    parser.add_argument("--curve", action="store_true", help="also fewer edits, and edits with noise")
    parser.add_argument("--gated", action="store_true", help="also the gated mechanism from fine-tuning on")
    parser.add_argument("--epochs", type=int, help="of the first training")
    parser.add_argument("--folds", type=int, help="collect mistakes out of fold, of so many parts; words: 2")
    parser.add_argument("--arms", nargs="+", help="only these fine-tunings")
    options = parser.parse_args()
    results = run_seeds(options, lambda folder, seed: one_seed(options, folder, seed))
    against = {"before": "control"} | {name: arm.against for name, arm in (ARMS | CURVE | FROM_HERE).items()}
    write_report(options, __file__, results, against)
