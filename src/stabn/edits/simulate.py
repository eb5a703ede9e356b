"""Simulated editors, for data with ground truth: exact, imprecise, wrong, or without any knowledge.

All random choices are functions of the seed, and a larger `count` or share includes the choice of a smaller one, so
that curves over them are comparable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stabn.data.ground_truth import ClipTruth
from stabn.edits.project import Project, ProjectClip
from stabn.errors import UserError
from stabn.records import utc_now

PURPOSES = ("order", "wrong", "boundaries", "place", "shuffle")
"""Each has its own stream of random numbers."""


@dataclass(frozen=True)
class Simulation:
    """How a simulated editor's scores differ from the truth.

    Attributes:
        boundary_noise: source frames; the start and the end of every run of relevant frames move by a random whole
            number in -boundary_noise..boundary_noise each.
        wrong: share of the clips, 0 to 1, whose edit is the truth moved to a random place in the clip.
        count: number of edited clips, as evenly from the classes as possible; None for all.
        shuffle: every clip gets the scores of another one.
        constant: score in 0..1 of every frame, in place of the truth.
        seed: of all random choices, from 0.

    Raises:
        UserError: a value is out of its range, or has no effect beside another.
    """

    boundary_noise: int = 0
    wrong: float = 0.0
    count: int | None = None
    shuffle: bool = False
    constant: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.boundary_noise < 0:
            raise UserError(f"--boundary_noise: got {self.boundary_noise}, expected 0 or more frames")
        if not 0 <= self.wrong <= 1:
            raise UserError(f"--wrong: got {self.wrong}, expected a share in 0..1")
        if self.count is not None and self.count < 1:
            raise UserError(f"--count: got {self.count}, expected at least 1 clip")
        if self.constant is not None and not 0 <= self.constant <= 1:
            raise UserError(f"--constant: got {self.constant}, expected a score in 0..1")
        if self.seed < 0:
            raise UserError(f"--seed: got {self.seed}, expected 0 or more")
        for other in ("boundary_noise", "wrong", "shuffle"):
            if self.constant is not None and getattr(self, other):
                raise UserError(
                    f"--constant: got {self.constant} with --{other}, which would change nothing; leave one out"
                )

    @property
    def comment(self) -> str:
        """The comment of the edits."""
        parts = ["simulated from the truth" if self.constant is None else f"simulated: every frame {self.constant:g}"]
        if self.boundary_noise:
            parts.append(f"boundary noise {self.boundary_noise}")
        if self.wrong:
            parts.append(f"wrong {self.wrong:g}")
        if self.shuffle:
            parts.append("shuffled between clips")
        if self.count is not None:
            parts.append(f"count {self.count}")
        return ", ".join(parts if len(parts) == 1 else [*parts, f"seed {self.seed}"])

    def stream(self, purpose: str, number: int = 0) -> np.random.Generator:
        """The random numbers for a purpose, or for a purpose and the clip of this number."""
        return np.random.default_rng([self.seed, PURPOSES.index(purpose), number])


def simulate_edits(
    project: Project,
    truth: Mapping[str, ClipTruth],
    simulation: Simulation = Simulation(),
    author: str = "simulated",
) -> int:
    """Add edits of the clips of a project that have none; a repeated call adds nothing.

    Args:
        project: the project, whose edits file is extended.
        truth: by clip id; clips without truth are left out, unless all get a constant.
        simulation: how scores differ from the truth.
        author: of the edits.

    Returns:
        The number of edits added.

    Raises:
        UserError: no clip has truth, or a clip has truth for fewer frames than it has.
    """
    scores = simulated_scores(project.clips, truth, simulation)
    if not scores:
        raise UserError(
            f"{project.folder}: no clip has truth in the network's frames; give the truth of the data that the run was "
            "trained on, in frames"
        )
    edited, time = project.edits(), utc_now()
    edits = [
        clip.edit(scores[clip.clip_id], author=author, time=time, comment=simulation.comment)
        for clip in project.clips
        if clip.clip_id in scores and clip.clip_id not in edited
    ]
    if edits:
        project.add(edits)
    return len(edits)


def simulated_scores(
    clips: Sequence[ProjectClip], truth: Mapping[str, ClipTruth], simulation: Simulation
) -> dict[str, tuple[float, ...]]:
    """A simulated editor's scores of the T frames of each clip, by clip id; clips not chosen are left out.

    Raises:
        UserError: truth for fewer frames than a clip has, or fewer than two clips to shuffle.
    """
    editable = [n for n, clip in enumerate(clips) if simulation.constant is not None or has_truth(clip, truth)]
    order = stratified_order([clips[n].label for n in editable], simulation.stream("order"))
    chosen = sorted(editable[position] for position in order[: simulation.count])
    shuffled = [n for n in simulation.stream("wrong").permutation(len(clips)).tolist() if n in chosen]
    wrong = shuffled[: round(simulation.wrong * len(chosen))]
    scores: list[tuple[float, ...]] = []
    for n in chosen:
        clip = clips[n]
        if simulation.constant is not None:
            scores.append((simulation.constant,) * len(clip.frame_indices))
            continue
        first, stop = min(clip.frame_indices), max(clip.frame_indices) + 1
        marked = truth[clip.clip_id]
        if n in wrong:
            marked = misplace(marked, first, stop, simulation.stream("place", n))
        elif simulation.boundary_noise:
            marked = blur_boundaries(marked, simulation.boundary_noise, stop, simulation.stream("boundaries", n))
        try:
            scores.append(tuple(marked.scores(clip.frame_indices).tolist()))
        except ValueError as error:
            raise UserError(
                f"clip {clip.clip_id}: {error}; give the truth of the data that the project's run was trained on"
            ) from None
    if simulation.shuffle:
        if len(scores) == 1:
            raise UserError(f"--shuffle: got one clip, {clips[chosen[0]].clip_id}, expected two or more to exchange")
        scores = [scores[other] for other in derangement(len(scores), simulation.stream("shuffle"))]
    return {clips[n].clip_id: clip_scores for n, clip_scores in zip(chosen, scores, strict=True)}


def has_truth(clip: ProjectClip, truth: Mapping[str, ClipTruth]) -> bool:
    """Whether a clip's truth is relevance by frame, or an interval that contains one of the network's frames."""
    clip_truth = truth.get(clip.clip_id)
    if clip_truth is None or not clip_truth.has_timing:
        return False
    return clip_truth.relevance is not None or bool(clip_truth.scores(clip.frame_indices).any())


def stratified_order(labels: Sequence[str], rng: np.random.Generator) -> list[int]:
    """All positions in a random order, every prefix of which is spread evenly over the labels."""
    classes = rng.permutation(sorted(set(labels))).tolist()
    keys = []
    for rank, label in enumerate(classes):
        members = rng.permutation([n for n, other in enumerate(labels) if other == label]).tolist()
        keys += [(turn, rank, n) for turn, n in enumerate(members)]
    return [n for _, _, n in sorted(keys)]


def derangement(count: int, rng: np.random.Generator) -> list[int]:
    """A random cyclic order of 0..count-1, so that no position holds itself (Sattolo, 1986).

    Raises:
        ValueError: count is 1.
    """
    if count == 1:
        raise ValueError("count: got 1, expected two or more")
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = int(rng.integers(last))
        order[last], order[other] = order[other], order[last]
    return order


def blur_boundaries(truth: ClipTruth, noise: int, num_frames: int, rng: np.random.Generator) -> ClipTruth:
    """The truth with each start and end moved by a random whole number of frames in -noise..noise.

    Every edge at which relevance changes is moved, and for each value v the runs of frames with at least v are marked
    between their moved edges. No run becomes empty: a frame of it stays, or all of it if it was shorter.

    Args:
        truth: relevance or an interval.
        noise: source frames, 0 or more.
        num_frames: one after the network's last frame; no run is moved beyond it.
        rng: one number is drawn per edge.
    """
    if truth.relevance is None:
        if truth.interval is None:
            return truth
        start, end = truth.interval
        earlier, later = rng.integers(-noise, noise, size=2, endpoint=True).tolist()
        return ClipTruth(interval=_between(start, end, earlier, later, num_frames))
    relevance = np.array((0.0, *truth.relevance, 0.0))
    edges = np.flatnonzero(np.diff(relevance)).tolist()
    moves = dict(zip(edges, rng.integers(-noise, noise, size=len(edges), endpoint=True).tolist(), strict=True))
    marked = np.zeros(len(truth.relevance))
    for level in np.unique(relevance[relevance > 0]):
        for start, end in np.flatnonzero(np.diff(relevance >= level)).reshape(-1, 2).tolist():
            first, stop = map(int, _between(start, end, moves[start], moves[end], len(marked)))
            marked[first:stop] = np.maximum(marked[first:stop], level)
    return ClipTruth(relevance=tuple(marked.tolist()))


def _between(start: float, end: float, first_move: int, last_move: int, num_frames: int) -> tuple[float, float]:
    shortest = min(1.0, end - start)
    first = min(max(start + first_move, 0.0), max(start, num_frames - shortest))
    return first, max(end + last_move, first + shortest)


def misplace(truth: ClipTruth, first: int, stop: int, rng: np.random.Generator) -> ClipTruth:
    """The truth moved to a random place within first..stop.

    Relevance keeps its levels: everything from the first relevant frame to the last moves together.

    Args:
        truth: relevance or an interval; one longer than first..stop begins at `first`.
        first: the network's first source frame.
        stop: one after the network's last source frame.
        rng: one number is drawn.
    """
    if truth.relevance is None:
        if truth.interval is None:
            return truth
        length = truth.interval[1] - truth.interval[0]
        start = float(rng.uniform(first, max(first, stop - length)))
        return ClipTruth(interval=(start, start + length))
    relevance = np.array(truth.relevance)
    relevant = np.flatnonzero(relevance)
    if not len(relevant):
        return truth
    pattern = relevance[relevant[0] : relevant[-1] + 1]
    at = int(rng.integers(first, max(first, stop - len(pattern)), endpoint=True))
    marked = np.zeros(max(len(relevance), at + len(pattern)))
    marked[at : at + len(pattern)] = pattern
    return ClipTruth(relevance=tuple(marked[: len(relevance)].tolist()))
