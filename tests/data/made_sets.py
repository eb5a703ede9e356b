"""Data sets made by hand: names are what matters, so the files hold nothing."""

from pathlib import Path


def put(root: Path, *videos: str, frames: dict[str, int] | None = None, pattern: str = "img_{:05}.jpg") -> Path:
    """Files of these names, and folders with so many images numbered from 1."""
    for name in videos:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    for name, count in (frames or {}).items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            (root / name / pattern.format(number)).write_bytes(b"x")
    return root


def write(file: Path, *lines: str, end: str = "\n", mark: str = "") -> Path:
    """A text file with these lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes((mark + "".join(line + end for line in lines)).encode())
    return file


def clips(listing) -> dict[str, tuple[str, str]]:
    """By id: class and split of the clips that can be used."""
    names = listing.table.class_names
    return {sample.clip_id: (names[sample.label], sample.split) for sample in listing.table.samples}


def problems(listing) -> dict[str, str]:
    """By id: what kind of problem the others have."""
    return {problem.clip_id: problem.problem_kind for problem in listing.problems}
