"""Edits from the first step of training: what are they worth to a network that they help to find the moment?

    python -m benchmarks.from_start --data words --table clips.csv --word colour --out runs/from-start
    python -m benchmarks.from_start --data tabletop --out runs/from-start

Per seed: a gated ST-ABN ("control"); the training clips of its weakest classes that it got wrong (words: that networks
which had not seen them got wrong); the truth as edits; and the same training again, from the same random weights in the
same order, with L_temp in its balanced form. `stabn finetune --correction.init scratch` without L_temp gives the
control bit by bit, so it is not trained twice. "3D ResNet" and "ST-ABN, paper" are trained alike, without edits.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.settings import (
    BALANCED,
    CURVES,
    GAMMA,
    WHERE,
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
    write_boxes,
    write_report,
)
from stabn.nn.stabn import MECHANISMS
from stabn.training.recipes import CorrectionRecipe

Arms = dict[str, tuple[str, dict[str, Any], CorrectionRecipe, float]]
EDITED: Arms = {
    "edited": ("truth", {}, BALANCED, GAMMA),
    "edits of other clips": ("shuffled", {"shuffle": True}, BALANCED, GAMMA),
    "every frame 1": ("ones", {"constant": 1.0}, BALANCED, GAMMA),
    "edits of recognised clips": ("recognised", {}, BALANCED, GAMMA),
    "edited, guided": ("truth", {}, replace(BALANCED, guided=0.5), GAMMA),
    "edited, squared": ("truth", {}, replace(BALANCED, loss="squared"), 20.0),
    "edited, cross-entropy": ("truth", {}, replace(BALANCED, loss="cross-entropy"), 5.0),
    "edited, paper's mechanism": ("truth", {}, replace(BALANCED, mechanism="paper"), GAMMA),
}
"""By name: which edits, how they are simulated, how they enter the network, and gamma."""
BOXED: Arms = {"edited, also where": ("truth", {}, WHERE, GAMMA)}
"""Of Tabletop, whose truth has boxes: the edits also say where to look."""
CURVE: Arms = {name: (edits, simulation, BALANCED, GAMMA) for name, (edits, simulation) in CURVES.items()}
SPREAD: Arms = {
    f"{name}, spread": (*CURVES[name], replace(BALANCED, spread=True), GAMMA)
    for name in ("5 edits", "10 edits", "25 edits", "50 edits")
}
"""Few edits that also teach training clips of their class that are alike."""
LEARNT = EDITED | CURVE | SPREAD | BOXED
PLAIN: dict[str, dict[str, Any]] = {"3D ResNet": {"attention": False}, "ST-ABN, paper": {}}
"""Without edits; "3D ResNet" is the plain base network, with --pretrained the frozen one and its head."""
AGAINST = (
    {"control": "3D ResNet", "ST-ABN, paper": "3D ResNet"}
    | {name: "ST-ABN, paper" if "mechanism" in name else "control" for name in EDITED | CURVE}
    | {name: name.removesuffix(", spread") for name in SPREAD}
    | dict.fromkeys(BOXED, "edited")
)


def one_seed(options: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    setting = choose_setting(options, from_start=True)
    source = build_source(options, folder, seed)
    folder = folder / "from-start"
    control = get_trained_run(setting, folder / "control", source, seed, mechanism=options.mechanism or "gated")
    truth = get_edited_project(setting, control, "truth", seed)
    found = {"control": measure_run(control, options.split, truth.classes)}
    for name in options.arms:
        out = folder / folder_name(name)
        if name in PLAIN:
            get_trained_run(setting, out, source, seed, **PLAIN[name])
            found[name] = measure_run(out, options.split, truth.classes)
            continue
        which, simulation, correction, gamma = LEARNT[name]
        if not has_enough_clips(name, simulation.get("count"), truth):
            continue
        project = get_edited_project(setting, control, which, seed, **simulation)
        where = write_boxes(project, folder.parent / "tabletop") if name in BOXED else None
        how = {"gamma": gamma, "correction": correction, "where": where}
        get_finetuned_run(setting, control, project, out, seed, setting.optimizer, **how)
        found[name] = measure_run(out, options.split, truth.classes) | {"edits": len(project.edits())}
    return {"edited_classes": list(truth.classes), "edits": len(truth.clips), "methods": found}


if __name__ == "__main__":
    parser = build_parser(__doc__)
    every = list(PLAIN | LEARNT)
    parser.add_argument("--arms", nargs="+", choices=every, default=list(PLAIN | EDITED))
    parser.add_argument("--curve", action="store_true", help="also fewer edits, and edits with noise")
    parser.add_argument("--against", default="control", help='what "edited" is judged against')
    parser.add_argument("--epochs", type=int, help="of every training")
    parser.add_argument("--mechanism", choices=MECHANISMS, help="of the control and all with edits; gated")
    parser.add_argument("--pretrained", action="store_true", help="a frozen EfficientNet-Lite0, its features kept")
    parser.add_argument("--folds", type=int, help="collect mistakes out of fold, of so many parts; words: 2")
    options = parser.parse_args()
    if options.data != "tabletop" and (boxed := [name for name in options.arms if name in BOXED]):
        parser.error(f"--arms: got {', '.join(boxed)}, but only Tabletop's truth has boxes")
    options.arms += [name for name in CURVE if options.curve and name not in options.arms]
    results = run_seeds(options, lambda folder, seed: one_seed(options, folder, seed))
    write_report(options, __file__, results, AGAINST | {"edited": options.against})
