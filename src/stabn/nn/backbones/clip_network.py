"""What the families that read whole clips share: numbers in a table, and a classifier of the last maps' mean.

Shape suffixes: b clips, c channels, t steps, h height, w width, k classes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from stabn.nn.backbone import Backbone, ClipFormat, Features, convolutional_head, map_of
from stabn.nn.hub import read_weights
from stabn.nn.state_dict import fill


class ClipNetwork(Backbone):
    """A network of 1/16 of the frames' resolution at its split, with four stages before it.

    Args:
        name: a key of `architectures`.
        num_classes: K.
        frames: T of a clip.
        dropout: before the classifier.

    Raises:
        UserError: the network does not take so many frames.
    """

    architectures: ClassVar[Mapping[str, Any]]
    """Name -> every number; each has `branch`, the channels of the attention branch, and `format`, its clips."""
    per_class: ClassVar[str] = "fc"
    """The module with a row per class."""
    time_stride = 1
    space_stride = 16
    extracting = 4

    def __init__(self, name: str, num_classes: int, frames: int, dropout: float = 0.5) -> None:
        super().__init__(name, num_classes, frames, dropout)
        self.name, self.shape = name, self.architectures[name]
        self.format = self.shape.format.built_for(name, frames)
        self.branch_channels = self.shape.branch
        self.drop = nn.Dropout(dropout)

    @classmethod
    def format_for(cls, name: str, options: Mapping[str, Any]) -> ClipFormat:
        """The published clips, or those of the comparison's row."""
        return cls.architectures[name].format

    @classmethod
    def own_names(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of official checkpoints under our names; other names stay."""
        return dict(tensors)

    def load_weights(self, weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifier.

        Args:
            weights: a checkpoint of the official code, or a file or folder of ours.
        """
        return self.fill_from(self.own_names(read_weights(weights, self.name)), weights)

    def fill_from(self, tensors: Mapping[str, Tensor], weights: str) -> tuple[str, ...]:
        """Fill the network, but for its classifier, with tensors under our names, and say which stay."""
        remedy = f"give weights of {self.name}"
        return fill(self, tensors, classifier=f"{self.per_class}.", source=weights, remedy=remedy)

    def classify(self, maps: Features) -> Float[Tensor, "b k"]:
        """Average, dropout, linear."""
        return getattr(self, self.per_class)(self.drop(map_of(maps).mean(dim=(2, 3, 4))))

    def fresh_head(self) -> nn.Module:
        """A convolutional head."""
        return convolutional_head(self.channels, self.branch_channels)

    @property
    def linear(self) -> nn.Linear | None:
        """The classifier of the maps' mean."""
        return getattr(self, self.per_class)
