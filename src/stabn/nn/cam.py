"""Class evidence in a network's last maps: CAM, Grad-CAM, and the CAM of the attention branch alone.

Each function gives raw evidence (B, T, h, w) for one class per clip; `between_extremes` and `share_of_highest` make
an `Attention` of it. Explaining changes nothing: weights, their gradients, the mode, and hooks are as before.

Shape suffixes: b clips, c channels, t frames, h height, w width, k classes.
"""

from collections.abc import Callable, Iterator
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
        classes_b: (B,) int64, the class explained of each clip; by default the most probable one.

    Returns:
        (B, T, h, w), of any sign; h and w are those of layer4's output.

    Raises:
        ValueError: the clip has another shape or dtype than the network reads, or not one class per clip.
        IndexError: a class out of range.
    """
    with undisturbed(model), torch.no_grad():
        maps_bcthw, logits_bk = _last_maps(model, clip_bcthw)
        chosen_b = _chosen(logits_bk, classes_b)
        weights_bc = model.fc.weight[chosen_b]
        return torch.einsum("bc,bcthw->bthw", weights_bc, maps_bcthw.to(weights_bc.dtype))


def grad_cam(
    model: ResNet3D, clip_bcthw: Tensor, classes_b: Int[Tensor, " b"] | None = None
) -> Float[Tensor, "b t h w"]:
    """Grad-CAM (Selvaraju et al. 2017) over layer4's output, over space-time.

        relu( sum_k a_k layer4_k[t, h, w] ),    a_k = mean over (t, h, w) of d logit_c / d layer4_k[t, h, w]

    Behind layer4 our networks only average and classify. So this is relu(`cam`) / (T h w): evidence against the class
    is cut off, and nothing else differs. Arguments, errors and shape are those of `cam`; the values are from 0.
    """
    with undisturbed(model):
        with torch.no_grad():
            rest, features_bcthw = _front(model, clip_bcthw)
        found: list[Tensor] = []

        def cut(_module: nn.Module, _inputs: object, maps_bcthw: Tensor) -> Tensor:
            found.append(maps_bcthw.detach().requires_grad_())
            return found[0]

        with _hooked(model.layer4, cut), torch.enable_grad():
            logits_bk = rest(features_bcthw)
        chosen_b = _chosen(logits_bk, classes_b)
        (gradient_bcthw,) = torch.autograd.grad(logits_bk.gather(1, chosen_b[:, None]).sum(), found[0])
        with torch.no_grad():
            weights_bc = gradient_bcthw.mean(dim=(2, 3, 4))
            return torch.einsum("bc,bcthw->bthw", weights_bc, found[0]).relu()


def branch_cam(
    model: STABN, clip_bcthw: Tensor, classes_b: Int[Tensor, " b"] | None = None
) -> Float[Tensor, "b t h w"]:
    """The attention branch alone: what its own classifier found where and when.

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
    found: list[Tensor] = []
    with undisturbed(model), torch.no_grad():
        with _hooked(model.conv_att_out, lambda _module, _inputs, maps: found.append(maps)):
            logits_bk = model(clip_bcthw).logits
        chosen_b = _chosen(logits_bk, classes_b)
        weight_kkt = model.fc_att_out.weight.view(model.num_classes, model.num_classes, model.frames)
        return torch.einsum("bkt,bkthw->bthw", weight_kkt[chosen_b], found[0])


def between_extremes(evidence_bthw: Float[Tensor, "b t h w"]) -> Attention:
    """Evidence of any sign as 0..1: each clip's lowest becomes 0 and its highest 1, in space-time and in time apart.

    In time it is the mean over space. Evidence that is the same everywhere becomes 0 everywhere.
    """
    lowest_bthw = evidence_bthw.amin(dim=(1, 2, 3), keepdim=True)
    temporal_bt = evidence_bthw.mean(dim=(2, 3))
    lowest_bt = temporal_bt.amin(dim=1, keepdim=True)
    return share_of_highest(evidence_bthw - lowest_bthw, temporal_bt - lowest_bt)


def share_of_highest(
    evidence_bthw: Float[Tensor, "b t h w"], temporal_bt: Float[Tensor, "b t"] | None = None
) -> Attention:
    """Evidence from 0 as a share of each clip's highest; in time that of `temporal_bt`, by default the mean over space.

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


def _last_maps(model: ResNet3D, clip_bcthw: Tensor) -> tuple[Tensor, Tensor]:
    """layer4's output and the logits."""
    found: list[Tensor] = []
    with _hooked(model.layer4, lambda _module, _inputs, maps: found.append(maps)):
        logits_bk = model(clip_bcthw).logits
    return found[0], logits_bk


def _front(model: ResNet3D, clip_bcthw: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """What is left of the network behind the features, and the features."""
    features_bcthw = model.encode(clip_bcthw)
    if not isinstance(model, STABN):
        return model.classify, features_bcthw
    attention, _ = model.attend(features_bcthw)
    return lambda features: model.perceive(features, attention), features_bcthw


def _chosen(logits_bk: Tensor, classes_b: Tensor | None) -> Tensor:
    if classes_b is None:
        return logits_bk.argmax(dim=1)
    if classes_b.shape != logits_bk.shape[:1]:
        raise ValueError(f"classes: got shape {tuple(classes_b.shape)}, expected ({len(logits_bk)},), one per clip")
    outside = classes_b[(classes_b < 0) | (classes_b >= logits_bk.shape[1])]
    if len(outside):
        raise IndexError(f"classes: got {int(outside[0])}, expected 0..{logits_bk.shape[1] - 1}")
    return classes_b.to(logits_bk.device, torch.int64, copy=True)  # a caller's inference tensor has no place in a graph


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, where normalisation learns nothing and dropout is off, and every part's mode as it was after.

    A caller's inference mode is left for the block, because no gradient can be asked for in it.
    """
    modes = [(part, part.training) for part in model.modules()]
    try:
        model.eval()
        with torch.inference_mode(False):
            yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Tensor | None]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
