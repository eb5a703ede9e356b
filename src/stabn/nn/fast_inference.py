"""Copies of networks for fast inference: the same function with less memory traffic and fewer multiplications.

Batch normalisation is folded into the convolutions, memory is channels last, the attention mechanism concatenates
nothing, and in float32 on a CPU kernels of size three use Winograd's algorithm (`stabn.nn.winograd`). A copy is used
like the network it was made from, but cannot be trained or saved, and no gradient passes its convolutions.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stabn.nn.attention import Attention
from stabn.nn.backbone import Features, map_of, with_map
from stabn.nn.network import Perceiver, PlainNetwork, VideoNetwork
from stabn.nn.stabn import STABN
from stabn.nn.winograd import SpatialWinogradConv, TemporalWinogradConv, to_channels_last

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's name of a precision -> dtype of the features of a fast-inference copy."""
WINOGRAD_MINIMUM = 128
"""Channels times frames of a kernel from which Winograd's sums cost less than the multiplications that they save."""

Network = TypeVar("Network", bound=VideoNetwork)


def supports_fast_inference(model: VideoNetwork) -> bool:
    """Whether `fast_inference_copy` can copy a network; a subclass may compute something else."""
    return type(model) in (STABN, PlainNetwork) and model.backbone.can_fold


def for_inference(model: Network, precision: str, device: torch.device, *, fast: bool = True) -> Network:
    """Prepare a network for inference: a fast copy where there can be one, else the network in evaluation mode.

    Args:
        model: is not changed, except that it may be put into evaluation mode.
        precision: a key of `DTYPES`, or 64-true for the model's own arithmetic in its own dtype.
        device: where it will run; the caller moves it there.
        fast: False returns the model itself, the plain reference.
    """
    if not fast or precision not in DTYPES or not supports_fast_inference(model):
        return model.eval()
    dtype = DTYPES[precision]
    return fast_inference_copy(model, dtype, winograd=dtype == torch.float32 and device.type == "cpu")


def fast_inference_copy(model: Network, dtype: torch.dtype | None = None, *, winograd: bool | None = None) -> Network:
    """Copy a network for fast inference, on the same device.

    Args:
        model: `PlainNetwork` or `STABN` around a base network that `can_fold`; is not changed.
        dtype: of clips, features and their convolutions; by default that of the weights. Attention and class scores
            are computed and returned in the dtype of the weights.
        winograd: whether kernels of size three use Winograd's algorithm; by default in float32 on a CPU only.

    Returns:
        `InferenceSTABN` or `InferencePlainNetwork`, in evaluation mode.
    """
    weight = next(model.parameters())
    dtype = weight.dtype if dtype is None else dtype
    if winograd is None:
        winograd = dtype == torch.float32 and weight.device.type == "cpu"
    copy: Any = deepcopy(model)
    copy.__class__ = InferenceSTABN if isinstance(model, STABN) else InferencePlainNetwork
    fold = partial(_folded, dtype=dtype, winograd=winograd)
    with torch.no_grad():
        for part in [part for part in copy.modules() if hasattr(part, "foldable")]:
            for parent, convolution, norm in part.foldable():
                setattr(parent, convolution, fold(getattr(parent, convolution), getattr(parent, norm)))
                setattr(parent, norm, nn.Identity())
        copy.backbone.drop = to_weights = _ToDtype(weight.dtype)
        if isinstance(model, STABN):
            before, mix, after, _ = cast(Any, model.conv_att_common)
            copy.conv_att_common = nn.Sequential(fold(mix, after, before=before), nn.ReLU(inplace=True), to_weights)
            mix_weight, mix_bias = fold_batch_norm(*cast(Any, model.conv_att_mechanism))
            in_space, in_time = mix_weight[..., 0, 0, 0].to(dtype).chunk(2, dim=1)
            copy.conv_att_mechanism = nn.Sequential()
            copy.register_buffer("mix_in_space", in_space.contiguous())
            copy.register_buffer("mix_in_time", in_time.contiguous())
            copy.register_buffer("mix_bias", mix_bias.to(dtype)[:, None, None, None])
    return cast(Network, copy.requires_grad_(False).eval())


class _InferenceOnly(VideoNetwork):
    def save_pretrained(self, *_arguments: Any, **_options: Any) -> str | None:
        """Not for a copy, whose folded weights cannot be loaded again.

        Raises:
            TypeError: always.
        """
        raise TypeError("got a copy for fast inference, expected the network it was made from")


class InferencePlainNetwork(_InferenceOnly, PlainNetwork):
    """A fast-inference copy of a `PlainNetwork`."""


class InferenceSTABN(_InferenceOnly, STABN):
    """A fast-inference copy of an `STABN`."""

    mix_in_space: Tensor
    mix_in_time: Tensor
    mix_bias: Tensor

    def perceiver(self, features: Features) -> Perceiver:
        """`perceive` for many attentions of the same features."""
        weigh, nbytes = self._weigher(features)
        return Perceiver(lambda attention: self.classify(weigh(attention)), nbytes)

    def weigh(self, features: Features, attention: Attention) -> Features:
        """As `STABN.weigh`."""
        return self._weigher(features)[0](attention)

    def perceive(self, features: Features, attention: Attention) -> Float[Tensor, "b k"]:
        """As `STABN.perceive`."""
        return self.perceiver(features)(attention)

    def _weigher(self, features: Features) -> tuple[Callable[[Attention], Features], int]:
        """`weigh` as a function of the attention alone, and its size in bytes.

        A 1 x 1 x 1 convolution commutes with a factor per place:

            conv([(1 + M_s) f, M_t f]) = (1 + M_s) W_s f + M_t W_t f

        So W_s f and W_t f are computed once, and nothing is concatenated.
        """
        self._check_steps(features)
        f_bthwc = to_channels_last(map_of(features)).permute(0, 2, 3, 4, 1)
        in_space, in_time = (
            F.linear(f_bthwc, weight).permute(0, 4, 1, 2, 3) for weight in (self.mix_in_space, self.mix_in_time)
        )

        def weigh(attention: Attention) -> Features:
            m_s_bthw, m_t_bt = self._attention_of_steps(features, attention)
            spatial = m_s_bthw[:, None].to(in_space)
            temporal = m_t_bt[:, None, :, None, None].to(in_space)
            if self.mechanism == "gated-both":
                spatial = temporal = spatial * temporal
            else:
                spatial = (1 + spatial) * temporal if self.mechanism == "gated" else 1 + spatial
            return with_map(features, torch.addcmul(self.mix_bias, spatial, in_space).addcmul_(temporal, in_time))

        return weigh, in_space.nbytes + in_time.nbytes


def fold_batch_norm(
    convolution: nn.Conv3d, after: nn.BatchNorm3d, before: nn.BatchNorm3d | None = None
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals a convolution between batch norms in evaluation mode.

    Args:
        convolution: without bias.
        after: normalises its output.
        before: normalises its input; then it must have no padding, whose zeros would not be normalised.

    Raises:
        ValueError: the convolution has a bias, or padding and a normalisation before it.
    """
    if convolution.bias is not None or (before is not None and any(convolution.padding)):
        raise ValueError(f"convolution: got {convolution}, expected one without bias, and without padding after a norm")
    scale_d, bias = _scale_and_shift(after)
    weight = convolution.weight.detach()
    if before is not None:
        scale_c, shift_c = _scale_and_shift(before)
        bias = bias + scale_d * (weight.double() * shift_c[:, None, None, None]).sum(dim=(1, 2, 3, 4))
        weight = weight * scale_c.to(weight)[:, None, None, None]
    return weight * scale_d.to(weight)[:, None, None, None, None], bias.to(weight)


def _scale_and_shift(norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Scale and shift, float64, that a batch norm applies in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def _folded(
    convolution: nn.Conv3d,
    after: nn.BatchNorm3d,
    before: nn.BatchNorm3d | None = None,
    *,
    dtype: torch.dtype,
    winograd: bool,
) -> nn.Module:
    """A convolution and its norms as one module."""
    weight, bias = (value.to(dtype) for value in fold_batch_norm(convolution, after, before))
    d, c, *kernel = weight.shape
    if winograd and tuple(convolution.stride) == (1, 1, 1) and min(c, d) * kernel[0] >= WINOGRAD_MINIMUM:
        if kernel == [3, 1, 1]:
            return TemporalWinogradConv(weight, bias)
        if kernel[1:] == [3, 3]:
            return SpatialWinogradConv(weight, bias)
    return _DirectConv(weight, bias, convolution)


class _DirectConv(nn.Conv3d):
    """A convolution by PyTorch's own kernels."""

    def __init__(self, weight: Tensor, bias: Tensor, original: nn.Conv3d) -> None:
        d, c, *kernel = weight.shape
        super().__init__(
            c, d, cast(Any, kernel), cast(Any, original.stride), cast(Any, original.padding), device="meta"
        )
        self.weight = nn.Parameter(to_channels_last(weight))
        self.bias = nn.Parameter(bias)

    def forward(self, x_bcthw: Tensor) -> Tensor:
        # With one thread PyTorch's own 1 x 1 x 1 convolution takes a path that is four times slower.
        if x_bcthw.is_cpu and torch.get_num_threads() == 1 and self.kernel_size == self.stride == (1, 1, 1):
            return F.linear(x_bcthw.permute(0, 2, 3, 4, 1), self.weight[..., 0, 0, 0], self.bias).permute(0, 4, 1, 2, 3)
        return super().forward(to_channels_last(x_bcthw))


class _ToDtype(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, value: Tensor) -> Tensor:
        return value.to(self.dtype)
