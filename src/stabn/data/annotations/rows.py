"""Files of rows with named cells: CSV, JSON Lines and Parquet."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from stabn.errors import UserError
from stabn.files import read_text

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson", ".json")
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True)
class Rows:
    """The cells of a table, all of them text without spaces around it; an empty one is "".

    Attributes:
        heading: the columns' names.
        rows: where in the file each row is, such as "line 2", and its cells by column.
        decimal_sign: what stands before decimals.
    """

    heading: tuple[str, ...]
    rows: tuple[tuple[str, Mapping[str, str]], ...]
    decimal_sign: str = "."


def read_rows(file: Path) -> Rows:
    """The rows of a file; its suffix says of which kind it is, and what is neither JSON nor Parquet is CSV.

    CSV has a heading line, commas, semicolons or tabs between the cells, and is UTF-8 with or without byte order mark.
    JSON Lines has an object per line, JSON a list of objects. Columns of Parquet that hold bytes or lists are left out.

    Raises:
        UserError: the file cannot be read or has another form.
    """
    suffix = file.suffix.lower()
    if suffix in PARQUET:
        return _read_parquet(file)
    return _read_json(file) if suffix in JSON_LINES else _read_csv(file)


def csv_separator(text: str) -> str:
    """The separator of CSV text: spreadsheets of countries with a decimal comma write semicolons."""
    text = text.lstrip()
    return max(_SEPARATORS, key=lambda sign: len(next(csv.reader(io.StringIO(text, newline=""), delimiter=sign), ())))


def csv_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of CSV text that are not blank, each as its number from 1 and its cells without spaces around them.

    Raises:
        csv.Error: a line is no CSV.
    """
    content = io.StringIO(text, newline="")
    reader = csv.reader(content, delimiter=csv_separator(text), skipinitialspace=True, strict=True)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells) and cells[0] != "sep=":  # with "sep=;" some spreadsheets name the separator
            yield reader.line_num, cells


def _read_csv(file: Path) -> Rows:
    text = read_text(file, "give a UTF-8 CSV file with a heading line")
    try:
        (_, heading), *lines = list(csv_lines(text)) or [(1, [])]
    except csv.Error as error:
        raise UserError(f"{file}: is not CSV ({error}); save it as UTF-8 CSV with a heading line") from None
    separator = csv_separator(text)
    rows = []
    for number, cells in lines:
        if any(cells[len(heading) :]):
            raise UserError(
                f"{file}, line {number}: has {len(cells)} cells under {len(heading)} columns; "
                f"put quotes around what contains a {_SEPARATORS[separator]}"
            )
        rows.append((f"line {number}", dict(zip(heading, chain(cells, repeat("")), strict=False))))
    return Rows(tuple(heading), tuple(rows), "." if separator == "," else ",")


def _read_json(file: Path) -> Rows:
    text = read_text(file, "give JSON Lines or a JSON list of objects")
    if text.lstrip().startswith("["):
        values = [(f"entry {number}", value) for number, value in enumerate(_parse_json(str(file), text))]
    else:
        lines = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        values = [(where, _parse_json(f"{file}, {where}", line)) for where, line in lines]
    for where, value in values:
        if not isinstance(value, dict):
            raise UserError(f"{file}, {where}: is {str(value)[:80]!r}; expected an object with named values")
    return _rows_of_objects(tuple(dict.fromkeys(name for _, value in values for name in value)), values)


def _parse_json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not JSON ({error}); give an object per line or a list of objects") from None


def _read_parquet(file: Path) -> Rows:
    import pyarrow  # here, because it takes longer to import than most tables to read
    from pyarrow import parquet, types

    no_text = (types.is_nested, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    try:
        names = [f.name for f in parquet.read_schema(file) if not any(is_kind(f.type) for is_kind in no_text)]
        objects = parquet.read_table(file, columns=names).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read as Parquet ({reason}); write it again or save it as CSV") from None
    return _rows_of_objects(names, [(f"row {number}", value) for number, value in enumerate(objects, start=1)])


def _rows_of_objects(heading: Sequence[str], objects: Sequence[tuple[str, Mapping[str, Any]]]) -> Rows:
    return Rows(
        tuple(heading),
        tuple((where, {name: _cell_text(value.get(name)) for name in heading}) for where, value in objects),
    )


def _cell_text(value: Any) -> str:
    """A value as the text of a cell: whole numbers without a decimal point, which columns with gaps get."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict | list | bool):
        return json.dumps(value, ensure_ascii=False)
    return str(value).strip()
