"""What a data set lists, and what of it can be used: every listed clip is in the table or told as a problem."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from stabn.data.annotations.paths import finder
from stabn.data.annotations.splits import UNSPLIT
from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import ClipTruth
from stabn.data.segments import Segment
from stabn.data.video.frame_folder import frame_numbers
from stabn.errors import UserError

LEFT_OUT = ".left-out.csv"
"""What is added to a table's name for the file beside it that has the clips that are not in the table."""
_NAMED = 3
"""Clips that a note names."""


@dataclass(frozen=True)
class Entry:
    """One clip as a source lists it, not yet looked for.

    Attributes:
        where: file and line, or folder.
        clip_id: its name.
        path: where its video or frame folder should be.
        label: the name of its class; empty if the source gives none.
        split: train, validation, ..., or `UNSPLIT`.
        segment: the part of the source that is the clip.
        num_frames: how many images its folder should hold, or its segment.
        truth: when the labelled thing happens.
        problem: why it cannot be used, if the source's reader knows already.
    """

    where: str
    clip_id: str
    path: Path
    label: str
    split: str
    segment: Segment | None = None
    num_frames: int | None = None
    truth: ClipTruth | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Problem:
    """A listed clip that cannot be used.

    Attributes:
        kind: what is wrong, one of a few words, to count by.
        clip: its name.
        where: file and line, or folder.
        told: what exactly is wrong.
    """

    kind: str
    clip: str
    where: str
    told: str


@dataclass(frozen=True)
class Listing:
    """What a data set lists.

    Attributes:
        format: what it was read as, in words.
        table: the clips that can be used.
        problems: those that cannot.
        notes: what a person should know, a line each.
        ordered: whether the source gives the order of the classes.
        frame_folders: how many clips of the table are folders of frames.
    """

    format: str
    table: Table
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    ordered: bool
    frame_folders: int


def listing(
    format: str, entries: Sequence[Entry], class_names: Sequence[str] | None = None, notes: Sequence[str] = ()
) -> Listing:
    """Look for every listed clip and sort the usable from the others.

    Args:
        format: what the source was read as, in words.
        entries: everything that it lists.
        class_names: its classes, if it gives their order; else they are those that occur, in alphabetical order.
        notes: what a person should know.
    """
    find = finder()
    problems: list[Problem] = []
    usable: dict[str, tuple[Entry, Path]] = {}
    known = None if class_names is None else frozenset(class_names)
    for entry in tqdm(entries, desc="looking for videos", unit=" clips", delay=2, leave=False):
        path = find(entry.path) if entry.problem is None else None
        former = usable.get(entry.clip_id)
        if entry.problem is not None:
            problem = ("unreadable line", entry.problem)
        elif not entry.label:
            problem = ("no class", "has no class")
        elif known is not None and entry.label not in known:
            problem = ("unknown class", f"is of class {entry.label!r}, which is not among the classes")
        elif path is None:
            problem = ("missing video", f"{entry.path} does not exist")
        elif not _can_be_written(str(path)):
            problem = ("unusable name", f"{str(path)!r} begins or ends with a space, or is no Unicode text")
        elif former is not None:
            problem = ("listed twice", f"was listed before, {former[0].where} ({former[0].split})")
        else:
            usable[entry.clip_id] = (entry, path)
            continue
        problems.append(Problem(problem[0], entry.clip_id, entry.where, problem[1]))
    images = dict(zip(usable, _images([path for _, path in usable.values()]), strict=True))
    counts = _Counts(images)
    for clip_id, (entry, _) in list(usable.items()):
        wrong = counts.wrong(entry)
        if wrong is not None:
            problems.append(Problem(wrong[0], clip_id, entry.where, wrong[1]))
            del usable[clip_id]
    names = tuple(class_names) if class_names is not None else tuple(sorted({e.label for e, _ in usable.values()}))
    labels = {name: index for index, name in enumerate(names)}
    samples = tuple(
        Sample(clip_id, path, labels[entry.label], entry.split, counts.segment(entry))
        for clip_id, (entry, path) in usable.items()
    )
    truth = {clip_id: entry.truth for clip_id, (entry, _) in usable.items() if entry.truth is not None}
    return Listing(
        format=format,
        table=Table(names, samples, truth),
        problems=tuple(problems),
        notes=(*notes, *counts.notes(), *_leaks(samples)),
        ordered=class_names is not None,
        frame_folders=sum(images[clip_id] is not None for clip_id in usable),
    )


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    named = list(names)
    more = len(named) - _NAMED
    return ", ".join(named[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass
class _Counts:
    """The images of frame folders against what a source says about them.

    Attributes:
        images: by clip, the numbers of its images, why they cannot be told, or None for a video file.
    """

    images: Mapping[str, Sequence[int] | str | None]
    more: list[str] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)

    def wrong(self, entry: Entry) -> tuple[str, str] | None:
        """Why a clip's images cannot be used, as kind and sentence; None if they can, and for video files."""
        found, segment = self.images[entry.clip_id], entry.segment
        if segment is not None and segment.unit == "frames":
            self.starts.append(segment.start)
        if found is None:
            return None
        if isinstance(found, str):
            return "unusable frames", found
        if not found:
            return "unusable frames", f"{entry.path} holds no numbered images"
        wanted, told = entry.num_frames or 0, f"{entry.num_frames} frames"
        if segment is not None and segment.unit == "frames":
            wanted, told = int(max(segment.start + 1, segment.end or 0)), str(segment)
        if wanted > len(found):
            return "wrong frame count", f"is listed with {told}, but {entry.path} has {len(found)}"
        return None

    def segment(self, entry: Entry) -> Segment | None:
        """The part of its source that a usable clip is: as many images as are listed, if there are more."""
        found = self.images[entry.clip_id]
        if entry.segment is not None or entry.num_frames is None or found is None or entry.num_frames == len(found):
            return entry.segment
        self.more.append(entry.clip_id)
        return Segment(0, entry.num_frames, "frames")

    def notes(self) -> Iterator[str]:
        numbers = {clip_id: found for clip_id, found in self.images.items() if found and not isinstance(found, str)}
        firsts = Counter(found[0] for found in numbers.values())
        if firsts:
            told = ", ".join(f"{first} ({count})" for first, count in sorted(firsts.items())[: _NAMED + 1])
            yield f"images are numbered from {told if len(firsts) > 1 else next(iter(firsts))}; we count frames from 0"
        gaps = [clip_id for clip_id, found in numbers.items() if found[-1] - found[0] + 1 > len(found)]
        if gaps:
            yield f"{len(gaps)} frame folders lack numbers between their first and last image: {some(gaps)}"
        if self.more:
            yield (
                f"{len(self.more)} frame folders hold more images than the list says, of which the first ones are "
                f"taken: {some(self.more)}"
            )
        if len(self.starts) > 1 and min(self.starts) == 1:
            yield "no part begins at frame 0 and some begin at 1: if the source counts from 1, add --first-frame 1"


def _images(paths: Sequence[Path]) -> Iterator[Sequence[int] | str | None]:
    """The numbers of a folder's images, or why they cannot be told; None for a file."""

    def numbers(path: Path) -> Sequence[int] | str | None:
        if not path.is_dir():
            return None
        try:
            return tuple(frame_numbers(path))
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:  # a network drive answers many questions at once
        found = pool.map(numbers, paths)
        yield from tqdm(found, total=len(paths), desc="counting frames", unit=" clips", delay=2, leave=False)


def _can_be_written(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name == name.strip()


def _leaks(samples: Sequence[Sample]) -> Iterator[str]:
    """Sources that are in several splits, and clips that are in one twice; a path may be written in many ways."""
    splits: dict[str, set[str]] = {}
    same: dict[tuple[str, Segment | None, str], list[str]] = {}
    for sample in samples:
        path = os.path.abspath(sample.path)
        splits.setdefault(path, set()).add(sample.split)
        same.setdefault((path, sample.segment, sample.split), []).append(sample.clip_id)
    shared = [os.path.basename(path) for path, found in splits.items() if len(found - {UNSPLIT}) > 1]
    if shared:
        yield f"{len(shared)} videos are in more than one split, which makes measures look better: {some(shared)}"
    again = [clip_ids[1] for clip_ids in same.values() if len(clip_ids) > 1]
    if again:
        yield f"{len(again)} clips are the same part of the same video as another of their split: {some(again)}"
