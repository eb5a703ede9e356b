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
from torch.nn import functional

from stabn.errors import UserError
from stabn.nn.attention import Attention, repeat_steps
from stabn.nn.backbone import map_of, with_map
from stabn.nn.network import VideoNetwork
from stabn.nn.stabn import STABN


def cam(
    model: VideoNetwork, clip_bcthw: Tensor, classes_b: Int[Tensor, " b"] | None = None
) -> Float[Tensor, "b t h w"]:
    """Class activation mapping (Zhou et al. 2016) of the perception branch, or of the plain network, over space-time.

        evidence_c[t, h, w] = sum_k fc[c, k] maps_k[t, h, w]

    It is exact: the mean over (t, h, w) plus the classifier's bias is the logit of class c. Where the maps have fewer
    steps than the clip has frames, each step's evidence is repeated for its frames.

    Args:
        model: a network whose base network has a `linear` classifier of the maps' mean.
        clip_bcthw: (B, 3, T, H, W) as for the network.
        classes_b: (B,) int64, the class to explain of each clip; by default the most probable one.

    Returns:
        (B, T, h, w), of any sign; h and w are those of the last maps.

    Raises:
        UserError: the base network's classifier is another one, so that CAM is not defined.
        ValueError: the clip has another shape or dtype than the network takes, or not one class per clip.
        IndexError: a class out of range.
    """
    evidence_bthw = _cam_of_steps(model, clip_bcthw, classes_b)
    return _of_frames(evidence_bthw, model.backbone.maps_time_stride, clip_bcthw.shape[2])


def grad_cam(
    model: VideoNetwork, clip_bcthw: Tensor, classes_b: Int[Tensor, " b"] | None = None
) -> Float[Tensor, "b t h w"]:
    """Grad-CAM (Selvaraju et al. 2017) of the last maps before the classifier, over space-time.

        relu( sum_k a_k maps_k[t, h, w] ),    a_k = mean over (t, h, w) of d logit_c / d maps_k[t, h, w]

    Where CAM is defined, a_k = fc[c, k] / (T h w), so that Grad-CAM is relu(`cam`) / (T h w). Arguments and errors are
    those of `cam`, but that any base network will do.

    Returns:
        (B, T, h, w) from 0.
    """
    if model.backbone.linear is not None:
        evidence_bthw = _cam_of_steps(model, clip_bcthw, classes_b)
        evidence_bthw = evidence_bthw.relu() / evidence_bthw[0].numel()
        return _of_frames(evidence_bthw, model.backbone.maps_time_stride, clip_bcthw.shape[2])
    with evaluation_mode(model):
        with torch.no_grad():
            maps = model.last_maps(clip_bcthw)
        with torch.enable_grad():
            map_bcthw = map_of(maps).detach().requires_grad_()
            logits_bk = model.backbone.classify(with_map(maps, map_bcthw))
            chosen_b = _classes_or_predicted(classes_b, logits_bk)
            score = logits_bk.gather(1, chosen_b[:, None]).sum()  # clips do not influence each other
            (gradient_bcthw,) = torch.autograd.grad(score, map_bcthw)
    weights_bc = gradient_bcthw.mean(dim=(2, 3, 4))
    evidence_bthw = torch.einsum("bc,bcthw->bthw", weights_bc, map_bcthw.detach()).relu()
    return _of_frames(evidence_bthw, model.backbone.maps_time_stride, clip_bcthw.shape[2])


def branch_cam(
    model: STABN, clip_bcthw: Tensor, classes_b: Int[Tensor, " b"] | None = None
) -> Float[Tensor, "b t h w"]:
    """Class evidence of the attention branch alone, by its own classifier.

        evidence_c[t, h, w] = sum_k W[c, k, t] map_k[t, h, w]

    with the maps of `conv_att_out` and the weights W (K, K, T') of `fc_att_out`. It is exact: the sum over steps of
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
    with evaluation_mode(model), torch.no_grad():
        features = model.encode(clip_bcthw)
        maps_bkthw = model.conv_att_out(model.class_maps(features))
        logits_bk = model.perceive(features, model.attend(features)[0])
    weight_kkt = model.fc_att_out.weight.detach().unflatten(1, (model.num_classes, -1))
    classes_b = _classes_or_predicted(classes_b, logits_bk)
    evidence_bthw = torch.einsum("bkt,bkthw->bthw", weight_kkt[classes_b], maps_bkthw)
    return _of_frames(evidence_bthw, model.backbone.time_stride, clip_bcthw.shape[2])


def _cam_of_steps(model: VideoNetwork, clip_bcthw: Tensor, classes_b: Tensor | None) -> Tensor:
    linear = model.backbone.linear
    if linear is None:
        raise UserError(
            f"cam: is not defined for {model.architecture}, which does not classify the mean of its maps; use grad-cam"
        )
    with evaluation_mode(model), torch.no_grad():
        maps = model.last_maps(clip_bcthw)
        logits_bk = model.backbone.classify(maps)
    weights_bc = linear.weight.detach()[_classes_or_predicted(classes_b, logits_bk)]
    return torch.einsum("bc,bcthw->bthw", weights_bc, map_of(maps).to(weights_bc.dtype))


def _of_frames(evidence_bthw: Tensor, stride: int, frames: int) -> Tensor:
    """The evidence of each step for each of its frames; 0 for frames that the last maps leave out."""
    evidence_bthw = repeat_steps(evidence_bthw, stride, min(frames, stride * evidence_bthw.shape[1]))
    return functional.pad(evidence_bthw, (0, 0, 0, 0, 0, frames - evidence_bthw.shape[1]))


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


def _classes_or_predicted(classes_b: Tensor | None, logits_bk: Tensor) -> Tensor:
    if classes_b is None:
        return logits_bk.argmax(dim=1)
    if classes_b.shape != logits_bk.shape[:1]:
        raise ValueError(f"classes: got shape {tuple(classes_b.shape)}, expected ({len(logits_bk)},), one per clip")
    outside = classes_b[(classes_b < 0) | (classes_b >= logits_bk.shape[1])]
    if len(outside):
        raise IndexError(f"classes: got {int(outside[0])}, expected 0..{logits_bk.shape[1] - 1}")
    return classes_b.to(logits_bk.device, torch.int64)
