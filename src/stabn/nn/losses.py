"""Eqs. 4 and 6: what recognition costs, and what disagreeing with a person about time, or about space, costs."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from stabn.nn.attention import Output

Form = Literal["squared", "cross-entropy", "balanced"]
"""How disagreement with an edit counts."""


def recognition_loss(
    output: Output, labels_b: Int[Tensor, " b"], label_smoothing: float | int = 0
) -> Float[Tensor, ""]:
    """L_att(x) + L_per(x) of Eq. 4: the softmax cross-entropies of both branches, each averaged over the batch.

    A network without an attention branch pays L_per(x) alone.

    Args:
        output: for B clips and K classes.
        labels_b: (B,) int64 in 0..K-1.
        label_smoothing: e in 0..1; the truth is then 1 - e + e / K for the label and e / K for each other class, in
            both branches (Szegedy et al., arXiv 1512.00567, section 7).

    Returns:
        A scalar from 0.

    Raises:
        ValueError: the number of labels is not that of the clips, or the smoothing is out of range.
        IndexError: a label is out of range.
    """
    if labels_b.shape != output.logits.shape[:1]:
        raise ValueError(f"labels: got shape {tuple(labels_b.shape)}, expected ({len(output.logits)},)")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: got {label_smoothing}, expected a share in 0..1")
    loss = F.cross_entropy(output.logits, labels_b, label_smoothing=label_smoothing)
    if output.attention_logits is None:
        return loss
    return loss + F.cross_entropy(output.attention_logits, labels_b, label_smoothing=label_smoothing)


def temporal_loss(
    temporal_bt: Float[Tensor, "b t"],
    edited_bt: Float[Tensor, "_ _"],
    has_edit_b: Bool[Tensor, " _"],
    gamma: float | int,
    form: Form = "squared",
) -> Float[Tensor, ""]:
    """L_temp(x) of Eq. 6, averaged over the whole batch; a clip without an edit contributes exactly 0.

        gamma / n * sum_j ( {M_t(x)}_j - {M'_t(x)}_j )^2        n = T frames

    Args:
        temporal_bt: (B, T) in 0..1, M_t(x), what the network found important.
        edited_bt: (B, T) in 0..1, M'_t(x), what a person wants; rows of clips without an edit may hold anything.
        has_edit_b: (B,) bool, which clips have an edit.
        gamma: scale from 0, because the squared error is much smaller than the cross-entropies.
        form: two of ours beside the paper's "squared". "cross-entropy" puts the binary one in place of the square.
            "balanced" gives what a person wants, and what not, half of the weight each: in place of 1/n stands
            ( M'_j / sum_i M'_i + (1 - M'_j) / sum_i (1 - M'_i) ) / 2. Where few frames matter, a network that learns
            from its start else finds "no frame at all" first, and its ReLUs die of it.

    Returns:
        A scalar from 0.

    Raises:
        ValueError: the shapes do not belong together, or gamma is negative or not finite.
    """
    _check_edit(temporal_bt, edited_bt, has_edit_b, gamma)
    return gamma * _disagreement(temporal_bt, edited_bt, has_edit_b[:, None], form).mean()


def spatial_loss(
    spatial_bthw: Float[Tensor, "b t h w"],
    edited_bthw: Float[Tensor, "_ _ _ _"],
    has_edit_bt: Bool[Tensor, "_ _"],
    gamma: float | int,
    form: Form = "squared",
) -> Float[Tensor, ""]:
    """Eq. 6 for M_s(x), our extension, averaged over the whole batch; what has no edit contributes exactly 0.

        gamma / n * sum_j ( {M_s(x)}_j - {M'_s(x)}_j )^2        j: the n cells of the clip's edited frames

    A clip without any edited frame counts as 0. How many frames of a clip are edited does not change its weight. So a
    map that is off by d everywhere costs as much as temporal scores that are off by d.

    Args:
        spatial_bthw: (B, T, h, w) in 0..1, M_s(x), where the network looked.
        edited_bthw: (B, T, h, w) in 0..1, M'_s(x), what a person wants; frames without an edit may hold anything.
        has_edit_bt: (B, T) bool, which frames have an edit.
        gamma: scale from 0, because the squared error is much smaller than the cross-entropies.
        form: as in `temporal_loss`, over the cells of each frame. An object covers few of them, and a map that is low
            everywhere costs little when they are counted alike.

    Returns:
        A scalar from 0.

    Raises:
        ValueError: the shapes do not belong together, or gamma is negative or not finite.
    """
    _check_edit(spatial_bthw, edited_bthw, has_edit_bt, gamma)
    cells = (spatial_bthw.flatten(2), edited_bthw.flatten(2))
    frames_b = has_edit_bt.sum(1).clamp(min=1)
    return gamma * (_disagreement(*cells, has_edit_bt[..., None], form).sum(1) / frames_b).mean()


def _disagreement(seen: Tensor, wanted: Tensor, has_edit: Tensor, form: Form) -> Tensor:
    """What the last dimension costs, by one of the forms; exactly 0 where nobody said what is wanted."""
    # Selected before the subtraction and not multiplied by 0 after it, because 0 * NaN is NaN, in gradients too.
    seen, wanted = torch.where(has_edit, seen, 0), torch.where(has_edit, wanted, 0)
    if form == "squared":
        return (seen - wanted).square().mean(-1)
    if form == "balanced":
        return ((_share(wanted) + _share(1 - wanted)) * (seen - wanted).square()).sum(-1) / 2
    # Without autocast, in which PyTorch refuses to take a logarithm of 16-bit shares. Rows of zeros cost exactly 0.
    with torch.autocast(seen.device.type, enabled=False):
        return F.binary_cross_entropy(seen.float(), wanted.float(), reduction="none").mean(-1)


def _share(weight: Tensor) -> Tensor:
    """Of the last dimension's total; nothing of nothing is nothing."""
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)


def _check_edit(seen: Tensor, edited: Tensor, has_edit: Tensor, gamma: float | int) -> None:
    """What both losses of an edit ask of their arguments; `has_edit` goes with the leading dimensions."""
    if edited.shape != seen.shape:
        raise ValueError(f"edited: got shape {tuple(edited.shape)}, expected {tuple(seen.shape)}")
    expected = tuple(seen.shape[: 1 if seen.ndim == 2 else 2])
    if tuple(has_edit.shape) != expected:
        raise ValueError(f"has_edit: got shape {tuple(has_edit.shape)}, expected {expected}")
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma: got {gamma}, expected a finite number from 0")
