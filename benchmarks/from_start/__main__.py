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
    arguments,
    boxes_of,
    edited,
    enough,
    finetuned,
    folder_name,
    measured,
    per_seed,
    report,
    setting_of,
    source_of,
    trained,
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
LEARNT = EDITED | CURVE | BOXED
PLAIN: dict[str, dict[str, Any]] = {"3D ResNet": {"attention": False}, "ST-ABN, paper": {}}
AGAINST = (
    {"control": "3D ResNet", "ST-ABN, paper": "3D ResNet"}
    | {name: "ST-ABN, paper" if "mechanism" in name else "control" for name in EDITED | CURVE}
    | dict.fromkeys(BOXED, "edited")
)


def one_seed(asked: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    setting = setting_of(asked, from_start=True)
    source = source_of(asked, folder, seed)
    folder = folder / "from-start"
    control = trained(setting, folder / "control", source, seed, mechanism=asked.mechanism or "gated")
    truth = edited(setting, control, "truth", seed)
    found = {"control": measured(control, asked.split, truth.classes)}
    for name in asked.arms:
        out = folder / folder_name(name)
        if name in PLAIN:
            trained(setting, out, source, seed, **PLAIN[name])
            found[name] = measured(out, asked.split, truth.classes)
            continue
        which, simulation, correction, gamma = LEARNT[name]
        if not enough(name, simulation.get("count"), truth):
            continue
        project = edited(setting, control, which, seed, **simulation)
        where = boxes_of(project, folder.parent / "tabletop") if name in BOXED else None
        how = {"gamma": gamma, "correction": correction, "where": where}
        finetuned(setting, control, project, out, seed, setting.optimizer, **how)
        found[name] = measured(out, asked.split, truth.classes) | {"edits": len(project.edits())}
    return {"edited_classes": list(truth.classes), "edits": len(truth.clips), "methods": found}


if __name__ == "__main__":
    parser = arguments(__doc__)
    every = list(PLAIN | LEARNT)
    parser.add_argument("--arms", nargs="+", choices=every, default=list(PLAIN | EDITED))
    parser.add_argument("--curve", action="store_true", help="also fewer edits, and edits with noise")
    parser.add_argument("--against", default="control", help='what "edited" is judged against')
    parser.add_argument("--epochs", type=int, help="of every training")
    parser.add_argument("--mechanism", choices=MECHANISMS, help="of the control and all with edits; gated")
    parser.add_argument("--folds", type=int, help="collect mistakes out of fold, of so many parts; words: 2")
    asked = parser.parse_args()
    if asked.data != "tabletop" and (boxed := [name for name in asked.arms if name in BOXED]):
        parser.error(f"--arms: got {', '.join(boxed)}, but only Tabletop's truth has boxes")
    asked.arms += [name for name in CURVE if asked.curve and name not in asked.arms]
    results = per_seed(asked, lambda folder, seed: one_seed(asked, folder, seed))
    report(asked, __file__, results, AGAINST | {"edited": asked.against})
