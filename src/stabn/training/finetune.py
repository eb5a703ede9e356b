"""Fine-tuning a network on people's edits of its temporal attention (Eqs. 5 and 6)."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything

from stabn.data.dataset import FrameScores, VideoDataset
from stabn.data.ground_truth import ClipTruth
from stabn.edits.changed_files import Changed, usable_clips
from stabn.edits.project import Project
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.files import is_first_process
from stabn.nn import has_attention
from stabn.records import Edit
from stabn.runs import Run, network_preprocessing
from stabn.training.correction import Finetuning
from stabn.training.datamodule import total_steps
from stabn.training.kept_features import with_features_of
from stabn.training.loggers import TrackingRecipe
from stabn.training.module import TrainingModule
from stabn.training.recipes import LoaderRecipe, NetworkRecipe, OptimizerRecipe
from stabn.training.spread import spread_to_alike, write_spread
from stabn.training.train import (
    build_data_module,
    build_datasets,
    build_network,
    check_can_train,
    class_weights,
    fit_run,
    shared_recipe_as_json,
)


def finetune(
    run: Run,
    project: Project,
    out: Path,
    how: Finetuning,
    *,
    control: bool,
    loader: LoaderRecipe,
    engine: EngineRecipe,
    use: str = "latest",
    where: Mapping[str, ClipTruth] | None = None,
    changed: Changed = "fail",
    tracking: TrackingRecipe = TrackingRecipe("none"),  # noqa: B008
) -> dict[str, Any]:
    """Train a run's network on all training clips and the project's edits (Eqs. 5 and 6).

    Clips without an edit contribute no L_temp. The control is not guided either: it is independent of the edits'
    scores.

    Args:
        run: the finished run to start from, with attention.
        project: made from that run's clips, with edits.
        out: the new run.
        how: how it is trained, as `choose_finetuning` has it for this run; a class balance of "auto" is the run's.
        control: the same training without L_temp.
        loader: how clips are read.
        engine: device, precision, processes.
        use: how several people's edits of a clip are merged, as in `stabn.edits.merge.merge_edits`.
        where: boxes by clip id, on which spatial attention is trained (our extension); frames without one are free.
        changed: what becomes of clips whose video is another file than was edited; keep uses their edits as they are.
        tracking: where metrics are logged.

    Returns:
        As `stabn.training.train.fit_run`, and "edits": the number of edited clips; "spread": of further clips that
        learnt from them, which spread.jsonl of the run lists.

    Raises:
        UserError: there are no edits, or none of the person in `use`; one is wrong or of a clip that the run was not
            trained on, or of another file than was edited; the run has no attention; or its sampling does not allow
            the views.
    """
    correction, augmentation, seed = how.correction, how.augmentation, how.seed
    optimizer = _with_class_balance_of(run, how.optimizer)
    model = run.model()
    if not has_attention(model):
        raise UserError(f"{run.folder}: is the plain network, which has no attention to correct; train ST-ABN")
    edits = project.edits(use)
    if not edits:
        raise UserError(f"{project.edits_file}: holds no edit; correct some clips first")
    tracking.check()
    check_can_train(engine, seed)
    table = run.table(model)
    training, names = table.of_split("train"), table.class_names
    labels = {sample.clip_id: sample.label for sample in training}
    _check_edits(edits, labels, project, run, model.frames)
    boxes = {clip_id: truth.boxes for clip_id, truth in (where or {}).items() if truth.boxes is not None}
    if where is not None and not set(boxes) & set(labels):
        raise UserError("--where: has no boxes of a training clip; give JSON lines with id and boxes")
    preprocessing = network_preprocessing(model, str(run.folder))
    edited = [clip for clip in project.clips if clip.clip_id in edits]
    usable = usable_clips(project, edited, {sample.clip_id: sample for sample in training}, preprocessing, changed)
    edits = {clip_id: edit for clip_id, edit in edits.items() if clip_id in usable}
    # A run whose extractor is frozen says how many views of a clip its kept features have.
    is_frozen = "views" in run.recipe
    loader = with_features_of(run, loader) if is_frozen else loader
    if correction.init == "scratch" and correction.freeze == "extractor" and not is_frozen:
        raise UserError(
            "correction.freeze: got extractor with init scratch, which has no trained extractor; give none, or a run "
            "that was trained with --network.freeze extractor"
        )
    if correction.init == "scratch" and "network" not in run.recipe:
        raise UserError(
            f"--correction.init: got scratch, but {run.folder} was not made by `stabn train`, so its initialisation is "
            "unknown; give checkpoint, or the run that it was fine-tuned from"
        )
    if correction.views == "any" and preprocessing.sampling.mode != "uniform":
        raise UserError(
            f"--correction.views: got any, but {run.folder} samples its clips densely, so that other frames may lie "
            "where nobody edited; give edited"
        )
    recipe = {
        "origin": str(run.folder.resolve()),
        "use": use,
        "edits": _sha256(sorted((edit.clip_id, edit.frame_indices, edit.scores) for edit in edits.values())),
        "gamma": how.gamma,
        "correction": asdict(correction),
        "where": _sha256(sorted(boxes.items())) if boxes else None,
        "control": control,
        **({"views": loader.views} if is_frozen else {}),
        **shared_recipe_as_json(augmentation, optimizer, loader, engine, tracking, seed),
    }
    origin: dict[str, Any] = {
        "origin": recipe["origin"],
        "edited": tuple(sorted(edits)),
        "edited_classes": tuple(names[k] for k in sorted({labels[clip_id] for clip_id in edits})),
    }
    scores = {edit.clip_id: FrameScores(edit.frame_indices, edit.scores) for edit in edits.values()}
    spread: dict[str, FrameScores] = {}
    lines: list[str] = []
    if correction.spread:
        plain = VideoDataset(training, preprocessing, class_names=names)
        spread, lines = spread_to_alike(run, model, plain, loader, scores)
    training_set, validation_set = build_datasets(
        table,
        preprocessing,
        augmentation,
        loader,
        seed,
        scores=spread | scores,
        vary_scored=correction.views == "any",
        boxes=boxes,
        grid=model.backbone.grid(preprocessing.crop),
        stored_views=loader.views if is_frozen else 0,
    )
    seed_everything(seed, verbose=False)
    if correction.init == "scratch":
        model = build_network(NetworkRecipe.from_json(run.recipe["network"]), preprocessing, names)
        assert has_attention(model)
    if correction.mechanism != "keep":
        model.mechanism = correction.mechanism
    module = TrainingModule(
        model,
        optimizer,
        total_steps=total_steps(len(training_set), optimizer),
        seed=seed,
        gamma=None if control else how.gamma,
        correction=replace(correction, guided=0.0) if control else correction,
        class_weights=class_weights(optimizer, training_set),
        frozen=model.extractor if is_frozen or correction.freeze == "extractor" else (),
    )
    data_module = build_data_module(training_set, validation_set, optimizer, loader)
    metrics = fit_run(module, data_module, out, run.source, recipe, engine, tracking, keep_features=is_frozen, **origin)
    if correction.spread and is_first_process():
        write_spread(out, lines)
    return metrics | {"edits": len(edits), "spread": len(spread)}


def _check_edits(
    edits: Mapping[str, Edit], training_ids: Collection[str], project: Project, run: Run, frames: int
) -> None:
    """Check that edits are of training clips, with as many scores as the network reads frames.

    Raises:
        UserError: one is not.
    """
    for clip_id, edit in edits.items():
        if clip_id not in training_ids:
            raise UserError(
                f"{project.edits_file}: clip {clip_id!r} is no training clip of {run.folder}; use its own edits"
            )
        if len(edit.scores) != frames:
            raise UserError(
                f"{project.edits_file}: clip {clip_id!r} has {len(edit.scores)} scores, but the network reads "
                f"{frames} frames; collect a project from {run.folder}"
            )


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _with_class_balance_of(run: Run, optimizer: OptimizerRecipe) -> OptimizerRecipe:
    """The recipe with the run's class balance in place of "auto"."""
    if optimizer.class_balance != "auto":
        return optimizer
    return replace(optimizer, class_balance=run.recipe.get("optimizer", {}).get("class_balance", "none"))


def differences_from_run(run: Run, how: Finetuning) -> list[str]:
    """The parts of a retraining from scratch that differ from the run's own training; if none, the run is its control.

    Empty for a training that continues from the run's checkpoint, and for a run without a training recipe, which
    `finetune` refuses.
    """
    if how.correction.init != "scratch" or "network" not in run.recipe:
        return []
    optimizer = _with_class_balance_of(run, how.optimizer)
    recipe = {"augmentation": asdict(how.augmentation), "optimizer": optimizer.as_json(), "seed": how.seed}
    differences = [key for key, value in recipe.items() if value != run.recipe.get(key)]
    if how.correction.views == "edited":
        differences.append("views")
    if how.correction.mechanism not in ("keep", NetworkRecipe.from_json(run.recipe["network"]).mechanism):
        differences.append("mechanism")
    return differences


def is_own_control(run: Run, how: Finetuning) -> bool:
    """Whether the run itself is what the same training without L_temp would give."""
    return how.correction.init == "scratch" and not differences_from_run(run, how)


def is_control_of(run: Run, finetuned: Run) -> bool:
    """Whether a run that was fine-tuned is a retraining of another one whose own training is its control."""
    recipe = finetuned.recipe
    if "correction" not in recipe or recipe.get("control") or finetuned.origin != str(run.folder.resolve()):
        return False
    parts = {name: recipe[name] for name in ("correction", "gamma", "augmentation", "optimizer", "seed")}
    correction = {"gamma_where": 5.0, **parts["correction"]}  # recipes of earlier versions may lack it
    return is_own_control(run, Finetuning.from_json({**parts, "correction": correction, "reason": ""}))
