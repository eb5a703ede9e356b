"""Where labelled videos are, and the table that is read from there."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stabn.data.annotations.columns import Columns
from stabn.data.annotations.notes import note_once
from stabn.data.annotations.paths import PathFinder
from stabn.data.annotations.something_something import read_something_something
from stabn.data.annotations.table import read_table
from stabn.data.dataset import Table
from stabn.data.quality.unreadable import SkipCounter
from stabn.errors import UserError
from stabn.files import read_text

_ANNOTATIONS = "give a CSV file or an annotation folder with --data.annotations"


@dataclass(frozen=True)
class DataSource:
    """Where labelled videos are.

    Attributes:
        annotations: a table with a row per clip (CSV, JSON Lines or Parquet; `stabn prepare` makes one of other
            formats), or a folder with the annotation files of Something-Something v2
            (something-something-v2-labels.json, -train.json, -validation.json); by default those of the run.
        videos: the folder of the videos; by default that of the table, or `videos` inside the annotations' folder. It
            may be where the videos are now, if no path of the table exists any more.
        columns: what the columns of the table are called.
        exclude: a file with the id of a clip on each line, which are left out; `stabn check-data` writes one.
    """

    annotations: str = ""
    videos: str | None = None
    columns: Columns = Columns()  # noqa: RUF009
    exclude: str | None = None

    def table(self) -> Table:
        """Read the annotations, and truth.jsonl where a folder has one, as Tabletop's has.

        A clip whose video is missing stays in: it is left out and counted like any other that cannot be read.

        Raises:
            UserError: a file is missing or wrong, none of the clips to exclude is in the data, or more videos of a
                split are missing than may be broken (`stabn.data.quality.unreadable.SkipCounter`).
        """
        table = self.full_table()
        if self.exclude is not None:
            table = _without(table, Path(self.exclude))
        _check_missing(Path(self.annotations), table)
        return table

    def full_table(self) -> Table:
        """As `table`, but with the clips to exclude, and however many videos are missing.

        What may be misspelled is noted once.

        Raises:
            UserError: a file is missing or wrong.
        """
        source = Path(self.annotations)
        if not self.annotations:
            raise UserError(f"--data.annotations: got nothing; {_ANNOTATIONS}")
        if not source.exists():
            raise UserError(f"{source}: no such file or folder; {_ANNOTATIONS}")
        if source.is_file():
            table = read_table(source, self.videos, self.columns)
        elif self.columns != Columns():
            raise UserError(f"{source}: is a folder, but --data.columns is for CSV files; leave it out")
        else:
            table = read_something_something(source, self.videos or source / "videos")
        for note in table.spelling_notes():
            note_once(f"{source}: {note}")
        return table

    def with_positional(self, table: Path | None) -> "DataSource":
        """The same with the table that a verb was given by its place in the command instead of --data.annotations.

        Raises:
            UserError: there are both or none.
        """
        if (table is None) == (not self.annotations):
            given = "both" if self.annotations else "none"
            raise UserError(
                f"TABLE, --data.annotations: got {given}, expected one of them; give the table of your clips"
            )
        return self if table is None else replace(self, annotations=str(table))

    def over(self, other: "DataSource") -> "DataSource":
        """This data or, if it names no annotations, the other with the options that this one changes."""
        if self.annotations:
            return self
        names = asdict(self.columns).items()
        columns = replace(other.columns, **{n: value for n, value in names if value != getattr(Columns(), n)})
        return DataSource(other.annotations, self.videos or other.videos, columns, self.exclude or other.exclude)

    def absolute(self) -> "DataSource":
        """The same data with absolute paths."""
        # Not resolve(): a linked CSV file lies where its link is, and its videos beside it.
        videos = None if self.videos is None else os.path.abspath(self.videos)
        exclude = None if self.exclude is None else os.path.abspath(self.exclude)
        annotations = self.annotations and os.path.abspath(self.annotations)
        return replace(self, annotations=annotations, videos=videos, exclude=exclude)

    def options(self) -> dict[str, str]:
        """These values as options of the command line, without those that have their default."""
        columns = asdict(self.columns).items()
        changed = {f"data.columns.{n}": v for n, v in columns if v is not None and v != getattr(Columns(), n)}
        videos = {} if self.videos is None else {"data.videos": self.videos}
        exclude = {} if self.exclude is None else {"data.exclude": self.exclude}
        return {"data.annotations": self.annotations, **videos, **changed, **exclude}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "DataSource":
        """The source that `dataclasses.asdict` turned into JSON; in older files `columns` and `exclude` may be missing.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**{**value, "columns": Columns(**value.get("columns", {}))})


def _without(table: Table, file: Path) -> Table:
    """The clips that a file does not name."""
    text = read_text(file, "give --data.exclude a file with a clip id per line")
    excluded = {line.rstrip("\r") for line in text.split("\n") if line.strip()}
    kept = tuple(sample for sample in table.samples if sample.clip_id not in excluded)
    if excluded and len(kept) == len(table.samples):
        raise UserError(
            f"--data.exclude: {file} names no clip of this data, for instance {min(excluded)!r}; give its own list"
        )
    kept_ids = {sample.clip_id for sample in kept}
    truth = {clip_id: clip_truth for clip_id, clip_truth in table.truth.items() if clip_id in kept_ids}
    return replace(table, samples=kept, truth=truth)


def _check_missing(annotations: Path, table: Table) -> None:
    """Fail if more than a few videos are missing: the folder is wrong, or was not unpacked to the end."""
    finder = PathFinder()
    absent = [sample for sample in table.samples if not finder.exists(sample.path)]
    counter = SkipCounter(Counter(sample.split for sample in table.samples))
    if any(count > counter.allowed(split) for split, count in Counter(sample.split for sample in absent).items()):
        raise UserError(
            f"{absent[0].path}: no such file for clip {absent[0].clip_id!r} of {annotations}, {len(absent)} of "
            f"{len(table.samples)} videos are missing; unpack all of them, give the right folder with --data.videos, "
            "or find them with `stabn check-data` and leave them out with --data.exclude"
        )
