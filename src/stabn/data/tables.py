"""Labelled videos in the simplest form that people have: a CSV file."""

import csv
from pathlib import Path

from stabn.data.datasets import Sample, Table
from stabn.errors import UserError
from stabn.files import read_json

COLUMNS = ("path", "label", "split")


def read_csv(file: Path | str, videos: Path | str | None = None) -> Table:
    """A CSV file with the columns path, label, split and, if wanted, id.

    Args:
        file: with a heading line; paths are relative to `videos`; split is train or validation; classes are numbered in
            alphabetical order; without an id column the path is the id.
        videos: by default the folder of the file.

    Raises:
        UserError: a column is missing or empty, an id comes twice, or a video does not exist; the line is named.
    """
    file = Path(file)
    root = file.parent if videos is None else Path(videos)
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{file}: has no column {missing[0]!r}; the first line must name {', '.join(COLUMNS)}")
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give a CSV file or an annotation folder") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: is not UTF-8 CSV ({error}); save it as CSV with a heading line") from None
    if not rows:
        raise UserError(f"{file}: holds no clip; write one line per video under the heading")
    class_names = tuple(sorted({row["label"] for _, row in rows if row["label"]}))
    samples: dict[str, Sample] = {}
    for line, row in rows:
        for name in COLUMNS:
            if not row[name]:
                raise UserError(f"{file}, line {line}: {name} is empty; every clip needs {', '.join(COLUMNS)}")
        if row["split"] not in ("train", "validation"):
            raise UserError(f"{file}, line {line}: split is {row['split']!r}; write train or validation")
        clip_id, path = row.get("id") or row["path"], root / row["path"]
        if clip_id in samples:
            raise UserError(f"{file}, line {line}: clip {clip_id!r} is there twice; remove one of them")
        if not path.is_file():
            raise UserError(f"{path}: no such video ({file}, line {line}); correct the path, or give --data.videos")
        samples[clip_id] = Sample(clip_id, path, class_names.index(row["label"]), row["split"])
    return Table(class_names, tuple(samples.values()))


def read_class_names(path: Path) -> tuple[str, ...]:
    """Class names in the order of the outputs, from Something-Something v2's labels file or a JSON list of names.

    Raises:
        UserError: the file is neither.
    """
    value = read_json(path, remedy="give something-something-v2-labels.json or a JSON list of names")
    if isinstance(value, dict) and all(str(index).isdecimal() for index in value.values()):
        return tuple(sorted(value, key=lambda name: int(value[name])))
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UserError(f"{path}: is neither a list of names nor an object of name: index; correct it")
