"""The content of an HTML page: frozen values, filled by the reports and drawn by `charts`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A measured share with its 95 % interval, or without `count` a difference of two shares.

    Attributes:
        value: a fraction in 0..1; a difference in -1..1.
        low, high: the ends of the interval.
        count: clips or seeds behind a share; None for a difference.
    """

    value: float
    low: float
    high: float
    count: int | None = None

    @classmethod
    def clamped(cls, value: float, low: float, high: float, count: int | None = None) -> "Estimate":
        """An estimate whose interval is extended to its value and cut at the ends of the range of possible values."""
        least = -1.0 if count is None else 0.0
        return cls(value, max(least, min(low, value)), min(1.0, max(high, value)), count)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Row:
    """One network, or one explanation, in a table.

    Attributes:
        name: short, such as "ST-ABN".
        cells: one per column of the table; None where there is nothing to measure.
        description: what it is, in a few words.
        extra: further columns as (column, text), such as ("mended", "41"). Rows may differ in them.
        control: whether it is the control, that is, trained with everything but what is tested.
    """

    name: str
    cells: tuple[Estimate | None, ...]
    description: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    control: bool = False


@dataclass(frozen=True)
class EstimateTable:
    """Estimates for several networks or explanations: either shares or differences.

    Attributes:
        title: what it is, or what differences are taken to.
        columns: at least one name; a group of clips or a measure each.
        rows: at least one.
        chance: one value in 0..1 per column, what a uniform explanation gives; or nothing.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    chance: tuple[float, ...] = ()

    @property
    def is_difference(self) -> bool:
        """Whether the cells are differences."""
        return all(cell is None or cell.count is None for row in self.rows for cell in row.cells)

    @property
    def reference(self) -> tuple[float, ...]:
        """A value per column to read the rows against: no difference, chance, or the first row's."""
        if self.is_difference:
            return (0.0,) * len(self.columns)
        return self.chance or tuple(0.0 if cell is None else cell.value for cell in self.rows[0].cells)

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Names of the rows' further columns, in the order of their first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name, _ in row.extra))


@dataclass(frozen=True)
class Curve:
    """Loss and accuracy of one training run by epoch.

    Attributes:
        name: of the run.
        epochs: at least one entry of a run's curves.json: "epoch" (an integer that rises) and any of "train_loss",
            "validation_loss" (from 0), and of "train_top1", "validation_top1", "train_mean_class_accuracy" and
            "validation_mean_class_accuracy" (fractions 0..1). A metric that is absent or None leaves a gap; other keys
            are not drawn.
    """

    name: str
    epochs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, eq=False)
class Confusion:
    """The confusion matrix of one network.

    Attributes:
        name: of the network.
        class_names: K names.
        counts: (K, K) integers from 0; `counts[i, j]` clips of class i were predicted as class j.
    """

    name: str
    class_names: tuple[str, ...]
    counts: np.ndarray

    def worst(self, most: int = 5) -> tuple[tuple[str, str, int, int], ...]:
        """The most frequent mistakes as (true class, predicted class, how often, clips of the true class)."""
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
        video: an .mp4 file, read when the page is written.
        caption: what to see in it.
    """

    clip_id: str
    title: str
    video: Path
    caption: str


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram of one network.

    Attributes:
        name: of the network.
        error: expected calibration error in words, such as "12.3 (8.0 to 15.1)".
        bins: as `stabn.evaluation.calibration.calibration` gives them; those without clips are not drawn.
    """

    name: str
    error: str
    bins: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ClassShares:
    """Accuracy of several networks class by class.

    Attributes:
        names: of the K classes.
        counts: clips of each.
        edited: names of those that have edits.
        networks: at least two (name, K shares in 0..1, None for a class without clips); changes are those from the
            first to the last.
        control: the name of the control among them, or None.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    edited: tuple[str, ...]
    networks: tuple[tuple[str, tuple[float | None, ...]], ...]
    control: str | None = None

    def change(self, number: int) -> float:
        """The difference of a class's accuracy from the first network to the last; 0 without clips."""
        first, last = self.networks[0][1][number], self.networks[-1][1][number]
        return 0.0 if first is None or last is None else last - first

    def most_changed(self, most: int) -> tuple[int, ...]:
        """Positions of classes with clips, largest gain first; of more than `most` the largest gains and losses."""
        measured = [k for k, count in enumerate(self.counts) if count]
        order = sorted(measured, key=lambda k: -self.change(k))
        return tuple(order) if len(order) <= most else (*order[: most - most // 2], *order[-(most // 2) :])


@dataclass(frozen=True)
class CurvePair:
    """Mean deletion and insertion curves of one explanation.

    Attributes:
        deletion: one value in 0..1 per share of what is removed, at least two.
        insertion: likewise per share of what is kept.
        deletion_area: under the curve, in 0..1; lower is better.
        insertion_area: likewise; higher is better.
    """

    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    deletion_area: float
    insertion_area: float


@dataclass(frozen=True)
class CurveGrid:
    """Deletion and insertion curves of one network's explanations with one baseline.

    Attributes:
        name: of the network.
        baseline: the replacement for what is removed.
        methods: names of the explanations.
        scopes: what is ranked: frames, regions, both.
        curves: per scope one pair per method.
    """

    name: str
    baseline: str
    methods: tuple[str, ...]
    scopes: tuple[str, ...]
    curves: tuple[tuple[CurvePair, ...], ...]


@dataclass(frozen=True)
class Explanations:
    """Faithfulness of explanations; an empty part is left out of the page.

    Attributes:
        clips: number of clips that were perturbed.
        drops: loss of top-1 when a network's own attention is replaced, one row per network; or None.
        curves: per network and baseline.
        against_others: per network, its temporal attention against its other explanations.
        localisation: per network whose data has ground truth, one row per explanation.
    """

    clips: int
    drops: EstimateTable | None = None
    curves: tuple[CurveGrid, ...] = ()
    against_others: tuple[EstimateTable, ...] = ()
    localisation: tuple[EstimateTable, ...] = ()


@dataclass(frozen=True)
class Page:
    """Everything on a page, in its order; an empty part is left out.

    Attributes:
        title: the heading.
        intro: one or two sentences.
        comparison: networks on the same clips, the starting point first; or None.
        reading: how to read the comparison: what it measures, what an interval covers.
        verdict: one sentence derived from paired differences; the page itself never claims a gain.
        edited_classes: names of the classes that have edits.
        former: the other networks on the clips that the first got wrong and right; or None.
        differences: to the control and to the first network.
        reliabilities: one per network.
        classes: accuracy per class, or None.
        explanations: whether they are faithful, or None.
        examples: films.
        confusions: one per network.
        curves: training runs.
        caveats: sentences on what the numbers do not show.
        facts: (name, value) of data, runs, seeds, machine, versions, command.
    """

    title: str
    intro: str
    comparison: EstimateTable | None = None
    reading: str = ""
    verdict: str = ""
    edited_classes: tuple[str, ...] = ()
    former: EstimateTable | None = None
    differences: tuple[EstimateTable, ...] = ()
    reliabilities: tuple[Reliability, ...] = ()
    classes: ClassShares | None = None
    explanations: Explanations | None = None
    examples: tuple[Example, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    curves: tuple[Curve, ...] = ()
    caveats: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
