"""The verbs around data sets: generate Tabletop, make a table of any annotations, find what cannot be learnt from."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from stabn.cli.printing import print_data_check, print_listing
from stabn.data.annotations.columns import Columns
from stabn.data.annotations.detect import Format
from stabn.data.annotations.prepare import read_data_set, write_data_set
from stabn.data.annotations.source import DataSource
from stabn.data.annotations.table import CLASSES
from stabn.data.quality.check import check
from stabn.data.tabletop.generate import generate_tabletop
from stabn.data.tabletop.shortcut import Shortcut
from stabn.data.video.reader import TIMEOUT
from stabn.engine.device import core_count
from stabn.errors import UserError


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
    """Detect the format of a data set, show what was understood, and write the table that all verbs read.

    Something-Something v1 and v2, lists of TSM, MMAction2 and PySlowFast, Kinetics, a folder per class, and any CSV,
    JSON Lines or Parquet file with named columns: docs/formats.md has an example of each. Beside the table,
    OUT.classes.json has the classes where the data set orders them, and OUT.left-out.csv what is not in the table.

    Args:
        source: a folder, or the files that list the clips, one per split.
        out: the CSV file to write.
        videos: folder of the videos or frame folders; by default where the format usually has them.
        format: which it is, if it is not detected. A list's lines are path label (videos-list), folder num_frames
            class (frames-list) or folder start num_frames class (segments-list).
        columns: what the columns of a table are called.
        classes: names for a list's class numbers: a name per line, lines of number and name, or JSON.
        first_frame: the number of a folder's first frame where a segments-list says which part of it a clip is.
        split: the split of clips whose source does not say.
        validation_share: so many of each class's clips, as a share, become validation where no clip is.
        seed: of the draw of validation clips.
        missing: what becomes of clips that cannot be used: fail, or skip to leave them out.
    """
    listing = read_data_set(
        source,
        out,
        videos,
        format=format,
        columns=columns,
        classes=classes,
        first_frame=first_frame,
        split=split,
        validation_share=validation_share,
        seed=seed,
    )
    print_listing(source, listing)
    left_out = write_data_set(listing, out, skip=missing == "skip", videos=videos)
    if left_out is not None:
        print(f"{left_out}: the {len(listing.problems)} clips that were left out, and why")
    samples = listing.table.samples
    print(
        f"{out}: {len(samples)} clips" + (f", classes in their order in {out.name}{CLASSES}" if listing.ordered else "")
    )
    print(f"To train: stabn train --out run --data.annotations {out}")
    return {
        "table": str(out),
        "format": listing.format,
        "splits": Counter(sample.split for sample in samples),
        "classes": list(listing.table.class_names),
        "frame_folders": listing.frame_folders,
        "segments": sum(sample.segment is not None for sample in samples),
        "notes": list(listing.notes),
        "left_out": Counter(clip.problem_kind for clip in listing.problems),
    }


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
    has the validation clips without it. See docs/tabletop.md.

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
    generate_tabletop(out, train=train, validation=validation, seed=seed, shortcut=planted, workers=workers)
    report = {"folder": str(out), "train": train, "validation": validation, "seed": seed}
    print(f"{out}: {train} training and {validation} validation clips")
    if planted is None:
        return report
    print(f"{out / 'clean'}: the same {validation} validation clips without marks")
    return report | {"shortcut": planted.where, "shortcut_strength": planted.strength, "clean": str(out / "clean")}


def check_data_command(
    out: Path,
    source: Path | None = None,
    data: DataSource = DataSource(),  # noqa: B008
    frames: int | None = None,
    workers: int | None = None,
    timeout: float = TIMEOUT,
    verify: bool = False,
) -> dict[str, Any]:
    """Read every video of a data set to its end, and list what cannot be used for training; it may be interrupted.

    Writes OUT/check.json, and OUT/exclude.txt for --data.exclude. The same command again continues where it was
    stopped, and reads only files that are new or changed.

    Args:
        out: folder for the results.
        source: the table or folder of annotations; or give --data.annotations.
        data: the labelled videos.
        frames: clips with fewer frames are too short.
        workers: processes that decode; by default one per core.
        timeout: seconds after which a file counts as one that hangs the decoder.
        verify: read the bytes of all files again and compare them with what they were at the first check, since damage
            on a disk changes neither size nor time.
    """
    data = data.with_positional(source)
    workers = core_count() if workers is None else workers
    if workers < 1 or timeout <= 0 or (frames is not None and frames < 1):
        raise UserError(
            f"--workers, --timeout, --frames: got {workers}, {timeout} and {frames}, expected at least 1, more than 0, "
            "and at least 1"
        )
    report = check(data.full_table(), out, frames=frames, workers=workers, timeout=timeout, verify=verify)
    print_data_check(report, out)
    return report
