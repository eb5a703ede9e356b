"""Configurations of transformers' video networks: which library class, which fields, and what its tokens cover."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stabn.errors import UserError


@dataclass(frozen=True)
class TransformersFamily:
    """What the library calls its parts, and the defaults of its configuration and of its preprocessing.

    Attributes:
        name: as `--network.backbone` takes it.
        config: the class of the configuration.
        model: the class of the network.
        frames_field, frames: T in the configuration.
        size_field, size: side of a clip in pixels in the configuration.
        mean, std: of the preprocessing where no file says another.
        rescale: pixels of 0..255 are multiplied by it before.
        offset: whether 1 is subtracted after that.
        without: fields that keep the library from building what the classifier does not use.
        published: repositories on the hub with the data that they were trained on.
    """

    name: str
    config: str
    model: str
    frames: int
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    published: Mapping[str, str]
    frames_field: str = "num_frames"
    size_field: str = "image_size"
    rescale: float = 1 / 255
    offset: bool = False
    without: Mapping[str, Any] = field(default_factory=dict)


def transformers_library(name: str) -> Any:
    """The library, which takes seconds to import."""
    if find_spec("transformers") is None:
        raise UserError(
            f"--network.backbone: got {name!r}, but transformers is not installed; pip install 'stabn[transformers]'"
        )
    import transformers

    return transformers


def transformers_configuration(
    source: str,
    family: TransformersFamily,
    content: Mapping[str, Any],
    num_classes: int | None,
    library: str | None = None,
) -> Any:
    """The library's configuration with these fields, of which none is unknown unless `library` wrote them."""
    known = getattr(transformers_library(library or source), family.config)
    classes = {} if num_classes is None else {"num_labels": num_classes}
    if library is None:
        for key in content:
            if key not in known.__annotations__:
                raise UserError(f"{source}: {key}: unknown field of its configuration")
    try:
        # A file of the library has more fields, and older ones, which it knows how to read.
        return known(**content, **classes) if library is None else known.from_dict(dict(content))
    except Exception as error:  # noqa: BLE001 - the library's classes check themselves with errors of their own
        raise UserError(f"{source}: {' '.join(str(error).split()) or type(error).__name__}") from None


def plain_fields(config: Any) -> dict[str, Any]:
    """The fields of a configuration that the classifier depends on, as JSON gives them back."""
    fields = {
        key: getattr(config, key)
        for key in type(config).__annotations__
        if key != "model_type" and not key.startswith(("decoder_", "pred_", "norm_pix_loss", "pooler_"))
    }
    return json.loads(json.dumps(fields))


def square_side(name: str, key: str, value: Any) -> int:
    """The side of a square that a configuration gives as one number or as two equal ones."""
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) != 1 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"{name}: {key}: got {value!r}, expected a square")
    return int(sides.pop())


def token_geometry(name: str, config: Mapping[str, Any], family: TransformersFamily) -> tuple[int, int]:
    """(frames per token, pixels along its side).

    Raises:
        UserError: patches or clips are no squares or do not divide, or the network has no such tokens.
    """
    tubelet = config.get("tubelet_size", 1)
    frames, *sides = tubelet if isinstance(tubelet, list) else [tubelet]
    patch = square_side(name, "tubelet_size" if sides else "patch_size", sides or config.get("patch_size"))
    size = square_side(name, family.size_field, config[family.size_field])
    if size % patch:
        raise UserError(f"{name}: {family.size_field}: got {size}, expected a multiple of its patches of {patch}")
    if config.get("num_channels", config.get("in_chans")) != 3:
        raise UserError(f"{name}: num_channels: got another number than 3 colours")
    if config.get("attention_type") == "space_only":
        raise UserError(f"{name}: attention_type: got 'space_only', expected attention over space and time")
    return int(frames), patch


def reset_at_random(module: nn.Module) -> None:
    """Random values for a module's own parameters, tokens and positions, as training starts from."""
    for parameter in module.parameters(recurse=False):
        nn.init.trunc_normal_(parameter, std=0.02)


@contextmanager
def fast_sine_table() -> Iterator[None]:
    """Let VideoMAE compute its table of positions, to the bit, in milliseconds rather than in seconds."""
    from transformers.models.videomae import modeling_videomae

    def table(n_position: int, d_hid: int) -> Tensor:
        divisors_c = np.array([np.power(10000, 2 * (channel // 2) / d_hid) for channel in range(d_hid)])
        angles_nc = np.arange(n_position)[:, None] / divisors_c
        angles_nc[:, 0::2] = np.sin(angles_nc[:, 0::2])
        angles_nc[:, 1::2] = np.cos(angles_nc[:, 1::2])
        return torch.from_numpy(angles_nc).float()[None]

    slow = modeling_videomae.get_sinusoid_encoding_table
    modeling_videomae.get_sinusoid_encoding_table = table
    try:
        yield
    finally:
        modeling_videomae.get_sinusoid_encoding_table = slow
