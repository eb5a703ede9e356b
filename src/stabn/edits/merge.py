"""Several people's edits of the same clips: one edit per clip out of them, and how far the people agree."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean, median

from stabn.errors import UserError
from stabn.records import Edit

COMBINE: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "median": median}
"""Ways to make one score of several people's."""

AUTHOR = "author:"
"""Begins a `use` that takes one person's edits, as in "author:Ann"."""


def check_use(use: str) -> None:
    """Make sure that `use` says how several people's edits become one: latest, mean, median or author:NAME.

    Raises:
        UserError: it does not.
    """
    if use != "latest" and use not in COMBINE and not (use.startswith(AUTHOR) and use != AUTHOR):
        raise UserError(f"use: got {use!r}, expected latest, mean, median, or author:NAME with a person's name")


def latest_edits(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The last edit of each person for each clip, in the order of `edits`."""
    last: dict[tuple[str, str], Edit] = {}
    for edit in edits:
        key = (edit.clip_id, edit.author)
        last.pop(key, None)  # so that the key moves to the end
        last[key] = edit
    return tuple(last.values())


def merge_edits(edits: Iterable[Edit], use: str = "latest") -> dict[str, Edit]:
    """One edit per clip.

    Args:
        edits: of any people, in the order in which they were made; of one person's edits of a clip the last counts.
        use: "latest" takes the last edit, whoever made it; "mean" and "median" combine frame by frame, where the
            median of an even number is the mean of the middle two; "author:NAME" takes that person's edits only.

    Returns:
        The edits by clip id. A combined one has the time of the last and an author like "mean of Ann, Bo"; a clip that
        one person edited keeps that edit.

    Raises:
        UserError: `use` is none of these, there are edits but none of that person, or two people's edits of a clip are
            of different frames.
    """
    check_use(use)
    standing = latest_edits(edits)
    if use.startswith(AUTHOR):
        name = use.removeprefix(AUTHOR)
        people = sorted({edit.author for edit in standing})
        if people and name not in people:
            raise UserError(f"use: got {use!r}, but the people with edits are {', '.join(people)}; give one of them")
        standing = tuple(edit for edit in standing if edit.author == name)
    if use not in COMBINE:
        return {edit.clip_id: edit for edit in standing}
    return {clip_id: _combined(group, use) for clip_id, group in group_by_clip(standing).items()}


def _combined(group: Sequence[Edit], use: str) -> Edit:
    last = group[-1]
    if len(group) == 1:
        return last
    scores = tuple(COMBINE[use](column) for column in zip(*(edit.scores for edit in group), strict=True))
    people = ", ".join(sorted(edit.author for edit in group))
    return replace(last, scores=scores, author=f"{use} of {people}", comment="")


def group_by_clip(edits: Iterable[Edit]) -> dict[str, list[Edit]]:
    """Group edits by clip, in their order.

    Raises:
        UserError: two edits of a clip are of different frames.
    """
    groups: dict[str, list[Edit]] = defaultdict(list)
    for edit in edits:
        first = groups[edit.clip_id][0] if groups[edit.clip_id] else edit
        if edit.frame_indices != first.frame_indices:
            raise UserError(
                f"clip {edit.clip_id!r}: {first.author} edited frames {list(first.frame_indices)} and {edit.author} "
                f"{list(edit.frame_indices)}; keep edits of one network's frames"
            )
        groups[edit.clip_id].append(edit)
    return groups
