"""Class names in a file of their own: beside a table, or for a list that calls its classes by number."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from stabn.data.spelling import normalise_label
from stabn.errors import UserError
from stabn.files import read_json, read_text

_REMEDY = "give a file with a name per line, with lines of number and name, or JSON"
_USUAL_NAMES = re.compile(r"(.*label_?map.*|classes|class_?names|categor(y|ies)|labels|class_?ind(ex)?)\.(txt|json)")
_HEADING = re.compile(r"(class_?)?(id|idx|index|number|name|label|class)\s*[,;\t ]\s*\w+")
_NUMBERED_LINES = (
    re.compile(r"(?P<number>\d+)(?:\s*[,;]\s*|\s+)(?P<name>\S.*)"),
    re.compile(r"(?P<name>.*\S)(?:\s*[,;]\s*|\s+)(?P<number>\d+)"),
)


def is_class_file(file: Path) -> bool:
    """Whether a file has a usual name of files with class names, such as category.txt or classInd.txt."""
    return bool(_USUAL_NAMES.fullmatch(file.name.lower()))


def find_class_file(folder: Path) -> Path | None:
    """The file with class names in a folder; None if there is none.

    Raises:
        UserError: there are several.
    """
    files = sorted(file for file in folder.iterdir() if is_class_file(file) and file.is_file())
    if len(files) > 1:
        names = " or ".join(file.name for file in files)
        raise UserError(f"{folder}: the classes may have their names from {names}; say which with --classes")
    return files[0] if files else None


def read_class_names(path: Path) -> tuple[str, ...]:
    """Class names in the order of the outputs, from Something-Something v2's labels file or a JSON list of names.

    Raises:
        UserError: the file is neither.
    """
    value = read_json(path, remedy="give something-something-v2-labels.json or a JSON list of names")
    if isinstance(value, dict) and all(str(index).isdecimal() for index in value.values()):
        return tuple(normalise_label(name) for name in sorted(value, key=lambda name: int(value[name])))
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(map(normalise_label, value))
    raise UserError(f"{path}: is neither a list of names nor an object of name: index; correct it")


def read_class_numbers(file: Path) -> dict[int, str]:
    """Class names by number, ascending.

    A line may be a name, and then the first one has the number 0; or number and name, in either order, as in UCF101's
    classInd.txt ("1 ApplyEyeMakeup") and in "abseiling 0". A heading over numbered lines is skipped. JSON may be a list
    of names or an object of name: number.

    Raises:
        UserError: the file has none of these forms, or has a number or a name twice.
    """
    if file.suffix.lower() == ".json":
        pairs = list(enumerate(read_class_names(file)))
    else:
        lines = [line.strip() for line in read_text(file, _REMEDY).splitlines()]
        pairs = _numbered_names([line for line in lines if line])
    classes = {number: normalise_label(name) for number, name in sorted(pairs)}
    if not classes or len(classes) < len(pairs) or len(set(classes.values())) < len(pairs):
        problem = "has a number or a name twice" if classes else "holds no class name"
        raise UserError(f"{file}: {problem}; {_REMEDY}")
    return classes


def _numbered_names(lines: Sequence[str]) -> list[tuple[int, str]]:
    body = lines[1:] if lines and _HEADING.fullmatch(lines[0].lower()) else lines
    for pattern in _NUMBERED_LINES:
        pairs = [(int(match["number"]), match["name"]) for line in body if (match := pattern.fullmatch(line))]
        # "2 fingers up" and "level 3" are names: numbers of classes leave no gap, and the rest tells classes apart
        complete = pairs and len(pairs) == len(body) == len({name for _, name in pairs})
        if complete and {number for number, _ in pairs} in (set(range(len(body))), set(range(1, len(body) + 1))):
            return pairs
    return list(enumerate(lines))


def names_from_numbers(numbers: Collection[int]) -> tuple[str, ...]:
    """Names for the classes of a list without names: their numbers.

    Args:
        numbers: those that occur.

    Returns:
        "0", "1", ... to the highest number, so that a network's outputs have the list's numbers; only those that occur
        where 0 or most of the others do not.
    """
    highest = max(numbers)
    gapless = 0 in numbers and highest < 2 * len(numbers)
    return tuple(map(str, range(highest + 1) if gapless else sorted(numbers)))
