"""Merging several people's edits of a clip into one."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean, median

from stabn.errors import UserError
from stabn.records import Edit

COMBINE: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "median": median}
"""Name of a `use` -> function that combines several people's scores of a frame."""

AUTHOR = "author:"
"""Prefix of a `use` that selects one person's edits, as in "author:Ann"."""


def check_use(use: str) -> None:
    """Check that `use` is latest, mean, median or author:NAME.

    Raises:
        UserError: it does not.
    """
    if use != "latest" and use not in COMBINE and not (use.startswith(AUTHOR) and use != AUTHOR):
        raise UserError(f"use: got {use!r}, expected latest, mean, median, or author:NAME")


def latest_edits(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The last edit of each person for each clip, in the order of `edits`."""
    last: dict[tuple[str, str], Edit] = {}
    for edit in edits:
        key = (edit.clip_id, edit.author)
        last.pop(key, None)  # so that the key moves to the end
        last[key] = edit
    return tuple(last.values())


def merge_edits(edits: Iterable[Edit], use: str = "latest") -> dict[str, Edit]:
    """Merge edits into one per clip.

    Args:
        edits: in the order in which they were made; of one person's edits of a clip the last counts.
        use: "latest" takes the last edit of anybody; "mean" and "median" combine frame by frame, where the
            median of an even number is the mean of the middle two; "author:NAME" takes only that person's edits.

    Returns:
        Edits by clip id. A combined edit has the time of the last one and an author like "mean of Ann, Bo"; the edit of
        a clip that only one person edited is unchanged.

    Raises:
        UserError: `use` is none of these, there are edits but none of that person, or two people's edits of a clip are
            of different frames.
    """
    check_use(use)
    latest = latest_edits(edits)
    if use.startswith(AUTHOR):
        name = use.removeprefix(AUTHOR)
        people = sorted({edit.author for edit in latest})
        if people and name not in people:
            raise UserError(f"use: got {use!r}, but edits are by {', '.join(people)}; give one of them")
        latest = tuple(edit for edit in latest if edit.author == name)
    if use not in COMBINE:
        return {edit.clip_id: edit for edit in latest}
    return {clip_id: _combined(group, use) for clip_id, group in group_by_clip(latest).items()}


def _combined(group: Sequence[Edit], use: str) -> Edit:
    last = group[-1]
    if len(group) == 1:
        return last
    scores = tuple(COMBINE[use](column) for column in zip(*(edit.scores for edit in group), strict=True))
    people = ", ".join(sorted(edit.author for edit in group))
    return replace(last, scores=scores, author=f"{use} of {people}", comment="")


def group_by_clip(edits: Iterable[Edit]) -> dict[str, list[Edit]]:
    """Edits by clip id, in their order.

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
