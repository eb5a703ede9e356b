"""Simulated editors, for data whose truth is known: exact, careless, mistaken, or knowing nothing.

All chance is a function of the seed, and a larger `count` or share takes in what a smaller one chose, so that curves
over them compare like with like.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stabn.data.ground_truth import ClipTruth
from stabn.edits.project import Project, ProjectClip
from stabn.errors import UserError
from stabn.records import utc_now

PURPOSES = ("order", "wrong", "boundaries", "place", "shuffle")
"""Every purpose has a random stream of its own."""


@dataclass(frozen=True)
class Simulation:
    """What a simulated editor does other than giving each clip its true scores.

    Attributes:
        boundary_noise: source frames; the start and the end of every run of relevant frames move by a random whole
            number in -boundary_noise..boundary_noise each.
        wrong: share of the clips whose edit is the truth of the clip moved to a random place in it.
        count: only so many clips, as evenly from the classes as they allow; None for all.
        shuffle: every clip gets the scores of another one.
        constant: every frame gets this score in place of the truth.
        seed: of all chance.

    Raises:
        UserError: a value is out of its range, or has no meaning beside another.
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
        if self.constant is not None and (self.boundary_noise or self.wrong or self.shuffle):
            other = "boundary_noise" if self.boundary_noise else "wrong" if self.wrong else "shuffle"
            raise UserError(
                f"--constant: got {self.constant} with --{other}, which would change nothing; leave one out"
            )

    @property
    def comment(self) -> str:
        """What the edits say about themselves."""
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
        """The random numbers for a purpose, or for one clip and a purpose."""
        return np.random.default_rng([self.seed, PURPOSES.index(purpose), number])


def simulate_edits(
    project: Project,
    truth: Mapping[str, ClipTruth],
    simulation: Simulation = Simulation(),
    author: str = "simulated",
) -> int:
    """Edit the clips of a project that have no edit yet; repeating it adds nothing.

    Args:
        project: its edits file is added to.
        truth: by clip id; clips without one are left out, unless all get a constant.
        simulation: what the editor is like.
        author: whose name the edits carry.

    Returns:
        How many edits were added.

    Raises:
        UserError: no clip has truth, or a clip has truth for fewer frames than it has.
    """
    scores = simulated_scores(project.clips, truth, simulation)
    if not scores:
        raise UserError(
            f"{project.folder}: no clip of it has truth in the frames that were seen; give the truth of the data that "
            "its run learned from, in frames"
        )
    done, time = project.edits(), utc_now()
    edits = [
        clip.edit(scores[clip.clip_id], author=author, time=time, comment=simulation.comment)
        for clip in project.clips
        if clip.clip_id in scores and clip.clip_id not in done
    ]
    if edits:
        project.add(edits)
    return len(edits)


def simulated_scores(
    clips: Sequence[ProjectClip], truth: Mapping[str, ClipTruth], simulation: Simulation
) -> dict[str, tuple[float, ...]]:
    """What a simulated editor gives to the T frames that the network saw of each clip; clips not chosen are left out.

    Raises:
        UserError: truth for fewer frames than a clip has, or fewer than two clips to shuffle.
    """
    known = [n for n, clip in enumerate(clips) if simulation.constant is not None or has_truth(clip, truth)]
    order = stratified_order([clips[n].label for n in known], simulation.stream("order"))
    chosen = sorted(known[position] for position in order[: simulation.count])
    doubtful = [n for n in simulation.stream("wrong").permutation(len(clips)).tolist() if n in chosen]
    wrong = doubtful[: round(simulation.wrong * len(chosen))]
    scores: list[tuple[float, ...]] = []
    for n in chosen:
        clip = clips[n]
        if simulation.constant is not None:
            scores.append((simulation.constant,) * len(clip.frame_indices))
            continue
        seen = (min(clip.frame_indices), max(clip.frame_indices) + 1)
        believed = truth[clip.clip_id]
        if n in wrong:
            believed = misplace(believed, *seen, simulation.stream("place", n))
        elif simulation.boundary_noise:
            believed = blur_boundaries(believed, simulation.boundary_noise, seen[1], simulation.stream("boundaries", n))
        try:
            scores.append(tuple(believed.scores(clip.frame_indices).tolist()))
        except ValueError as error:
            raise UserError(
                f"clip {clip.clip_id}: {error}; give the truth of the data that the project's run learned from"
            ) from None
    if simulation.shuffle:
        if len(scores) == 1:
            raise UserError(f"--shuffle: got one clip, {clips[chosen[0]].clip_id}, expected two or more to exchange")
        scores = [scores[other] for other in derangement(len(scores), simulation.stream("shuffle"))]
    return {clips[n].clip_id: given for n, given in zip(chosen, scores, strict=True)}


def has_truth(clip: ProjectClip, truth: Mapping[str, ClipTruth]) -> bool:
    """Whether it is known when something happens in a clip; an interval has to meet a frame that the network saw."""
    if clip.clip_id not in truth or not truth[clip.clip_id].says_when:
        return False
    known = truth[clip.clip_id]
    return known.relevance is not None or bool(known.scores(clip.frame_indices).any())


def stratified_order(labels: Sequence[str], rng: np.random.Generator) -> list[int]:
    """All positions in a random order of which every beginning is spread evenly over the labels."""
    classes = rng.permutation(sorted(set(labels))).tolist()
    turns = []
    for rank, label in enumerate(classes):
        members = rng.permutation([n for n, other in enumerate(labels) if other == label]).tolist()
        turns += [(turn, rank, n) for turn, n in enumerate(members)]
    return [n for _, _, n in sorted(turns)]


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
    """The truth as a careless editor marks it: each start and end off by a whole number of frames in -noise..noise.

    Of relevance, every edge at which it changes is moved, and then for each value v the runs of frames with at least v
    are marked between their moved edges. No run becomes empty: a frame of it stays, or all of it if it was shorter.

    Args:
        truth: relevance or an interval.
        noise: source frames, 0 or more.
        num_frames: of the video, as far as the network saw it; no run is moved beyond it.
        rng: one number is drawn per edge.
    """
    if truth.relevance is None:
        if truth.interval is None:
            return truth
        start, end = truth.interval
        earlier, later = _moves(2, noise, rng)
        return ClipTruth(interval=_between(start, end, earlier, later, num_frames))
    relevance = np.array((0.0, *truth.relevance, 0.0))
    edges = np.flatnonzero(np.diff(relevance)).tolist()
    moves = dict(zip(edges, _moves(len(edges), noise, rng), strict=True))
    marked = np.zeros(len(truth.relevance))
    for level in np.unique(relevance[relevance > 0]):
        of_level = np.flatnonzero(np.diff((relevance >= level).astype(int))).tolist()
        for start, end in zip(of_level[::2], of_level[1::2], strict=True):
            first, stop = map(int, _between(start, end, moves[start], moves[end], len(marked)))
            marked[first:stop] = np.maximum(marked[first:stop], level)
    return ClipTruth(relevance=tuple(marked.tolist()))


def _moves(count: int, noise: int, rng: np.random.Generator) -> list[int]:
    return rng.integers(-noise, noise, size=count, endpoint=True).tolist()


def _between(start: float, end: float, first_move: int, last_move: int, num_frames: int) -> tuple[float, float]:
    shortest = min(1.0, end - start)
    first = min(max(start + first_move, 0.0), max(start, num_frames - shortest))
    return first, max(end + last_move, first + shortest)


def misplace(truth: ClipTruth, first: int, stop: int, rng: np.random.Generator) -> ClipTruth:
    """The truth of an editor who marks as much, but at a random place within first..stop.

    Relevance keeps its levels: everything from its first relevant frame to its last is moved as one.

    Args:
        truth: relevance or an interval; what is longer than the place begins at `first`.
        first: the first source frame that the network saw.
        stop: one after the last.
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
