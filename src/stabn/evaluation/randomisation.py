"""Parameter randomisation (Adebayo et al. 2018): does an explanation change when the network forgets?"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from stabn.data.dataset import ClipBatch, VideoDataset
from stabn.evaluation.attribution import ExplainedNetwork, attribute_clips, clip_batches
from stabn.evaluation.intervals import bootstrap_interval
from stabn.nn import STABN, ResNet3D
from stabn.nn.resnet3d import initialise

SIMILARITY_BOUND = 0.5
"""A rank correlation from which an explanation of a random network counts as that of the trained one."""


def randomisation_stages(model: STABN | ResNet3D) -> dict[str, list[nn.Module]]:
    """A network's parts by name, from the answer down to the picture."""
    stages: dict[str, list[nn.Module]] = {"fc": [model.fc], "layer4": [model.layer4]}
    if isinstance(model, STABN):
        stages["attention mechanism"] = [model.conv_att_mechanism]
        stages["attention branch"] = [
            model.fc_att_out,
            model.conv_temp_att3,
            model.conv_temp_att2,
            model.conv_temp_att1,
            model.conv_spatial_att,
            model.conv_att_out,
            model.conv_att_common,
            model.layer_att_common,
        ]
    return stages | {
        "layer3": [model.layer3],
        "layer2": [model.layer2],
        "layer1": [model.layer1],
        "stem": [model.conv1, model.bn1],
    }


def randomise_weights(part: nn.Module) -> None:
    """Give a part the random weights that training starts from, and normalisation without statistics, in place."""
    for module in part.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    initialise(part)


def rank_correlation(a_n: Float[np.ndarray, " n"], b_n: Float[np.ndarray, " n"]) -> float:
    """Spearman's rho in -1..1, equal values sharing their mean rank.

    Where one side is the same everywhere it has no ranks: 1 if the other is too, for nothing changed, and else 0.
    """
    ranks = [_mean_ranks(values) for values in (a_n, b_n)]
    flat = [bool((values == values[0]).all()) for values in ranks]
    if any(flat):
        return float(all(flat))
    return float(np.corrcoef(ranks)[0, 1])


def _mean_ranks(values_n: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values_n, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts + 1) / 2)[group]


def measure_randomisation(
    subject: ExplainedNetwork,
    dataset: VideoDataset,
    rows: Sequence[int],
    methods: Sequence[str],
    *,
    batch_size: int = 16,
    workers: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Let a copy of the network forget one part after another, and compare each explanation with the first one.

    The class explained stays the one that the trained network predicted.

    Args:
        rows: the clips, which are held in memory.
        seed: of the random weights.

    Returns:
        Per method {"temporal": [{"part", "mean", "low", "high"}, ...], "spatial": likewise,
        "changes": {"temporal", "spatial"}}: the rank correlation (over frames, over all cells) with the explanation of
        the trained network, after this part and all before it were forgotten; "changes" is False where at the end its
        size is still at least `SIMILARITY_BOUND`: then the explanation does not tell what the network learned.
    """
    clips = list(clip_batches(dataset, rows, batch_size=batch_size, workers=workers, told="randomisation, reading"))
    model = deepcopy(subject.plain)
    weights = next(model.parameters())
    device = weights.device

    def seen(batch: ClipBatch) -> Tensor:
        return subject.clips(batch).to(weights.dtype)

    with torch.inference_mode():
        classes = [model(seen(batch)).logits.argmax(1) for batch in clips]

    def explained() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
        """Per method, (temporal, spatial) of every clip."""
        rows_of: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {method: [] for method in methods}
        for batch, classes_b in zip(clips, classes, strict=True):
            ids = batch.clip_ids
            found = attribute_clips(model, seen(batch), methods, clip_ids=ids, classes_b=classes_b, seed=seed)
            for method, attention in found.items():
                parts = (attention.temporal.double().cpu().numpy(), attention.spatial.double().cpu().flatten(1).numpy())
                rows_of[method] += zip(*parts, strict=True)
        return rows_of

    trained = explained()
    result: dict[str, dict[str, Any]] = {method: {"temporal": [], "spatial": []} for method in methods}
    stages = randomisation_stages(model)
    for number, (part, modules) in enumerate(tqdm(stages.items(), desc="randomisation", unit="part", disable=None)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * len(stages) + number)
            for module in modules:
                randomise_weights(module.cpu())  # where chance is the same whatever the engine
                module.to(device)
        for method, pairs in explained().items():
            for side, name in enumerate(("temporal", "spatial")):
                rhos = [rank_correlation(new[side], old[side]) for new, old in zip(pairs, trained[method], strict=True)]
                result[method][name].append({"part": part} | bootstrap_interval(np.array(rhos), seed=seed).as_json())
    for measures in result.values():
        measures["changes"] = {
            name: abs(measures[name][-1]["mean"]) < SIMILARITY_BOUND for name in ("temporal", "spatial")
        }
    return result
