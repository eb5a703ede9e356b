"""Class evidence in a network's last feature maps: CAM, Grad-CAM, and the CAM of the attention branch.

Each function returns raw evidence (B, T, h, w) for one class per clip; `normalise_by_range` and
`normalise_by_maximum` turn it into an `Attention`. Weights, gradients, modes and hooks of the network are afterwards
as before.

Shape suffixes: b clips, c channels, t frames, h height, w width, k classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stabn.nn.attention import Attention
from stabn.nn.resnet3d import ResNet3D
from stabn.nn.stabn import STABN


def cam(model: ResNet3D, clip_bcthw: Tensor, classes_b: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b t h w"]:
    """Class activation mapping (Zhou et al. 2016) of the perception branch, or of the plain network, over space-time.

        evidence_c[t, h, w] = sum_k fc[c, k] layer4_k[t, h, w]

    It is exact: the mean over (t, h, w) plus the classifier's bias is the logit of class c.

    Args:
        model: the network.
        clip_bcthw: (B, 3, T, H, W) as for the network.
        classes_b: (B,) int64, the class to explain of each clip; by default the most probable one.

    Returns:
        (B, T, h, w), of any sign; h and w are those of layer4's output.

    Raises:
        ValueError: the clip has another shape or dtype than the network takes, or not one class per clip.
        IndexError: a class out of range.
    """
    maps_bcthw, logits_bk = _forward_with_maps(model, model.layer4, clip_bcthw)
    weights_bc = model.fc.weight.detach()[_classes_or_predicted(classes_b, logits_bk)]
    return torch.einsum("bc,bcthw->bthw", weights_bc, maps_bcthw.to(weights_bc.dtype))


def grad_cam(
    model: ResNet3D, clip_bcthw: Tensor, classes_b: Int[Tensor, " b"] | None = None
) -> Float[Tensor, "b t h w"]:
    """Grad-CAM (Selvaraju et al. 2017) over layer4's output, over space-time.

        relu( sum_k a_k layer4_k[t, h, w] ),    a_k = mean over (t, h, w) of d logit_c / d layer4_k[t, h, w]

    Behind layer4 our networks only average and classify linearly, so that a_k = fc[c, k] / (T h w), and Grad-CAM is
    relu(`cam`) / (T h w). Arguments and errors are those of `cam`.

    Returns:
        (B, T, h, w) from 0.
    """
    evidence_bthw = cam(model, clip_bcthw, classes_b)
    return evidence_bthw.relu() / evidence_bthw[0].numel()


def branch_cam(
    model: STABN, clip_bcthw: Tensor, classes_b: Int[Tensor, " b"] | None = None
) -> Float[Tensor, "b t h w"]:
    """Class evidence of the attention branch alone, by its own classifier.

        evidence_c[t, h, w] = sum_k W[c, k, t] map_k[t, h, w]

    with the maps of `conv_att_out` and the weights W (K, K, T) of `fc_att_out`. It is exact: the sum over frames of
    the mean over (h, w), plus the bias, is the branch's logit of class c.

    Args:
        model: a network with an attention branch.
        clip_bcthw: (B, 3, T, H, W) as for the network.
        classes_b: (B,) int64; by default the most probable class of the *perception* branch, as in `cam`.

    Returns:
        (B, T, h, w), of any sign; h and w are those of the attention.

    Raises:
        ValueError, IndexError: as in `cam`.
    """
    maps_bkthw, logits_bk = _forward_with_maps(model, model.conv_att_out, clip_bcthw)
    weight_kkt = model.fc_att_out.weight.detach().view(model.num_classes, model.num_classes, model.frames)
    return torch.einsum("bkt,bkthw->bthw", weight_kkt[_classes_or_predicted(classes_b, logits_bk)], maps_bkthw)


def normalise_by_range(evidence_bthw: Float[Tensor, "b t h w"]) -> Attention:
    """Scale evidence of any sign to 0..1: each clip's minimum becomes 0 and its maximum 1.

    This is done over space-time for the spatial attention and, for the temporal attention, over the frames' means.
    Evidence that is constant becomes 0.
    """
    lowest_bthw = evidence_bthw.amin(dim=(1, 2, 3), keepdim=True)
    temporal_bt = evidence_bthw.mean(dim=(2, 3))
    lowest_bt = temporal_bt.amin(dim=1, keepdim=True)
    return normalise_by_maximum(evidence_bthw - lowest_bthw, temporal_bt - lowest_bt)


def normalise_by_maximum(
    evidence_bthw: Float[Tensor, "b t h w"], temporal_bt: Float[Tensor, "b t"] | None = None
) -> Attention:
    """Divide evidence from 0 by each clip's maximum; `temporal_bt` is by default the mean over space.

    Evidence that is 0 everywhere stays 0.
    """
    temporal_bt = evidence_bthw.mean(dim=(2, 3)) if temporal_bt is None else temporal_bt
    highest_bthw = evidence_bthw.amax(dim=(1, 2, 3), keepdim=True)
    highest_bt = temporal_bt.amax(dim=1, keepdim=True)
    # A clip without evidence is divided by 1; the others' highest value becomes exactly 1.
    return Attention(
        evidence_bthw / torch.where(highest_bthw > 0, highest_bthw, 1),
        temporal_bt / torch.where(highest_bt > 0, highest_bt, 1),
    )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for the block; every module's mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _forward_with_maps(model: ResNet3D, module: nn.Module, clip_bcthw: Tensor) -> tuple[Tensor, Tensor]:
    """A module's output, (B, C, T, h, w), and the network's logits, (B, K), in evaluation mode."""
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, maps: outputs.append(maps))
    try:
        with evaluation_mode(model), torch.no_grad():
            logits_bk = model(clip_bcthw).logits
    finally:
        handle.remove()
    return outputs[0], logits_bk


def _classes_or_predicted(classes_b: Tensor | None, logits_bk: Tensor) -> Tensor:
    if classes_b is None:
        return logits_bk.argmax(dim=1)
    if classes_b.shape != logits_bk.shape[:1]:
        raise ValueError(f"classes: got shape {tuple(classes_b.shape)}, expected ({len(logits_bk)},), one per clip")
    outside = classes_b[(classes_b < 0) | (classes_b >= logits_bk.shape[1])]
    if len(outside):
        raise IndexError(f"classes: got {int(outside[0])}, expected 0..{logits_bk.shape[1] - 1}")
    return classes_b.to(logits_bk.device, torch.int64)
