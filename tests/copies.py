"""Copies of runs and projects that were made once, for tests that change them."""

import shutil
from os.path import relpath
from pathlib import Path


def copy(source: Path, folder: Path, moved: dict[Path, Path]) -> Path:
    """A copy of `source` in `folder`, whose files have the new path of every folder that was moved."""
    target = shutil.copytree(source, folder / source.name)
    for file in (*target.rglob("*.json"), *target.rglob("*.jsonl")):
        text = file.read_text(encoding="utf-8")
        for old, new in moved.items():
            text = text.replace(str(old), str(new)).replace(relpath(old, source), relpath(new, target))
        file.write_text(text, encoding="utf-8", newline="")
    return target
