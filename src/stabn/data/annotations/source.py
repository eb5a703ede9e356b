"""Where labelled videos lie, and the table that is read from there."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stabn.data.annotations.something_something import read_something_something
from stabn.data.annotations.table import Columns, read_table
from stabn.data.dataset import Table
from stabn.data.ground_truth import read_truth
from stabn.data.quality.unreadable import Tally
from stabn.errors import UserError


@dataclass(frozen=True)
class DataSource:
    """Where labelled videos lie.

    Attributes:
        annotations: a table with a row per clip (CSV, JSON Lines or Parquet; `stabn prepare` makes one of other
            formats), or a folder with the annotation files of Something-Something v2
            (something-something-v2-labels.json, -train.json, -validation.json).
        videos: the folder of the videos; by default that of the table, or `videos` inside the annotations' folder.
        columns: what the columns of the table are called.
        exclude: a file with the id of a clip on each line, which are left out; `stabn check-data` writes one.
    """

    annotations: str
    videos: str | None = None
    columns: Columns = Columns()  # noqa: RUF009
    exclude: str | None = None

    def table(self) -> Table:
        """Read the annotations, and truth.jsonl where a folder has one, as Tabletop's has.

        A clip whose video is missing stays in: it is left out and counted like any other that cannot be read.

        Raises:
            UserError: a file is missing or wrong, none of the clips to exclude is in the data, or more videos of a
                split are missing than may be broken (`stabn.data.quality.unreadable.Tally`).
        """
        missing: set[str] = set()

        def note(clip_id: str) -> bool:
            missing.add(clip_id)
            return True

        table = self._listed(note)
        if self.exclude is not None:
            table = _without(table, Path(self.exclude))
        _check_missing(Path(self.annotations), table, missing)
        return table

    def everything(self) -> Table:
        """As `table`, with the clips to exclude, however many videos are missing.

        Raises:
            UserError: as `table`.
        """
        return self._listed(lambda clip_id: True)

    def _listed(self, may_miss: Callable[[str], bool]) -> Table:
        source = Path(self.annotations)
        if not source.exists():
            raise UserError(f"{source}: no such file or folder; give a CSV file or an annotation folder")
        if source.is_file():
            return read_table(source, self.videos, self.columns, may_miss=may_miss)
        if self.columns != Columns():
            raise UserError(f"{source}: is a folder, but --data.columns is for CSV files; leave it out")
        table = read_something_something(source, self.videos or source / "videos", may_miss=may_miss)
        truth = source / "truth.jsonl"
        if not truth.exists():
            return table
        known = read_truth(truth)
        return replace(table, truth={s.clip_id: known[s.clip_id] for s in table.samples if s.clip_id in known})

    def absolute(self) -> "DataSource":
        """The same data, wherever one looks from."""
        # Not resolve(): a linked CSV file lies where its link is, and its videos beside it.
        videos = None if self.videos is None else os.path.abspath(self.videos)
        exclude = None if self.exclude is None else os.path.abspath(self.exclude)
        return replace(self, annotations=os.path.abspath(self.annotations), videos=videos, exclude=exclude)

    def options(self) -> dict[str, str]:
        """The options of the command line that say the same, without those that have their default."""
        columns = asdict(self.columns).items()
        changed = {f"data.columns.{n}": v for n, v in columns if v is not None and v != getattr(Columns(), n)}
        videos = {} if self.videos is None else {"data.videos": self.videos}
        exclude = {} if self.exclude is None else {"data.exclude": self.exclude}
        return {"data.annotations": self.annotations, **videos, **changed, **exclude}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "DataSource":
        """What `dataclasses.asdict` made of a source; `columns` and `exclude` may be missing, as in files of before.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**{**value, "columns": Columns(**value.get("columns", {}))})


def _without(table: Table, file: Path) -> Table:
    """The clips that a file does not name."""
    ids = _lines(file)
    kept = tuple(sample for sample in table.samples if sample.clip_id not in ids)
    if ids and len(kept) == len(table.samples):
        raise UserError(
            f"--data.exclude: {file} names no clip of this data, for instance {min(ids)!r}; give its own list"
        )
    known = {sample.clip_id for sample in kept}
    return replace(table, samples=kept, truth={name: told for name, told in table.truth.items() if name in known})


def _check_missing(annotations: Path, table: Table, missing: set[str]) -> None:
    """More than a few missing videos are a wrong folder, or one that was not unpacked to the end."""
    tally = Tally(Counter(sample.split for sample in table.samples))
    absent = [sample for sample in table.samples if sample.clip_id in missing]
    if any(count > tally.allowed(split) for split, count in Counter(sample.split for sample in absent).items()):
        raise UserError(
            f"{absent[0].path}: no such file for clip {absent[0].clip_id!r} of {annotations}, {len(absent)} of "
            f"{len(table.samples)} videos are missing; unpack all of them, give the right folder with --data.videos, "
            "or find them with `stabn check-data` and leave them out with --data.exclude"
        )


def _lines(file: Path) -> frozenset[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(
            f"--data.exclude: {file} cannot be read ({told}); give a file with a clip id per line"
        ) from None
    return frozenset(line.rstrip("\r") for line in lines if line.strip())
