"""Weights of transformers' video networks: a folder, a file of tensors, or a repository on the hub or in its cache."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stabn.errors import UserError
from stabn.files import read_json
from stabn.nn.backbones.transformers_config import TransformersFamily, fast_sine_table, transformers_library
from stabn.nn.hub import CONFIG, read_config
from stabn.nn.state_dict import CONTAINERS, first_line_of, read_tensors, unwrap

_PREPROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_FILES = (".safetensors", ".pth", ".pt", ".bin")
_BLOCK = re.compile(r"(^|\.)(encoder\.layer|layers)\.\d+\.")


def normalisation_beside(family: TransformersFamily, weights: str) -> tuple[list[float], list[float]]:
    """Mean and std for pixels of 0..1 that do what the library's preprocessing of these weights does.

    Raises:
        UserError: the file that says so is damaged.
    """
    path = file_beside(weights, _PREPROCESSORS)
    content: dict[str, Any] = {}
    if path is None:
        note_about_weights(f"{weights}: has no {_PREPROCESSORS[-1]}; mean {family.mean} and std {family.std} are taken")
    else:
        read = read_json(path, remedy=transformers_remedy(family.name))
        content = read if isinstance(read, dict) else {}
    mean, std = content.get("image_mean"), content.get("image_std")
    mean, std = list(family.mean if mean is None else mean), list(family.std if std is None else std)
    if not content.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    rescale, offset = content.get("rescale_factor", family.rescale), content.get("offset", family.offset)
    if not content.get("do_rescale", True):
        rescale, offset = 1.0, False
    try:
        scale = 255 * float(rescale)
        if len(mean) != 3 or len(std) != 3 or scale <= 0 or not all(value > 0 for value in std):
            raise ValueError
        if path is None or (abs(scale - 1) < 1e-9 and not offset):
            return [float(value) for value in mean], [float(value) for value in std]
        # ((pixel * scale - offset) - mean) / std
        return [(value + bool(offset)) / scale for value in mean], [value / scale for value in std]
    except (TypeError, ValueError):
        raise UserError(
            f"{path}: got image_mean {mean}, image_std {std}, rescale_factor {rescale}, expected three numbers, "
            "three numbers above 0 and one above 0; copy the file again"
        ) from None


def converted_tensors(
    family: TransformersFamily, config: Any, weights: str
) -> tuple[dict[str, Tensor], set[str], dict[str, list[int]]]:
    """Tensors in the library's names, the names that are missing, and the shapes of those that do not fit.

    Raises:
        UserError: the weights cannot be read, or are of a network with more blocks.
    """
    tensors = unwrap(read_tensors_of(family.name, weights))
    network = getattr(transformers_library(family.name), family.model)
    with quiet_transformers(), fast_sine_table(), torch.random.fork_rng(devices=[]):
        loaded, found = network.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    for key in sorted(found["unexpected_keys"]):
        # Heads of other tasks may be there, but not more blocks than the network has.
        if _BLOCK.search(key) and "predictor" not in key:
            raise UserError(f"{weights}: unexpected tensor {key}; {transformers_remedy(family.name)}")
    shapes = {key: list(got) for key, got, _ in found["mismatched_keys"]}
    return dict(loaded.state_dict()), set(found["missing_keys"]), shapes


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and reports of the library within the block."""
    from transformers.utils import logging as notes

    level, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity_error()
    notes.disable_progress_bar()
    try:
        yield
    finally:
        notes.set_verbosity(level)
        if bars:
            notes.enable_progress_bar()


@cache
def note_about_weights(text: str) -> None:
    """Tell something once, however often the weights are read."""
    logging.getLogger(__name__).warning("note: %s", text)


def transformers_remedy(name: str) -> str:
    """How messages about weights of a network end."""
    return (
        f"give a repository on the hub or a folder with {CONFIG}, {_PREPROCESSORS[-1]} and {_WEIGHTS[0]} of a {name} "
        "network of transformers"
    )


def saved_options(name: str, folder: str) -> dict[str, Any]:
    """The options of a network that we saved, with the normalisation that it was trained with."""
    arguments = read_config(folder)[1]
    if arguments["architecture"] != name:
        raise UserError(f"{Path(folder) / CONFIG}: architecture: got {arguments['architecture']!r}, expected {name!r}")
    return dict(arguments.get("backbone_options", {}))


def file_beside(weights: str, names: Sequence[str]) -> Path | None:
    """The first of these files in a folder, beside a file of tensors, or in a repository; None if there is none.

    Raises:
        UserError: `weights` is none of the three, or the repository cannot be reached and the cache lacks all files.
    """
    path = Path(weights)
    if path.is_dir() or path.is_file():
        folder = path if path.is_dir() else path.parent
        return next((folder / name for name in names if (folder / name).is_file()), None)
    if path.suffix in _FILES or not re.fullmatch(r"[\w.-]+/[\w.-]+", weights):
        raise UserError(f"{weights}: no such file or folder, and not the name of a repository like owner/name")
    return _downloaded(weights, names)


def _downloaded(repository: str, names: Sequence[str]) -> Path | None:
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging as notes

    looked_up = [try_to_load_from_cache(repository, name) for name in names]
    for found in looked_up:
        if isinstance(found, str):
            return Path(found)
    for name, found in zip(names, looked_up, strict=True):
        if found is _CACHED_NO_EXIST:
            continue
        level = notes.get_verbosity()
        notes.set_verbosity_error()  # it tells every try
        try:
            return Path(hf_hub_download(repository, name))
        except Exception as error:  # noqa: BLE001 - errors of the hub's client and of its HTTP library
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            raise UserError(
                f"{repository}: cannot get {names[-1]} from the Hugging Face hub ({type(error).__name__}: "
                f"{first_line_of(error)}); check the name and the network, or copy the repository into "
                f"{hub_file(repository).parent}, or give the path to a copy of it"
            ) from None
        finally:
            notes.set_verbosity(level)
    return None


def hub_file(repository: str) -> Path:
    """Where the hub's client finds the weights of a repository on this machine, or would find a copy."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    for name in _WEIGHTS:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots" / "main" / _WEIGHTS[0]


def read_tensors_of(name: str, weights: str) -> dict[str, Tensor]:
    """Named tensors of a file, or of the one or several files in a folder or a repository.

    Raises:
        UserError: there is no such file, or one is damaged.
    """
    path = Path(weights) if Path(weights).is_file() else file_beside(weights, _WEIGHTS)
    if path is None:
        raise UserError(f"{weights}: has none of {', '.join(_WEIGHTS)}; {transformers_remedy(name)}")
    if path.suffix != ".json":
        return read_tensors(path, inside=CONTAINERS)
    index = read_json(path, remedy=transformers_remedy(name))
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict):
        raise UserError(f"{path}: has no weight_map; {transformers_remedy(name)}")
    tensors: dict[str, Tensor] = {}
    for part in sorted(set(places.values())):
        found = file_beside(weights, (part,))
        if found is None:
            raise UserError(f"{path}: names {part}, which is not there; copy it, too")
        tensors |= read_tensors(found, inside=())
    return tensors
