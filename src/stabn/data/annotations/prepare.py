"""A data set of any format as the table that training reads: read and judge it, then write it."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stabn.data.annotations.columns import Columns
from stabn.data.annotations.detect import Format, detect_format, read_detected
from stabn.data.annotations.listing import LEFT_OUT, ListedClip, Listing
from stabn.data.annotations.splits import with_split, with_validation
from stabn.data.annotations.table import HEADING, write_table
from stabn.data.dataset import Table
from stabn.data.spelling import UNSPLIT, normalise_split
from stabn.errors import UserError, join_names
from stabn.files import atomic_write


def read_data_set(
    sources: Sequence[Path],
    out: Path,
    videos: Path | None = None,
    format: Format = "auto",
    columns: Columns = Columns(),  # noqa: B008
    classes: Path | None = None,
    first_frame: int = 0,
    split: str | None = None,
    validation_share: float | None = None,
    seed: int = 0,
) -> Listing:
    """What a data set lists, in splits, with notes about what a person should look at.

    Args:
        sources: a folder, or the files that list the clips, one per split.
        out: the CSV file that is going to be written, which must be none of the user's own.
        videos: folder of the videos or frame folders; by default where the format usually has them.
        format: which it is; or auto.
        columns: what the columns of a table are called.
        classes: names for a list's class numbers.
        first_frame: the number of a folder's first frame where a segments-list says which part of it a clip is.
        split: the split of clips whose source does not say.
        validation_share: so many of each class's clips, above 0 and below 1, become validation.
        seed: of the draw of validation clips.

    Raises:
        UserError: a source cannot be read, an option does not fit it, or `out` may not be written.
    """
    _check_out(out, sources)
    if validation_share is not None and not 0 < validation_share < 1:
        raise UserError(f"--validation-share: got {validation_share}, expected a share above 0 and below 1")
    detected = detect_format(sources, columns, format, out)
    listing = read_detected(detected, videos, columns, classes, first_frame)
    table = listing.table
    if split is not None:
        table = with_split(table, normalise_split(split) or UNSPLIT)
    if validation_share is not None:
        if any(sample.split == "validation" for sample in listing.table.samples):
            raise UserError("--validation-share: some clips are for validation already; leave it out")
        table = with_validation(table, validation_share, seed)
    return replace(listing, table=table, notes=(*listing.notes, *_warnings(table)))


def _check_out(out: Path, sources: Sequence[Path]) -> None:
    """Make sure that nothing of the user's is overwritten."""
    if out.suffix.lower() != ".csv":
        raise UserError(f"--out: got {out}, expected a name that ends with .csv")
    if not out.exists():
        return
    if out.is_dir() or any(source.exists() and source.samefile(out) for source in sources):
        raise UserError(f"--out: got {out}, which is {'a folder' if out.is_dir() else 'the source'}; give another name")
    with out.open("rb") as content:
        if not content.readline().startswith(",".join(HEADING).encode()):
            raise UserError(f"--out: {out} exists and is not a table that prepare wrote; give another name")


def _warnings(table: Table) -> Iterator[str]:
    """What a person should look at before training."""
    splits = {sample.split for sample in table.samples}
    if splits and not splits & {"validation", UNSPLIT}:
        yield "no clip is for validation, which training needs: add --validation-share 0.1 to take some from training"
    trained = {sample.label for sample in table.samples if sample.split == "train"}
    untrained = [name for label, name in enumerate(table.class_names) if label not in trained]
    if trained and untrained:
        yield f"{len(untrained)} classes have no clip to learn from: {join_names(untrained)}"
    yield from table.spelling_notes()
    if any(truth.relevance is not None or truth.boxes is not None for truth in table.truth.values()):
        yield "relevance and boxes per frame have no place in a table: give their file to the verbs that take --truth"


def write_data_set(listing: Listing, out: Path, *, skip: bool, videos: Path | None = None) -> Path | None:
    """Write the table and, beside it, the order of its classes and what is left out.

    Args:
        listing: from `read_data_set`.
        out: the CSV file.
        skip: leave out clips that cannot be used.
        videos: the folder that the user gave, for messages.

    Returns:
        The file that names the clips that were left out; None if all are in the table.

    Raises:
        UserError: a clip cannot be used and is not to be left out, there is no clip, or nobody says in which split
            clips are.
    """
    samples, problems = listing.table.samples, listing.problems
    total = len(samples) + len(problems)
    kinds = problems_by_kind(problems)
    if set(kinds) == {"missing video"} and not samples:
        remedy = "correct --videos" if videos is not None else "give the folder of the videos with --videos"
        raise UserError(f"none of the {total} clips was found: {problems[0].problem}; {remedy}")
    if problems and not (skip and samples):
        counts = "; ".join(f"{len(of)} {kind} ({join_names([p.clip_id for p in of])})" for kind, of in kinds.items())
        remedy = "mend them, or add --missing skip to leave them out" if samples else "mend them"
        raise UserError(f"{len(problems)} of {total} clips cannot be used: {counts}; {remedy}")
    unsplit = sum(sample.split == UNSPLIT for sample in samples)
    if unsplit:
        raise UserError(
            f"{unsplit} of {len(samples)} clips have no split; add --validation-share 0.1 to draw one, or --split NAME "
            "to put all of them there"
        )
    write_table(out, listing.table, ordered=listing.ordered)
    left_out = out.with_name(out.name + LEFT_OUT)
    if not problems:
        left_out.unlink(missing_ok=True)
        return None
    with atomic_write(left_out) as file, file.open("w", encoding="utf-8", errors="replace", newline="") as content:
        writer = csv.writer(content, lineterminator="\n")
        writer.writerow(("clip", "problem", "where", "told"))
        writer.writerows((clip.clip_id, clip.problem_kind, clip.where, clip.problem) for clip in problems)
    return left_out


def problems_by_kind(problems: Sequence[ListedClip]) -> Mapping[str, Sequence[ListedClip]]:
    """The problems by kind, in the order in which the kinds first occur."""
    kinds: dict[str, list[ListedClip]] = {}
    for problem in problems:
        kinds.setdefault(problem.problem_kind, []).append(problem)
    return kinds
