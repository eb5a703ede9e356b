"""Parameter randomisation test (Adebayo et al. 2018): does an explanation depend on the learned weights?"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor, nn
from tqdm import tqdm

from stabn.data.clip_batch import ClipBatch
from stabn.data.dataset import VideoDataset
from stabn.evaluation.attribution import ExplainedNetwork, attribute_clips, clip_batches
from stabn.evaluation.intervals import bootstrap_interval
from stabn.nn.backbone import initialise

SIMILARITY_BOUND = 0.5
"""From this rank correlation on, the explanation of a randomised network counts as unchanged."""


def randomise_weights(part: nn.Module) -> None:
    """Reset a module in place to the random weights that training starts from, and its normalisation statistics."""
    for module in part.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    initialise(part)


def rank_correlation(a_n: Float[np.ndarray, " n"], b_n: Float[np.ndarray, " n"]) -> float:
    """Spearman's rho in -1..1; where one side is constant, 1 if the other is constant, too, and else 0."""
    constant = [bool((values == values[0]).all()) for values in (a_n, b_n)]
    return float(all(constant)) if any(constant) else float(spearmanr(a_n, b_n).statistic)


def measure_randomisation(
    network: ExplainedNetwork,
    dataset: VideoDataset,
    rows: Sequence[int],
    methods: Sequence[str],
    *,
    batch_size: int = 16,
    workers: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Randomise a copy of the network stage by stage, and compare each explanation with that of the trained network.

    The class explained stays the one that the trained network predicted.

    Args:
        network: the network.
        dataset: without augmentation, one window per clip.
        rows: positions of the clips, which are held in memory.
        methods: of `attribution.METHODS`.
        batch_size: clips at once.
        workers: processes that decode.
        seed: for the random weights.

    Returns:
        Per method {"temporal": [{"part", "mean", "low", "high"}, ...], "spatial": likewise,
        "changes": {"temporal", "spatial"}}: the rank correlation (over frames, over all cells) with the explanation of
        the trained network after this stage and all before it were randomised; "changes" is False where its absolute
        value is still at least `SIMILARITY_BOUND` at the end: then the explanation does not show what was learned.
    """
    clips = list(clip_batches(dataset, rows, batch_size=batch_size, workers=workers, desc="randomisation, reading"))
    model = deepcopy(network.plain)
    weights = next(model.parameters())
    device = weights.device

    def clip_tensor(batch: ClipBatch) -> Tensor:
        return network.clips(batch).to(weights.dtype)

    with torch.no_grad():  # Grad-CAM needs them as plain tensors
        classes = [model(clip_tensor(batch)).logits.argmax(1) for batch in clips]

    def explain_all() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
        """Per method, (temporal, spatial) of every clip."""
        explanations: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {method: [] for method in methods}
        for batch, classes_b in zip(clips, classes, strict=True):
            options: dict[str, Any] = {"clip_ids": batch.clip_ids, "classes_b": classes_b, "seed": seed}
            for method, attention in attribute_clips(model, clip_tensor(batch), methods, **options).items():
                parts = (attention.temporal.double().cpu().numpy(), attention.spatial.double().cpu().flatten(1).numpy())
                explanations[method] += zip(*parts, strict=True)
        return explanations

    trained = explain_all()
    result: dict[str, dict[str, Any]] = {method: {"temporal": [], "spatial": []} for method in methods}
    stages = dict(reversed(model.stages().items()))
    for number, (part, modules) in enumerate(tqdm(stages.items(), desc="randomisation", unit="part", disable=None)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * len(stages) + number)
            for module in modules:
                randomise_weights(module.cpu())  # on the CPU the random numbers are the same on every machine
                module.to(device)
        for method, pairs in explain_all().items():
            for side, name in enumerate(("temporal", "spatial")):
                rhos = [rank_correlation(new[side], old[side]) for new, old in zip(pairs, trained[method], strict=True)]
                result[method][name].append({"part": part} | bootstrap_interval(np.array(rhos), seed=seed).as_json())
    for measures in result.values():
        measures["changes"] = {
            name: abs(measures[name][-1]["mean"]) < SIMILARITY_BOUND for name in ("temporal", "spatial")
        }
    return result
