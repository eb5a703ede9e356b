"""What a report says: frozen values that check themselves, made by whoever measured, drawn by `report`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

METRICS = ("train_loss", "validation_loss", "train_top1", "validation_top1")
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}


@dataclass(frozen=True)
class Curve:
    """How one training run went.

    Attributes:
        name: of the run.
        epochs: at least one entry of a run's curves.json: "epoch" (an integer that rises) and any of "train_loss",
            "validation_loss" (from 0), "train_top1" and "validation_top1" (fractions 0..1). A metric that is absent or
            None leaves a gap; other keys are not drawn.
    """

    name: str
    epochs: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        _text("name", self.name)
        if not self.epochs:
            raise ValueError("epochs: got none, expected at least one")
        last = -math.inf
        for entry in self.epochs:
            epoch = entry.get("epoch")
            if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch <= last:
                raise ValueError(f"epochs: got epoch {epoch!r} after {last}, expected rising integers")
            last = epoch
            for metric in METRICS:
                if entry.get(metric) is not None:
                    _number(f"epoch {epoch}: {metric}", entry[metric], math.inf if metric.endswith("loss") else 1.0)
        if all(entry.get(metric) is None for entry in self.epochs for metric in METRICS):
            raise ValueError(f"epochs: got none of {', '.join(METRICS)}")


@dataclass(frozen=True)
class Cell:
    """A top-1 accuracy with its 95 % interval, as fractions 0..1, and the number of clips behind it."""

    top1: int | float
    low: int | float
    high: int | float
    count: int

    def __post_init__(self) -> None:
        for name in ("top1", "low", "high"):
            _number(name, getattr(self, name), 1.0)
        if not self.low <= self.top1 <= self.high:
            raise ValueError(f"top1: got {self.top1} outside its interval {self.low}..{self.high}")
        if self.count < 1:
            raise ValueError(f"count: got {self.count}, expected at least one clip")


@dataclass(frozen=True)
class Row:
    """One network in a comparison.

    Attributes:
        name: short, such as "ST-ABN".
        description: how it came about, in a few words.
        cells: one per column of the comparison.
        extra: further columns as (column, text), such as ("mended", "41"). Rows may differ in them.
        control: the network that had everything but what is tested; it is marked so.
    """

    name: str
    description: str
    cells: tuple[Cell, ...]
    extra: tuple[tuple[str, str], ...] = ()
    control: bool = False

    def __post_init__(self) -> None:
        _text("name", self.name)


@dataclass(frozen=True)
class Comparison:
    """Networks measured on the same clips.

    Attributes:
        split: which clips.
        edited_classes: the classes that people edited.
        rows: at least one; the first is what the others are read against.
        verdict: one sentence that the caller derives from paired numbers. The report itself never claims a gain.
        columns: one name per cell of each row.
    """

    split: str
    edited_classes: tuple[str, ...]
    rows: tuple[Row, ...]
    verdict: str
    columns: tuple[str, ...] = ("edited classes", "other classes", "all")

    def __post_init__(self) -> None:
        _text("split", self.split)
        _text("verdict", self.verdict)
        if not self.rows or not self.columns:
            raise ValueError("rows, columns: got none, expected at least one of each")
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"{row.name}: got {len(row.cells)} cells, expected {len(self.columns)}, one per column"
                )

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """The names of the rows' further columns, in the order of their first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name, _ in row.extra))


@dataclass(frozen=True)
class Difference:
    """A difference between two networks in fractions, -1..1, with its 95 % interval."""

    points: int | float
    low: int | float
    high: int | float

    def __post_init__(self) -> None:
        for name in ("points", "low", "high"):
            _number(name, getattr(self, name), 1.0, least=-1.0)
        if not self.low <= self.points <= self.high:
            raise ValueError(f"points: got {self.points} outside its interval {self.low}..{self.high}")

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of no difference."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ContrastRow:
    """One network's differences to another.

    Attributes:
        name: of the network.
        changes: one per column of the contrast; None where there is nothing to compare.
        extra: further columns as (column, text).
    """

    name: str
    changes: tuple[Difference | None, ...]
    extra: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _text("name", self.name)


@dataclass(frozen=True)
class Contrast:
    """Networks as paired differences to one of them.

    Attributes:
        against: the name of that one.
        columns: one name per change of each row.
        rows: the others, at least one.
    """

    against: str
    columns: tuple[str, ...]
    rows: tuple[ContrastRow, ...]

    def __post_init__(self) -> None:
        _text("against", self.against)
        if not self.rows or not self.columns:
            raise ValueError("rows, columns: got none, expected at least one of each")
        for row in self.rows:
            if len(row.changes) != len(self.columns):
                raise ValueError(
                    f"{row.name}: got {len(row.changes)} changes, expected {len(self.columns)}, one per column"
                )

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """The names of the rows' further columns, in the order of their first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name, _ in row.extra))


@dataclass(frozen=True, eq=False)
class Confusion:
    """What one network took for what.

    Attributes:
        name: of the network.
        class_names: K names.
        counts: (K, K) integers from 0; `counts[i, j]` clips of class i were called class j.
    """

    name: str
    class_names: tuple[str, ...]
    counts: np.ndarray

    def __post_init__(self) -> None:
        _text("name", self.name)
        classes = len(self.class_names)
        if classes == 0:
            raise ValueError("class_names: got none, expected at least one")
        if self.counts.shape != (classes, classes) or not np.issubdtype(self.counts.dtype, np.integer):
            got = f"{self.counts.dtype} {self.counts.shape}"
            raise ValueError(f"counts: got {got}, expected integers ({classes}, {classes})")
        if self.counts.min() < 0:
            raise ValueError(f"counts: got {self.counts.min()}, expected numbers from 0")

    def worst(self, most: int = 5) -> tuple[tuple[str, str, int, int], ...]:
        """The most frequent mistakes as (true class, taken for, how often, clips of the true class)."""
        mistakes = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
        pairs = [divmod(int(i), len(self.class_names)) for i in order]
        return tuple(
            (self.class_names[i], self.class_names[j], int(mistakes[i, j]), int(self.counts[i].sum()))
            for i, j in pairs
            if mistakes[i, j]
        )


@dataclass(frozen=True)
class Example:
    """A film to show.

    Attributes:
        clip_id: of the clip.
        title: one line.
        video: an .mp4 or .webm file, read when the report is written.
        caption: what to see in it.
    """

    clip_id: str
    title: str
    video: Path
    caption: str

    def __post_init__(self) -> None:
        _text("clip_id", self.clip_id)
        if self.video.suffix.lower() not in VIDEO_TYPES:
            raise ValueError(f"video: got {self.video}, expected a name ending in .mp4 or .webm")


@dataclass(frozen=True)
class Report:
    """Everything on the page, in its order; a part that is empty is left out.

    Attributes:
        title: the heading.
        intro: one or two sentences.
        curves: training runs.
        comparison: networks on the same clips, or None.
        confusions: one per network.
        examples: films.
        facts: (name, value) of data, seeds, machine, versions, command.
        caveats: sentences on what the numbers do not show.
    """

    title: str
    intro: str
    curves: tuple[Curve, ...] = ()
    comparison: Comparison | None = None
    confusions: tuple[Confusion, ...] = ()
    examples: tuple[Example, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    caveats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _text("title", self.title)


def _text(name: str, value: str) -> None:
    if not value.strip():
        raise ValueError(f"{name}: got an empty string, expected text")


def _number(name: str, value: Any, most: int | float, least: int | float = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: got {value!r}, expected a finite number")
    if not least <= value <= most:
        raise ValueError(f"{name}: got {value!r}, expected {least:g}..{most:g}")
