"""Spread edits to training clips that are alike, so that a person has to correct few of them.

What a person marked in a clip is looked for in the other clips of its class: the features of the marked frames slide
over the features of the other clip's frames. Features are compared after the clip's own mean was taken off, because
what does not change over a clip (who, where, light) tells nothing of when. The scores found are softer the less the
place stands out. Clips that a person edited are never touched.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from stabn.data.dataset import FrameScores, VideoDataset
from stabn.errors import UserError
from stabn.evaluation.predict import encode_batch
from stabn.files import write_text
from stabn.nn.attention import pool_frames, repeat_steps
from stabn.nn.backbone import map_of
from stabn.nn.stabn import STABN
from stabn.runs import Run
from stabn.training.kept_features import kept_dataset
from stabn.training.recipes import LoaderRecipe

CELLS = 4
"""Cells along a side of a frame's map that are compared; larger maps are averaged."""
BATCH = 16
"""Clips whose features are kept at once where they are missing."""
SPREAD = "spread.jsonl"
"""A run's file of what was spread."""
SHARPNESS = 20.0
"""Of the softmax over places and over edited clips; cosines of right places exceed others by about a tenth."""


@dataclass(frozen=True, eq=False)
class ClipFrames:
    """A training clip as its frames' features.

    Attributes:
        label: number of the class.
        features_td: (T, D) float32, of each frame.
    """

    label: int
    features_td: Float[Tensor, "t d"]

    def __post_init__(self) -> None:
        if self.features_td.ndim != 2 or 0 in self.features_td.shape:
            raise ValueError(f"features: got shape {tuple(self.features_td.shape)}, expected (T, D)")


@dataclass(frozen=True)
class SpreadScores:
    """What edits of other clips say about a clip.

    Attributes:
        scores: (T,) in 0..1; the highest is 1.
        confidence: in 0..1; 1 where all edited clips point to one place.
        edited: the ids of the edited clips, the one that counts most first.
    """

    scores: tuple[float, ...]
    confidence: float
    edited: tuple[str, ...]


def spread_to_alike(
    run: Run, model: STABN, dataset: VideoDataset, loader: LoaderRecipe, edits: Mapping[str, FrameScores]
) -> tuple[dict[str, FrameScores], list[str]]:
    """The scores of a run's training clips that are like edited ones, by clip id, weighted by their confidence.

    Clips that cannot be read are left out; training names them.

    Args:
        run: that was edited.
        model: its network, in evaluation mode; its features say what is alike.
        dataset: the training clips, without augmentation.
        loader: of the run's training.
        edits: people's, by clip id.

    Returns:
        The scores, and a line of JSON for each.
    """
    kept = kept_dataset(run, model, dataset, loader, BATCH)
    labels = {sample.label for sample in dataset.samples if sample.clip_id in edits}
    wanted = [index for index, sample in enumerate(dataset.samples) if sample.label in labels]
    clips: dict[str, ClipFrames] = {}
    frames: dict[str, Tensor] = {}
    dtype = next(model.parameters()).dtype
    for index in tqdm(wanted, desc="clips like the edited ones", unit="clip", disable=None):
        sample = dataset.samples[index]
        try:
            batch = kept[index]
        except UserError:
            continue
        with torch.inference_mode():
            maps_tchw = map_of(encode_batch(model, batch, dtype))[0].transpose(0, 1).float()
        if max(maps_tchw.shape[2:]) > CELLS:
            maps_tchw = nn.functional.adaptive_avg_pool2d(maps_tchw, CELLS)
        clips[sample.clip_id] = ClipFrames(sample.label, maps_tchw.flatten(1))
        frames[sample.clip_id] = batch.frame_indices[0]
    stride = model.backbone.time_stride
    of_steps = {
        clip_id: pool_frames(scored.at(frames[clip_id])[None], stride)[0].tolist()
        for clip_id, scored in edits.items()
        if clip_id in clips
    }
    scores, lines = {}, []
    for clip_id, spread in spread_edits(clips, of_steps).items():
        of_frames = repeat_steps(torch.tensor([spread.scores]), stride, model.frames)[0].tolist()
        indices = tuple(frames[clip_id].tolist())
        scores[clip_id] = FrameScores(indices, tuple(of_frames), spread.confidence)
        lines.append(json.dumps({"id": clip_id, "frame_indices": indices, **asdict(spread), "scores": of_frames}))
    return scores, lines


def write_spread(folder: Path, lines: Sequence[str]) -> None:
    """Write what was spread beside a run, for people to look at."""
    write_text(folder / SPREAD, "".join(line + "\n" for line in lines))


def spread_edits(clips: Mapping[str, ClipFrames], edits: Mapping[str, Sequence[float]]) -> dict[str, SpreadScores]:
    """Scores for the clips without an edit whose class has one that marks some frames and not all.

    Args:
        clips: training clips by id, all with T frames; without the edited ones nothing is spread.
        edits: T scores in 0..1 by clip id.

    Raises:
        ValueError: an edit has another number of scores than its clip has frames.
    """
    for clip_id in set(edits) & set(clips):
        got, frames = len(edits[clip_id]), len(clips[clip_id].features_td)
        if got != frames:
            raise ValueError(f"{clip_id}: got {got} scores, expected {frames}, one per frame")
    directions = {clip_id: _changes(clip.features_td) for clip_id, clip in clips.items()}
    marked: dict[int, list[tuple[str, int, Tensor]]] = {}
    for clip_id, scores in edits.items():
        weights = torch.tensor(scores)
        marked_frames = torch.nonzero(weights)[:, 0].tolist()
        if clip_id in clips and 0 < len(marked_frames) < len(weights):
            first, last = marked_frames[0], marked_frames[-1]
            marked.setdefault(clips[clip_id].label, []).append((clip_id, first, weights[first : last + 1]))
    return {
        clip_id: _looked_for(directions[clip_id], marked[clip.label], directions)
        for clip_id, clip in clips.items()
        if clip_id not in edits and clip.label in marked
    }


def _changes(features_td: Tensor) -> Tensor:
    """Directions in which each frame differs from the clip's mean, of length 1."""
    return nn.functional.normalize(features_td - features_td.mean(0), dim=1)


def _looked_for(
    own_td: Tensor, marked: Sequence[tuple[str, int, Tensor]], directions: Mapping[str, Tensor]
) -> SpreadScores:
    """What was marked in edited clips of the class, where it is most alike in a clip."""
    frames, votes, best = len(own_td), [], []
    for clip_id, first, weights in marked:
        length = len(weights)
        cosines = directions[clip_id][first : first + length] @ own_td.T
        places = torch.stack(
            [(weights * cosines.diagonal(place)[:length]).sum() / weights.sum() for place in range(frames - length + 1)]
        )
        shares = torch.softmax(SHARPNESS * places, 0)
        scores = torch.zeros(frames)
        for place, share in enumerate(shares):
            scores[place : place + length] += share * weights
        votes.append(scores)
        best.append(places.max())
    counts = torch.softmax(SHARPNESS * torch.stack(best), 0)
    scores = (counts[:, None] * torch.stack(votes)).sum(0)
    confidence = float(scores.max().clamp(max=1))
    order = counts.argsort(descending=True).tolist()
    return SpreadScores(tuple((scores / scores.max()).tolist()), confidence, tuple(marked[i][0] for i in order))
