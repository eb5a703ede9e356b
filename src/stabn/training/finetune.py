"""Putting people's corrections into a network (Eqs. 5 and 6)."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything

from stabn.data.dataset import FrameScores, VideoDataset
from stabn.data.ground_truth import ClipTruth
from stabn.data.transforms import Augmentation
from stabn.edits.project import Project
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.files import lock_folder
from stabn.nn import STABN
from stabn.runs import Run, network_preprocessing
from stabn.training.recipes import CorrectionRecipe, LoaderRecipe, NetworkRecipe, OptimizerRecipe
from stabn.training.datamodule import ClipDataModule, total_steps
from stabn.training.loggers import MetricsLogger, TrackingRecipe
from stabn.training.module import TrainingModule
from stabn.training.train import ELSEWHERE, optimizer_as_json, claim_run_folder, check_can_train, complete_run, fit_network, build_network


def finetune(
    run: Run,
    project: Project,
    out: Path,
    *,
    gamma: float,
    control: bool,
    augmentation: Augmentation,
    optimizer: OptimizerRecipe,
    loader: LoaderRecipe,
    engine: EngineRecipe,
    seed: int,
    use: str = "latest",
    correction: CorrectionRecipe = CorrectionRecipe(),  # noqa: B008
    where: Mapping[str, ClipTruth] | None = None,
    tracking: TrackingRecipe = TrackingRecipe("none"),  # noqa: B008
) -> dict[str, Any]:
    """Fine-tune the attention and perception branches on all training clips and the project's edits.

    As the paper has it, the extractor keeps its weights and its batch-norm statistics, and an edited clip is always
    shown at exactly the edited frames, in the control too; `correction` has other ways. Clips without an edit
    contribute no L_temp. The control is not guided either: nothing of the edits' scores reaches it.

    Args:
        run: where to start; a finished run with attention.
        project: made from that run's clips, with edits.
        out: the new run.
        gamma: weight of L_temp (Eq. 6).
        control: the same without L_temp.
        augmentation: how training clips are varied.
        optimizer: how weights move.
        loader: how clips reach the network.
        engine: on what it runs.
        seed: of all chance.
        use: what becomes of several people's edits of a clip, as in `stabn.edits.merge.merge_edits`.
        correction: how corrections enter the network.
        where: boxes by clip id, where the network should look (our extension); frames without one say nothing.
        tracking: where its course is written.

    Returns:
        The last epoch's entry of curves.json, and "edits", how many clips have one.

    Raises:
        UserError: there are no edits, or none of the person in `use`; one is wrong or of a clip that the run was not
            trained on; the run has no attention; or its sampling does not allow the views asked for.
    """
    if not 0 < gamma < float("inf"):
        raise UserError(f"--gamma: got {gamma}, expected a number above 0; --control leaves L_temp out")
    model = run.model()
    if not isinstance(model, STABN):
        raise UserError(f"{run.folder}: is the plain network, which has no attention to correct; train ST-ABN")
    edits = project.edits(use)
    if not edits:
        raise UserError(f"{project.edits_file}: holds no edit; correct some clips first")
    tracking.check()
    check_can_train(engine, seed)
    table = run.table(model)
    samples = table.of_split("train")
    labels = {sample.clip_id: sample.label for sample in samples}
    for clip_id, edit in edits.items():
        if clip_id not in labels:
            raise UserError(
                f"{project.edits_file}: clip {clip_id!r} is no training clip of {run.folder}; use its own edits"
            )
        if len(edit.scores) != model.frames:
            raise UserError(
                f"{project.edits_file}: clip {clip_id!r} has {len(edit.scores)} scores, but the network reads "
                f"{model.frames} frames; collect a project from {run.folder}"
            )
    boxes = {clip_id: known.boxes for clip_id, known in (where or {}).items() if known.boxes is not None}
    if where is not None and not set(boxes) & set(labels):
        raise UserError("--where: has no boxes of a training clip; give JSON lines with id and boxes")
    learnt = sorted((e.clip_id, e.frame_indices, e.scores) for e in edits.values())
    recipe = {
        "origin": str(run.folder.resolve()),
        "use": use,
        "edits": hashlib.sha256(json.dumps(learnt).encode()).hexdigest(),
        "gamma": gamma,
        "correction": asdict(correction),
        "where": hashlib.sha256(json.dumps(sorted(boxes.items())).encode()).hexdigest() if boxes else None,
        "control": control,
        "augmentation": asdict(augmentation),
        "optimizer": optimizer_as_json(optimizer),
        "loader": asdict(loader),
        "engine": asdict(engine),
        "tracking": asdict(tracking),
        "seed": seed,
    }
    names = table.class_names
    origin: dict[str, Any] = {
        "origin": str(run.folder.resolve()),
        "edited": tuple(sorted(edits)),
        "edited_classes": tuple(names[k] for k in sorted({labels[clip_id] for clip_id in edits})),
    }
    preprocessing = network_preprocessing(model, str(run.folder))
    if correction.init == "scratch" and "network" not in run.recipe:
        raise UserError(
            f"--correction.init: got scratch, but {run.folder} was not made by `stabn train`, so nothing says where its "
            "network began; give checkpoint, or the run that it was fine-tuned from"
        )
    vary = correction.views == "any"
    if vary and preprocessing.sampling.mode != "uniform":
        raise UserError(
            f"--correction.views: got any, but {run.folder} samples its clips densely, so that other frames may lie "
            "where nobody edited; give edited"
        )
    scores = {edit.clip_id: FrameScores(edit.frame_indices, edit.scores) for edit in edits.values()}
    common: dict[str, Any] = {"class_names": names, "seed": seed, "cache": loader.cache}
    training_set = VideoDataset(
        samples,
        preprocessing,
        augmentation=augmentation,
        scores=scores,
        vary_scored=vary,
        boxes=boxes,
        grid=math.ceil(preprocessing.crop / model.feature_stride),
        **common,
    )
    validation_set = VideoDataset(table.of_split("validation"), preprocessing, **common)
    claim_run_folder(out, run.source, recipe, **origin)
    seed_everything(seed, verbose=False)
    if correction.init == "scratch":
        model = build_network(NetworkRecipe(**run.recipe["network"]), preprocessing, names)
    assert isinstance(model, STABN)
    if correction.mechanism != "keep":
        model.mechanism = correction.mechanism
    module = TrainingModule(
        model,
        optimizer,
        total_steps=total_steps(len(training_set), optimizer),
        seed=seed,
        gamma=None if control else gamma,
        correction=replace(correction, guided=0.0) if control else correction,
        frozen=model.extractor if correction.freeze == "extractor" else (),
    )
    feeding = ClipDataModule(training_set, validation_set, optimizer.batch_size, loader)
    with lock_folder(out, remedy=ELSEWHERE):
        reached = fit_network(module, feeding, out, engine, MetricsLogger(tracking, out, recipe))
        complete_run(out, run.source, recipe, **origin)
    return reached | {"edits": len(edits)}


def differences_from_run(
    run: Run, *, correction: CorrectionRecipe, augmentation: Augmentation, optimizer: OptimizerRecipe, seed: int
) -> list[str]:
    """What of the run's own training is different in one that starts anew, so that the run itself is no control of it.

    Nothing where it does not start anew, or where nothing is known of how the run began, which `finetune` refuses.
    """
    if correction.init != "scratch" or "network" not in run.recipe:
        return []
    here = {"augmentation": asdict(augmentation), "optimizer": optimizer_as_json(optimizer), "seed": seed}
    found = [key for key, value in json.loads(json.dumps(here)).items() if value != run.recipe.get(key)]
    if correction.mechanism not in ("keep", NetworkRecipe(**run.recipe["network"]).mechanism):
        found.append("mechanism")
    return found
