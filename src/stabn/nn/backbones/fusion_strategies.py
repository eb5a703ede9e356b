"""Every number of the 3D DenseNets of Zhou et al., and the fusion strategies that their search found."""

from dataclasses import dataclass, replace

from stabn.nn.backbone import ClipFormat

Four = tuple[int, int, int, int]
_CLIPS = ClipFormat(16, 224)
_EIGHTHS = replace(_CLIPS, multiple_of=8)


@dataclass(frozen=True)
class DenseShape:
    """Every number of a 3D DenseNet.

    Attributes:
        strategy: of every unit, "S", "ST" or "S+ST", but for those in `others`.
        others: block and numbers of its layers -> their strategy; a transition has number 0.
        shrinks_time: whether stem, max pooling and first transition halve the steps, so that T' = T / 8.
        depths: layers per block.
        growth: channels that a layer adds.
        bottleneck: channels inside a layer.
        stem: channels of the stem.
        branch: channels of the attention branch.
        format: its clips.
    """

    strategy: str = "S+ST"
    others: tuple[tuple[int, tuple[int, ...], str], ...] = ()
    shrinks_time: bool = False
    depths: Four = (6, 12, 24, 16)
    growth: int = 32
    bottleneck: int = 128
    stem: int = 64
    branch: int = 128
    format: ClipFormat = _CLIPS

    def strategies(self) -> dict[str, str]:
        """The name of each unit -> its strategy, from the clip to the classifier."""
        named = {f"{block}.{number}": strategy for block, numbers, strategy in self.others for number in numbers}
        units = {}
        for block, depth in enumerate(self.depths, start=1):
            for number in range(1, depth + 1):
                units[f"denseblock{block}.denselayer{number}"] = named.get(f"{block}.{number}", self.strategy)
            if block < len(self.depths):
                units[f"transition{block}"] = named.get(f"{block}.0", self.strategy)
        return units


_SSV2 = (
    (1, (6,), "ST"),
    (2, (6, 10), "ST"),
    (3, (12, 14, 17, 18, 20, 24), "ST"),
    (4, (3, 4, 5, 7, 8, 11, 13, 14, 16), "ST"),
)
"""The best strategy for Something-Something v2 (the paper's figure 4b)."""
_SSV1 = (
    (1, (0,), "S"),
    (1, (6,), "ST"),
    (2, (4, 12), "ST"),
    (3, (11, 14, 15, 18, 20, 21, 22, 23), "ST"),
    (4, (1, 2, 3, 4, 6, 12, 14, 15), "ST"),
)
"""The best strategy for Something-Something v1."""
_SMALL = DenseShape("S+ST", (), False, (2, 2, 2, 2), 16, 32, 16, 48, ClipFormat(16, 56))

ZHOU_SHAPES = {
    "zhou_densenet121_s": DenseShape("S"),
    "zhou_densenet121_st": DenseShape("ST"),
    "zhou_densenet121_sst": DenseShape("S+ST"),
    "zhou_densenet121_ssv2": DenseShape("S+ST", _SSV2),
    "zhou_densenet121_ssv1": DenseShape("S+ST", _SSV1),
    "zhou_densenet121_sst_t8": DenseShape("S+ST", shrinks_time=True, format=_EIGHTHS),
    "zhou_densenet121_ssv2_t8": DenseShape("S+ST", _SSV2, shrinks_time=True, format=_EIGHTHS),
    # For a 2-core CPU; no official file has these shapes.
    "zhou_small": _SMALL,
    "zhou_small_t8": replace(_SMALL, shrinks_time=True, format=replace(_SMALL.format, multiple_of=8)),
}
"""Name -> its numbers; `_t8` is the variant whose cost the paper publishes."""
