"""Perturbation measures of explanations: deletion and insertion curves, comprehensiveness, sufficiency.

A clip is cut into T frames of h x w cells, each an equal part of the picture. An explanation ranks them; the highest
ranks are removed first (deletion) or kept first (insertion), while the probability of the class predicted for the
unperturbed clip is recorded.

Shape suffixes: m masks, c = 3 channels, t frames, h and w cells.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from stabn.data.dataset import VideoDataset
from stabn.evaluation.attribution import ExplainedNetwork, attribute_clips, clip_batches
from stabn.evaluation.intervals import summarise_clips
from stabn.nn import Attention

SCOPES = ("frames", "regions", "both")
"""What is ranked: frames by temporal scores; the cells of each frame by its map; all cells by the product."""

BASELINES = ("blur", "freeze", "mean")
"""Replacements for what is removed, see `perturb_clip`."""

DIRECTIONS = ("deletion", "insertion")

BLUR = 1 / 8
"""Standard deviation of the blur as a share of the picture's side."""

SHARES = (0.1, 0.2, 0.5)
"""Shares of the frames that comprehensiveness and sufficiency are averaged over (DeYoung et al. 2020, in part)."""


def rank_cells(attention: Attention, scope: str, rng: np.random.Generator) -> Int[np.ndarray, "t h w"]:
    """Rank of each cell in one clip by importance, 0 for the most important; ties are broken at random.

    In the scope `frames` all cells of a frame have its rank among T, in `regions` cells are ranked among the h w cells
    of their frame, in `both` among all T h w cells.

    Args:
        attention: of one clip, (1, T, h, w) and (1, T).
        scope: of `SCOPES`.
        rng: breaks ties.
    """
    spatial_thw, temporal_t = (part[0].double().cpu().numpy() for part in (attention.spatial, attention.temporal))
    frames = len(temporal_t)
    scores = {
        "frames": temporal_t[None],
        "regions": spatial_thw.reshape(frames, -1),
        "both": (temporal_t[:, None, None] * spatial_thw).reshape(1, -1),
    }[scope]
    tie_breakers = rng.random(scores.shape)
    order = np.stack([np.lexsort((ties, -row)) for ties, row in zip(tie_breakers, scores, strict=True)])
    cell_ranks = order.argsort(axis=1)  # the inverse permutation
    if scope == "frames":
        return np.broadcast_to(cell_ranks.reshape(frames, 1, 1), spatial_thw.shape)
    return cell_ranks.reshape(spatial_thw.shape)


def perturb_clip(
    clip_cthw: Float[Tensor, "c t y x"], removed_mthw: Bool[Tensor, "m _ h w"], baseline: str
) -> Float[Tensor, "m c t y x"]:
    """Copies of a clip with some of its cells replaced.

    Replacement by `baseline`:
        blur: the same frame under a Gaussian of `BLUR` times the picture's side.
        freeze: the same cell of the nearest earlier frame in which it is kept, of the nearest later one if there is
            none, and of the first frame if it is kept nowhere. So the picture stands still and stays realistic.
        mean: the mean colour of the clip.

    Args:
        clip_cthw: (C, T, H, W) floating point.
        removed_mthw: (M, T, h, w) bool; cell (i, j) is the pixels whose centres lie in that equal part of the picture.
        baseline: of `BASELINES`.
    """
    if baseline == "freeze":
        source_mtyx = _over_pixels(_shown_frame(removed_mthw), clip_cthw)
        copies_mctyx = clip_cthw.expand(len(source_mtyx), *clip_cthw.shape)
        return copies_mctyx.gather(2, source_mtyx[:, None].expand_as(copies_mctyx))
    replacement = _blurred(clip_cthw) if baseline == "blur" else clip_cthw.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(_over_pixels(removed_mthw, clip_cthw)[:, None], replacement, clip_cthw)


def _shown_frame(removed_mthw: Tensor) -> Tensor:
    """(M, T, h, w) int64: the frame from which each cell is copied by the baseline `freeze`."""
    kept_mthw = ~removed_mthw
    own_t = torch.arange(kept_mthw.shape[1], device=kept_mthw.device)[:, None, None]
    earlier_mthw = torch.where(kept_mthw, own_t, -1).cummax(dim=1).values
    first_m1hw = kept_mthw.to(torch.uint8).argmax(dim=1, keepdim=True)  # 0 where it is kept nowhere
    return torch.where(earlier_mthw >= 0, earlier_mthw, first_m1hw)


def _over_pixels(cells_mthw: Tensor, clip_cthw: Tensor) -> Tensor:
    """(M, T, H, W): the value of the cell that each pixel lies in."""
    rows, columns = (
        ((torch.arange(pixels, device=cells_mthw.device) + 0.5) * cells / pixels).long()
        for pixels, cells in zip(clip_cthw.shape[-2:], cells_mthw.shape[-2:], strict=True)
    )
    return cells_mthw[:, :, rows[:, None], columns]


def _blurred(clip_cthw: Tensor) -> Tensor:
    """Every frame under a Gaussian, with reflected borders."""
    frames_nyx = clip_cthw.flatten(0, 1)[:, None]
    for dim in (2, 3):
        side = frames_nyx.shape[dim]
        sigma = BLUR * side
        reach = min(math.ceil(3 * sigma), side - 1)
        offsets = torch.arange(-reach, reach + 1, device=clip_cthw.device, dtype=clip_cthw.dtype)
        kernel = (-0.5 * (offsets / sigma).square()).exp()
        shape, padding = ((-1, 1), (0, 0, reach, reach)) if dim == 2 else ((1, -1), (reach, reach, 0, 0))
        weight = (kernel / kernel.sum()).reshape(1, 1, *shape)
        frames_nyx = F.conv2d(F.pad(frames_nyx, padding, mode="reflect"), weight)
    return frames_nyx[:, 0].reshape(clip_cthw.shape)


def perturbation_curves(
    predict: Callable[[Tensor], Tensor],
    clip_cthw: Float[Tensor, "c t y x"],
    explanations: Mapping[str, Attention],
    *,
    baselines: Sequence[str] = BASELINES,
    steps: int = 8,
    seed: Sequence[int] = (0,),
    copies: int = 16,
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Perturb one clip in the order of importance of several explanations, recording the predicted class's probability.

    Args:
        predict: (B, C, T, H, W) -> probabilities (B, K).
        clip_cthw: (C, T, H, W), the unperturbed clip.
        explanations: by name, of this one clip: (1, T, h, w) and (1, T), all on the same grid.
        baselines: of `BASELINES`.
        steps: n, from 1; the curves have n + 1 points, at the shares 0, 1/n, ..., 1.
        seed: for breaking ties, the same for all explanations; integers from 0, such as the bytes of the clip's name.
        copies: perturbed clips per batch.

    Returns:
        By name, scope and baseline {"deletion": (steps + 1,) probability when the most important 0, 1/n, ..., all are
        removed, "insertion": likewise when only these are kept}, between the unperturbed and the fully replaced clip;
        in the scope `frames` also "comprehensiveness": by how much the probability falls when the top `SHARES` of
        frames are removed, on average, and "sufficiency": likewise when only these are kept.
    """
    # Each distinct mask once: explanations share many of them, and all share the ends.
    masks: dict[bytes, np.ndarray] = {}
    mask_keys: dict[tuple[str, str, str], list[bytes]] = {}
    for name, attention in explanations.items():
        for scope in SCOPES:
            ranks_thw = rank_cells(attention, scope, np.random.default_rng([*seed, SCOPES.index(scope)]))
            items = int(ranks_thw.max()) + 1
            counts = [_rounded(step * items / steps) for step in range(steps + 1)]
            counts += [max(_rounded(share * items), 1) for share in SHARES] if scope == "frames" else []
            for direction in DIRECTIONS:
                keys = mask_keys[name, scope, direction] = []
                for count in counts:
                    removed_thw = ranks_thw < count if direction == "deletion" else ranks_thw >= count
                    keys.append(np.packbits(removed_thw).tobytes())
                    masks.setdefault(keys[-1], removed_thw)
    removed_mthw = torch.from_numpy(np.stack(list(masks.values()))).to(clip_cthw.device)
    target = int(predict(clip_cthw[None]).argmax())
    curves: dict[str, dict[str, dict[str, dict[str, Any]]]] = {name: {s: {} for s in SCOPES} for name in explanations}
    for baseline in baselines:
        values = np.concatenate(
            [
                predict(perturb_clip(clip_cthw, part_mthw, baseline))[:, target].double().cpu().numpy()
                for part_mthw in removed_mthw.split(copies)
            ]
        )
        value_of = dict(zip(masks, values.tolist(), strict=True))
        for name in explanations:
            for scope in SCOPES:
                deleted, inserted = (np.array([value_of[key] for key in mask_keys[name, scope, d]]) for d in DIRECTIONS)
                measures: dict[str, Any] = {"deletion": deleted[: steps + 1], "insertion": inserted[: steps + 1]}
                if scope == "frames":  # the other values are those at `SHARES`
                    measures["comprehensiveness"] = float(deleted[0] - deleted[steps + 1 :].mean())
                    measures["sufficiency"] = float(deleted[0] - inserted[steps + 1 :].mean())
                curves[name][scope][baseline] = measures
    return curves


def _rounded(value: float) -> int:
    """The nearest integer, halves rounded up."""
    return math.floor(value + 0.5)


def curve_area(curves: Float[np.ndarray, "n points"]) -> Float[np.ndarray, " n"]:
    """The area under each curve over the shares 0..1, by the trapezoidal rule."""
    return ((curves[:, 1:] + curves[:, :-1]) / 2).mean(axis=1)


def measure_perturbation(
    network: ExplainedNetwork,
    dataset: VideoDataset,
    rows: Sequence[int],
    methods: Sequence[str],
    *,
    baselines: Sequence[str] = BASELINES,
    steps: int = 8,
    batch_size: int = 16,
    workers: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Perturbation measures of every method's explanation of the predicted class, for some clips of a data set.

    Args:
        network: the network.
        dataset: without augmentation, one window per clip.
        rows: positions of the clips.
        methods: of `attribution.METHODS`.
        baselines: of `BASELINES`.
        steps: of the curves, from 1.
        batch_size: clips, and perturbed copies of a clip, at once.
        workers: processes that decode.
        seed: for random explanations, ties and the bootstrap.

    Returns:
        Per method, scope and baseline {"deletion", "insertion": {"auc", "low", "high", "per_clip", "curve"}}, and in
        the scope `frames` "comprehensiveness" and "sufficiency": {"mean", "low", "high", "per_clip"}. "curve" is the
        mean over clips, "per_clip" has the areas or falls in the order of `rows`; intervals are 95 % bootstrap over
        clips.
    """
    curves = []
    # Explained in batches, as the network is used; one by one would hide a network that mixes up its clips.
    for batch in clip_batches(dataset, rows, batch_size=batch_size, workers=workers, desc="perturbation"):
        clip_bcthw = network.clips(batch)
        attentions = attribute_clips(network.model, clip_bcthw, methods, clip_ids=batch.clip_ids, seed=seed)
        for row, clip_id in enumerate(tqdm(batch.clip_ids, desc="this batch", disable=None, leave=False)):
            of_clip = {method: attention.rows(slice(row, row + 1)) for method, attention in attentions.items()}
            options: dict[str, Any] = {"baselines": baselines, "steps": steps, "copies": batch_size}
            options["seed"] = (seed, *clip_id.encode())
            curves.append(perturbation_curves(network.probabilities, clip_bcthw[row], of_clip, **options))

    def summary(method: str, scope: str, baseline: str) -> dict[str, Any]:
        clips = [of_clip[method][scope][baseline] for of_clip in curves]
        measures: dict[str, Any] = {}
        for direction in DIRECTIONS:
            values = np.stack([clip[direction] for clip in clips])
            areas = summarise_clips(curve_area(values), seed=seed)
            measures[direction] = {"auc": areas.pop("mean"), **areas, "curve": values.mean(axis=0).round(6).tolist()}
        if scope == "frames":
            for fall in ("comprehensiveness", "sufficiency"):
                measures[fall] = summarise_clips(np.array([clip[fall] for clip in clips]), seed=seed)
        return measures

    return {m: {s: {b: summary(m, s, b) for b in baselines} for s in SCOPES} for m in methods}
