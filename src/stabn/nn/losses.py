"""The losses: recognition (Eq. 4), and the distance of attention from a person's edit, in time (Eq. 6) or space."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from stabn.nn.attention import Output

EditLossForm = Literal["squared", "cross-entropy", "balanced"]
"""Distance between attention and its edit, see `temporal_loss`."""


def recognition_loss(
    output: Output,
    labels_b: Int[Tensor, " b"],
    label_smoothing: float | int = 0,
    class_weights_k: Float[Tensor, " k"] | None = None,
) -> Float[Tensor, ""]:
    """L_att(x) + L_per(x) of Eq. 4: the softmax cross-entropies of both branches, each averaged over the batch.

    Without an attention branch it is L_per(x) alone.

    Args:
        output: for B clips and K classes.
        labels_b: (B,) int64 in 0..K-1.
        label_smoothing: e in 0..1; the target is 1 - e + e / K for the label and e / K for each other class, in both
            branches (Szegedy et al., arXiv 1512.00567, section 7).
        class_weights_k: (K,) from 0, by which a clip's cross-entropies are multiplied, by its label; None for 1. The
            average divides by the number of clips, not by the sum of their weights as PyTorch's own `weight` does, so
            that a clip counts the same in every batch.

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

    def branch_loss(logits_bk: Tensor) -> Tensor:
        if class_weights_k is None:
            return F.cross_entropy(logits_bk, labels_b, label_smoothing=label_smoothing)
        losses_b = F.cross_entropy(logits_bk, labels_b, label_smoothing=label_smoothing, reduction="none")
        return (losses_b * class_weights_k[labels_b]).mean()

    loss = branch_loss(output.logits)
    return loss if output.attention_logits is None else loss + branch_loss(output.attention_logits)


def temporal_loss(
    temporal_bt: Float[Tensor, "b t"],
    edited_bt: Float[Tensor, "_ _"],
    has_edit_b: Bool[Tensor, " _"],
    gamma: float | int,
    form: EditLossForm = "squared",
    weights_b: Float[Tensor, " _"] | None = None,
) -> Float[Tensor, ""]:
    """L_temp(x) of Eq. 6, averaged over the whole batch; a clip without an edit contributes exactly 0.

        gamma / n * sum_j ( {M_t(x)}_j - {M'_t(x)}_j )^2        n = T frames

    Args:
        temporal_bt: (B, T) in 0..1, M_t(x), the network's temporal attention.
        edited_bt: (B, T) in 0..1, M'_t(x), the edited one; rows of clips without an edit may hold anything.
        has_edit_b: (B,) bool, which clips have an edit.
        gamma: scale from 0, because the squared error is much smaller than the cross-entropies.
        form: "squared" is the paper's. "cross-entropy" (ours) replaces the square by the binary cross-entropy.
            "balanced" (ours) gives important and unimportant frames half of the weight each: 1/n is replaced by
            ( M'_j / sum_i M'_i + (1 - M'_j) / sum_i (1 - M'_i) ) / 2. Without it, where few frames are important, a
            network trained from scratch first learns that none is, and its ReLUs die.
        weights_b: (B,) from 0, how much each clip's edit counts; None for 1.

    Returns:
        A scalar from 0.

    Raises:
        ValueError: the shapes do not belong together, or gamma is negative or not finite.
    """
    _check_edit(temporal_bt, edited_bt, has_edit_b, gamma)
    distance_b = _distance(temporal_bt, edited_bt, has_edit_b[:, None], form)
    return gamma * (distance_b if weights_b is None else weights_b * distance_b).mean()


def spatial_loss(
    spatial_bthw: Float[Tensor, "b t h w"],
    edited_bthw: Float[Tensor, "_ _ _ _"],
    has_edit_bt: Bool[Tensor, "_ _"],
    gamma: float | int,
    form: EditLossForm = "squared",
) -> Float[Tensor, ""]:
    """Eq. 6 for M_s(x), our extension, averaged over the whole batch; frames without an edit contribute exactly 0.

        gamma / n * sum_j ( {M_s(x)}_j - {M'_s(x)}_j )^2        j: the n cells of the clip's edited frames

    A clip without any edited frame counts as 0. How many frames of a clip are edited does not change its weight. So a
    map that is off by d everywhere costs as much as temporal scores that are off by d.

    Args:
        spatial_bthw: (B, T, h, w) in 0..1, M_s(x), the network's spatial attention.
        edited_bthw: (B, T, h, w) in 0..1, M'_s(x), the edited one; frames without an edit may hold anything.
        has_edit_bt: (B, T) bool, which frames have an edit.
        gamma: scale from 0, because the squared error is much smaller than the cross-entropies.
        form: as in `temporal_loss`, over the cells of each frame. An object covers few of them, so that unbalanced a
            map that is low everywhere costs little.

    Returns:
        A scalar from 0.

    Raises:
        ValueError: the shapes do not belong together, or gamma is negative or not finite.
    """
    _check_edit(spatial_bthw, edited_bthw, has_edit_bt, gamma)
    cells = (spatial_bthw.flatten(2), edited_bthw.flatten(2))
    frames_b = has_edit_bt.sum(1).clamp(min=1)
    return gamma * (_distance(*cells, has_edit_bt[..., None], form).sum(1) / frames_b).mean()


def _distance(attention: Tensor, edited: Tensor, has_edit: Tensor, form: EditLossForm) -> Tensor:
    """The mean distance over the last dimension, in one of the forms; exactly 0 where there is no edit."""
    # Selected before the subtraction and not multiplied by 0 after it, because 0 * NaN is NaN, in gradients too.
    attention, edited = torch.where(has_edit, attention, 0), torch.where(has_edit, edited, 0)
    if form == "squared":
        return (attention - edited).square().mean(-1)
    if form == "balanced":
        weight = (_normalised(edited) + _normalised(1 - edited)) / 2
        return (weight * (attention - edited).square()).sum(-1)
    # Without autocast, under which PyTorch refuses binary cross-entropy. Rows of zeros cost exactly 0.
    with torch.autocast(attention.device.type, enabled=False):
        return F.binary_cross_entropy(attention.float(), edited.float(), reduction="none").mean(-1)


def _normalised(weight: Tensor) -> Tensor:
    """Normalise over the last dimension; all-zero rows stay zero."""
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)


def _check_edit(attention: Tensor, edited: Tensor, has_edit: Tensor, gamma: float | int) -> None:
    """Check the arguments of both losses; `has_edit` has the leading dimensions of the attention."""
    if edited.shape != attention.shape:
        raise ValueError(f"edited: got shape {tuple(edited.shape)}, expected {tuple(attention.shape)}")
    expected = tuple(attention.shape[: 1 if attention.ndim == 2 else 2])
    if tuple(has_edit.shape) != expected:
        raise ValueError(f"has_edit: got shape {tuple(has_edit.shape)}, expected {expected}")
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma: got {gamma}, expected a finite number from 0")
