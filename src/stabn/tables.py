"""Tables for a terminal."""

from collections.abc import Sequence


def print_table(heading: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a heading; the first column is flushed left, the others right."""
    lines = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    for number, line in enumerate(lines):
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join((first, *others)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print()
