"""Weights that torchvision publishes: from its cache on this machine, else downloaded."""

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from stabn.errors import UserError
from stabn.nn.backbone import PublishedWeights
from stabn.nn.state_dict import first_line_of, read_tensors


def cached_file(weights: Any) -> Path:
    """Where torchvision keeps weights, a member of one of its enumerations, on this machine."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def published_in(enumeration: Any, trained_on: str) -> tuple[PublishedWeights, ...]:
    """All weights of one of torchvision's enumerations; `trained_on` says the data that their names do not."""
    return tuple(PublishedWeights(one.name, trained_on, cached_file(one), one.url) for one in enumeration)


def torchvision_tensors(weights: Any) -> dict[str, Tensor]:
    """The tensors of weights, a member of one of torchvision's enumerations; on the CPU.

    Raises:
        UserError: they are neither in the cache nor can be downloaded, or the cached file is damaged.
    """
    file, name = cached_file(weights), repr(weights)
    if file.is_file():
        try:
            return read_tensors(file, inside=())
        except UserError as error:
            raise UserError(f"{error}; delete it and {name} is downloaded again") from None
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{name}: not on this machine, and cannot be downloaded ({type(error).__name__}: {first_line_of(error)}); "
            f"check the network, or put a local copy of {weights.url} at {file}, or give its path"
        ) from None
