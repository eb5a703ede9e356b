"""Something-Something: version 1 with frame folders and lists with semicolons, version 2 with videos and JSON."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from stabn.data.formats.finding import finder
from stabn.data.formats.listing import Entry, Listing, listing
from stabn.data.rows import read_text
from stabn.data.something import annotated, annotation_file, label_names
from stabn.data.truth import read_truth
from stabn.errors import UserError

V1 = "something-something-v1"
SPLITS = ("train", "validation")
_REDOWNLOAD = "take the file as it was distributed"


def is_v1(folder: Path) -> bool:
    """Whether a folder holds the lists of version 1."""
    return (folder / f"{V1}-labels.csv").is_file()


def is_v2(folder: Path) -> bool:
    """Whether a folder holds the annotations of version 2."""
    return all(annotation_file(folder, name).is_file() for name in ("labels", "train"))


def read_v1(folder: Path, videos: Path | None = None) -> Listing:
    """Version 1: something-something-v1-labels.csv with a class per line, -train.csv and -validation.csv with id;class.

    Args:
        folder: of the lists.
        videos: with a folder of frames per id; by default 20bn-something-something-v1 or a folder of another usual name
            beside the lists, or that of the lists.

    Raises:
        UserError: a list is missing or empty, or a class is there twice.
    """
    labels = folder / f"{V1}-labels.csv"
    classes = [line.strip() for line in read_text(labels, _REDOWNLOAD).splitlines() if line.strip()]
    if not classes or len(set(classes)) < len(classes):
        raise UserError(f"{labels}: holds {'a class twice' if classes else 'no class'}; {_REDOWNLOAD}")
    listed = [
        (f"{V1}-{split}.csv, line {number}", split, *_cells(line))
        for split in SPLITS
        for number, line in enumerate(read_text(folder / f"{V1}-{split}.csv", _REDOWNLOAD).splitlines(), start=1)
        if line.strip()
    ]
    root = videos or _likeliest(folder, V1, [clip_id for _, _, clip_id, _ in listed])
    entries = [Entry(where, clip_id, root / clip_id, label, split) for where, split, clip_id, label in listed]
    return listing("Something-Something v1", entries, classes, list(_left_out(folder / f"{V1}-test.csv")))


def read_v2(folder: Path, videos: Path | None = None) -> Listing:
    """Version 2, whose indices of classes are strings; videos are <id>.webm, <id>.mp4, or frame folders <id>.

    Args:
        folder: of the JSON files.
        videos: by default `videos` or 20bn-something-something-v2 beside the files, or their folder.

    Raises:
        UserError: a file is missing or has another form.
    """
    classes = label_names(annotation_file(folder, "labels"))
    listed = []
    for split in SPLITS:
        file = annotation_file(folder, split)
        listed += [(f"{file.name}, entry {n}", split, *found) for n, found in enumerate(annotated(file))]
    root = videos or _likeliest(folder, "20bn-something-something-v2", [clip_id for _, _, clip_id, _ in listed])
    find, truth = finder(), {}
    if (folder / "truth.jsonl").exists():
        truth = read_truth(folder / "truth.jsonl")
    entries = []
    for where, split, clip_id, label in listed:
        candidates = [root / name for name in _file_names(clip_id)]
        path = next((path for path in candidates if find(path) is not None), candidates[0])
        entries.append(Entry(where, clip_id, path, label, split, truth=truth.get(clip_id)))
    return listing("Something-Something v2", entries, classes, list(_left_out(annotation_file(folder, "test"))))


def _file_names(clip_id: str) -> tuple[str, ...]:
    return (f"{clip_id}.webm", f"{clip_id}.mp4", clip_id)


def _cells(line: str) -> tuple[str, str]:
    clip_id, _, label = line.partition(";")
    return clip_id.strip(), label.strip()


def _likeliest(folder: Path, distributed: str, clip_ids: Sequence[str]) -> Path:
    """Of the folders in which the videos usually are, the one with the most of the first clips."""
    names = (f"20bn-{V1}" if distributed == V1 else distributed, "videos", "frames", "rawframes", "")
    find = finder()

    def count(root: Path) -> int:
        return sum(any(find(root / name) for name in _file_names(clip_id)) for clip_id in clip_ids[:100])

    roots = [parent / name for parent in (folder, folder.parent) for name in names]
    return max(roots, key=count)  # the first of equals


def _left_out(file: Path) -> Iterator[str]:
    if file.exists():
        yield f"{file.name} has no labels and is left out"
