"""Ground truth: when and where the labelled action happens in a clip, for data sets that annotate it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from stabn.data.boxes import Box
from stabn.errors import UserError
from stabn.files import read_text


@dataclass(frozen=True)
class ClipTruth:
    """The ground truth of one clip, with at least one of the three attributes.

    Attributes:
        relevance: one value in 0..1 per source frame: 1.0 decisive, 0.5 may matter, 0.0 irrelevant; it has precedence
            over `interval`.
        interval: (start, end) in source frames counted from 0, start inclusive, end exclusive, fractional; it may
            reach beyond the end of the video.
        boxes: per source frame (left, top, right, bottom) in pixels of the source, fractional, or None where there is
            nothing.

    Raises:
        ValueError: all are None, or a value is out of its range.
    """

    relevance: tuple[float, ...] | None = None
    interval: tuple[float, float] | None = None
    boxes: tuple[Box | None, ...] | None = None

    def __post_init__(self) -> None:
        if self.relevance is None and self.interval is None and self.boxes is None:
            raise ValueError("truth: got nothing, expected relevance, an interval or boxes")
        for value in self.relevance or ():
            if not 0 <= value <= 1:
                raise ValueError(f"relevance: got {value}, expected numbers in 0..1")
        if self.interval is not None:
            start, end = self.interval
            if not 0 <= start < end < math.inf:
                raise ValueError(f"interval: got {start} to {end}, expected 0 <= start < end")
        for box in self.boxes or ():
            if box is not None and not (box[0] < box[2] and box[1] < box[3]):
                raise ValueError(f"boxes: got {box}, expected left < right and top < bottom")

    @property
    def has_timing(self) -> bool:
        """Whether there is relevance or an interval, so that `scores` can be computed."""
        return self.relevance is not None or self.interval is not None

    def scores(self, frame_indices: Sequence[int] | np.ndarray) -> Float64[np.ndarray, " t"]:
        """The temporal scores that sampled frames should have.

        Args:
            frame_indices: T source frames, counted from 0.

        Returns:
            (T,) the frames' relevance; from an interval 1.0 where at least half of [t, t + 1) lies inside it, 0.5 where
            less does, 0.0 outside.

        Raises:
            ValueError: a negative frame, a frame beyond the relevance, or neither relevance nor an interval.
        """
        frames = np.asarray(frame_indices, dtype=np.int64)
        if frames.size and frames.min() < 0:
            raise ValueError(f"frame_indices: got {frames.min()}, expected frames from 0")
        if self.relevance is not None:
            if frames.size and frames.max() >= len(self.relevance):
                raise ValueError(f"truth has {len(self.relevance)} frames, expected over {frames.max()}")
            return np.array(self.relevance, dtype=np.float64)[frames]
        if self.interval is None:
            raise ValueError("truth: got only boxes, expected relevance or an interval")
        start, end = self.interval
        inside = np.minimum(end, frames + 1.0) - np.maximum(start, frames)
        return np.select([inside >= 0.5, inside > 0], [1.0, 0.5], 0.0)


def read_truth(path: Path | str) -> dict[str, ClipTruth]:
    """Read the ground truth by clip id from JSON lines, as in Tabletop's truth.jsonl.

    Each line is an object with "id", and "relevance" (a number per source frame), "interval" ([start, end]) or "boxes"
    ([left, top, right, bottom] or null per source frame); other fields are ignored.

    Raises:
        UserError: the file cannot be read, or a line is wrong or of the same clip as an earlier one; file and line
            are named.
    """
    lines = read_text(Path(path), "give a file like Tabletop's truth.jsonl").split("\n")
    truth: dict[str, ClipTruth] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            clip_id, clip_truth = _parse_entry(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: {error}; correct the line") from None
        if clip_id in truth:
            raise UserError(
                f"{path}, line {number}: got clip {clip_id!r} twice, expected one line per clip; remove one"
            )
        truth[clip_id] = clip_truth
    return truth


def read_truth_for(path: Path, clip_ids: Iterable[str]) -> dict[str, ClipTruth]:
    """As `read_truth`, checked to be about these clips.

    Raises:
        UserError: as `read_truth` and `check_truth_ids`.
    """
    truth = read_truth(path)
    check_truth_ids(path, truth, clip_ids)
    return truth


def check_truth_ids(path: Path, truth: Mapping[str, ClipTruth], clip_ids: Iterable[str]) -> None:
    """Check that the truth from a file is about at least one of these clips.

    Raises:
        UserError: it is not.
    """
    if not any(clip_id in truth for clip_id in clip_ids):
        problem = f"names no clip of this data, for instance {min(truth)!r}" if truth else "is empty"
        raise UserError(f"--truth: {path} {problem}; give the truth of these clips")


def unused_truth_message(truth: Mapping[str, ClipTruth], clip_ids: Iterable[str]) -> str | None:
    """The message where the timing of clips is known but could not be used for a measure; None if none is known."""
    count = sum(clip_id in truth and truth[clip_id].has_timing for clip_id in clip_ids)
    if not count:
        return None
    return (
        f"Of {count} clips it is known when it happens, but in each no frame that the network saw is decisive, or all "
        "are; the truth has to be in frames of the video."
    )


def _parse_entry(value: Any) -> tuple[str, ClipTruth]:
    """Clip id and truth from one line of a truth file; a ValueError where it is not as `read_truth` describes."""
    if not isinstance(value, dict) or isinstance(value.get("id"), bool) or not isinstance(value.get("id"), int | str):
        raise ValueError("has no id; expected an object with id and relevance, interval or boxes")
    relevance, interval, boxes = (value.get(name) for name in ("relevance", "interval", "boxes"))
    if relevance is not None:
        relevance = _numbers("relevance", relevance)
    if interval is not None:
        interval = _numbers("interval", interval, length=2)
    if boxes is not None:
        if not isinstance(boxes, list):
            raise ValueError(f"boxes: got {boxes!r}, expected a list")
        boxes = tuple(None if box is None else _numbers("boxes", box, length=4) for box in boxes)
    return str(value["id"]), ClipTruth(relevance, interval, boxes)


def _numbers(name: str, value: Any, length: int | None = None) -> tuple[Any, ...]:
    is_list = isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    if not is_list or (length is not None and len(value) != length) or not all(map(math.isfinite, value)):
        expected = "a list of numbers" if length is None else f"{length} numbers"
        raise ValueError(f"{name}: got {str(value)[:80]}, expected {expected}")
    return tuple(float(v) for v in value)
