"""What a data set lists, and what of it can be used: every listed clip is in the table or named as a problem."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from stabn.data.annotations.paths import PathFinder
from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import ClipTruth
from stabn.data.segments import Segment
from stabn.data.spelling import IGNORED, UNSPLIT, normalise_label
from stabn.data.video.frame_folder import frame_numbers
from stabn.errors import UserError, join_names

LEFT_OUT = ".left-out.csv"
"""What is added to a table's name for the file beside it that has the clips that are not in the table."""
Images = tuple[int, ...] | str | None
"""The numbers of a frame folder's images, ascending; why they cannot be told; or None for a video file."""


@dataclass(frozen=True)
class ListedClip:
    """One clip as a source lists it, before its video is looked for.

    Attributes:
        where: file and line, or folder.
        clip_id: its name.
        path: where its video or frame folder should be.
        label: the name of its class, normalised by `normalise_label`; empty if the source gives none.
        split: train, validation, ..., or `UNSPLIT`.
        segment: the part of the source that is the clip.
        num_frames: how many images its folder should hold, or its segment.
        truth: when the labelled thing happens.
        problem: why it cannot be used; None where nothing is known against it.
        problem_kind: the kind of problem, one of a few words, to count by.
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
    problem_kind: str = "unreadable line"

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", normalise_label(self.label))


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
    problems: tuple[ListedClip, ...]
    notes: tuple[str, ...]
    ordered: bool
    frame_folders: int


def make_table(
    clips: Iterable[ListedClip],
    class_names: Sequence[str] | None = None,
    *,
    folder: Path = Path(),
    class_file: str = "",
) -> Table:
    """The table of listed clips, whose videos need not exist.

    Args:
        clips: all of them have to be usable.
        class_names: in their order; by default those that occur, in alphabetical order.
        folder: in which the list is, for messages.
        class_file: in which the class names are, for messages.

    Raises:
        UserError: a clip has a problem, no class, no split or an unknown class, or an id comes twice.
    """
    clips = list(clips)
    names = tuple(class_names or sorted({clip.label for clip in clips if clip.label}))
    labels = {name: index for index, name in enumerate(names)}
    samples: dict[str, Sample] = {}
    for clip in clips:
        problem = clip.problem
        if problem is None and not (clip.label and clip.split):
            problem = "label is empty; every clip needs one"
            if clip.label:
                problem = (
                    f"split is empty; every clip needs one, such as train, validation, or {IGNORED} to leave it out"
                )
        elif problem is None and clip.clip_id in samples:
            problem = f"clip {clip.clip_id!r} is there twice, in split {samples[clip.clip_id].split!r}; remove one"
        elif problem is None and clip.label not in labels:
            problem = f"label is {clip.label!r}, which is not in {class_file}; correct one of them"
        if problem is not None:
            raise UserError(f"{folder / clip.where}: {problem}")
        samples[clip.clip_id] = Sample(clip.clip_id, clip.path, labels[clip.label], clip.split, clip.segment)
    return Table(names, tuple(samples.values()), {c.clip_id: c.truth for c in clips if c.truth is not None})


def make_listing(
    format: str, clips: Sequence[ListedClip], class_names: Sequence[str] | None = None, notes: Sequence[str] = ()
) -> Listing:
    """Look for every listed clip and sort the usable from the others.

    Args:
        format: what the source was read as, in words.
        clips: everything that it lists.
        class_names: its classes, if it gives their order; else they are those that occur, in alphabetical order.
        notes: what a person should know.
    """
    finder = PathFinder()
    problems: list[ListedClip] = []
    existing: dict[str, ListedClip] = {}
    known_classes = None if class_names is None else frozenset(class_names)

    def is_usable(clip: ListedClip, problem: tuple[str, str] | None) -> bool:
        if problem is not None:
            problems.append(replace(clip, problem_kind=problem[0], problem=problem[1]))
        return problem is None

    for clip in tqdm(clips, desc="looking for videos", unit=" clips", delay=2, leave=False):
        path = finder.find(clip.path) if clip.problem is None else None
        if is_usable(clip, _list_problem(clip, path, known_classes, existing)):
            existing[clip.clip_id] = replace(clip, path=path or clip.path)
    images = dict(zip(existing, _count_images([clip.path for clip in existing.values()]), strict=True))
    usable = {name: clip for name, clip in existing.items() if is_usable(clip, _frame_problem(clip, images[name]))}
    longer = [clip_id for clip_id, clip in usable.items() if _is_longer(clip, images[clip_id])]
    for clip_id in longer:
        usable[clip_id] = replace(usable[clip_id], segment=Segment(0, usable[clip_id].num_frames, "frames"))
    table = make_table(usable.values(), class_names)
    starts = [c.segment.start for c in existing.values() if c.segment is not None and c.segment.unit == "frames"]
    return Listing(
        format=format,
        table=table,
        problems=tuple(problems),
        notes=(*notes, *_frame_notes(images, longer, starts), *_duplicate_notes(table.samples)),
        ordered=class_names is not None,
        frame_folders=sum(images[clip_id] is not None for clip_id in usable),
    )


def _list_problem(
    clip: ListedClip, path: Path | None, class_names: frozenset[str] | None, existing: Mapping[str, ListedClip]
) -> tuple[str, str] | None:
    """Why a clip cannot be used, as kind and message, if the list or its path tells; `path` is where it is."""
    if clip.problem is not None:
        return "unreadable line", clip.problem
    if not clip.label:
        return "no class", "has no class"
    if class_names is not None and clip.label not in class_names:
        return "unknown class", f"is of class {clip.label!r}, which is not among the classes"
    if path is None:
        return "missing video", f"{clip.path} does not exist"
    if str(path).encode(errors="replace").decode().strip() != str(path):
        return "unusable name", f"{str(path)!r} begins or ends with a space, or is no Unicode text"
    if clip.clip_id in existing:
        former = existing[clip.clip_id]
        return "listed twice", f"was listed before, {former.where} ({former.split})"
    return None


def _count_images(paths: Sequence[Path]) -> Iterator[Images]:
    def numbers(path: Path) -> Images:
        if not path.is_dir():
            return None
        try:
            return tuple(frame_numbers(path))
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:  # a network drive answers many requests at once
        images = pool.map(numbers, paths)
        yield from tqdm(images, total=len(paths), desc="counting frames", unit=" clips", delay=2, leave=False)


def _frame_problem(clip: ListedClip, images: Images) -> tuple[str, str] | None:
    """Why the images of a clip cannot be used, as kind and message; None if they can, and for video files."""
    if images is None:
        return None
    if not images or isinstance(images, str):
        return "unusable frames", str(images or f"{clip.path} holds no numbered images")
    needed, listed = clip.num_frames or 0, f"{clip.num_frames} frames"
    if clip.segment is not None and clip.segment.unit == "frames":
        needed, listed = int(max(clip.segment.start + 1, clip.segment.end or 0)), str(clip.segment)
    if needed > len(images):
        return "wrong frame count", f"is listed with {listed}, but {clip.path} has {len(images)}"
    return None


def _is_longer(clip: ListedClip, images: Images) -> bool:
    """Whether a whole frame folder has more images than are listed: then the clip is the first of them."""
    return images is not None and clip.segment is None and clip.num_frames not in (None, len(images))


def _frame_notes(images: Mapping[str, Images], longer: Sequence[str], starts: Sequence[float]) -> Iterator[str]:
    """What to know of frame folders: `longer` ones than listed; `starts` are the first frames of segments."""
    numbers = {clip_id: value for clip_id, value in images.items() if value and not isinstance(value, str)}
    firsts = sorted(Counter(ascending[0] for ascending in numbers.values()).items())
    if firsts:
        counts = ", ".join(f"{first} ({count})" for first, count in firsts[:4])
        yield f"images are numbered from {counts if len(firsts) > 1 else firsts[0][0]}; we count frames from 0"
    gaps = [clip_id for clip_id, n in numbers.items() if n[-1] - n[0] + 1 > len(n)]
    if gaps:
        yield f"{len(gaps)} frame folders lack numbers between their first and last image: {join_names(gaps)}"
    if longer:
        yield (
            f"{len(longer)} frame folders hold more images than the list says, of which the first ones are taken: "
            f"{join_names(longer)}"
        )
    if len(starts) > 1 and min(starts) == 1:
        yield "no part begins at frame 0 and some begin at 1: if the source counts from 1, add --first-frame 1"


def _duplicate_notes(samples: Sequence[Sample]) -> Iterator[str]:
    """Sources that are in several splits, and clips that are in one twice; a path may be written in many ways."""
    splits: dict[str, set[str]] = defaultdict(set)
    clip_ids: dict[tuple[str, Segment | None, str], list[str]] = defaultdict(list)
    for sample in samples:
        path = os.path.abspath(sample.path)
        splits[path].add(sample.split)
        clip_ids[path, sample.segment, sample.split].append(sample.clip_id)
    shared = [os.path.basename(path) for path, names in splits.items() if len(names - {UNSPLIT}) > 1]
    if shared:
        yield f"{len(shared)} videos are in more than one split, which makes measures look better: {join_names(shared)}"
    repeated = [names[1] for names in clip_ids.values() if len(names) > 1]
    if repeated:
        yield (
            f"{len(repeated)} clips are the same part of the same video as another of their split: "
            f"{join_names(repeated)}"
        )
