"""Weights that torchvision publishes: from its cache on this machine, else downloaded."""

import logging
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from stabn.errors import UserError
from stabn.nn.backbone import PublishedWeights
from stabn.nn.state_dict import first_line_of, read_tensors

log = logging.getLogger(__name__)


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
    if not file.is_file():
        _download(weights, file, name)
    try:
        return read_tensors(file, inside=())
    except UserError as error:
        raise UserError(f"{error}; delete it and {name} is downloaded again") from None


def _download(weights: Any, file: Path, name: str) -> None:
    # Not through `weights.get_state_dict`, which prints a line of its own into the output of a verb.
    digits = re.fullmatch(r".*-([0-9a-f]{8,})\.[^.]*", file.name)  # the beginning of the file's SHA-256
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(file), digits and digits[1], progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{name}: not on this machine, and cannot be downloaded ({type(error).__name__}: {first_line_of(error)}); "
            f"check the network, or put a local copy of {weights.url} at {file}, or give its path"
        ) from None
    log.warning("note: %s: downloaded to %s", name, file)
