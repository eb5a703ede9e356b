"""What a network like a run's would have got wrong of the training clips, had it not been trained on them.

On small data a network knows its training clips by heart and misrecognises none of them. So the training split is cut
into k parts, and each part is answered by a network of the same recipe that was trained on the others.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stabn.data.dataset import Sample, VideoDataset
from stabn.data.transforms import Augmentation
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.predict import Predictions, predict
from stabn.runs import Run, open_run, network_preprocessing
from stabn.training.recipes import LoaderRecipe, NetworkRecipe
from stabn.training.train import optimizer_from_json, train


def assign_folds(samples: Sequence[Sample], folds: int, seed: int) -> np.ndarray:
    """In which part each clip is: random, and each part has its share of every class.

    Args:
        samples: N labelled clips.
        folds: k, the number of parts.
        seed: of the chance.

    Returns:
        (N,) int64 in 0..k-1.
    """
    labels = np.array([sample.label for sample in samples])
    shuffled = np.random.default_rng(seed).permutation(len(samples))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    parts = np.empty(len(samples), np.int64)
    parts[by_class] = np.arange(len(samples)) % folds
    return parts


def predict_out_of_fold(
    run: Run,
    folder: Path,
    *,
    folds: int,
    batch_size: int = 16,
    engine: EngineRecipe | None = None,
) -> Predictions:
    """Train k networks by the run's own recipe, and let each answer the part it has not seen.

    Networks that are trained already are not trained again, so an interrupted call goes on. They have the classes of
    the run's network, of which the data may lack some.

    Args:
        run: a trained (not fine-tuned) run with attention.
        folder: takes one run per part, `0` .. `k-1`.
        folds: k, at least 2.
        batch_size: clips at once.
        engine: on what it runs.

    Returns:
        Answers with maps for the training split, in its order; without the clips that cannot be read.

    Raises:
        UserError: the run has no recipe of a training, there are fewer clips than parts, or `folder` holds networks
            that were trained otherwise.
    """
    if folds < 2:
        raise UserError(f"--folds: got {folds}, expected 0 (the run's own answers) or at least 2 parts")
    recipe = run.recipe
    if "network" not in recipe:
        raise UserError(
            f"{run.folder}: was not made by `stabn train`, so nothing says how to train its like; "
            "give --folds with the run that it was fine-tuned from"
        )
    model = run.model()
    table = run.table(model)
    samples = table.of_split("train")
    if len(samples) < 2 * folds:
        raise UserError(f"--folds: got {folds} for {len(samples)} training clips, expected at most half as many parts")
    parts = assign_folds(samples, folds, recipe["seed"])
    answers: list[Predictions] = []
    for part in range(folds):
        rows = np.flatnonzero(parts == part)
        out = folder / str(part)
        held_out = [samples[row].clip_id for row in rows]
        train(
            out,
            run.source,
            preprocessing=network_preprocessing(model, str(run.folder)),
            network=NetworkRecipe(**recipe["network"]),
            augmentation=Augmentation(**recipe["augmentation"]),
            optimizer=optimizer_from_json(recipe["optimizer"]),
            loader=LoaderRecipe(**recipe["loader"]),
            engine=engine or EngineRecipe(),
            seed=recipe["seed"],
            held_out=held_out,
            class_names=table.class_names,
            keep=True,
        )
        held = [samples[row] for row in rows]
        answers.append(_answers(open_run(out), held, table.class_names, batch_size, engine))
    return _joined(answers, samples)


def _answers(
    run: Run, samples: Sequence[Sample], class_names: Sequence[str], batch_size: int, engine: EngineRecipe | None
) -> Predictions:
    model = run.model()
    dataset = VideoDataset(samples, network_preprocessing(model, str(run.folder)), class_names=class_names)
    return predict(model, dataset, batch_size=batch_size, engine=engine, keep_maps=True)


def _joined(answers: Sequence[Predictions], samples: Sequence[Sample]) -> Predictions:
    """The parts' answers in the order of the split."""
    clip_ids = [clip_id for answer in answers for clip_id in answer.clip_ids]
    position = {sample.clip_id: row for row, sample in enumerate(samples)}
    order = np.argsort([position[clip_id] for clip_id in clip_ids])

    def column(name: str) -> Any:
        return np.concatenate([getattr(answer, name) for answer in answers])[order]

    names = ("labels", "probabilities", "attention_probabilities", "temporal", "spatial", "frame_indices", "timestamps")
    return Predictions(
        clip_ids=tuple(clip_ids[i] for i in order),
        skipped=tuple(one for answer in answers for one in answer.skipped),
        **{name: column(name) for name in names},
    )
