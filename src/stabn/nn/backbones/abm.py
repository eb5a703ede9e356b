"""ABM (Zhu et al. 2019): convolutions multiplied by an auxiliary one, h = bn(conv(x)) * (conv'(x) + b), on snippets.

A step is a snippet of consecutive frames, stacked as channels of the first convolution. Three kinds, whose names are
our reading of the official options:

    abm_c_in   3 x 3 x 3 convolutions in layer2 .. layer4 (the option iabp)
    abm_a_in   convolutions that read some channels of the adjacent steps too, in all layers, and a temporal pooling
               behind layer1 (inabp)
    abm_top    a plain 2D network, whose last maps are multiplied in pairs until one is left (top)
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabn.errors import UserError
from stabn.nn.backbone import Features, OfficialNetwork, map_of
from stabn.nn.backbones.frame_network import FrameArchitecture, FrameNetwork, official_network, unfold
from stabn.nn.backbones.frame_resnet import FrameBlock, FrameResNet, flat_convolution, plain_block
from stabn.nn.state_dict import dimensions_of

SNIPPET = 3
GROUPS = 4
"""Of steps, whose maps are joined in `abm_top`."""
BETA = {1: 0.7, 2: 0.7, 3: 0.5, 4: 0.4}
"""Layer -> share of the channels that are read from each adjacent step."""

# fmt: off
ABM_ARCHITECTURES = {
    "abm_c_in_resnet50": FrameArchitecture("resnet50", 48, snippet=SNIPPET, variant="c_in"),
    "abm_c_in_resnet34": FrameArchitecture("resnet34", 48, snippet=SNIPPET, variant="c_in"),
    "abm_c_in_resnet18": FrameArchitecture("resnet18", 48, snippet=SNIPPET, variant="c_in"),
    "abm_a_in_resnet34": FrameArchitecture("resnet34", 48, snippet=SNIPPET, variant="a_in"),
    "abm_a_in_resnet18": FrameArchitecture("resnet18", 48, snippet=SNIPPET, variant="a_in"),
    "abm_top_resnet34":  FrameArchitecture("resnet34", 48, snippet=SNIPPET, variant="top"),
    "abm_top_resnet18":  FrameArchitecture("resnet18", 48, snippet=SNIPPET, variant="top"),
    "abm_c_in_small":    FrameArchitecture("small", 24, 56, SNIPPET, variant="c_in"),
    "abm_c_in_tiny":     FrameArchitecture("tiny", 24, 56, SNIPPET, variant="c_in"),
    "abm_a_in_tiny":     FrameArchitecture("tiny_basic", 24, 56, SNIPPET, variant="a_in"),
    "abm_top_tiny":      FrameArchitecture("tiny_basic", 24, 56, SNIPPET, variant="top"),
}
# fmt: on


class BilinearBlock(FrameBlock):
    """A residual block whose first 3 x 3 convolution is multiplied by an auxiliary one; arguments as of `FrameBlock`.

    Subclasses say what the two convolutions read.
    """

    def multiplied(self) -> tuple[str, str]:
        """The names of the convolution and of its auxiliary."""
        name = "conv1" if self.kind == "basic" else "conv2"
        return name, f"{name}_abp"

    def product(self, norm: nn.Module, x_nchw: Tensor) -> Tensor:
        """bn(conv(x)) * conv'(x)."""
        raise NotImplementedError

    def residual(self, x_nchw: Tensor) -> Tensor:
        """The block with the product in place of a convolution."""
        if self.kind == "basic":
            return self.bn2(self.conv2(self.relu(self.product(self.bn1, x_nchw))))
        y_nchw = self.relu(self.product(self.bn2, self.relu(self.bn1(self.conv1(x_nchw)))))
        return self.bn3(self.conv3(y_nchw))


class ConvolvedInTime(BilinearBlock):
    """Both convolutions are 3 x 3 x 3; the auxiliary one starts as the constant 1."""

    def __init__(self, kind: str, channels_in: int, width: int, steps: int) -> None:
        super().__init__(kind, channels_in, width, 1)
        self.steps = steps
        own, auxiliary = self.multiplied()
        channels = channels_in if kind == "basic" else width
        setattr(self, own, nn.Conv3d(channels, width, 3, padding=1, bias=False))
        setattr(self, auxiliary, nn.Conv3d(channels, width, 3, padding=1))

    def product(self, norm: nn.Module, x_nchw: Tensor) -> Tensor:
        """Frames have an axis of their own within it."""
        own, auxiliary = (getattr(self, name) for name in self.multiplied())
        x_bcthw = x_nchw.unflatten(0, (-1, self.steps)).transpose(1, 2)
        convolved, factor = (part(x_bcthw).transpose(1, 2).flatten(0, 1) for part in (own, auxiliary))
        return norm(convolved) * factor


class AdjacentSteps(BilinearBlock):
    """Both convolutions read all channels of step t, then the last m of t - 1 and of t + 1; zeros beyond the ends."""

    def __init__(self, channels_in: int, width: int, steps: int, borrowed: int) -> None:
        super().__init__("basic", channels_in, width, 1)
        self.steps, self.borrowed = steps, borrowed
        self.conv1 = flat_convolution(channels_in + 2 * borrowed, width, 3)
        self.conv1_abp = nn.Conv2d(channels_in + 2 * borrowed, width, 3, padding=1)

    def product(self, norm: nn.Module, x_nchw: Tensor) -> Tensor:
        """Of the joined channels."""
        lent_btchw = x_nchw[:, x_nchw.shape[1] - self.borrowed :].unflatten(0, (-1, self.steps))
        padded_btchw = F.pad(lent_btchw, (0, 0, 0, 0, 0, 0, 1, 1))
        previous, following = (part.flatten(0, 1) for part in (padded_btchw[:, :-2], padded_btchw[:, 2:]))
        joined_nchw = torch.cat((x_nchw, previous, following), dim=1)
        return norm(self.conv1(joined_nchw)) * self.conv1_abp(joined_nchw)


def convolved_block(
    steps: int, kind: str, channels_in: int, width: int, stride: int, layer: int, number: int
) -> nn.Module:
    """Bilinear in layer2 .. layer4, but for the first block of each."""
    if layer == 1 or number == 0:
        return FrameBlock(kind, channels_in, width, stride)
    return ConvolvedInTime(kind, channels_in, width, steps)


def adjacent_block(
    steps: int, kind: str, channels_in: int, width: int, stride: int, layer: int, number: int
) -> nn.Module:
    """Bilinear in all layers, but for the first block of each; fewer steps are left behind layer1."""
    if number == 0:
        return FrameBlock(kind, channels_in, width, stride)
    return AdjacentSteps(channels_in, width, steps if layer == 1 else pooled(steps), int(channels_in * BETA[layer]))


def pooled(steps: int) -> int:
    """Steps behind a temporal pooling with a kernel of three and a stride of two."""
    return (steps - 3) // 2 + 1


class PooledResNet(FrameResNet):
    """A 2D ResNet of frames with a temporal max-pooling behind layer1.

    Args:
        body: a key of `FRAME_RESNETS`.
        steps: T' before the pooling, from 3.
        channels_in: of the first convolution.
    """

    def __init__(self, body: str, steps: int, channels_in: int) -> None:
        super().__init__(body, partial(adjacent_block, steps), channels_in)
        self.steps = steps

    def shallow(self, x_nchw: Tensor) -> Tensor:
        """As `FrameResNet.shallow`, for fewer steps."""
        x_bcthw = unfold(self.layer1(self.stem(x_nchw)), self.steps)
        x_bcthw = F.max_pool3d(x_bcthw, (3, 1, 1), (2, 1, 1))
        return self.layer3(self.layer2(x_bcthw.transpose(1, 2).flatten(0, 1)))


class ABM(FrameNetwork):
    """Approximated bilinear modules, of the kind that its architecture's variant says.

    Args:
        snippet: frames of a step.
    """

    architectures: ClassVar[Mapping[str, FrameArchitecture]] = ABM_ARCHITECTURES

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5, snippet: int = SNIPPET) -> None:
        super().__init__(name, num_classes, frames, dropout, snippet=snippet)
        steps, width = frames // snippet, self.base_model.last_channels
        if self.shape.variant == "a_in":
            self.time_stride *= 2
        if self.shape.variant == "top":
            if steps % GROUPS:
                raise UserError(f"frames: got {frames}, but {name} takes multiples of {GROUPS * snippet}")
            for layer, joined in (("rank", steps // GROUPS), ("2rank", 2), ("3rank", 2)):
                for factor in (1, 2):
                    self.add_module(f"to_{layer}_{factor}", nn.Conv2d(joined * width, width, 1))
        with torch.no_grad():  # the network starts as the 2D one
            for parameter_name, parameter in self.named_parameters():
                if "_abp." in parameter_name:
                    parameter.fill_(float(parameter_name.endswith("bias")))

    @classmethod
    def shape_for(cls, name: str, options: Mapping[str, Any]) -> FrameArchitecture:
        """With snippets of another length, as many of them."""
        shape = cls.architectures[name]
        snippet = options.get("snippet", shape.snippet)
        return replace(shape, snippet=snippet, frames=shape.frames // shape.snippet * snippet)

    def build_body(self, steps: int) -> Any:
        """The 2D ResNet with bilinear blocks."""
        body, channels_in = self.shape.body, self.shape.channels_in
        if self.shape.variant == "a_in":
            return PooledResNet(body, steps, channels_in)
        return FrameResNet(
            body, plain_block if self.shape.variant == "top" else partial(convolved_block, steps), channels_in
        )

    def steps(self, frames: int) -> int:
        """T': as many as snippets, or about half of them behind the temporal pooling."""
        snippets = frames // self.shape.snippet
        return pooled(snippets) if self.shape.variant == "a_in" else snippets

    def deepen(self, features: Features) -> Tensor:
        """Layer4; in `abm_top` also the products of maps, which leave one step."""
        maps_bcthw = super().deepen(features)
        if self.shape.variant != "top":
            return maps_bcthw
        maps_bgchw = maps_bcthw.transpose(1, 2)
        for layer, groups in (("rank", GROUPS), ("2rank", 2), ("3rank", 1)):
            joined_nchw = maps_bgchw.unflatten(1, (groups, -1)).flatten(2, 3).flatten(0, 1)
            first, second = (getattr(self, f"to_{layer}_{factor}")(joined_nchw) for factor in (1, 2))
            maps_bgchw = (first * second).unflatten(0, (-1, groups))
        return maps_bgchw.transpose(1, 2)

    @property
    def maps_time_stride(self) -> int:
        """The whole clip in `abm_top`."""
        return self.format.frames if self.shape.variant == "top" else self.time_stride

    def classify(self, maps: Features) -> Tensor:
        """Average over space and time, dropout, linear."""
        return self.new_fc(self.drop(map_of(maps).mean(dim=(2, 3, 4))))

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """As for any network; in `abm_top` the products before the classifier."""
        products = tuple(module for name, module in self.named_children() if name.startswith("to_"))
        stages = super().stages()
        classifier = stages.pop("new_fc")
        return stages | ({"products": products} if products else {}) | {"new_fc": classifier}

    def from_image_network(self, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """2D kernels in the middle tap in time, or on a step's own channels; zero elsewhere."""
        filled, own = super().from_image_network(flat), self.state_dict()
        for name, value in filled.items():
            like = own[name]
            if value.shape != like.shape:
                kernel = torch.zeros_like(like)
                (kernel[:, :, 1] if like.ndim == 5 else kernel[:, : value.shape[1]]).copy_(value)
                filled[name] = kernel
        return filled

    @classmethod
    def _named(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        renamed = {"fc2.": "new_fc.", "cls.1.": "new_fc."}

        def own(name: str) -> str:
            for theirs, ours in renamed.items():
                if name.startswith(theirs):
                    return ours + name.removeprefix(theirs)
            return name if name.startswith(("to_", "base_model.", "new_fc.")) else f"base_model.{name}"

        return {own(name): value for name, value in tensors.items()}

    def own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The official code has no prefix, and two names of the classifier."""
        return self._named(tensors) if _is_bilinear(tensors) else dict(tensors)

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """Auxiliary convolutions, whose dimensions tell the kind, or products of maps."""
        if not _is_bilinear(tensors):
            return None
        named = cls._named(tensors)
        auxiliary = next((value for name, value in named.items() if name.endswith("_abp.weight")), None)
        kind = "top" if auxiliary is None else ("c_in" if auxiliary.ndim == 5 else "a_in")
        snippet = dimensions_of(named, "base_model.conv1.weight", 4)[1] // 3
        found = official_network(cls, f"abm_{kind}", named, "new_fc.weight")
        frames = None
        if kind == "top":
            width, joined, *_ = dimensions_of(named, "to_rank_1.weight", 4)
            frames = joined // width * GROUPS * snippet
        return replace(found, frames=frames, options={"snippet": snippet})


def _is_bilinear(tensors: Mapping[str, Tensor]) -> bool:
    return any("_abp." in name or name.startswith("to_rank_1.") for name in tensors)
