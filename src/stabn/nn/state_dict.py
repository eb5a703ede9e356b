"""State dicts: read from files without executing anything in them, and compared with what a network needs."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stabn.errors import UserError

REMEDY = "give a .safetensors file or one that torch.save wrote with tensors only"

CONTAINERS = ("model_state_dict", "state_dict", "model_state", "model")
"""Keys under which programs keep a network's tensors in a checkpoint, for `read_tensors`."""

WRAPPERS = ("module.", "model.", "backbone.")
"""Prefixes of modules that programs wrap a network in."""

_COUNTER = ".num_batches_tracked"


def first_line_of(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def read_tensors(path: Path | str, *, inside: Iterable[str], names_only: bool = False) -> dict[str, Tensor]:
    """Read the named tensors of a .safetensors file, or of one that `torch.save` wrote; CPU, in the file's dtypes.

    Args:
        path: the file.
        inside: keys under which a file of `torch.save` may hold the tensors; the first that is there is used.
        names_only: only the names are wanted: values are not read where the format allows it, and may be of the file
            itself, and change with it.

    Raises:
        UserError: the file is missing, damaged or holds anything but named tensors. Nothing in it is executed.
    """
    path = Path(path)
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            with warnings.catch_warnings():
                # It warns of pickle protocols that it may fail to read; a failure is an error anyway.
                warnings.simplefilter("ignore", UserWarning)
                mapped = names_only and is_zipfile(path)  # PyTorch before 1.6 wrote files that cannot be mapped
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {REMEDY}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or first_line_of(error)}); {REMEDY}") from None
    except SafetensorError as error:
        raise UserError(f"{path}: is not a complete safetensors file ({first_line_of(error)}); copy it again") from None
    except Exception as error:  # noqa: BLE001 - torch.load has no error class of its own for damaged or foreign files
        raise UserError(f"{path}: is not a checkpoint of tensors ({type(error).__name__}); {REMEDY}") from None
    if isinstance(content, Mapping):
        for key in inside:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, expected named tensors; {REMEDY}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: {name!r} is a {type(value).__name__}, expected a tensor; {REMEDY}")
    if not content:
        raise UserError(f"{path}: holds no tensors; {REMEDY}")
    return dict(content)


def check_tensors(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str, remedy: str) -> None:
    """Compare names, shapes and kinds of dtype with those of a network, and check that values are finite.

    Raises:
        UserError: it names `source` and the first offending tensor: in the network's order one that is missing,
            different or not finite, then in the file's order one that the network does not have.
    """
    for name, own in expected.items():
        if name not in got:
            raise UserError(f"{source}: tensor {name}: missing, expected shape {list(own.shape)}; {remedy}")
        value = got[name]
        if value.shape != own.shape:
            raise UserError(
                f"{source}: tensor {name}: got shape {list(value.shape)}, expected {list(own.shape)}; {remedy}"
            )
        if value.is_floating_point() != own.is_floating_point():
            raise UserError(f"{source}: tensor {name}: got {value.dtype}, expected {own.dtype}; {remedy}")
        if value.is_floating_point() and not value.is_meta and not bool(value.isfinite().all()):
            raise UserError(
                f"{source}: tensor {name}: has NaN or infinity, because the training diverged; train again, with a "
                "smaller --optimizer.learning_rate"
            )
    for name, value in got.items():
        if name not in expected:
            raise UserError(f"{source}: unexpected tensor {name} of shape {list(value.shape)}; {remedy}")


def dimensions_of(tensors: Mapping[str, Tensor], name: str, count: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there with so many dimensions, none of them empty.

    Raises:
        UserError: it is not.
    """
    shape = tuple(tensors[name].shape) if name in tensors else None
    if shape is None or len(shape) != count or 0 in shape:
        got = "missing" if shape is None else f"got shape {list(shape)}"
        raise UserError(f"tensor {name}: {got}, expected {count} dimensions")
    return shape


def unwrap(tensors: Mapping[str, Tensor], prefixes: Iterable[str] = WRAPPERS) -> dict[str, Tensor]:
    """The tensors without the prefixes of wrapping modules; one is taken off only where every name has it."""
    unwrapped, prefixes = dict(tensors), tuple(prefixes)
    while unwrapped:
        shared = [prefix for prefix in prefixes if all(name.startswith(prefix) for name in unwrapped)]
        if not shared:
            break
        unwrapped = {name.removeprefix(shared[0]): value for name, value in unwrapped.items()}
    return unwrapped


def fill(
    module: nn.Module, tensors: Mapping[str, Tensor], *, classifier: str | tuple[str, ...], source: str, remedy: str
) -> tuple[str, ...]:
    """Copy tensors into a network, all but its classifier's; nothing is changed when an error is raised.

    Args:
        module: the network, of any dtype and on any device.
        tensors: in its names. Batch counters, which old PyTorch versions lack, may be missing.
        classifier: how the names of the classifier's tensors begin, or several beginnings; those are neither needed
            nor read.
        source: where the tensors are from, for messages.
        remedy: how messages end.

    Returns:
        The names of the network's tensors that keep their values, counters left out.

    Raises:
        UserError: the first offending tensor, as in `check_tensors`.
    """
    own = module.state_dict()
    wanted = {
        name: value
        for name, value in own.items()
        if not name.startswith(classifier) and (name in tensors or not name.endswith(_COUNTER))
    }
    rest = {name: value for name, value in tensors.items() if not name.startswith(classifier)}
    check_tensors(rest, wanted, source=source, remedy=remedy)
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(rest[name])
    return tuple(name for name in own if name not in wanted and not name.endswith(_COUNTER))
