"""The verbs around data sets; as in `stabn.verbs`, parameters and docstring are options and help."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from stabn.data.datasets import Table
from stabn.data.formats.listing import LEFT_OUT, Listing, Problem, some
from stabn.data.formats.recognition import Format, read_source, recognise
from stabn.data.formats.splits import UNSPLIT, split_named, with_split, with_validation
from stabn.data.tables import CLASSES, Columns, write_table
from stabn.errors import UserError
from stabn.files import replacing
from stabn.tables import print_table

_OURS = b"path,label,split,id"
"""How the tables begin that we write."""


def prepare(
    source: list[Path],
    out: Path = Path("table.csv"),
    videos: Path | None = None,
    format: Format = "auto",
    columns: Columns = Columns(),  # noqa: B008
    classes: Path | None = None,
    first_frame: Literal[0, 1] = 0,
    split: str | None = None,
    validation_share: float | None = None,
    seed: int = 0,
    missing: Literal["fail", "skip"] = "fail",
) -> dict[str, Any]:
    """Recognise a data set as others keep it, show what was understood, and write the table that all verbs read.

    Something-Something v1 and v2, lists of TSM, MMAction2 and PySlowFast, Kinetics, a folder per class, and any CSV,
    JSON Lines or Parquet file with named columns: docs/formats.md has an example of each. Beside the table,
    OUT.classes.json has the classes where the data set orders them, and OUT.left-out.csv what is not in the table.

    Args:
        source: a folder, or the files that list the clips, one per split.
        out: the CSV file to write.
        videos: folder of the videos or frame folders; by default where the format usually has them.
        format: which it is, if it is not recognised. A list's lines are path label (videos-list), folder num_frames
            class (frames-list) or folder start num_frames class (segments-list).
        columns: what the columns of a table are called.
        classes: names for a list's class numbers: a name per line, lines of number and name, or JSON.
        first_frame: the number of a folder's first frame where a segments-list says which part of it a clip is.
        split: the split of clips whose source does not say.
        validation_share: so many of each class's clips, as a share, become validation where no clip is.
        seed: of which ones.
        missing: what becomes of clips that cannot be used: fail, or skip to leave them out.
    """
    _check_out(out, source)
    if validation_share is not None and not 0 < validation_share < 1:
        raise UserError(f"--validation-share: got {validation_share}, expected a share above 0 and below 1")
    found = recognise(source, columns, format, out)
    listing = read_source(found, videos, columns=columns, classes=classes, first_frame=first_frame)
    listing = replace(listing, table=_split(listing.table, split, validation_share, seed))
    notes = (*listing.notes, *_suspicions(listing.table))
    _show(source, listing, notes)
    _check_usable(listing, missing, videos)
    write_table(out, listing.table, ordered=listing.ordered)
    left_out = out.with_name(out.name + LEFT_OUT)
    if listing.problems:
        _write_left_out(left_out, listing.problems)
        print(f"{left_out}: the {len(listing.problems)} clips that were left out, and why")
    else:
        left_out.unlink(missing_ok=True)
    beside = f", classes in their order in {out.name}{CLASSES}" if listing.ordered else ""
    print(f"{out}: {len(listing.table.samples)} clips{beside}")
    print(f"To train: stabn train --out run --data.annotations {out}")
    return {
        "table": str(out),
        "format": listing.format,
        "splits": Counter(sample.split for sample in listing.table.samples),
        "classes": list(listing.table.class_names),
        "frame_folders": listing.frame_folders,
        "segments": sum(sample.segment is not None for sample in listing.table.samples),
        "notes": list(notes),
        "left_out": Counter(problem.kind for problem in listing.problems),
    }


def _check_out(out: Path, sources: Sequence[Path]) -> None:
    """Make sure that nothing of the user's is overwritten."""
    if out.suffix.lower() != ".csv":
        raise UserError(f"--out: got {out}, expected a name that ends with .csv")
    if not out.exists():
        return
    if out.is_dir() or any(source.exists() and source.samefile(out) for source in sources):
        raise UserError(f"--out: got {out}, which is {'a folder' if out.is_dir() else 'the source'}; give another name")
    with out.open("rb") as content:
        if not content.readline().startswith(_OURS):
            raise UserError(f"--out: {out} exists and is not a table that prepare wrote; give another name")


def _split(table: Table, split: str | None, share: float | None, seed: int) -> Table:
    """The table with a split drawn or given where its source has none, as far as the options say."""
    splits = {sample.split for sample in table.samples}
    if split is not None:
        table = with_split(table, split_named(split) or UNSPLIT)
    if share is None:
        return table
    if "validation" in splits:
        raise UserError("--validation-share: some clips are for validation already; leave it out")
    return with_validation(table, share, seed)


def _suspicions(table: Table) -> Iterator[str]:
    """What a person should look at before training."""
    splits = Counter(sample.split for sample in table.samples)
    if splits and "validation" not in splits and UNSPLIT not in splits:
        yield "no clip is for validation, which training needs: add --validation-share 0.1 to take some from training"
    learnt = {sample.label for sample in table.samples if sample.split == "train"}
    unlearnt = [name for label, name in enumerate(table.class_names) if label not in learnt]
    if learnt and unlearnt:
        yield f"{len(unlearnt)} classes have no clip to learn from: {some(unlearnt)}"
    spellings = Counter(" ".join(name.replace("_", " ").split()).casefold() for name in table.class_names)
    alike = [n for n in table.class_names if spellings[" ".join(n.replace("_", " ").split()).casefold()] > 1]
    if alike:
        yield f"classes differ only in capitals, spaces or underscores: {some(alike)}"
    if any(truth.relevance is not None or truth.boxes is not None for truth in table.truth.values()):
        yield "relevance and boxes per frame have no place in a table: give their file to the verbs that take --truth"


def _show(source: Sequence[Path], listing: Listing, notes: Sequence[str]) -> None:
    table = listing.table
    print(f"{', '.join(map(str, source))}: {listing.format}\n")
    rows = []
    for split in dict.fromkeys(("train", "validation", "test", *sorted({s.split for s in table.samples}))):
        labels = [sample.label for sample in table.samples if sample.split == split]
        if labels:
            rows.append((split, len(labels), len(set(labels))))
    if rows:
        print_table(("split", "clips", "classes"), rows)
    order = "in the order of the source" if listing.ordered else "in alphabetical order"
    print(f"{len(table.class_names)} classes {order}: {some(table.class_names)}")
    parts = [sample.segment for sample in table.samples if sample.segment is not None]
    kinds = f"{listing.frame_folders} frame folders, {len(table.samples) - listing.frame_folders} video files"
    print(f"{kinds}; {len(parts)} clips are parts, such as {parts[0]}" if parts else kinds)
    for note in notes:
        print(f"note: {note}")
    for kind, problems in _by_kind(listing.problems).items():
        for problem in problems[:3]:
            print(f"{kind}: {problem.where}: {problem.clip}: {problem.told}")
        if len(problems) > 3:
            print(f"{kind}: {len(problems) - 3} more")


def _by_kind(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.kind, []).append(problem)
    return found


def _check_usable(listing: Listing, missing: str, videos: Path | None) -> None:
    """Make sure that the table may be written.

    Raises:
        UserError: a clip cannot be used and is not to be left out, there is no clip, or nobody says in which split
            clips are.
    """
    samples, problems = listing.table.samples, listing.problems
    total = len(samples) + len(problems)
    kinds = _by_kind(problems)
    if set(kinds) == {"missing video"} and not samples:
        remedy = "correct --videos" if videos is not None else "give the folder of the videos with --videos"
        raise UserError(f"none of the {total} clips was found: {problems[0].told}; {remedy}")
    if problems and (missing == "fail" or not samples):
        told = "; ".join(f"{len(found)} {kind} ({some(p.clip for p in found)})" for kind, found in kinds.items())
        remedy = "mend them, or add --missing skip to leave them out" if samples else "mend them"
        raise UserError(f"{len(problems)} of {total} clips cannot be used: {told}; {remedy}")
    unsplit = sum(sample.split == UNSPLIT for sample in samples)
    if unsplit:
        raise UserError(
            f"{unsplit} of {len(samples)} clips have no split; add --validation-share 0.1 to draw one, or --split NAME "
            "to put all of them there"
        )


def _write_left_out(file: Path, problems: Sequence[Problem]) -> None:
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8", errors="replace", newline="") as content:
        writer = csv.writer(content, lineterminator="\n")
        writer.writerow(("clip", "problem", "where", "told"))
        writer.writerows((problem.clip, problem.kind, problem.where, problem.told) for problem in problems)
