"""What an edit project remembers of a clip's file, to know it again."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from stabn.data.segments import Segment
from stabn.data.video.reader import Reader

_SIDE = 8
"""Cells a side of a thumbnail."""
_THUMBNAILS = 4
"""Frames of a clip that are compared."""
_BRIGHTNESS = 16
"""How far a thumbnail's cell may be from the remembered one, of 255; encoding again changes a cell by less."""


@dataclass(frozen=True)
class ClipFile:
    """What an edit project remembers of a clip's file.

    Attributes:
        frames: how many the file has; None for a clip that is a part of its file, whose end does not matter.
        width: pixels, as players show it.
        height: pixels, as players show it.
        thumbnails: by sampled frame, 8x8 cells of grey as hexadecimal bytes, row by row; of up to four frames.
    """

    frames: int | None
    width: int
    height: int
    thumbnails: Mapping[int, str]

    def __post_init__(self) -> None:
        if any(len(bytes.fromhex(cells)) != _SIDE**2 for cells in self.thumbnails.values()):
            raise ValueError(f"thumbnails: got {dict(self.thumbnails)}, expected {_SIDE**2} bytes each")

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ClipFile":
        """What `as_json` wrote, whose thumbnails have strings for keys after JSON."""
        return cls(**{**value, "thumbnails": {int(i): cells for i, cells in value["thumbnails"].items()}})

    def difference(self, present: "ClipFile") -> str | None:
        """How the present file differs in size or pictures from this one; None if in neither."""
        if (present.width, present.height) != (self.width, self.height):
            return f"is {present.width}x{present.height} pixels, and was {self.width}x{self.height}"
        for index, cells in self.thumbnails.items():
            was, now = (
                np.frombuffer(bytes.fromhex(grey), np.uint8).astype(int) for grey in (cells, present.thumbnails[index])
            )
            changed = int(abs(was - now).max())
            if changed > _BRIGHTNESS:
                return f"shows another picture in frame {index}, by {changed} of 255 in a part of it"
        return None


def describe_file(path: Path | str, frame_indices: Iterable[int], segment: Segment | None, reader: Reader) -> ClipFile:
    """What to remember of a clip's file.

    Args:
        path: a video file or folder of frames.
        frame_indices: the network's input.
        segment: the part of the file that is the clip; None for all of it.
        reader: reads it.

    Raises:
        UserError: the file cannot be read.
    """
    distinct = sorted(set(map(int, frame_indices)))
    chosen = sorted({distinct[i] for i in np.linspace(0, len(distinct) - 1, _THUMBNAILS).round().astype(int)})
    clip = reader.read_clip(path, chosen)
    cells = adaptive_avg_pool2d(clip.frames.float().mean(1, keepdim=True), _SIDE).round().to(torch.uint8)
    thumbnails = {i: frame.numpy().tobytes().hex() for i, frame in zip(chosen, cells, strict=True)}
    height, width = clip.frames.shape[2:]
    return ClipFile(None if segment else reader.probe(path).num_frames, width, height, thumbnails)
