"""What a page about runs side by side says beyond a report: calibration, classes and explanations."""

from dataclasses import dataclass

from stabn.report.content import Comparison, Confusion, Contrast, Row


@dataclass(frozen=True)
class ReliabilityBin:
    """Clips of like confidence: the mean confidence, the share that is right, both 0..1, and how many clips."""

    confidence: float
    accuracy: float
    count: int

    def __post_init__(self) -> None:
        if not (0 <= self.confidence <= 1 and 0 <= self.accuracy <= 1 and self.count >= 1):
            raise ValueError(f"bin: got {self}, expected shares in 0..1 of at least one clip")


@dataclass(frozen=True)
class Reliability:
    """How far a network's confidence can be believed.

    Attributes:
        name: of the network.
        error: expected calibration error in words, such as "12.3 (8.0 to 15.1)".
        bins: those with clips, by rising confidence.
    """

    name: str
    error: str
    bins: tuple[ReliabilityBin, ...]

    def __post_init__(self) -> None:
        confidences = [b.confidence for b in self.bins]
        if not confidences or confidences != sorted(confidences):
            raise ValueError(f"bins: got confidences {confidences}, expected at least one, rising")


@dataclass(frozen=True)
class ClassShares:
    """How often networks are right, class by class.

    Attributes:
        names: of the K classes.
        counts: clips of each.
        edited: names of those that people edited.
        networks: at least two (name, K shares in 0..1, None for a class without clips); the first is where the others
            began, and the last is the one in question.
        control: the name of the control among them, or None.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    edited: tuple[str, ...]
    networks: tuple[tuple[str, tuple[float | None, ...]], ...]
    control: str | None = None

    def __post_init__(self) -> None:
        if len(self.networks) < 2:
            raise ValueError(f"networks: got {len(self.networks)}, expected at least two")
        for name, shares in (("counts", self.counts), *self.networks):
            if len(shares) != len(self.names):
                raise ValueError(f"{name}: got {len(shares)} numbers, expected {len(self.names)}, one per class")
        for name, shares in self.networks:
            if any(share is not None and not 0 <= share <= 1 for share in shares):
                raise ValueError(f"{name}: got {shares}, expected shares in 0..1")

    def change(self, number: int) -> float:
        """What a class gained from the first network to the last; 0 without clips."""
        first, last = self.networks[0][1][number], self.networks[-1][1][number]
        return 0.0 if first is None or last is None else last - first

    def most_changed(self, most: int) -> tuple[int, ...]:
        """Classes with clips, those that gained most first; of many those that gained and those that lost most."""
        measured = [k for k, count in enumerate(self.counts) if count]
        order = sorted(measured, key=lambda k: -self.change(k))
        return tuple(order) if len(order) <= most else (*order[: most - most // 2], *order[-(most // 2) :])


@dataclass(frozen=True)
class PerturbationCurvePair:
    """The probability of the answer while an explanation's highest ranks are removed first, or kept first.

    Attributes:
        deletion: one value in 0..1 per share of what is removed.
        insertion: likewise per share of what is kept.
        deletion_area: under the curve, in 0..1; a good explanation's is small.
        insertion_area: likewise; a good explanation's is large.
    """

    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    deletion_area: float
    insertion_area: float

    def __post_init__(self) -> None:
        if len(self.deletion) != len(self.insertion) or len(self.deletion) < 2:
            raise ValueError(
                f"curves: got {len(self.deletion)} and {len(self.insertion)} points, expected equally many, from two"
            )
        for value in (*self.deletion, *self.insertion, self.deletion_area, self.insertion_area):
            if not 0 <= value <= 1:
                raise ValueError(f"curves: got {value}, expected 0..1")


@dataclass(frozen=True)
class PerturbationPanels:
    """One network's explanations under removal, with one baseline.

    Attributes:
        name: of the network.
        baseline: what stands in for what is removed.
        methods: names of the explanations.
        scopes: what is ranked: frames, regions, both.
        traces: one tuple per scope of one trace per method.
    """

    name: str
    baseline: str
    methods: tuple[str, ...]
    scopes: tuple[str, ...]
    traces: tuple[tuple[PerturbationCurvePair, ...], ...]

    def __post_init__(self) -> None:
        if len(self.traces) != len(self.scopes) or any(len(row) != len(self.methods) for row in self.traces):
            got = [len(row) for row in self.traces]
            raise ValueError(f"traces: got {got}, expected {len(self.scopes)} rows of {len(self.methods)}")


@dataclass(frozen=True)
class LocalisationChart:
    """One network's explanations against the truth.

    Attributes:
        name: of the network.
        columns: names of the measures.
        rows: one per explanation, with a cell per column.
        chance: one value in 0..1 per column, what looking everywhere alike would give.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    chance: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("chance", self.chance), *((row.name, row.cells) for row in self.rows)):
            if len(values) != len(self.columns):
                raise ValueError(f"{name}: got {len(values)} values, expected {len(self.columns)}, one per column")


@dataclass(frozen=True)
class ExplanationSection:
    """Whether networks look where and when they say; a part that is empty is left out.

    Attributes:
        clips: how many were perturbed.
        drops: by how much top-1 falls without a network's own attention, one row per network; or None.
        removals: per network and baseline.
        ahead: per network, its temporal attention against its other explanations.
        located: per network whose data has truth.
    """

    clips: int
    drops: Contrast | None = None
    removals: tuple[PerturbationPanels, ...] = ()
    ahead: tuple[Contrast, ...] = ()
    located: tuple[LocalisationChart, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Everything on the page, in its order; a part that is empty is left out.

    Attributes:
        title: the heading.
        intro: one or two sentences.
        reading: how to read the table: what an interval covers, and what n counts.
        comparison: the networks in the groups of classes.
        former: the networks but the first, in the clips that it got wrong and right; or None.
        contrasts: differences to the control and to the first.
        reliabilities: one per network.
        classes: per class, or None.
        confusions: one per network.
        looks: whether explanations are faithful, or None.
        facts: (name, value) of data, runs, machine, versions, command.
        caveats: sentences on what the numbers do not show.
    """

    title: str
    intro: str
    reading: str
    comparison: Comparison
    former: Comparison | None = None
    contrasts: tuple[Contrast, ...] = ()
    reliabilities: tuple[Reliability, ...] = ()
    classes: ClassShares | None = None
    confusions: tuple[Confusion, ...] = ()
    looks: ExplanationSection | None = None
    facts: tuple[tuple[str, str], ...] = ()
    caveats: tuple[str, ...] = ()
