"""Explanations against ground truth: average precision and pointing over frames, pointing and energy over boxes.

Shape suffixes: n clips, t frames, h and w cells of a map.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torchmetrics.functional.classification import binary_average_precision

from stabn.data.boxes import Box, box_map
from stabn.data.dataset import Sample, VideoDataset
from stabn.data.ground_truth import ClipTruth
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import frame_size
from stabn.errors import UserError
from stabn.evaluation.attribution import ExplainedNetwork, attribute_clips, clip_batches
from stabn.evaluation.intervals import summarise_clips

Crop = tuple[float, float, float, float]
"""A view of the source frame: (left, top, right, bottom) as fractions of its width and height."""

MEASURES = {
    ("temporal", "average_precision"): "frame AP",
    ("temporal", "pointing"): "frame pointing",
    ("temporal", "iou"): "frame IoU",
    ("spatial", "pointing"): "box pointing",
    ("spatial", "energy"): "energy in box",
}
"""Short names of the measures of `measure_localisation`, for tables."""


def decisive_frames(clip_id: str, truth: ClipTruth, frame_indices: np.ndarray) -> Bool[np.ndarray, " t"]:
    """Which of a clip's T sampled frames are decisive (a score of 1); all of them where the truth has no times.

    Raises:
        UserError: the truth has fewer frames than the clip.
    """
    if not truth.has_timing:
        return np.ones(len(frame_indices), dtype=bool)
    try:
        return truth.scores(frame_indices) >= 1
    except ValueError as error:
        raise UserError(f"clip {clip_id}: {error}; give the truth of these videos") from None


def average_precision(scores_t: Float[np.ndarray, " t"], decisive_t: Bool[np.ndarray, " t"]) -> float:
    """Average precision with which scores in 0..1 rank the decisive frames first, independent of the order of ties.

    Its expected value by chance is about the share of decisive frames.
    """
    return float(binary_average_precision(torch.from_numpy(scores_t), torch.from_numpy(decisive_t.astype(np.int64))))


def pointing_game(scores: Float[np.ndarray, "..."], target: Bool[np.ndarray, "..."]) -> float:
    """The pointing game (Zhang et al. 2018): 1 if the highest score lies in the target, else 0.

    With ties it is the share of the highest scores in the target, the expected value of choosing one at random.
    """
    return float(target[scores == scores.max()].mean())


def best_iou(scores_nt: Float[np.ndarray, "n t"], decisive_nt: Bool[np.ndarray, "n t"]) -> tuple[float, np.ndarray]:
    """Temporal intersection over union of {score >= threshold} with the decisive frames, at the best threshold.

    One threshold for all clips, the best of all scores. It is chosen on the clips that it is evaluated on, so the
    result is an upper bound over thresholds; choosing all frames gives the share of decisive frames.

    Returns:
        The threshold, and (N,) float64, each clip's intersection over union.
    """
    # As the threshold falls, frames are chosen one by one; each changes the IoU of its own clip only.
    order_nt = np.argsort(-scores_nt, axis=1, kind="stable")
    hits_nt = np.take_along_axis(decisive_nt, order_nt, axis=1).cumsum(axis=1)
    union_nt = np.arange(1, scores_nt.shape[1] + 1) + decisive_nt.sum(axis=1, keepdims=True) - hits_nt
    gains = np.diff(hits_nt / union_nt, axis=1, prepend=0).ravel()
    scores = np.take_along_axis(scores_nt, order_nt, axis=1).ravel()
    descending = np.argsort(-scores, kind="stable")
    totals, thresholds = gains[descending].cumsum(), scores[descending]
    complete = np.flatnonzero(np.append(np.diff(thresholds) < 0, True))  # frames of equal score are chosen at once
    threshold = thresholds[complete[totals[complete].argmax()]]
    chosen_nt = scores_nt >= threshold
    intersection_n, union_n = (chosen_nt & decisive_nt).sum(axis=1), (chosen_nt | decisive_nt).sum(axis=1)
    return float(threshold), intersection_n / np.maximum(union_n, 1)


def cells_in_box(box: Box, crop: Crop, size: tuple[int, int], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """Cells of a map over a view whose centres are inside a box; arguments as in `stabn.data.boxes.box_map`."""
    left, top, right, bottom = crop
    y = (top + (np.arange(height) + 0.5) / height * (bottom - top)) * size[0]
    x = (left + (np.arange(width) + 0.5) / width * (right - left)) * size[1]
    return np.outer((box[1] <= y) & (y < box[3]), (box[0] <= x) & (x < box[2]))


def energy_in_box(map_hw: Float[np.ndarray, "h w"], covered_hw: Float[np.ndarray, "h w"]) -> float:
    """The share of a map's sum that lies inside a box, cells cut by its border counted by area (Wang et al. 2020).

    By chance it is the box's share of the view, which is also the value for a map that is 0 everywhere.

    Args:
        map_hw: values from 0.
        covered_hw: the share of each cell's area inside the box, as `stabn.data.boxes.box_map` gives it.
    """
    total = map_hw.sum()
    return float((map_hw * covered_hw).sum() / total) if total > 0 else float(covered_hw.mean())


def measure_localisation(
    network: ExplainedNetwork,
    dataset: VideoDataset,
    truth: Mapping[str, ClipTruth],
    methods: Sequence[str],
    *,
    batch_size: int = 16,
    workers: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Any]] | None:
    """Compare every method's explanation of the predicted class with the truth, on all clips that have one.

    In time: clips in which some but not all of the sampled frames are decisive (a score of 1). In space: decisive
    frames with a box in view (all frames with a box where the truth has no times), averaged per clip.

    Returns:
        Per method {"temporal": {"clips", "average_precision", "pointing", "iou"}, "spatial": {"clips", "pointing",
        "energy"}}, each None where no clip has such a truth; each measure {"mean", "low", "high", "chance",
        "per_clip"} (95 % bootstrap over clips), "iou" with its "threshold" too, and the spatial "pointing" with
        "attainable", the share of frames whose box holds the centre of a cell at all. None if no clip has any truth.

    Raises:
        UserError: the truth does not fit the videos.
    """
    rows = [row for row, sample in enumerate(dataset.samples) if sample.clip_id in truth]
    samples = iter([dataset.samples[row] for row in rows])
    in_time: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {method: [] for method in methods}
    in_space: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    timed, boxed = [], []
    for batch in clip_batches(dataset, rows, batch_size=batch_size, workers=workers, desc="against the truth"):
        attentions = attribute_clips(network.model, network.clips(batch), methods, clip_ids=batch.clip_ids, seed=seed)
        size = next(iter(attentions.values())).spatial.shape[-2:]
        for position, clip_id in enumerate(batch.clip_ids):
            indices = batch.frame_indices[position].numpy()
            decisive_t = decisive_frames(clip_id, truth[clip_id], indices)
            covers = _covers(next(samples), truth[clip_id], indices, decisive_t, dataset.preprocessing, size)
            is_timed = truth[clip_id].has_timing and bool(decisive_t.any() and not decisive_t.all())
            timed += [clip_id] * is_timed
            boxed += [clip_id] * bool(covers)
            for method, attention in attentions.items():
                if is_timed:
                    in_time[method].append((_numbers(attention.temporal[position]), decisive_t))
                if covers:
                    in_space[method].append(_space(_numbers(attention.spatial[position]), covers))
    if not timed and not boxed:
        return None
    return {
        method: {
            "temporal": _temporal(timed, in_time[method], seed) if timed else None,
            "spatial": _spatial(boxed, np.stack(in_space[method]), seed) if boxed else None,
        }
        for method in methods
    }


def _covers(
    sample: Sample,
    truth: ClipTruth,
    frame_indices: np.ndarray,
    decisive_t: np.ndarray,
    preprocessing: Preprocessing,
    size: Sequence[int],
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By decisive frame with a box in view: the share of each cell inside the box, and whether its centre is inside."""
    if truth.boxes is None:
        return {}
    if frame_indices.max() >= len(truth.boxes):
        raise UserError(
            f"clip {sample.clip_id}: truth has boxes of {len(truth.boxes)} frames, expected over "
            f"{frame_indices.max()}; give the truth of these videos"
        )
    boxes = {int(t): truth.boxes[frame_indices[t]] for t in np.flatnonzero(decisive_t)}
    if all(box is None for box in boxes.values()):
        return {}
    width, height = frame_size(sample.path)
    source = (height, width)
    crop = preprocessing.crop_box(*source)
    covers = {
        t: (box_map(box, crop, source, *size).double().numpy(), cells_in_box(box, crop, source, *size))
        for t, box in boxes.items()
        if box is not None
    }
    return {t: cover for t, cover in covers.items() if cover[0].any()}


def _space(maps_thw: np.ndarray, covers: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Means over the frames with a box in view: pointing, its chance, attainability, energy, its chance."""
    frames = []
    for t, (covered_hw, centres_hw) in covers.items():
        hit, energy = pointing_game(maps_thw[t], centres_hw), energy_in_box(maps_thw[t], covered_hw)
        frames.append((hit, centres_hw.mean(), float(centres_hw.any()), energy, covered_hw.mean()))
    return np.array(frames).mean(axis=0)


def _numbers(values: torch.Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _temporal(clips: list[str], pairs: list[tuple[np.ndarray, np.ndarray]], seed: int) -> dict[str, Any]:
    scores_nt, decisive_nt = (np.stack(column) for column in zip(*pairs, strict=True))
    chance = {"chance": round(float(decisive_nt.mean()), 6)}
    threshold, ious_n = best_iou(scores_nt, decisive_nt)
    precisions_n, hits_n = (
        np.array([measure(*pair) for pair in pairs]) for measure in (average_precision, pointing_game)
    )
    return {
        "clips": clips,
        "average_precision": summarise_clips(precisions_n, seed=seed) | chance,
        "pointing": summarise_clips(hits_n, seed=seed) | chance,
        "iou": summarise_clips(ious_n, seed=seed) | chance | {"threshold": round(threshold, 6)},
    }


def _spatial(clips: list[str], values_n5: np.ndarray, seed: int) -> dict[str, Any]:
    means = [round(float(value), 6) for value in values_n5.mean(axis=0)]
    return {
        "clips": clips,
        "pointing": summarise_clips(values_n5[:, 0], seed=seed) | {"chance": means[1], "attainable": means[2]},
        "energy": summarise_clips(values_n5[:, 3], seed=seed) | {"chance": means[4]},
    }
