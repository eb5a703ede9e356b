"""Where listed videos and frame folders are on the disk."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from stabn.errors import UserError

VIDEO_SUFFIXES = frozenset(
    (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm",
     ".wmv")
)  # fmt: skip


def is_video(name: str) -> bool:
    """Whether a file's name ends like a video's."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def finder() -> Callable[[Path], Path | None]:
    """A function that tells where a listed path is: itself, with / for \\ if only that exists, or None.

    Each folder is listed once: asking for each of 220,000 files takes minutes on a network drive.
    """
    known: dict[str, Mapping[str, bool]] = {}

    def exists(path: Path) -> bool:
        parent, name = os.path.split(os.path.normpath(path))
        if name in ("", ".", ".."):
            return os.path.exists(path)
        if parent not in known:
            try:
                with os.scandir(parent or ".") as entries:
                    # of a link that leads nowhere, the name is there all the same
                    known[parent] = {e.name: not e.is_symlink() or os.path.exists(e.path) for e in entries}
            except OSError:
                known[parent] = {}
        return known[parent].get(name, False)

    def find(path: Path) -> Path | None:
        candidates = (path, Path(str(path).replace("\\", "/"))) if "\\" in str(path) else (path,)
        return next((candidate for candidate in candidates if exists(candidate)), None)

    return find


_FOLDERS = 100
"""Folders beside a list in which its videos are looked for; where there are more, each holds one video's frames."""


def likeliest_root(folder: Path, lines: Sequence[Sequence[str]], find: Callable[[Path], Path | None]) -> Path:
    """What the paths of a list are relative to: its folder, or the one beside it that has the most of them.

    MMAction2 keeps train_list_videos.txt beside a folder videos_train, in which its paths begin.

    Args:
        folder: of the list.
        lines: the first of the list, what may be the path of each.
        find: from `finder`.

    Returns:
        The list's own folder where that has one of the paths, or no other has most of them.
    """

    def count(root: Path) -> int:
        return sum(any(find(root / path) for path in paths) for paths in lines)

    if count(folder):
        return folder
    counts = {root: count(root) for root in _folders(folder)}
    most = max(counts.values(), default=0)
    best = [root for root, found in counts.items() if found == most]
    return best[0] if most and len(best) == 1 else folder


def _folders(folder: Path) -> Sequence[Path]:
    """The folders in one, if they are few."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(folder / e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return ()
    return found if len(found) <= _FOLDERS else ()


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder below one, itself included, with its folders' and files' names, without hidden ones.

    Links to folders are followed, each folder once. The order is that of the names.

    Raises:
        UserError: a folder cannot be listed.
    """
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield Path(parent), folders, sorted(name for name in files if not name.startswith("."))
