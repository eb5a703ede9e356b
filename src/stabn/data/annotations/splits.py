"""Which split a clip is in where its row does not say: by the name of its file, or drawn."""

import hashlib
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from stabn.data.dataset import Table
from stabn.data.spelling import UNSPLIT, known_split


def split_of_file(file: Path) -> str | None:
    """The split that a file's name tells, such as validation for kinetics_val_list.txt; None if none or several."""
    words = re.split(r"[^a-z]+", file.stem.lower())
    # UCF101 writes trainlist01.txt
    splits = {known_split(word.removesuffix("list")) for word in words} - {None}
    return splits.pop() if len(splits) == 1 else None


def with_split(table: Table, split: str) -> Table:
    """The table with clips whose source does not say put into `split`."""
    samples = (replace(s, split=split) if s.split == UNSPLIT else s for s in table.samples)
    return replace(table, samples=tuple(samples))


def with_validation(table: Table, share: float, seed: int) -> Table:
    """The table with a share of each class's training and unsplit clips for validation, the others for training.

    The draw is a function of the seed and a source's path alone, so that further clips exchange few of the others.
    Clips from one source stay together. A class of two or more sources has at least one in each split.

    Args:
        table: has no validation split yet.
        share: above 0 and below 1.
        seed: another one draws other clips.
    """
    drawable = [sample for sample in table.samples if sample.split in (UNSPLIT, "train")]
    keys: dict[int, dict[Path, str]] = defaultdict(dict)
    for sample in drawable:
        name = sample.clip_id if sample.segment is None else sample.path
        keys[sample.label].setdefault(sample.path, hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
    drawn: set[Path] = set()
    for key_by_path in keys.values():
        count = min(max(round(share * len(key_by_path)), 1), len(key_by_path) - 1)
        drawn.update(sorted(key_by_path, key=lambda path: key_by_path[path])[:count])
    splits = {s.clip_id: "validation" if s.path in drawn else "train" for s in drawable}
    return replace(table, samples=tuple(replace(s, split=splits.get(s.clip_id, s.split)) for s in table.samples))
