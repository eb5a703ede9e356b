"""Video recognition that shows when and where it looked, and learns when you correct it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stabn.errors import UserError
    from stabn.explain.recogniser import Explanation, Recogniser, load
    from stabn.nn import STABN, Attention, Output, load_pretrained
    from stabn.records import Edit, Record

__all__ = [
    "STABN",
    "Attention",
    "Edit",
    "Explanation",
    "Output",
    "PlainNetwork",
    "Recogniser",
    "Record",
    "UserError",
    "load",
    "load_pretrained",
]

_MODULES = {
    "errors": ("UserError",),
    "records": ("Edit", "Record"),
    "explain.recogniser": ("Explanation", "Recogniser", "load"),
    "nn": ("STABN", "Attention", "Output", "PlainNetwork", "load_pretrained"),
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to load, and `stabn --help` does not need it
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"stabn.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
