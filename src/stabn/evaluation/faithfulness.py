"""Does a network look where and when it says? Every measure of docs/faithfulness.md for a network and a data set."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabn.data.dataset import VideoDataset
from stabn.data.ground_truth import ClipTruth, unused_truth_message
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.attribution import ExplainedNetwork, check_methods, methods_of
from stabn.evaluation.intervals import paired_interval, summarise_clips
from stabn.evaluation.localisation import measure_localisation
from stabn.evaluation.perturbation import BASELINES, measure_perturbation
from stabn.evaluation.predict import ATTENTIONS, SHUFFLED, Predictions, predict_each
from stabn.evaluation.randomisation import measure_randomisation
from stabn.nn import STABN, ResNet3D
from stabn.runs import Run, network_preprocessing

FORMAT = "stabn-faithfulness/1"

RANDOMISED = 32
"""At most so many clips are explained anew after every part that the network forgets."""

FEWEST = 6
"""Of fewer clips nothing is decided: that five all differ to one side happens by chance once in sixteen."""

LOWER_IS_BETTER = ("deletion", "sufficiency")


def faithfulness(
    model: STABN | ResNet3D,
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
    ask the network hundreds of times per clip, on some of them.

    Args:
        model: the network.
        dataset: without augmentation, one window per clip.
        truth: by clip id, when and where the thing happens; None or empty where nobody knows.
        methods: of `explainers.METHODS`; by default all that fit the network.
        baselines: of `perturbation.BASELINES`.
        steps: of the curves, from 1.
        max_clips: perturb at most so many clips, chosen at random; None for all.
        seed: of all chance, from 0; the choice of clips depends on it and their number alone.
        batch_size: clips, and perturbed copies of a clip, at once.
        workers: processes that decode.
        engine: on what it runs.

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
        raise UserError("--faithfulness: looks at one window of each clip; leave --clips out")
    common: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "seed": seed}
    asked = ("as-is", *(name for name in ATTENTIONS if name != "as-is"), *SHUFFLED)
    asked = asked if isinstance(model, STABN) and len(dataset) > 1 else asked[:1]
    answers = predict_each(model, dataset, asked, engine=engine, **common)
    if len(answers["as-is"].clip_ids) < 2:
        answers = {"as-is": answers["as-is"]}
    dataset = dataset.only(answers["as-is"].samples(dataset.samples))
    subject = ExplainedNetwork.of(model, engine)
    chosen = _chosen(len(dataset), max_clips, seed)
    located = measure_localisation(subject, dataset, truth, methods, **common) if truth else None
    untimed = located is None or located[methods[0]]["temporal"] is None
    if untimed and (note := unused_truth_message(truth or {}, (sample.clip_id for sample in dataset.samples))):
        print(note, file=sys.stderr)
    curves = measure_perturbation(subject, dataset, chosen, methods, baselines=baselines, steps=steps, **common)
    few = [chosen[number] for number in _chosen(len(chosen), RANDOMISED, seed)]
    randomised = measure_randomisation(subject, dataset, few, methods, **common)
    measures = {
        method: {
            **curves[method],
            "truth": None if located is None else located[method],
            "randomisation": randomised[method],
        }
        for method in methods
    }
    clip_ids = [sample.clip_id for sample in dataset.samples]
    return {
        "format": FORMAT,
        "network": model.kind,
        "seed": seed,
        "baselines": list(baselines),
        "fractions": [round(step / steps, 6) for step in range(steps + 1)],
        "clips": clip_ids,
        "skipped": answers["as-is"].skipped_as_json,
        "perturbed": [clip_ids[row] for row in chosen],
        "randomised": len(few),
        "top1": summarise_clips(answers["as-is"].correct, seed=seed),
        "attention_replaced": _replaced(answers, seed) if len(answers) > 1 else None,
        "methods": measures,
        "differences": {
            "attention": {
                other: explanation_differences(measures["attention"], measures[other], seed=seed)
                for other in methods
                if other != "attention"
            }
        }
        if "attention" in methods
        else {},
    }


def run_faithfulness(
    run: Run, split: str, *, truth: Mapping[str, ClipTruth] | None = None, **options: Any
) -> dict[str, Any]:
    """`faithfulness` of a run on a split of its data.

    Args:
        run: a run.
        split: train or validation.
        truth: by clip id, in place of what the data itself says.
        options: as for `faithfulness`.

    Raises:
        UserError: as `faithfulness`, or the data does not fit the network or has no such split.
    """
    model = run.model()
    table = run.table(model)
    preprocessing = network_preprocessing(model, str(run.folder))
    samples = table.of_split(split)
    known = table.truth if truth is None else truth
    dataset = VideoDataset(samples, preprocessing, class_names=table.class_names)
    return faithfulness(model, dataset, truth=known, **options)


def explanation_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """One explanation against another, clip by clip, in every measure that has a value per clip.

    Args:
        ours: of "methods" in what `faithfulness` gave.
        theirs: likewise, of the same network or of another one that was measured on the same clips.
        seed: of the bootstrap.

    Returns:
        The same tree with {"mean", "low", "high", "verdict"} of ours minus theirs. The verdict, "better", "worse", or
        "undecided" where the interval holds 0 or there are fewer clips than `FEWEST`, knows that less is better in
        deletion and sufficiency.

    Raises:
        ValueError: they were measured on different numbers of clips.
    """
    found: dict[str, Any] = {}
    for name, value in ours.items():
        other = theirs.get(name)
        if name == "randomisation" or not isinstance(value, Mapping) or not isinstance(other, Mapping):
            continue
        if "per_clip" in value:
            interval = paired_interval(np.array(value["per_clip"]), np.array(other["per_clip"]), seed=seed)
            sign = -1 if name in LOWER_IS_BETTER else 1
            decided = interval.excludes_zero and len(value["per_clip"]) >= FEWEST
            verdict = "undecided" if not decided else "better" if sign * interval.mean > 0 else "worse"
            found[name] = interval.as_json() | {"verdict": verdict}
        else:
            found[name] = explanation_differences(value, other, seed=seed)
    return found


def _chosen(count: int, max_clips: int | None, seed: int) -> list[int]:
    """Which clips are perturbed, in the data set's order."""
    if max_clips is None or max_clips >= count:
        return list(range(count))
    return sorted(int(row) for row in np.random.default_rng(seed).choice(count, max_clips, replace=False))


def _replaced(answers: Mapping[str, Predictions], seed: int) -> dict[str, Any]:
    """Top-1 with each attention, and by how many points it is below that with the network's own."""
    own = 100.0 * answers["as-is"].correct
    return {
        name: {
            "top1": summarise_clips(given.correct, seed=seed),
            "drop": paired_interval(own, 100.0 * given.correct, seed=seed).as_json(),
        }
        for name, given in answers.items()
    }
