"""Which split a clip is in: what formats call them, and drawing one for validation where there is none."""

import hashlib
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from stabn.data.dataset import Sample, Table

UNSPLIT = "unsplit"
"""The split of clips whose source does not say."""
_CALLED = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "validate", "dev"),
    "test": ("test", "testing", "tst"),
}
_NAMES = {called: split for split, names in _CALLED.items() for called in names}


def split_named(name: str) -> str:
    """A split under the name that it has here: train, validation, test; others stay as they are."""
    return _NAMES.get(name.strip().lower(), name.strip())


def known_split(name: str) -> str | None:
    """Which of train, validation and test a folder's name means; None if none."""
    return _NAMES.get(name.strip().lower())


def split_of_file(file: Path) -> str | None:
    """The split that a file's name tells, such as validation for kinetics_val_list.txt; None if none or several."""
    words = re.split(r"[^a-z]+", file.stem.lower())
    # UCF101 writes trainlist01.txt
    found = {_NAMES[word.removesuffix("list")] for word in words if word.removesuffix("list") in _NAMES}
    return found.pop() if len(found) == 1 else None


def with_split(table: Table, split: str) -> Table:
    """The table with clips whose source does not say put into `split`."""
    samples = (replace(s, split=split) if s.split == UNSPLIT else s for s in table.samples)
    return replace(table, samples=tuple(samples))


def with_validation(table: Table, share: float, seed: int) -> Table:
    """The table with a share of each class's training and unsplit clips for validation, the others for training.

    Chance is a function of the seed and a source's path alone, so that further clips exchange few of the others. Clips
    from one source stay together. A class of two or more sources has at least one in each split.

    Args:
        table: has no validation split yet.
        share: above 0 and below 1.
        seed: of all chance.
    """
    sources: dict[int, dict[Path, str]] = defaultdict(dict)
    for sample in table.samples:
        if sample.split in (UNSPLIT, "train"):
            drawn = hashlib.sha256(f"{seed}:{sample.clip_id if sample.segment is None else sample.path}".encode())
            sources[sample.label].setdefault(sample.path, drawn.hexdigest())
    chosen: set[Path] = set()
    for drawn_by_path in sources.values():
        ordered = sorted(drawn_by_path, key=lambda path: drawn_by_path[path])
        count = min(max(round(share * len(ordered)), 1), len(ordered) - 1)
        chosen.update(ordered[:count])

    def moved(sample: Sample) -> Sample:
        if sample.split not in (UNSPLIT, "train"):
            return sample
        return replace(sample, split="validation" if sample.path in chosen else "train")

    return replace(table, samples=tuple(map(moved, table.samples)))
