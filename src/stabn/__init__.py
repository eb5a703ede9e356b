"""Video recognition that shows when and where it looked, and learns when you correct it."""

from stabn.errors import UserError
from stabn.nn import STABN, Attention, Output, ResNet3D, load_pretrained
from stabn.records import Edit, Record

__all__ = ["STABN", "Attention", "Edit", "Output", "Record", "ResNet3D", "UserError", "load_pretrained"]
