"""Every measure of docs/faithfulness.md for a network and a data set: do its answers rest on what its maps show?"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabn.data.dataset import VideoDataset
from stabn.data.ground_truth import ClipTruth, unused_truth_message
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.attribution import ExplainedNetwork, check_methods, methods_of
from stabn.evaluation.intervals import mean_class_interval, paired_interval, summarise_clips
from stabn.evaluation.localisation import measure_localisation
from stabn.evaluation.perturbation import BASELINES, measure_perturbation
from stabn.evaluation.predict import Predictions, predict_each, split_dataset
from stabn.evaluation.randomisation import measure_randomisation
from stabn.evaluation.replaced_attention import ATTENTIONS, SHUFFLED
from stabn.nn import VideoNetwork, shows_attention
from stabn.runs import Run

logger = logging.getLogger(__name__)

FORMAT = "stabn-faithfulness/1"

RANDOMISED = 32
"""Upper limit of the clips that are explained anew after each step of parameter randomisation."""

FEWEST = 6
"""With fewer clips every difference is undecided: five clips all differ to one side by chance once in sixteen."""

LOWER_IS_BETTER = ("deletion", "sufficiency")


def faithfulness(
    model: VideoNetwork,
    dataset: VideoDataset,
    *,
    truth: Mapping[str, ClipTruth] | None = None,
    methods: Sequence[str] | None = None,
    baselines: Sequence[str] = BASELINES,
    steps: int = 8,
    max_clips: int | None = 100,
    seed: int = 0,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe | None = None,
) -> dict[str, Any]:
    """Measure a network's explanations; its weights, mode and gradients stay as they are.

    Attention is replaced, and explanations are compared with the truth, on all clips; curves and randomisation, which
    run the network hundreds of times per clip, on some of them.

    Args:
        model: the network.
        dataset: without augmentation, one window per clip.
        truth: by clip id, when and where the action happens; None or empty where this is unknown.
        methods: of `attribution.METHODS`; by default all that fit the network.
        baselines: of `perturbation.BASELINES`.
        steps: of the curves, from 1.
        max_clips: upper limit of the clips perturbed, chosen at random; None for all.
        seed: for every random choice, from 0; the choice of clips depends on it and their number alone.
        batch_size: clips, and perturbed copies of a clip, at once.
        workers: processes that decode.
        engine: accelerator, devices and precision.

    Returns:
        JSON values, as docs/faithfulness.md shows them.

    Raises:
        UserError: an option is out of range or does not fit the network, or a video or its truth is wrong.
    """
    methods = methods_of(model) if methods is None else tuple(methods)
    check_methods(model, methods)
    for number, baseline in enumerate(baselines):
        if baseline not in BASELINES or baseline in baselines[:number]:
            raise UserError(f"--baselines: got {baseline!r}, expected each of {', '.join(BASELINES)} at most once")
    if steps < 1 or seed < 0 or (max_clips is not None and max_clips < 1):
        raise UserError(
            f"--steps, --seed, --max_clips: got {steps}, {seed} and {max_clips}, expected at least 1, 0 and 1"
        )
    if dataset.clips > 1 or dataset.augmentation is not None:
        raise UserError("--faithfulness: measures one window of each clip; leave --clips and --crops out")
    common: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "seed": seed}
    replacements = (*ATTENTIONS, *SHUFFLED) if shows_attention(model) and len(dataset) > 1 else ("as-is",)
    predictions = predict_each(model, dataset, replacements, engine=engine, **common)
    own = predictions["as-is"]
    dataset = dataset.subset(own.samples(dataset.samples))
    network = ExplainedNetwork.of(model, engine)
    clip_ids = [sample.clip_id for sample in dataset.samples]
    perturbed = _choose(len(dataset), max_clips, seed)
    randomised = [perturbed[number] for number in _choose(len(perturbed), RANDOMISED, seed)]
    localisation = measure_localisation(network, dataset, truth, methods, **common) if truth else None
    has_times = localisation is not None and localisation[methods[0]]["temporal"] is not None
    if not has_times and (message := unused_truth_message(truth or {}, clip_ids)):
        logger.warning(message)
    curves = measure_perturbation(network, dataset, perturbed, methods, baselines=baselines, steps=steps, **common)
    randomisation = measure_randomisation(network, dataset, randomised, methods, **common)
    measures = {
        method: {
            **curves[method],
            "truth": None if localisation is None else localisation[method],
            "randomisation": randomisation[method],
        }
        for method in methods
    }
    against = [other for other in methods if other != "attention"] if "attention" in methods else []
    differences = {
        other: explanation_differences(measures["attention"], measures[other], seed=seed) for other in against
    }
    return {
        "format": FORMAT,
        "network": model.kind,
        "seed": seed,
        "baselines": list(baselines),
        "fractions": [round(step / steps, 6) for step in range(steps + 1)],
        "clips": clip_ids,
        "skipped": own.skipped_as_json,
        "perturbed": [clip_ids[row] for row in perturbed],
        "randomised": len(randomised),
        "top1": summarise_clips(own.correct, seed=seed),
        "attention_replaced": _replaced(predictions, seed) if len(predictions) > 1 and len(own.clip_ids) > 1 else None,
        "methods": measures,
        "differences": {"attention": differences} if "attention" in methods else {},
    }


def run_faithfulness(
    run: Run, split: str, *, truth: Mapping[str, ClipTruth] | None = None, **options: Any
) -> dict[str, Any]:
    """`faithfulness` of a run on a split of its data.

    Args:
        run: a run.
        split: train, validation, or any other that the table of clips names.
        truth: by clip id, in place of the data's own.
        options: as for `faithfulness`.

    Raises:
        UserError: as `faithfulness`, or the data does not fit the network or has no such split.
    """
    model, table, dataset = split_dataset(run, split)
    return faithfulness(model, dataset, truth=table.truth if truth is None else truth, **options)


def explanation_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """Paired differences between two explanations in every measure that has a value per clip.

    Args:
        ours: an entry of "methods" in a result of `faithfulness`.
        theirs: likewise, of the same network or of another one that was measured on the same clips.
        seed: for the bootstrap.

    Returns:
        The same tree with {"mean", "low", "high", "verdict"} of ours minus theirs. The verdict is "better", "worse", or
        "undecided" where the interval contains 0 or there are fewer clips than `FEWEST`; in deletion and sufficiency
        lower is better.

    Raises:
        ValueError: they were measured on different numbers of clips.
    """
    differences: dict[str, Any] = {}
    for name, value in ours.items():
        other = theirs.get(name)
        if name == "randomisation" or not isinstance(value, Mapping) or not isinstance(other, Mapping):
            continue
        if "per_clip" in value:
            interval = paired_interval(np.array(value["per_clip"]), np.array(other["per_clip"]), seed=seed)
            sign = -1 if name in LOWER_IS_BETTER else 1
            decided = interval.excludes_zero and len(value["per_clip"]) >= FEWEST
            verdict = "undecided" if not decided else "better" if sign * interval.mean > 0 else "worse"
            differences[name] = interval.as_json() | {"verdict": verdict}
        else:
            differences[name] = explanation_differences(value, other, seed=seed)
    return differences


def _choose(count: int, max_clips: int | None, seed: int) -> list[int]:
    """Positions of at most `max_clips` of `count` clips chosen at random, ascending."""
    if max_clips is None or max_clips >= count:
        return list(range(count))
    return sorted(int(row) for row in np.random.default_rng(seed).choice(count, max_clips, replace=False))


def _replaced(predictions: Mapping[str, Predictions], seed: int) -> dict[str, Any]:
    """Top-1 and mean class accuracy with each attention, and how many points of top-1 are lost by replacing it."""
    own = 100.0 * predictions["as-is"].correct
    return {
        name: {
            "top1": summarise_clips(replaced.correct, seed=seed),
            "mean_class_accuracy": mean_class_interval(replaced.correct, replaced.labels, seed=seed).as_json(),
            "drop": paired_interval(own, 100.0 * replaced.correct, seed=seed).as_json(),
        }
        for name, replaced in predictions.items()
    }
