"""Cross-validation over a run's training clips, whose own network may have learnt them by heart.

On small data a network recognises nearly all of its training clips. So the training split is divided into k folds, and
a network of the same recipe that was trained on the other folds predicts each of them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stabn.data.dataset import Sample, VideoDataset
from stabn.data.transforms import Augmentation
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.predict import Predictions, predict
from stabn.runs import Run, network_preprocessing, open_run
from stabn.training.kept_features import kept_dataset, with_features_of
from stabn.training.recipes import LoaderRecipe, NetworkRecipe, OptimizerRecipe
from stabn.training.train import train


def assign_folds(samples: Sequence[Sample], folds: int, seed: int) -> np.ndarray:
    """Assign clips to folds at random, each with its share of every class.

    Args:
        samples: N labelled clips.
        folds: k, the number of folds.
        seed: of the random order.

    Returns:
        (N,) int64 in 0..k-1.
    """
    labels = np.array([sample.label for sample in samples])
    shuffled = np.random.default_rng(seed).permutation(len(samples))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold_of = np.empty(len(samples), np.int64)
    fold_of[by_class] = np.arange(len(samples)) % folds
    return fold_of


def predict_out_of_fold(
    run: Run,
    folder: Path,
    *,
    folds: int,
    batch_size: int = 16,
    engine: EngineRecipe | None = None,
) -> Predictions:
    """Train k networks by the run's recipe, each without one fold of the training clips, and predict that fold.

    Finished networks are kept, so an interrupted call resumes. They have the classes of the run's network, of which
    the data may lack some.

    Args:
        run: a trained (not fine-tuned) run with attention.
        folder: gets one run per fold, `0` .. `k-1`.
        folds: k, at least 2.
        batch_size: clips per batch of prediction.
        engine: device, precision, processes.

    Returns:
        Predictions with maps for the training split, in its order, without the clips that cannot be read.

    Raises:
        UserError: the run has no training recipe, there are fewer than 2 k clips, or `folder` holds networks of another
            training.
    """
    if folds < 2:
        raise UserError(f"--folds: got {folds}, expected 0 (the run's own predictions) or at least 2")
    recipe = run.recipe
    if "network" not in recipe:
        raise UserError(
            f"{run.folder}: was not made by `stabn train`, so it has no training recipe; give --folds with the run "
            "that it was fine-tuned from"
        )
    model = run.model()
    preprocessing = network_preprocessing(model, str(run.folder))
    table = run.table(model)
    samples = table.of_split("train")
    if len(samples) < 2 * folds:
        raise UserError(f"--folds: got {folds} for {len(samples)} training clips, expected at most half as many folds")
    fold_of = assign_folds(samples, folds, recipe["seed"])
    loader = with_features_of(run, LoaderRecipe(**recipe["loader"]))
    predictions: list[Predictions] = []
    for fold in range(folds):
        held_out = [samples[row] for row in np.flatnonzero(fold_of == fold)]
        train(
            folder / str(fold),
            run.source,
            preprocessing=preprocessing,
            network=NetworkRecipe.from_json(recipe["network"]),
            augmentation=Augmentation(**recipe["augmentation"]),
            optimizer=OptimizerRecipe.from_json(recipe["optimizer"]),
            loader=loader,
            engine=engine or EngineRecipe(),
            seed=recipe["seed"],
            held_out=[sample.clip_id for sample in held_out],
            class_names=table.class_names,
            keep=True,
        )
        fold_run = open_run(folder / str(fold))
        fold_model = fold_run.model()
        of_fold = VideoDataset(held_out, preprocessing, class_names=table.class_names)
        dataset = kept_dataset(fold_run, fold_model, of_fold, loader, batch_size)
        predictions.append(predict(fold_model, dataset, batch_size=batch_size, engine=engine, keep_maps=True))
    return _concatenated(predictions, samples)


def _concatenated(predictions: Sequence[Predictions], samples: Sequence[Sample]) -> Predictions:
    """The predictions of all folds in the order of the samples."""
    clip_ids = [clip_id for of_fold in predictions for clip_id in of_fold.clip_ids]
    row_of = {sample.clip_id: row for row, sample in enumerate(samples)}
    order = np.argsort([row_of[clip_id] for clip_id in clip_ids])
    names = ("labels", "probabilities", "attention_probabilities", "temporal", "spatial", "frame_indices", "timestamps")
    columns = ([getattr(of_fold, name) for of_fold in predictions] for name in names)
    return Predictions(
        clip_ids=tuple(clip_ids[i] for i in order),
        skipped=tuple(clip for of_fold in predictions for clip in of_fold.skipped),
        **{name: np.concatenate(column)[order] for name, column in zip(names, columns, strict=True)},
    )
