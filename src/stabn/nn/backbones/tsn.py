"""TSN (Wang et al. 2016): every frame alone, and the mean of the frames' class scores; blind to their order."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from stabn.nn.backbone import OfficialNetwork
from stabn.nn.backbones.frame_network import BN_INCEPTION, FrameArchitecture, FrameNetwork, official_network
from stabn.nn.backbones.mmaction import frame_names
from stabn.nn.state_dict import dimensions_of

FLOW_SNIPPET = 5
"""Consecutive flow fields of a step."""

# fmt: off
TSN_ARCHITECTURES: dict[str, FrameArchitecture] = {
    "tsn_bninception":      FrameArchitecture(BN_INCEPTION, 8),
    "tsn_resnet18":         FrameArchitecture("resnet18", 8),
    "tsn_resnet34":         FrameArchitecture("resnet34", 8),
    "tsn_resnet50":         FrameArchitecture("resnet50", 8),
    "tsn_resnet101":        FrameArchitecture("resnet101", 8),
    "tsn_resnet152":        FrameArchitecture("resnet152", 8),
    "tsn_flow_bninception": FrameArchitecture(BN_INCEPTION, 8 * FLOW_SNIPPET, snippet=FLOW_SNIPPET, flow=True),
    "tsn_flow_resnet50":    FrameArchitecture("resnet50", 8 * FLOW_SNIPPET, snippet=FLOW_SNIPPET, flow=True),
    "tsn_small":            FrameArchitecture("small", 8, 56),
    "tsn_tiny":             FrameArchitecture("tiny", 8, 56),
    "tsn_flow_tiny":        FrameArchitecture("tiny", 8 * FLOW_SNIPPET, 56, snippet=FLOW_SNIPPET, flow=True),
}
# fmt: on


class TSN(FrameNetwork):
    """The temporal segment network, of frames or of optical flow; any number of steps is taken."""

    architectures: ClassVar[Mapping[str, FrameArchitecture]] = TSN_ARCHITECTURES
    fixed_frames: ClassVar[bool] = False

    def own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of the official code; also of MMAction2 and, without its shift, of TSM."""
        return {name.replace(".conv1.net.", ".conv1."): value for name, value in frame_names(tensors).items()}

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """`base_model.` and `new_fc.`, with nothing between frames."""
        named = frame_names(tensors)
        if "base_model.conv1_7x7_s2.weight" in named:
            name, first = BN_INCEPTION, "base_model.conv1_7x7_s2.weight"
        else:
            name, first = "", "base_model.conv1.weight"
        if first not in named or named[first].ndim != 4 or any(".net." in one or "consensus." in one for one in named):
            return None
        flow = dimensions_of(named, first, 4)[1] == 2 * FLOW_SNIPPET
        prefix = "tsn_flow" if flow else "tsn"
        if name:
            return OfficialNetwork(f"{prefix}_{name}", dimensions_of(named, "new_fc.weight", 2)[0], named)
        return official_network(cls, prefix, named, "new_fc.weight")
