"""The verbs that look at data and machine before anything is trained; parameters and docstring are options and help."""

from pathlib import Path
from typing import Any

from stabn.data.checking import FAULTS, REMARKS, check
from stabn.data.reading import TIMEOUT
from stabn.doctoring import examine, told
from stabn.errors import UserError, first_of
from stabn.pace import cores
from stabn.runs import DataSource
from stabn.tables import print_table

SHOWN = 5
"""Of each kind of fault or remark, how many are printed."""


def check_data(
    out: Path,
    source: Path | None = None,
    data: DataSource | None = None,
    frames: int | None = None,
    workers: int | None = None,
    timeout: float = TIMEOUT,
    verify: bool = False,
) -> dict[str, Any]:
    """Read every video of a data set to its end, and list what cannot be learnt from; interrupt it at any time.

    Writes OUT/check.json, and OUT/exclude.txt for --data.exclude. The same command again goes on where it was stopped,
    and reads only files that are new or changed.

    Args:
        out: folder for what was found.
        source: the table or folder of annotations; or give --data, as for training.
        data: the labelled videos.
        frames: clips with fewer frames are too short.
        workers: processes that decode; by default one per core.
        timeout: seconds after which a file counts as one that hangs the decoder.
        verify: read the bytes of all files again and compare them with what they were at the first check, since damage
            on a disk changes neither size nor time.
    """
    if (source is None) == (data is None):
        raise UserError("source, --data: got both or none, expected one of them; give the table of your clips")
    workers = cores() if workers is None else workers
    if workers < 1 or timeout <= 0 or (frames is not None and frames < 1):
        raise UserError(
            f"--workers, --timeout, --frames: got {workers}, {timeout} and {frames}, expected at least 1, more than 0, "
            "and at least 1"
        )
    table = (data or DataSource(str(source))).everything()
    found = check(table, out, frames=frames, workers=workers, timeout=timeout, verify=verify)
    splits = found["splits"]
    rows = [("clips", "clips"), ("usable", "usable"), ("classes", "classes with usable clips")]
    rows += [(kind, kind) for kind in (*FAULTS, *REMARKS) if any(split[kind] for split in splits.values())]
    print_table(("", *splits), [(name, *(split[kind] for split in splits.values())) for kind, name in rows])
    for kind in (*FAULTS, *REMARKS):
        named = [one for one in (*found["faults"], *found["remarks"]) if one["kind"] == kind]
        for one in named[:SHOWN]:
            print(f"{kind}: {one['told']}")
        if len(named) > SHOWN:
            print(f"{kind}: and {len(named) - SHOWN} more, see {out / 'check.json'}")
    for split, names in found["empty_classes"].items():
        if names:
            print(f"split {split}: {len(names)} classes without a usable clip: {first_of(names, SHOWN)}")
    excluded = len(found["exclude"])
    if excluded:
        print(f"{excluded} clips to leave out: train with --data.exclude {out / 'exclude.txt'}")
    print(f"{out}: {found['files']} files, {found['read']} of them read now; all of it in {out / 'check.json'}")
    return found


def doctor() -> dict[str, Any]:
    """Say what this machine offers: decoders, torch, GPUs, cores, encoders; and what could be installed."""
    found = examine()
    for line in told(found):
        print(line)
    return found
