"""Names for classes that a list calls by number."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from stabn.data.annotations.rows import read_text
from stabn.data.annotations.table import read_class_names
from stabn.errors import UserError

_REMEDY = "give a file with a name per line, with lines of number and name, or JSON"
_USUAL = re.compile(r"(.*label_?map.*|classes|class_?names|categor(y|ies)|labels|class_?ind(ex)?)\.(txt|json)")
_HEADING = re.compile(r"(class_?)?(id|idx|index|number|name|label|class)\s*[,;\t ]\s*\w+")
_NUMBER_FIRST = re.compile(r"(\d+)(?:\s*[,;]\s*|\s+)(\S.*)")
_NUMBER_LAST = re.compile(r"(.*\S)(?:\s*[,;]\s*|\s+)(\d+)")


def is_class_file(file: Path) -> bool:
    """Whether a file has a name that files with class names usually have, such as category.txt or classInd.txt."""
    return bool(_USUAL.fullmatch(file.name.lower()))


def class_file_in(folder: Path) -> Path | None:
    """The file with class names in a folder; None if there is none.

    Raises:
        UserError: there are several.
    """
    found = sorted(file for file in folder.iterdir() if is_class_file(file) and file.is_file())
    if len(found) > 1:
        names = " or ".join(file.name for file in found)
        raise UserError(f"{folder}: the classes may have their names from {names}; say which with --classes")
    return found[0] if found else None


def read_classes(file: Path) -> dict[int, str]:
    """Class names by number, ascending.

    A line may be a name, and then the first one has the number 0; or number and name, in either order, as in UCF101's
    classInd.txt ("1 ApplyEyeMakeup") and in "abseiling 0". A heading over numbered lines is skipped. JSON may be a list
    of names or an object of name: number.

    Raises:
        UserError: the file is nothing of this, or has a number or a name twice.
    """
    if file.suffix.lower() == ".json":
        pairs = list(enumerate(read_class_names(file)))
    else:
        lines = [line.strip() for line in read_text(file, _REMEDY).splitlines()]
        pairs = _pairs([line for line in lines if line])
    classes = dict(sorted(pairs))
    if not classes or len(classes) < len(pairs) or len(set(classes.values())) < len(pairs):
        told = "has a number or a name twice" if classes else "holds no class name"
        raise UserError(f"{file}: {told}; {_REMEDY}")
    return classes


def _pairs(lines: Sequence[str]) -> list[tuple[int, str]]:
    body = lines[1:] if lines and _HEADING.fullmatch(lines[0].lower()) else lines
    for pattern, number, name in ((_NUMBER_FIRST, 1, 2), (_NUMBER_LAST, 2, 1)):
        found = [(int(match[number]), match[name]) for line in body if (match := pattern.fullmatch(line))]
        # "2 fingers up" and "level 3" are names: numbers of classes leave no gap, and the rest tells classes apart
        whole = found and len(found) == len(body) and len({text for _, text in found}) == len(body)
        if whole and _without_gap([index for index, _ in found]):
            return found
    return list(enumerate(lines))


def _without_gap(numbers: Sequence[int]) -> bool:
    first = min(numbers)
    return first in (0, 1) and sorted(numbers) == list(range(first, first + len(numbers)))


def numbered(numbers: Collection[int]) -> tuple[str, ...]:
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
