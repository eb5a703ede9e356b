"""Video recognition that shows when and where it looked, and learns when you correct it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stabn.errors import UserError
    from stabn.nn import STABN, Attention, Output, ResNet3D, load_pretrained
    from stabn.records import Edit, Record

__all__ = ["STABN", "Attention", "Edit", "Output", "Record", "ResNet3D", "UserError", "load_pretrained"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to load, and `stabn --help` does not need it
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"UserError": "errors", "Edit": "records", "Record": "records"}.get(name, "nn")
    return getattr(import_module(f"stabn.{module}"), name)
