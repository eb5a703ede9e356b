"""Compare networks with the reference outputs of their official implementations.

    python -m benchmarks.reference LAYOUT.json ...

A layout file names the tensors of an official network; the .npz beside it has what that network answered, in float64,
for weights and clips that `tests/reference/formula_weights.py` makes by formula. The weights are written to a
checkpoint, which the importer of official checkpoints reads. Printed is, for each array, the greatest difference
relative to the array's greatest value; the status is 1 where one is above 1e-9.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.reference.compare import LIMIT, compare


def main(layouts: list[Path]) -> int:
    """Print the difference of every array of every layout file; the status."""
    worst = 0.0
    for layout in layouts:
        for name, difference in compare(layout).items():
            print(f"{layout.stem:30} {name:30} {difference:.1e}")
            worst = max(worst, difference)
    print(f"worst: {worst:.1e}, limit {LIMIT:.0e}")
    return int(not worst <= LIMIT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layouts", nargs="+", type=Path, metavar="LAYOUT.json")
    sys.exit(main(parser.parse_args().layouts))
