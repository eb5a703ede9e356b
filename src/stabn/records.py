"""A `Record` of what a network predicted and attended to in a clip, and a person's `Edit` of its temporal attention.

Both are frozen, check themselves, and are versioned on disk. docs/formats.md describes the files for other programs.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, no_type_check

import numpy as np

from stabn.errors import UserError
from stabn.files import atomic_write, write_text

RECORD_FORMAT = "stabn-record/1"
EDIT_FORMAT = "stabn-edit/1"
MAX_SECONDS = 1e9
"""Of a timestamp: thirty years."""


@dataclass(frozen=True, eq=False)
class Record:
    """A network's prediction for one clip, and its attention.

    Attributes:
        clip_id: the clip's name in its data set, or the file's stem.
        path: the video file.
        class_names: K names, in the order of the network's outputs.
        probabilities: (K,) float32, softmax of the perception branch.
        attention_probabilities: (K,) float32, softmax of the attention branch.
        temporal: (T,) float32 in 0..1, one importance per sampled frame.
        spatial: (T, h, w) float32 in 0..1, one map per sampled frame, over the network's crop.
        frame_indices: (T,) int64, the sampled frames, counted from 0 in the source file.
        timestamps: (T,) float64, seconds since the first frame of the file.
        crop: (left, top, right, bottom) of the network's view, as fractions of the source frame's width and height.
        label: the true class, or None.
    """

    clip_id: str
    path: str
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    attention_probabilities: np.ndarray
    temporal: np.ndarray
    spatial: np.ndarray
    frame_indices: np.ndarray
    timestamps: np.ndarray
    crop: tuple[float, float, float, float]
    label: int | None = None

    def __post_init__(self) -> None:
        classes, frames = len(self.class_names), len(self.frame_indices)
        for name, length in (
            ("probabilities", classes),
            ("attention_probabilities", classes),
            ("temporal", frames),
            ("timestamps", frames),
        ):
            value = getattr(self, name)
            if value.shape != (length,):
                raise ValueError(f"{name}: got shape {value.shape}, expected ({length},)")
        if self.spatial.ndim != 3 or len(self.spatial) != frames:
            raise ValueError(f"spatial: got shape {self.spatial.shape}, expected ({frames}, h, w)")
        for name in ("probabilities", "attention_probabilities", "temporal", "spatial"):
            value = getattr(self, name)
            if not (np.isfinite(value).all() and value.min() >= 0 and value.max() <= 1):
                raise ValueError(f"{name}: got values in {value.min()}..{value.max()}, expected 0..1")
        if self.label is not None and not 0 <= self.label < classes:
            raise ValueError(f"label: got {self.label}, expected 0..{classes - 1}")

    @property
    def predicted(self) -> int:
        """The class with the highest probability."""
        return int(self.probabilities.argmax())

    def top(self, count: int = 5) -> tuple[tuple[str, float], ...]:
        """The `count` most probable classes as (name, probability), the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return tuple((self.class_names[i], float(self.probabilities[i])) for i in order)

    def as_json(self) -> dict[str, Any]:
        """Everything but the maps, for JSON; floats are rounded to 6 digits."""
        return {
            "format": RECORD_FORMAT,
            "clip_id": self.clip_id,
            "path": self.path,
            "label": None if self.label is None else self.class_names[self.label],
            "predictions": [{"class": name, "probability": round(p, 6)} for name, p in self.top()],
            "frame_indices": [int(i) for i in self.frame_indices],
            "timestamps": [round(float(t), 6) for t in self.timestamps],
            "temporal_attention": [round(float(a), 6) for a in self.temporal],
            "crop": [round(float(c), 6) for c in self.crop],
        }

    def save_arrays(self, path: Path | str) -> None:
        """Write all arrays to a .npz file, atomically; `numpy.load` reads it without pickle."""
        with atomic_write(path) as temporary:
            np.savez_compressed(
                temporary,
                probabilities=self.probabilities,
                attention_probabilities=self.attention_probabilities,
                temporal=self.temporal,
                spatial=self.spatial,
                frame_indices=self.frame_indices,
                timestamps=self.timestamps,
                crop=np.array(self.crop),
                class_names=np.array(self.class_names),
            )


# The class checks values from files itself, with messages for users, also while the tests check types.
@no_type_check
@dataclass(frozen=True)
class Edit:
    """The temporal attention that a person wants for one clip: M'_t of Eq. 6.

    Attributes:
        clip_id: the clip's name in its data set.
        frame_indices: T source frames in the clip's order (a short clip repeats its last frame; snippets may overlap).
        timestamps: their T times in seconds.
        scores: T importances in 0..1; the paper's levels are 0.0 irrelevant, 0.5 may matter, 1.0 certainly matters.
        author: the person who made the edit.
        time: ISO 8601 with time zone.
        comment: free text.
    """

    clip_id: str
    frame_indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    scores: tuple[float, ...]
    author: str
    time: str
    comment: str = ""

    def __post_init__(self) -> None:
        for name in ("clip_id", "author", "time", "comment"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise ValueError(f"{name}: got {text!r}, expected a string")
            if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in text):
                raise ValueError(f"{name}: got {text!r}, which files and databases cannot hold; expected Unicode text")
        if not self.clip_id:
            raise ValueError("clip_id: got an empty string, expected a clip's id")
        frames = len(self.frame_indices)
        if frames == 0:
            raise ValueError("frame_indices: got none, expected one source frame per score")
        if len(self.scores) != frames:
            raise ValueError(f"scores: got {len(self.scores)} for {frames} frames, expected one per frame")
        if len(self.timestamps) != frames:
            raise ValueError(f"timestamps: got {len(self.timestamps)} for {frames} frames, expected one per frame")
        for index in self.frame_indices:
            if isinstance(index, bool) or not isinstance(index, int) or index < 0:
                raise ValueError(f"frame_indices: got {index!r}, expected integers from 0")
        for name, low, high in (("scores", 0.0, 1.0), ("timestamps", 0.0, MAX_SECONDS)):
            for value in getattr(self, name):
                number = not isinstance(value, bool) and isinstance(value, int | float)
                if not number or not low <= value <= high:
                    raise ValueError(f"{name}: got {value!r}, expected a number in {low:g}..{high:g}")
        try:
            zone = datetime.fromisoformat(self.time).tzinfo
        except ValueError:
            raise ValueError(f"time: got {self.time!r}, expected ISO 8601 like 2026-01-31T09:30:00+00:00") from None
        if zone is None:
            raise ValueError(f"time: got {self.time!r} without a time zone, expected one like +00:00")

    def as_json(self) -> dict[str, Any]:
        """The edit as JSON values, one line of an edits file."""
        return {"format": EDIT_FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> "Edit":
        """Read what `as_json` wrote.

        Raises:
            ValueError: a field is missing, unknown or out of range.
        """
        if not isinstance(value, dict):
            raise ValueError(f"got {value!r}, expected an object")
        fields = dict(value)
        version = fields.pop("format", None)
        if version != EDIT_FORMAT:
            raise ValueError(f"format: got {version!r}, expected {EDIT_FORMAT!r}")
        required = ("clip_id", "frame_indices", "timestamps", "scores", "author", "time")
        for name in required:
            if name not in fields:
                raise ValueError(f"{name}: missing")
        unknown = sorted(set(fields) - {*required, "comment"})
        if unknown:
            raise ValueError(f"{unknown[0]}: unknown field")
        for name in ("frame_indices", "timestamps", "scores"):
            if not isinstance(fields[name], list):
                raise ValueError(f"{name}: got {fields[name]!r}, expected a list")
            fields[name] = tuple(fields[name])
        return cls(**fields)


def utc_now() -> str:
    """The current time in the form of `Edit.time`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def format_edits(edits: Iterable[Edit]) -> str:
    """Edits as JSON Lines."""
    return "".join(json.dumps(edit.as_json(), ensure_ascii=False) + "\n" for edit in edits)


def write_edits(path: Path | str, edits: Iterable[Edit]) -> None:
    """Write edits as JSON Lines, atomically."""
    write_text(path, format_edits(edits))


def read_edits(path: Path | str, clips: Mapping[str, Sequence[int]] | None = None) -> tuple[Edit, ...]:
    """Read the edits of a JSON Lines file, in its order; blank lines are skipped.

    Args:
        path: the file.
        clips: frame indices by clip id; edits of other clips or frames are errors.

    Raises:
        UserError: a line is wrong; the message names the file, the line, the value and what was expected.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; docs/formats.md shows how to write one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error}); expected JSON Lines of edits") from None
    return parse_edits(text, path, clips)


def parse_edits(text: str, source: Path | str, clips: Mapping[str, Sequence[int]] | None = None) -> tuple[Edit, ...]:
    """Read edits from JSON Lines, as `read_edits` does; `source` is their name in messages.

    Raises:
        UserError: as `read_edits`.
    """
    edits = []
    lines = text.removeprefix("\ufeff").split("\n")  # splitlines() also splits inside JSON strings
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            edit = Edit.from_json(json.loads(line))
            if clips is not None:
                check_edit_frames(edit, clips)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{source}, line {number}: is not JSON ({error}); each line is one edit") from None
        except ValueError as error:
            raise UserError(f"{source}, line {number}: {error}; correct or remove this line") from None
        edits.append(edit)
    return tuple(edits)


def check_edit_frames(edit: Edit, clips: Mapping[str, Sequence[int]]) -> None:
    """Check that an edit is of a clip in `clips`, frame indices by clip id, and of the same frames.

    Raises:
        ValueError: it is not.
    """
    if edit.clip_id not in clips:
        raise ValueError(f"clip_id: got {edit.clip_id!r}, which is not a clip of this edit project")
    expected = [int(i) for i in clips[edit.clip_id]]
    if len(edit.scores) != len(expected):
        raise ValueError(
            f"scores: got {len(edit.scores)} for clip {edit.clip_id!r}, expected {len(expected)}, one per frame"
        )
    if list(edit.frame_indices) != expected:
        raise ValueError(
            f"frame_indices: got {list(edit.frame_indices)} for clip {edit.clip_id!r}, expected {expected}"
        )
