"""Files of rows with named cells: CSV, JSON Lines and Parquet."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stabn.errors import UserError

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
        return _parquet(file)
    return _json(file) if suffix in JSON_LINES else _csv(file)


def read_text(file: Path, remedy: str) -> str:
    """The text of a UTF-8 file with or without byte order mark; line ends stay as they are.

    Raises:
        UserError: it cannot be read, or is no such text; the message ends with `remedy`.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text ({error}); save it as UTF-8, or {remedy}") from None


def separator(text: str) -> str:
    """What stands between the cells of a CSV text: spreadsheets of countries with a decimal comma put semicolons."""
    return max(_SEPARATORS, key=lambda sign: len(next(csv.reader(io.StringIO(text, newline=""), delimiter=sign), ())))


def _csv(file: Path) -> Rows:
    try:
        text = file.read_bytes().decode("utf-8-sig")
        sign = separator(text.lstrip())
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=True, strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give a CSV file or an annotation folder") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: is not UTF-8 CSV ({error}); save it as UTF-8 CSV with a heading line") from None
    lines = [(line, cells) for line, cells in lines if any(cells)]
    if lines and lines[0][1][0] == "sep=":  # with which some spreadsheets say what separates the cells
        lines = lines[1:]
    (_, heading), *rest = lines or [(1, [])]
    for line, cells in rest:
        if any(cells[len(heading) :]):
            raise UserError(
                f"{file}, line {line}: has {len(cells)} cells under {len(heading)} columns; "
                f"put quotes around what contains a {_SEPARATORS[sign]}"
            )
    rows = tuple(
        (f"line {line}", dict(zip(heading, _padded(cells, len(heading)), strict=True))) for line, cells in rest
    )
    return Rows(tuple(heading), rows, "." if sign == "," else ",")


def _padded(cells: Sequence[str], length: int) -> list[str]:
    return [*cells, *[""] * (length - len(cells))][:length]


def _json(file: Path) -> Rows:
    text = read_text(file, "give JSON Lines or a JSON list of objects")
    found: list[tuple[str, Any]] = []
    if text.lstrip().startswith("["):
        found = [(f"entry {number}", value) for number, value in enumerate(_parsed(file, text, ""))]
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                found.append((f"line {number}", _parsed(file, line, f", line {number}")))
    for where, value in found:
        if not isinstance(value, dict):
            raise UserError(f"{file}, {where}: is {str(value)[:80]!r}; expected an object with named values")
    heading = tuple(dict.fromkeys(name for _, value in found for name in value))
    return Rows(heading, tuple((where, {name: _text(value.get(name)) for name in heading}) for where, value in found))


def _parsed(file: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}{where}: is not JSON ({error}); give an object per line or a list of objects") from None


def _parquet(file: Path) -> Rows:
    import pyarrow  # here, because it takes longer to import than most tables to read
    from pyarrow import parquet, types

    try:
        schema = parquet.read_schema(file)
        kept = [f.name for f in schema if not types.is_nested(f.type) and not _holds_bytes(types, f.type)]
        columns = {name: values.to_pylist() for name, values in _columns(parquet.read_table(file, columns=kept))}
    except (OSError, pyarrow.ArrowException) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read as Parquet ({told}); write it again or save it as CSV") from None
    count = len(next(iter(columns.values()), []))
    rows = ({name: _text(values[row]) for name, values in columns.items()} for row in range(count))
    return Rows(tuple(columns), tuple((f"row {number}", row) for number, row in enumerate(rows, start=1)))


def _columns(table: Any) -> list[tuple[str, Any]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _holds_bytes(types: Any, kind: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _text(value: Any) -> str:
    """A value as the text of a cell: whole numbers without a decimal point, which columns with gaps get."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict | list | bool):
        return json.dumps(value, ensure_ascii=False)
    return str(value).strip()
