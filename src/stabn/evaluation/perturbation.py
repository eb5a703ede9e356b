"""What happens to the answer when the important goes: deletion and insertion curves, comprehensiveness, sufficiency.

A clip is cut into T frames of h x w cells, each an equal part of the picture. An explanation ranks them; the highest
ranks are removed first (deletion) or kept first (insertion), and the class answered for the untouched clip is watched.

Shape suffixes: m masks, c = 3 channels, t frames, h and w cells.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
"""What is ranked: frames by temporal scores; in every frame its own cells by its map; all cells by the product."""

BASELINES = ("blur", "freeze", "mean")
"""What stands in for what is removed, see `perturb_clip`."""

DIRECTIONS = ("deletion", "insertion")

BLUR = 1 / 8
"""Standard deviation of the blur as a share of the picture's side."""

SHARES = (0.1, 0.2, 0.5)
"""Shares of the frames that comprehensiveness and sufficiency are averaged over (DeYoung et al. 2020, in part)."""


def rank_cells(attention: Attention, scope: str, rng: np.random.Generator) -> Int[np.ndarray, "t h w"]:
    """Each cell's place in one clip's order of importance, 0 for the most important; equal scores in random order.

    In the scope `frames` all cells of a frame share its place among T, in `regions` the places are those of each
    frame's own h w cells, in `both` of all T h w cells.

    Args:
        attention: of one clip, (1, T, h, w) and (1, T).
        scope: of `SCOPES`.
        rng: decides between equal scores.
    """
    spatial_thw, temporal_t = (part[0].double().cpu().numpy() for part in (attention.spatial, attention.temporal))
    frames = len(temporal_t)
    scores = {
        "frames": temporal_t[None],
        "regions": spatial_thw.reshape(frames, -1),
        "both": (temporal_t[:, None, None] * spatial_thw).reshape(1, -1),
    }[scope]
    chance = rng.random(scores.shape)
    order = np.stack([np.lexsort((luck, -row)) for luck, row in zip(chance, scores, strict=True)])
    places = order.argsort(axis=1)  # of the order: the place of each
    if scope == "frames":
        return np.broadcast_to(places.reshape(frames, 1, 1), spatial_thw.shape)
    return places.reshape(spatial_thw.shape)


def perturb_clip(
    clip_cthw: Float[Tensor, "c t y x"], removed_mthw: Bool[Tensor, "m _ h w"], baseline: str
) -> Float[Tensor, "m c t y x"]:
    """Copies of a clip without some of its cells.

    What stands in their place, by `baseline`:
        blur: the same frame under a Gaussian of `BLUR` times the picture's side.
        freeze: the same cell of the nearest earlier frame in which it is kept, of the nearest later one if there is
            none, and of the first frame if it is kept nowhere. So the picture stands still and nothing strange is seen.
        mean: the mean colour of the clip.

    Args:
        clip_cthw: (C, T, H, W) floating point.
        removed_mthw: (M, T, h, w) bool; cell (i, j) is the pixels whose centres lie in that equal part of the picture.
        baseline: of `BASELINES`.

    Raises:
        ValueError: an unknown baseline, or masks for another number of frames.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline: got {baseline!r}, expected one of {', '.join(BASELINES)}")
    if removed_mthw.shape[1] != clip_cthw.shape[1]:
        raise ValueError(f"removed: got {removed_mthw.shape[1]} frames, expected {clip_cthw.shape[1]}")
    if baseline == "freeze":
        source_mtyx = _over_pixels(_shown_frame(removed_mthw), clip_cthw)
        copies_mctyx = clip_cthw.expand(len(source_mtyx), *clip_cthw.shape)
        return copies_mctyx.gather(2, source_mtyx[:, None].expand_as(copies_mctyx))
    instead = _blurred(clip_cthw) if baseline == "blur" else clip_cthw.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(_over_pixels(removed_mthw, clip_cthw)[:, None], instead, clip_cthw)


def _shown_frame(removed_mthw: Tensor) -> Tensor:
    """(M, T, h, w) int64: from which frame each cell is shown when it is frozen."""
    kept_mthw = ~removed_mthw
    own_t = torch.arange(kept_mthw.shape[1], device=kept_mthw.device)[:, None, None]
    earlier_mthw = torch.where(kept_mthw, own_t, -1).cummax(dim=1).values
    first_m1hw = kept_mthw.to(torch.uint8).argmax(dim=1, keepdim=True)  # 0 where it is kept nowhere
    return torch.where(earlier_mthw >= 0, earlier_mthw, first_m1hw)


def _over_pixels(cells_mthw: Tensor, clip_cthw: Tensor) -> Tensor:
    """(M, T, H, W): each pixel has its cell's value."""
    rows, columns = (
        ((torch.arange(pixels, device=cells_mthw.device) + 0.5) * cells / pixels).long()
        for pixels, cells in zip(clip_cthw.shape[-2:], cells_mthw.shape[-2:], strict=True)
    )
    return cells_mthw[:, :, rows[:, None], columns]


def _blurred(clip_cthw: Tensor) -> Tensor:
    """Every frame under a Gaussian; the picture's border is continued as in a mirror."""
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


@dataclass(frozen=True, eq=False)
class PerturbationCurves:
    """How one clip's answer follows one explanation, in one scope and with one baseline.

    Attributes:
        deletion: (steps + 1,) probability when the most important 0, 1/steps, ..., all are removed.
        insertion: (steps + 1,) likewise when only these are kept.
        comprehensiveness: by how much the probability falls when the top `SHARES` of frames are removed, on average;
            None in other scopes than frames.
        sufficiency: likewise when only these are kept.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    comprehensiveness: float | None
    sufficiency: float | None


def perturbation_curves(
    answer: Callable[[Tensor], Tensor],
    clip_cthw: Float[Tensor, "c t y x"],
    explanations: Mapping[str, Attention],
    *,
    target: int | None = None,
    scopes: Sequence[str] = SCOPES,
    baselines: Sequence[str] = BASELINES,
    steps: int = 8,
    seed: Sequence[int] = (0,),
    copies: int = 16,
) -> dict[str, dict[str, dict[str, PerturbationCurves]]]:
    """Remove and put back what several explanations of one clip call important.

    Args:
        answer: (B, C, T, H, W) -> probabilities (B, K).
        clip_cthw: (C, T, H, W), the untouched clip.
        explanations: by name, of this one clip: (1, T, h, w) and (1, T), all on the same grid.
        target: the class watched; by default the one answered for the untouched clip.
        scopes: of `SCOPES`.
        baselines: of `BASELINES`.
        steps: n; the curves have n + 1 points, at the shares 0, 1/n, ..., 1.
        seed: of the order of equal scores, the same for all explanations; numbers from 0, such as the clip's name.
        copies: perturbed clips at once.

    Returns:
        By name, scope and baseline. The curves' ends are the untouched clip and one of which nothing is left.

    Raises:
        ValueError: fewer than one step, or explanations on different grids or of several clips.
    """
    if steps < 1 or copies < 1:
        raise ValueError(f"steps, copies: got {steps} and {copies}, expected at least 1 each")
    shapes = {tuple(attention.spatial.shape) for attention in explanations.values()}
    if len(shapes) != 1 or any(shape[0] != 1 for shape in shapes):
        raise ValueError(f"explanations: got shapes {sorted(shapes)}, expected one (1, T, h, w)")
    # Every clip without something, once: explanations agree about many of them, and all about the ends.
    masks: dict[bytes, np.ndarray] = {}
    wanted: dict[tuple[str, str, str], list[bytes]] = {}
    for name, attention in explanations.items():
        for scope in scopes:
            ranks_thw = rank_cells(attention, scope, np.random.default_rng([*seed, SCOPES.index(scope)]))
            items = int(ranks_thw.max()) + 1
            counts = [_rounded(step * items / steps) for step in range(steps + 1)]
            counts += [max(_rounded(share * items), 1) for share in SHARES] if scope == "frames" else []
            for direction in DIRECTIONS:
                keys = wanted[name, scope, direction] = []
                for count in counts:
                    removed_thw = ranks_thw < count if direction == "deletion" else ranks_thw >= count
                    keys.append(np.packbits(removed_thw).tobytes())
                    masks.setdefault(keys[-1], removed_thw)
    removed_mthw = torch.from_numpy(np.stack(list(masks.values()))).to(clip_cthw.device)
    if target is None:
        target = int(answer(clip_cthw[None]).argmax())
    found: dict[str, dict[str, dict[str, PerturbationCurves]]] = {
        name: {s: {} for s in scopes} for name in explanations
    }
    for baseline in baselines:
        values = np.concatenate(
            [
                answer(perturb_clip(clip_cthw, part_mthw, baseline))[:, target].double().cpu().numpy()
                for part_mthw in removed_mthw.split(copies)
            ]
        )
        value_of = dict(zip(masks, values.tolist(), strict=True))
        for name in explanations:
            for scope in scopes:
                deleted, inserted = (np.array([value_of[key] for key in wanted[name, scope, d]]) for d in DIRECTIONS)
                found[name][scope][baseline] = _watched(deleted, inserted, steps + 1)
    return found


def _watched(deleted: np.ndarray, inserted: np.ndarray, points: int) -> PerturbationCurves:
    """Curves of so many points; the values behind them, if there are any, are those at `SHARES`."""
    fall_when_removed, fall_when_alone = (
        float(deleted[0] - values[points:].mean()) if len(values) > points else None for values in (deleted, inserted)
    )
    return PerturbationCurves(deleted[:points], inserted[:points], fall_when_removed, fall_when_alone)


def _rounded(value: float) -> int:
    """To the nearest integer, halves up."""
    return math.floor(value + 0.5)


def curve_area(curves: Float[np.ndarray, "n points"]) -> Float[np.ndarray, " n"]:
    """The area under each curve over the shares 0..1, by the trapezoid rule."""
    return ((curves[:, 1:] + curves[:, :-1]) / 2).mean(axis=1)


def measure_perturbation(
    subject: ExplainedNetwork,
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
    """`perturbation_curves` some clips of a data set for every method's explanation of the predicted class.

    Returns:
        Per method, scope and baseline {"deletion", "insertion": {"auc", "low", "high", "per_clip", "curve"}}, and in
        the scope `frames` "comprehensiveness" and "sufficiency": {"mean", "low", "high", "per_clip"}. "curve" is the
        mean over clips, "per_clip" has the areas or falls in the order of `rows`; intervals are 95 % bootstrap over
        clips.
    """
    watched = []
    # Explained in batches, as the network is used; one by one would hide a network that mixes up its clips.
    for batch in clip_batches(dataset, rows, batch_size=batch_size, workers=workers, told="perturbation"):
        clip_bcthw = subject.clips(batch)
        explained = attribute_clips(subject.model, clip_bcthw, methods, clip_ids=batch.clip_ids, seed=seed)
        for row, clip_id in enumerate(tqdm(batch.clip_ids, desc="this batch", disable=None, leave=False)):
            own = {method: attention.rows(slice(row, row + 1)) for method, attention in explained.items()}
            chance = (seed, *clip_id.encode())
            common: dict[str, Any] = {"baselines": baselines, "steps": steps, "seed": chance, "copies": batch_size}
            watched.append(perturbation_curves(subject.probabilities, clip_bcthw[row], own, **common))

    def told(method: str, scope: str, baseline: str) -> dict[str, Any]:
        clips = [found[method][scope][baseline] for found in watched]
        entry: dict[str, Any] = {}
        for direction in DIRECTIONS:
            curves = np.stack([getattr(clip, direction) for clip in clips])
            figures = summarise_clips(curve_area(curves), seed=seed)
            entry[direction] = {"auc": figures.pop("mean"), **figures, "curve": curves.mean(axis=0).round(6).tolist()}
        if scope == "frames":
            for fall in ("comprehensiveness", "sufficiency"):
                entry[fall] = summarise_clips(np.array([getattr(clip, fall) for clip in clips]), seed=seed)
        return entry

    return {m: {s: {b: told(m, s, b) for b in baselines} for s in SCOPES} for m in methods}
