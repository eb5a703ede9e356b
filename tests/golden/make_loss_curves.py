"""Make loss_curves.json: the losses of the first steps of training, for each kind of network and of loss.

    python tests/golden/make_loss_curves.py

A change of the mathematics (network, losses, optimizer, schedule) changes a curve; nothing else should. If one was
meant to change, run this again and say in the commit why. The curves rest on float64 arithmetic of a single thread,
plain SGD, and no random numbers of PyTorch: weights and clips come from NumPy's frozen legacy generator, and there is
no dropout. So they are the same to about 1e-12 in different versions of PyTorch and on different processors.

../reference/*.npz are not made by this script nor by this package: they are outputs of the authors' official ST-ABN
code, in float64, for the weights and clips of ../reference/formula_weights.py; the .json beside each has the layout.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from stabn.data.clip_batch import ClipBatch
from stabn.data.sampling import Sampling
from stabn.data.transforms import Preprocessing
from stabn.engine.config import EngineRecipe
from stabn.engine.trainer import build_trainer, silence_lightning
from stabn.nn import STABN, PlainNetwork, VideoNetwork
from stabn.training.module import TrainingModule
from stabn.training.recipes import PAPER_CORRECTION, CorrectionRecipe, OptimizerRecipe

sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))
from formula_weights import formula_tensor

FILE = Path(__file__).with_name("loss_curves.json")
STEPS, CLIPS, CLASSES, FRAMES, SIDE = 6, 6, 3, 4, 32
CASES: dict[str, dict[str, Any]] = {
    "plain 3D ResNet": {"network": PlainNetwork},
    "ST-ABN, paper": {"mechanism": "paper"},
    "ST-ABN, gated": {"mechanism": "gated"},
    "ST-ABN, gated-both": {"mechanism": "gated-both"},
    "ST-ABN, label smoothing, AdamW": {"optimizer": {"name": "adamw", "label_smoothing": 0.1, "learning_rate": 1e-3}},
    "edits: Eq. 6": {"gamma": 5.0},
    "edits: Eq. 6, frozen extractor": {"gamma": 5.0, "frozen": True},
    "edits: Eq. 6 and the spatial loss": {"gamma": 5.0, "maps": True},
    "edits: balanced, in time and space": {
        "gamma": 5.0,
        "maps": True,
        "correction": CorrectionRecipe(loss="balanced", gamma_where=5.0),
    },
}


def make_network(kind: type[VideoNetwork], **options: Any) -> VideoNetwork:
    """A tiny network with weights by formula, float64."""
    model = kind("tiny", CLASSES, FRAMES, dropout=0.0, **options)
    weights = {name: torch.from_numpy(formula_tensor(name, list(v.shape))) for name, v in model.state_dict().items()}
    model.load_state_dict(weights)
    return model.double()


def make_batch(step: int, maps: bool) -> ClipBatch:
    """A batch of noise that is brighter for higher classes; half of the clips have an edit."""
    random = np.random.RandomState(step)
    labels = np.arange(CLIPS) % CLASSES
    pixels = random.randint(0, 128, (CLIPS, 3, FRAMES, SIDE, SIDE)) + 60 * labels[:, None, None, None, None]
    has_edit = torch.arange(CLIPS) < CLIPS // 2
    important = torch.from_numpy(random.randint(0, 2, (CLIPS, FRAMES))).float()
    cells = torch.from_numpy(random.randint(0, 2, (CLIPS, FRAMES, SIDE // 16, SIDE // 16))).float()
    return ClipBatch(
        pixels=torch.from_numpy(pixels.astype(np.uint8)),
        labels=torch.from_numpy(labels),
        clip_ids=tuple(f"clip {n}" for n in range(CLIPS)),
        scores=important * has_edit[:, None],
        has_scores=has_edit,
        frame_indices=torch.arange(FRAMES).expand(CLIPS, FRAMES),
        timestamps=torch.arange(FRAMES).expand(CLIPS, FRAMES).double(),
        preprocessing=Preprocessing(Sampling("uniform", FRAMES), resize=SIDE, crop=SIDE),
        maps=cells if maps else None,
        has_maps=has_edit[:, None] & (important > 0) if maps else None,
    )


class _LossHistory(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, _batch: Any, _index: int) -> None:
        self.losses.append(float(outputs["loss"]))


def loss_curve(
    network: type[VideoNetwork] = STABN,
    mechanism: str | None = None,
    optimizer: dict[str, Any] | None = None,
    gamma: float | None = None,
    correction: CorrectionRecipe = PAPER_CORRECTION,
    maps: bool = False,
    frozen: bool = False,
) -> list[float]:
    """The loss of each training step."""
    model = make_network(network, **({} if mechanism is None else {"mechanism": mechanism}))
    recipe = OptimizerRecipe(**{"schedule": "cosine", "epochs": 1, "batch_size": CLIPS, **(optimizer or {})})
    module = TrainingModule(
        model,
        recipe,
        total_steps=STEPS,
        seed=0,
        gamma=gamma,
        correction=correction,
        frozen=model.extractor if frozen else (),
    )
    history = _LossHistory()
    engine = EngineRecipe("cpu", "1", precision="64-true", fast=False)
    module.configure_engine(engine)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with silence_lightning():
            trainer = build_trainer(engine, callbacks=[history], max_epochs=1, enable_checkpointing=False)
            batches = [make_batch(step, maps) for step in range(STEPS)]
            trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)
    return history.losses


if __name__ == "__main__":
    curves = {name: loss_curve(**case) for name, case in CASES.items()}
    FILE.write_text(json.dumps(curves, indent=2) + "\n")
