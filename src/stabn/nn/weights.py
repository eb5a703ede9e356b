"""Where a training starts: from another network of ours, or from weights of its base network."""

from collections.abc import Sequence

import torch

from stabn.errors import UserError
from stabn.nn.checkpoints import load_pretrained
from stabn.nn.hub import is_saved_network
from stabn.nn.network import VideoNetwork
from stabn.nn.stabn import has_attention

CLASS_MODULES = (
    "conv_att_common.1",
    "conv_att_common.2",
    "conv_att_out",
    "fc_att_out",
    "conv_spatial_att.0",
    "conv_temp_att1.0",
)
"""Modules of the attention branch whose weights have a row or a column per class."""


def start_from(model: VideoNetwork, weights: str) -> str:
    """Fill a network before training, in place.

    From a finished run or another saved network, everything is taken but the tensors of classes, those of another
    number of frames, and those that it lacks; with the same classes in the same order, their tensors are taken, too.
    From anything else, the base network is filled but for its classifier.

    Args:
        model: the network.
        weights: a folder of ours, or as `Backbone.load_weights` takes them.

    Returns:
        One line that says what was taken and what stays random.

    Raises:
        UserError: the weights cannot be read, or are of another base network; the first tensor that does not fit.
    """
    if not is_saved_network(weights):
        left = model.load_weights(weights)
        new = ["attention branch"] if "attention branch" in model.stages() else []
        return _line(model, weights, len(model.backbone.state_dict()) - len(left), left, new)
    source = load_pretrained(weights)
    if (source.architecture, source.backbone_options) != (model.architecture, model.backbone_options):
        raise UserError(
            f"--network.weights: {weights} has the base network {source.architecture}, but {model.architecture} is to "
            f"be trained; give --network.backbone {source.architecture}, or other weights"
        )
    same_classes = source.class_names is not None and source.class_names == model.class_names
    of_classes = () if same_classes else _class_names(model)
    own, theirs = model.state_dict(), source.state_dict()
    taken = [
        name
        for name, value in own.items()
        if name not in of_classes and name in theirs and theirs[name].shape == value.shape
    ]
    with torch.no_grad():
        for name in taken:
            own[name].copy_(theirs[name])
    return _line(model, weights, len(taken), [name for name in own if name not in taken])


def _class_names(model: VideoNetwork) -> frozenset[str]:
    """The names of the tensors that have a row or a column per class."""
    *_, classifier = model.backbone.stages().values()
    modules = {id(module) for module in classifier}
    prefixes = [name.removeprefix("backbone.") for name, module in model.named_modules() if id(module) in modules]
    prefixes += CLASS_MODULES if has_attention(model) else ()
    return frozenset(name for name in model.state_dict() if name.startswith(tuple(f"{prefix}." for prefix in prefixes)))


def _line(model: VideoNetwork, weights: str, taken: int, left: Sequence[str], new: Sequence[str] = ()) -> str:
    """What was taken, and the modules that stay random; a library's network inside the base network is not named."""
    wrappers = {name.split(".")[0] for name in model.backbone.state_dict()}
    prefix = f"{wrappers.pop()}." if len(wrappers) == 1 else ""
    modules = {name.removeprefix(prefix).split(".")[0] for name in left if not name.endswith("num_batches_tracked")}
    random = ", ".join((*sorted(modules), *new))
    return f"starts from {weights}: {taken} tensors taken" + (f"; random: {random}" if random else "")
