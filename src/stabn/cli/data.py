"""The verbs around data sets; as in `stabn.cli.train`, parameters and docstring are options and help."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from stabn.cli.printing import print_table
from stabn.data.annotations.detect import Format, read_source, recognise
from stabn.data.annotations.listing import LEFT_OUT, Listing, Problem, some
from stabn.data.annotations.source import DataSource
from stabn.data.annotations.splits import UNSPLIT, split_named, with_split, with_validation
from stabn.data.annotations.table import CLASSES, Columns, write_table
from stabn.data.dataset import Table
from stabn.data.quality.check import FAULTS, REMARKS, check
from stabn.data.tabletop import Shortcut, generate
from stabn.data.video.reader import TIMEOUT
from stabn.engine.device import core_count
from stabn.errors import UserError, join_names
from stabn.files import atomic_write

_OURS = b"path,label,split,id"
"""How the tables begin that we write."""


def prepare_command(
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
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", errors="replace", newline="") as content:
        writer = csv.writer(content, lineterminator="\n")
        writer.writerow(("clip", "problem", "where", "told"))
        writer.writerows((problem.clip, problem.kind, problem.where, problem.told) for problem in problems)


def tabletop_command(
    out: Path,
    train: int = 770,
    validation: int = 280,
    seed: int = 0,
    shortcut: Literal["none", "time", "space"] = "none",
    shortcut_strength: float = 1.0,
    workers: int | None = None,
) -> dict[str, Any]:
    """Generate Tabletop, a benchmark of short videos in which only when and in which order things happen matters.

    With a shortcut, a mark's colour gives the class of training clips away and misleads in validation clips; OUT/clean
    has the validation clips without it. docs/tabletop.md tells more.

    Args:
        out: folder for videos, annotations in the format of Something-Something v2, and truth.jsonl.
        train: training clips.
        validation: validation clips.
        seed: another seed gives other clips with the same statistics.
        shortcut: where the mark is: time, in frames that do not matter; space, away from the handled object.
        shortcut_strength: share of training clips whose mark tells their class; the others' is of a random class.
        workers: processes; by default one per core.
    """
    if not 0 <= shortcut_strength <= 1:
        raise UserError(f"--shortcut_strength: got {shortcut_strength}, expected a share in 0..1")
    if shortcut == "none" and shortcut_strength != 1:
        raise UserError(f"--shortcut_strength: got {shortcut_strength} and no shortcut; add --shortcut time or space")
    planted = None if shortcut == "none" else Shortcut(shortcut, shortcut_strength)
    generate(out, train=train, validation=validation, seed=seed, shortcut=planted, workers=workers)
    told = {"folder": str(out), "train": train, "validation": validation, "seed": seed}
    print(f"{out}: {train} training and {validation} validation clips")
    if planted is None:
        return told
    print(f"{out / 'clean'}: the same {validation} validation clips without marks")
    return told | {"shortcut": planted.where, "shortcut_strength": planted.strength, "clean": str(out / "clean")}


SHOWN = 5
"""Of each kind of fault or remark, how many are printed."""


def check_data_command(
    out: Path,
    source: Path | None = None,
    data: DataSource | None = None,
    frames: int | None = None,
    workers: int | None = None,
    timeout: float = TIMEOUT,
    verify: bool = False,
) -> dict[str, Any]:
    """Read every video of a data set to its end, and list what cannot be learnt from; interrupt it at any time.

    Writes OUT/check.json, and OUT/exclude.txt for --data.exclude. The same command again goes on where it was stopped,
    and reads only files that are new or changed.

    Args:
        out: folder for what was found.
        source: the table or folder of annotations; or give --data, as for training.
        data: the labelled videos.
        frames: clips with fewer frames are too short.
        workers: processes that decode; by default one per core.
        timeout: seconds after which a file counts as one that hangs the decoder.
        verify: read the bytes of all files again and compare them with what they were at the first check, since damage
            on a disk changes neither size nor time.
    """
    if (source is None) == (data is None):
        raise UserError("source, --data: got both or none, expected one of them; give the table of your clips")
    workers = core_count() if workers is None else workers
    if workers < 1 or timeout <= 0 or (frames is not None and frames < 1):
        raise UserError(
            f"--workers, --timeout, --frames: got {workers}, {timeout} and {frames}, expected at least 1, more than 0, "
            "and at least 1"
        )
    table = (data or DataSource(str(source))).everything()
    found = check(table, out, frames=frames, workers=workers, timeout=timeout, verify=verify)
    splits = found["splits"]
    rows = [("clips", "clips"), ("usable", "usable"), ("classes", "classes with usable clips")]
    rows += [(kind, kind) for kind in (*FAULTS, *REMARKS) if any(split[kind] for split in splits.values())]
    print_table(("", *splits), [(name, *(split[kind] for split in splits.values())) for kind, name in rows])
    for kind in (*FAULTS, *REMARKS):
        named = [one for one in (*found["faults"], *found["remarks"]) if one["kind"] == kind]
        for one in named[:SHOWN]:
            print(f"{kind}: {one['told']}")
        if len(named) > SHOWN:
            print(f"{kind}: and {len(named) - SHOWN} more, see {out / 'check.json'}")
    for split, names in found["empty_classes"].items():
        if names:
            print(f"split {split}: {len(names)} classes without a usable clip: {join_names(names, SHOWN)}")
    excluded = len(found["exclude"])
    if excluded:
        print(f"{excluded} clips to leave out: train with --data.exclude {out / 'exclude.txt'}")
    print(f"{out}: {found['files']} files, {found['read']} of them read now; all of it in {out / 'check.json'}")
    return found
