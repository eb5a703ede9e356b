"""A copy of a network that only answers: the same function with less memory moved and fewer multiplications.

Batch normalisation is folded into the convolutions, memory is channels last, the attention mechanism concatenates
nothing, and in float32 on a processor kernels of three are Winograd's (`stabn.nn.winograd`). The copy is used like the
network it was made from, but it cannot be trained or saved, and no gradient goes through its convolutions.
"""

from copy import deepcopy
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stabn.nn.attention import Attention
from stabn.nn.resnet3d import BasicBlock, Bottleneck, ResNet3D
from stabn.nn.stabn import STABN, Perceiver
from stabn.nn.winograd import AlongTime, InPlane, channels_last

WORTH = 128
"""Channels times frames of a kernel from which Winograd's sums cost less than the multiplications that they save."""


Network = TypeVar("Network", bound=ResNet3D)


def answering(model: Network, dtype: torch.dtype | None = None, *, winograd: bool | None = None) -> Network:
    """A copy of a network that only answers, on the same device.

    Args:
        model: `ResNet3D` or `STABN`; stays as it is.
        dtype: of features and their convolutions; by default that of the weights. Clips have to be given in it. What is
            made of the features (attention and all class scores) is computed and given in the weights' own dtype.
        winograd: whether kernels of three are Winograd's; by default in float32 on a CPU, and nowhere else.

    Returns:
        `AnsweringSTABN` or `AnsweringResNet3D`, in evaluation mode.
    """
    weight = model.conv1.weight
    dtype = weight.dtype if dtype is None else dtype
    if winograd is None:
        winograd = dtype == torch.float32 and weight.device.type == "cpu"
    arguments = {name: value for name, value in model.config().items() if name not in ("format", "kind")}
    kind = AnsweringSTABN if isinstance(model, STABN) else AnsweringResNet3D
    with torch.no_grad():
        copy = kind.empty(**arguments)
        parts = _Parts(dtype, winograd)
        made = {
            "conv1": parts.convolution(model.conv1, model.bn1),
            "bn1": nn.Identity(),
            **{layer: parts.layer(getattr(model, layer)) for layer in ("layer1", "layer2", "layer3", "layer4")},
            "drop": _To(weight.dtype),
            "fc": deepcopy(model.fc),
        }
        for name, part in made.items():
            setattr(copy, name, part)
        if isinstance(model, STABN):
            assert isinstance(copy, AnsweringSTABN)
            copy.take_attention(model, parts)
    return cast(Network, copy.requires_grad_(False).eval())


class _Answering(ResNet3D):
    def save_pretrained(self, *_arguments: Any, **_options: Any) -> str | None:
        """A copy that only answers has no weights that could be loaded again.

        Raises:
            TypeError: always.
        """
        raise TypeError("got a copy that only answers, expected the network it was made from")


class AnsweringResNet3D(_Answering):
    """What `answering` makes of a `ResNet3D`."""


class AnsweringSTABN(_Answering, STABN):
    """What `answering` makes of an `STABN`."""

    mix_in_space: Tensor
    mix_in_time: Tensor
    mix_bias: Tensor

    def take_attention(self, model: STABN, parts: "_Parts") -> None:
        """Fill everything that a `ResNet3D` has not from a network."""
        self.layer_att_common = parts.layer(model.layer_att_common)
        before, mix, after, _ = model.conv_att_common
        assert isinstance(before, nn.BatchNorm3d)
        assert isinstance(mix, nn.Conv3d)
        assert isinstance(after, nn.BatchNorm3d)
        maps = parts.convolution(mix, after, before=before)
        self.conv_att_common = nn.Sequential(maps, nn.ReLU(inplace=True), _To(model.fc.weight.dtype))
        for name in ("conv_att_out", "fc_att_out", "conv_spatial_att", "conv_temp_att1", "conv_temp_att2"):
            setattr(self, name, deepcopy(getattr(model, name)))
        self.conv_temp_att3 = deepcopy(model.conv_temp_att3)
        mechanism, norm = model.conv_att_mechanism
        assert isinstance(mechanism, nn.Conv3d)
        assert isinstance(norm, nn.BatchNorm3d)
        weight, bias = folded(mechanism, norm)
        in_space, in_time = weight[..., 0, 0, 0].to(parts.dtype).chunk(2, dim=1)
        self.conv_att_mechanism = nn.Sequential()
        self.register_buffer("mix_in_space", in_space.contiguous())
        self.register_buffer("mix_in_time", in_time.contiguous())
        self.register_buffer("mix_bias", bias.to(parts.dtype)[:, None, None, None])

    def perceiver(self, features_bcthw: Float[Tensor, "b c t h w"]) -> Perceiver:
        """`perceive` for many attentions of the same features.

        A 1 x 1 x 1 convolution does not mind in which order numbers per place and sums over channels are applied:

            conv([(1 + M_s) f, M_t f]) = (1 + M_s) W_s f + M_t W_t f

        So W_s f and W_t f are computed once, and nothing is concatenated.
        """
        self._check_frames("features", features_bcthw)
        f_bthwc = channels_last(features_bcthw).permute(0, 2, 3, 4, 1)
        in_space, in_time = (
            F.linear(f_bthwc, weight).permute(0, 4, 1, 2, 3) for weight in (self.mix_in_space, self.mix_in_time)
        )

        def perceive(attention: Attention) -> Tensor:
            self._check_attention(features_bcthw, attention)
            where = attention.spatial[:, None].to(in_space)
            when = attention.temporal[:, None, :, None, None].to(in_space)
            if self.mechanism == "gated-both":
                where = when = where * when
            else:
                where = (1 + where) * when if self.mechanism == "gated" else 1 + where
            return self.classify(torch.addcmul(self.mix_bias, where, in_space).addcmul_(when, in_time))

        return Perceiver(perceive, in_space.nbytes + in_time.nbytes)

    def perceive(self, features_bcthw: Float[Tensor, "b c t h w"], attention: Attention) -> Float[Tensor, "b k"]:
        """As `STABN.perceive`."""
        return self.perceiver(features_bcthw)(attention)


def folded(
    convolution: nn.Conv3d, after: nn.BatchNorm3d, before: nn.BatchNorm3d | None = None
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that does what a convolution between batch norms does.

    Args:
        convolution: without bias.
        after: normalises what it gives.
        before: normalises what it gets; then it must have no padding, for its zeros would not be normalised.

    Raises:
        ValueError: the convolution has a bias, or padding and a normalisation before it.
    """
    if convolution.bias is not None or (before is not None and any(convolution.padding)):
        raise ValueError(f"convolution: got {convolution}, expected one without bias, and without padding after a norm")
    scale_d, shift_d = _affine(after)
    weight = convolution.weight.detach()
    bias = shift_d
    if before is not None:
        scale_c, shift_c = _affine(before)
        bias = bias + scale_d * (weight.double() * shift_c[:, None, None, None]).sum(dim=(1, 2, 3, 4))
        weight = weight * scale_c.to(weight)[:, None, None, None]
    return weight * scale_d.to(weight)[:, None, None, None, None], bias.to(weight)


def _affine(norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Scale and shift, float64, that a batch norm applies in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


class _Parts:
    """Makes the copy's parts, in one dtype."""

    def __init__(self, dtype: torch.dtype, winograd: bool) -> None:
        self.dtype = dtype
        self.winograd = winograd

    def layer(self, layer: nn.Module) -> nn.Sequential:
        assert isinstance(layer, nn.Sequential)
        return nn.Sequential(*(self._block(block) for block in layer))

    def _block(self, block: nn.Module) -> "_Block":
        assert isinstance(block, BasicBlock | Bottleneck)
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if isinstance(block, Bottleneck):
            pairs.append((block.conv3, block.bn3))
        shortcut = None
        if block.downsample is not None:
            assert isinstance(block.downsample, nn.Sequential)
            shortcut = self.convolution(*block.downsample)
        return _Block([self.convolution(*pair) for pair in pairs], shortcut)

    def convolution(
        self, convolution: nn.Conv3d, after: nn.BatchNorm3d, before: nn.BatchNorm3d | None = None
    ) -> nn.Module:
        """A convolution and its norms as one module."""
        weight, bias = (value.to(self.dtype) for value in folded(convolution, after, before))
        d, c, *kernel = weight.shape
        if self.winograd and tuple(convolution.stride) == (1, 1, 1) and min(c, d) * kernel[0] >= WORTH:
            if kernel == [3, 1, 1]:
                return AlongTime(weight, bias)
            if kernel[1:] == [3, 3]:
                return InPlane(weight, bias)
        return _Direct(weight, bias, convolution)


class _Direct(nn.Conv3d):
    """A convolution as PyTorch computes it."""

    def __init__(self, weight: Tensor, bias: Tensor, like: nn.Conv3d) -> None:
        d, c, *kernel = weight.shape
        size: Any = tuple(kernel)
        padding: Any = like.padding
        stride: Any = like.stride
        super().__init__(c, d, size, stride, padding, device="meta")
        self.weight = nn.Parameter(channels_last(weight))
        self.bias = nn.Parameter(bias)

    def forward(self, x_bcthw: Tensor) -> Tensor:
        # With one thread PyTorch's own 1 x 1 x 1 convolution takes a path that is four times slower.
        if x_bcthw.is_cpu and torch.get_num_threads() == 1 and self.kernel_size == self.stride == (1, 1, 1):
            return F.linear(x_bcthw.permute(0, 2, 3, 4, 1), self.weight[..., 0, 0, 0], self.bias).permute(0, 4, 1, 2, 3)
        return super().forward(channels_last(x_bcthw))


class _Block(nn.Module):
    """A residual block without batch norms."""

    def __init__(self, convolutions: list[nn.Module], shortcut: nn.Module | None) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.shortcut = shortcut

    def forward(self, x_bcthw: Tensor) -> Tensor:
        *first, last = self.convolutions
        y_bcthw = x_bcthw
        for convolution in first:
            y_bcthw = convolution(y_bcthw).relu_()
        return last(y_bcthw).add_(x_bcthw if self.shortcut is None else self.shortcut(x_bcthw)).relu_()


class _To(nn.Module):
    """Converts to another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, value: Tensor) -> Tensor:
        return value.to(self.dtype)


DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Of the features of a network that only answers, by Lightning's word for the precision."""


def can_quicken(model: ResNet3D) -> bool:
    """Whether there can be a copy that only answers; of a class of its own nobody knows what it computes."""
    return type(model) in (STABN, ResNet3D)


def quick(model: Network, precision: str, device: torch.device, *, fast: bool = True) -> Network:
    """A network that gives the model's answers on a device, in evaluation mode; put it there.

    Args:
        model: is not changed, except that it is put into evaluation mode.
        precision: a key of `DTYPES`, or 64-true for the model's own arithmetic in its own dtype.
        device: on what it will run.
        fast: a copy for fast inference where there can be one; False gives the model itself, the plain reference.
    """
    if not fast or precision not in DTYPES or not can_quicken(model):
        return model.eval()
    dtype = DTYPES[precision]
    return answering(model, dtype, winograd=dtype == torch.float32 and device.type == "cpu")
