"""TRN (Zhou et al. 2018): relations between ordered tuples of frames in place of TSN's mean.

For each scale s = T, T - 1, ..., 2 a small network g_s reads the features of s frames in order. In training the scores
of three random tuples per scale are summed; in evaluation their expectation, where the official code draws again.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.nn.backbone import Features, OfficialNetwork, map_of
from stabn.nn.backbones.frame_network import BN_INCEPTION, FrameArchitecture, FrameNetwork, resnet_of, small_linear
from stabn.nn.backbones.tsn import FLOW_SNIPPET
from stabn.nn.state_dict import dimensions_of

FEATURES = 256
HIDDEN = {"multiscale": 256, "single": 512}
DRAWN = 3
"""Tuples of each scale in a training step."""
MOST_STEPS = 16
"""More would be millions of tuples."""

# fmt: off
TRN_ARCHITECTURES: dict[str, FrameArchitecture] = {
    "trn_bninception":        FrameArchitecture(BN_INCEPTION, 8),
    "trn_resnet50":           FrameArchitecture("resnet50", 8),
    "trn_flow_bninception":   FrameArchitecture(BN_INCEPTION, 8 * FLOW_SNIPPET, snippet=FLOW_SNIPPET, flow=True),
    "trn_flow_resnet50":      FrameArchitecture("resnet50", 8 * FLOW_SNIPPET, snippet=FLOW_SNIPPET, flow=True),
    "trn_single_bninception": FrameArchitecture(BN_INCEPTION, 8, variant="single"),
    "trn_single_resnet50":    FrameArchitecture("resnet50", 8, variant="single"),
    "trn_small":              FrameArchitecture("small", 8, 56),
    "trn_tiny":               FrameArchitecture("tiny", 8, 56),
    "trn_single_tiny":        FrameArchitecture("tiny", 8, 56, variant="single"),
    "trn_flow_tiny":          FrameArchitecture("tiny", 8 * FLOW_SNIPPET, 56, snippet=FLOW_SNIPPET, flow=True),
}
# fmt: on


@cache
def ordered_tuples(steps: int, scale: int) -> Int[Tensor, "n s"]:
    """All increasing tuples of `scale` of the steps 0..steps-1, in lexicographic order."""
    return torch.tensor(list(combinations(range(steps), scale)))


class MultiscaleRelation(nn.Module):
    """The relations of all scales.

    Args:
        steps: T', from 2.
        features: of a step.
        num_classes: K.
    """

    def __init__(self, steps: int, features: int, num_classes: int) -> None:
        super().__init__()
        self.steps = steps
        self.scales = range(steps, 1, -1)
        hidden = HIDDEN["multiscale"]
        self.fc_fusion_scales = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(scale * features, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
            for scale in self.scales
        )

    def sums(
        self, features_btd: Float[Tensor, "b t d"], tuples: Sequence[Int[Tensor, "_ _"]]
    ) -> list[Float[Tensor, "b k"]]:
        """For each scale the sum of g_s over some tuples.

        The first layer of g_s is a sum over its places, so each step goes once through each place's part of it; the
        last layer is linear, so the sum over tuples is taken before it.
        """
        seen_btd = features_btd.relu()
        network: Any
        sums = []
        for network, tuples_ns in zip(self.fc_fusion_scales, tuples, strict=True):
            _, first, _, last = network
            count, scale = tuples_ns.shape
            parts_hsd = first.weight.unflatten(1, (scale, -1))
            hidden_bnh = first.bias
            for place, index_n in enumerate(tuples_ns.to(seen_btd.device).unbind(1)):
                hidden_bnh = hidden_bnh + (seen_btd @ parts_hsd[:, place].T)[:, index_n]
            sums.append(hidden_bnh.relu().sum(dim=1) @ last.weight.T + count * last.bias)
        return sums

    def forward(self, features_btd: Float[Tensor, "b t d"]) -> Float[Tensor, "b k"]:
        """The sum over a random draw of tuples in training, its expectation in evaluation."""
        tuples = [ordered_tuples(self.steps, scale) for scale in self.scales]
        if self.training:
            drawn = [one[torch.randperm(len(one))[:DRAWN]] for one in tuples]
            return torch.stack(self.sums(features_btd, drawn)).sum(dim=0)
        shares = [min(DRAWN, len(one)) / len(one) for one in tuples]
        sums = self.sums(features_btd, tuples)
        return torch.stack([share * total for share, total in zip(shares, sums, strict=True)]).sum(dim=0)


class SingleScaleRelation(nn.Module):
    """The relation of all steps alone; arguments as of `MultiscaleRelation`."""

    def __init__(self, steps: int, features: int, num_classes: int) -> None:
        super().__init__()
        hidden = HIDDEN["single"]
        self.classifier = nn.Sequential(
            nn.ReLU(), nn.Linear(steps * features, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def forward(self, features_btd: Float[Tensor, "b t d"]) -> Float[Tensor, "b k"]:
        """Class scores."""
        return self.classifier(features_btd.flatten(1))


class TRN(FrameNetwork):
    """The temporal relation network, of frames or of optical flow; CAM is not defined.

    Args:
        features: channels of a frame's features, from which relations are computed.
    """

    architectures: ClassVar[Mapping[str, FrameArchitecture]] = TRN_ARCHITECTURES

    def __init__(
        self, name: str, num_classes: int, frames: int, dropout: float = 0.5, features: int = FEATURES
    ) -> None:
        super().__init__(name, num_classes, frames, dropout, features=features)
        steps = self.steps(frames)
        if not 2 <= steps <= MOST_STEPS:
            raise UserError(
                f"frames: got {frames}, but {name} takes 2 to {MOST_STEPS} snippets of {self.shape.snippet}"
            )
        relation = SingleScaleRelation if self.shape.variant == "single" else MultiscaleRelation
        self.consensus = relation(steps, features, num_classes)

    def build_classifier(self, num_classes: int) -> nn.Linear:
        """From pooled maps to the features of a frame."""
        return small_linear(self.base_model.last_channels, self.options["features"])

    @property
    def classifier(self) -> tuple[str, ...]:  # type: ignore[override]
        """The last layer of each relation."""
        return tuple(f"consensus.{name}.3." for name in self._relations())

    def _relations(self) -> dict[str, nn.Sequential]:
        return {name: module for name, module in self.consensus.named_modules() if isinstance(module, nn.Sequential)}

    def frame_features(self, maps: Features) -> Float[Tensor, "b t d"]:
        """What the relations read."""
        return self.new_fc(self.drop(map_of(maps).mean(dim=(3, 4)).transpose(1, 2)))

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """The relations of the frames' features."""
        return self.consensus(self.frame_features(maps))

    def stages(self) -> dict[str, tuple[nn.Module, ...]]:
        """The 2D network's stages, the frames' features, the first and the last layers of the relations."""
        relations: list[Any] = list(self._relations().values())
        return super().stages() | {
            "relations": tuple(relation[1] for relation in relations),
            "classifiers": tuple(relation[3] for relation in relations),
        }

    @property
    def linear(self) -> None:
        """None: two layers lie behind the pooling."""
        return None

    @classmethod
    def official(cls, tensors: Mapping[str, Tensor]) -> OfficialNetwork | None:
        """`consensus.`, whose first layer tells the number of frames."""
        kinds = {"trn": "consensus.fc_fusion_scales.0", "trn_single": "consensus.classifier"}
        kind = next((kind for kind, prefix in kinds.items() if f"{prefix}.1.weight" in tensors), None)
        if kind is None:
            return None
        inception = "base_model.conv1_7x7_s2.weight"
        body = BN_INCEPTION if inception in tensors else resnet_of(tensors)
        channels = dimensions_of(tensors, inception if body == BN_INCEPTION else "base_model.conv1.weight", 4)[1]
        name = f"{'trn_flow' if channels == 2 * FLOW_SNIPPET else kind}_{body}"
        if name not in cls.architectures:
            raise UserError(f"got relations of {body or 'no ResNet'}, expected one of {', '.join(cls.architectures)}")
        features = dimensions_of(tensors, "new_fc.weight", 2)[0]
        return OfficialNetwork(
            name,
            dimensions_of(tensors, f"{kinds[kind]}.3.weight", 2)[0],
            dict(tensors),
            dimensions_of(tensors, f"{kinds[kind]}.1.weight", 2)[1] // features * cls.architectures[name].snippet,
            {"features": features},
        )
