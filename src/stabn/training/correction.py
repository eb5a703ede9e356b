"""What a fine-tuning is where nobody says otherwise: one place for `stabn finetune`, the studio and the demo.

Edits given from the first step of training raise accuracy; the same edits given to a finished network move its
attention, and its accuracy no more than longer training does (docs/results.md). So a network is trained again with its
edits wherever that takes minutes: where its extractor is frozen, on the kept features, or where its own training was
short. The run is then its own control.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from stabn.data.sampling import Sampling
from stabn.data.transforms import Augmentation
from stabn.errors import UserError
from stabn.runs import Run
from stabn.training.recipes import (
    SMALL_AUGMENTATION,
    SMALL_FINETUNING,
    CorrectionRecipe,
    OptimizerRecipe,
)

RETRAIN_WITHIN = 3600.0
"""Seconds: a network whose training took no longer is trained again."""
GAMMA = {"squared": 5.0, "balanced": 10.0, "cross-entropy": 5.0}
"""Weight of L_temp (Eq. 6) by its form; docs/finetuning.md and docs/results.md have the measurements."""
GAMMA_WHERE = {"squared": 5.0, "balanced": 100.0, "cross-entropy": 5.0}
"""The same of the loss in space."""
FINETUNING_SHARE, FINETUNING_EPOCHS = 0.3, 10
"""A finished network is fine-tuned for that share of its training's epochs, and for no more than the paper's ten."""


@dataclass(frozen=True)
class Finetuning:
    """All choices of a fine-tuning.

    Attributes:
        correction: how the network learns from edits; nothing is auto.
        gamma: weight of L_temp (Eq. 6), above 0.
        augmentation: how training clips are varied.
        optimizer: optimizer, schedule and batches.
        seed: for initialisation, batch order, augmentation and dropout.
        reason: one sentence: what is done, and why.
    """

    correction: CorrectionRecipe
    gamma: float
    augmentation: Augmentation
    optimizer: OptimizerRecipe
    seed: int
    reason: str

    def __post_init__(self) -> None:
        if not 0 < self.gamma < float("inf"):
            raise UserError(f"--gamma: got {self.gamma}, expected a number above 0; --control leaves L_temp out")
        if left := [name for name, value in asdict(self.correction).items() if value in ("auto", None)]:
            raise ValueError(f"correction: got auto for {', '.join(left)}, expected a choice")

    def as_json(self) -> dict[str, Any]:
        """The choices as JSON values."""
        return asdict(self) | {"optimizer": self.optimizer.as_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Finetuning":
        """What `as_json` wrote."""
        parts = {
            "correction": CorrectionRecipe(**value["correction"]),
            "augmentation": Augmentation(**value["augmentation"]),
            "optimizer": OptimizerRecipe.from_json(value["optimizer"]),
        }
        return cls(**{**value, **parts})


def choose_finetuning(
    run: Run,
    correction: CorrectionRecipe = CorrectionRecipe(),  # noqa: B008
    gamma: float | None = None,
) -> Finetuning:
    """The fine-tuning of a run: what `correction` and `gamma` leave open is chosen by what the run is.

    Augmentation, optimizer, batches, class balance and seed are those of the run. With init scratch that makes the run
    the control of its fine-tuning; with init checkpoint the last learning rate of a step schedule goes on, and there
    are fewer epochs.

    Raises:
        UserError: gamma is out of range, or the run's network has no preprocessing.
    """
    init: Literal["checkpoint", "scratch"]
    if correction.init == "auto":
        init, reason = _choose_init(run)
    else:
        init, reason = correction.init, _TEXT[correction.init]
    scratch = init == "scratch"
    chosen = replace(
        correction,
        init=init,
        freeze=("none" if scratch else "extractor") if correction.freeze == "auto" else correction.freeze,
        loss=("balanced" if scratch else "squared") if correction.loss == "auto" else correction.loss,
        views=_choose_views(run, scratch) if correction.views == "auto" else correction.views,
    )
    if chosen.gamma_where is None:
        chosen = replace(chosen, gamma_where=GAMMA_WHERE[chosen.loss])
    recipe = run.recipe
    optimizer = OptimizerRecipe.from_json(recipe["optimizer"]) if "optimizer" in recipe else SMALL_FINETUNING
    if not scratch and "optimizer" in recipe:
        optimizer = _continued(optimizer)
    return Finetuning(
        chosen,
        GAMMA[chosen.loss] if gamma is None else gamma,
        Augmentation(**recipe["augmentation"]) if "augmentation" in recipe else SMALL_AUGMENTATION,
        optimizer,
        recipe.get("seed", 0),
        reason,
    )


_TEXT = {
    "scratch": "trains again from the run's start, with the edits from the first step",
    "checkpoint": (
        "continues from the run's weights (the paper's form), which moves the attention rather than the accuracy"
    ),
}


def _choose_init(run: Run) -> tuple[Literal["checkpoint", "scratch"], str]:
    if "network" not in run.recipe:
        return "checkpoint", f"{_TEXT['checkpoint']}, because how the run's network began is not known"
    if "views" in run.recipe:
        return "scratch", f"{_TEXT['scratch']}, on the kept features of the frozen extractor"
    if run.seconds is None:
        return "checkpoint", (
            f"{_TEXT['checkpoint']}, because how long the run's training took is not known; --correction.init scratch "
            "trains again"
        )
    minutes = f"its training took {run.seconds / 60:.0f} minutes"
    if run.seconds <= RETRAIN_WITHIN:
        return "scratch", f"{_TEXT['scratch']} ({minutes})"
    return "checkpoint", f"{_TEXT['checkpoint']} ({minutes}); --correction.init scratch trains again"


def _choose_views(run: Run, scratch: bool) -> Literal["edited", "any"]:
    if not scratch:
        return "edited"
    return "any" if Sampling(**run.recipe["preprocessing"]["sampling"]).mode == "uniform" else "edited"


def _continued(optimizer: OptimizerRecipe) -> OptimizerRecipe:
    """The optimizer of a training for one that goes on from its weights."""
    epochs = max(1, min(FINETUNING_EPOCHS, round(FINETUNING_SHARE * optimizer.epochs)))
    if optimizer.schedule != "step":
        return replace(optimizer, epochs=epochs)
    passed = sum(milestone < optimizer.epochs for milestone in optimizer.milestones)
    rate = optimizer.learning_rate * 0.1**passed
    return replace(optimizer, epochs=epochs, schedule="constant", learning_rate=rate, milestones=())
