"""Agreement of several people's edits: Krippendorff's alpha."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stabn.edits.merge import group_by_clip, latest_edits
from stabn.records import Edit


def krippendorff_alpha(scores: np.ndarray) -> float | None:
    """Krippendorff's alpha for ordinal values: 1 is perfect agreement, 0 what chance gives, below 0 is opposition.

        alpha = 1 - D_o / D_e
        D_o = 1 / n         sum_u 1 / (m_u - 1)  sum_{i, j of u} d(i, j)^2
        D_e = 1 / n (n - 1)                      sum_{i, j}      d(i, j)^2

    over the n pairable values: those of units u that m_u >= 2 people judged. Ordinal distance counts the values from
    one to the other, half of those at either end: d(c, k) = sum_{g=c..k} n_g - (n_c + n_k) / 2, n_g being how often g
    occurs. That is the difference of the values' mid-ranks, so that both sums are variances of ranks, and any number of
    different values costs no more than sorting them.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", University of Pennsylvania, 2011;
    "Content Analysis", 2nd ed., 2004, chapter 11.

    Args:
        scores: (people, units) float, NaN where a person did not judge a unit; the order of rows does not matter.

    Returns:
        At most 1, or None where alpha is undefined: no unit was judged by two people, or all pairable values are
        equal, in which case 0 / 0 says neither agreement nor disagreement.
    """
    judges = np.isfinite(scores).sum(axis=0)
    pairable = scores[:, judges >= 2]
    judges = judges[judges >= 2]
    judged = np.isfinite(pairable)
    values, position, counts = np.unique(pairable[judged], return_inverse=True, return_counts=True)
    if len(values) < 2:
        return None
    ranks = np.full(pairable.shape, np.nan)
    ranks[judged] = (np.cumsum(counts) - counts / 2)[position]
    within = np.nansum((ranks - np.nanmean(ranks, axis=0)) ** 2, axis=0)
    total = np.nansum((ranks - np.nanmean(ranks)) ** 2)
    n = counts.sum()
    return float(1 - (n - 1) / n * (judges / (judges - 1) * within).sum() / total)


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha over frames, None where it is undefined.

    Attributes:
        project: over all edited clips.
        classes: by class, over its edited clips.
        clips: by clip id, for every edited clip.
    """

    project: float | None
    classes: dict[str, float | None]
    clips: dict[str, float | None]


def measure_agreement(edits: Iterable[Edit], labels: Mapping[str, str]) -> Agreement:
    """Measure agreement over the frames of clips; of one person's edits of a clip the last counts.

    Args:
        edits: in the order in which they were made.
        labels: class by clip id.

    Raises:
        UserError: two people's edits of a clip are of different frames.
        KeyError: an edited clip has no label.
    """
    clips = {
        clip_id: np.array([edit.scores for edit in group], float)
        for clip_id, group in group_by_clip(latest_edits(edits)).items()
    }
    classes: dict[str, list[np.ndarray]] = defaultdict(list)
    for clip_id, scores in clips.items():
        classes[labels[clip_id]].append(scores)
    return Agreement(
        project=krippendorff_alpha(_side_by_side(list(clips.values()))),
        classes={label: krippendorff_alpha(_side_by_side(classes[label])) for label in sorted(classes)},
        clips={clip_id: krippendorff_alpha(scores) for clip_id, scores in clips.items()},
    )


def _side_by_side(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Blocks (people, frames) beside each other, padded with NaN to as many rows; alpha ignores whose row is whose."""
    people = max(map(len, blocks), default=0)
    padded = [np.pad(block, ((0, people - len(block)), (0, 0)), constant_values=np.nan) for block in blocks]
    return np.concatenate(padded, axis=1) if padded else np.empty((0, 0))
