"""Where listed videos and frame folders are on the disk."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from stabn.data.video.frame_folder import SUFFIXES as IMAGE_SUFFIXES
from stabn.data.video.frame_folder import frame_numbers
from stabn.errors import UserError

VIDEO_SUFFIXES = frozenset(
    (".264", ".265", ".360", ".3g2", ".3gp", ".3gpp", ".amv", ".apng", ".asf", ".avi", ".divx", ".dv", ".evo", ".f4v",
     ".flv", ".gif", ".gxf", ".h264", ".h265", ".hevc", ".insv", ".ivf", ".lrv", ".m1v", ".m2t", ".m2ts", ".m2v",
     ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mod", ".mov", ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts",
     ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".tp", ".trp", ".ts", ".vob", ".webm", ".wmv",
     ".wtv", ".xvid", ".y4m")
)  # fmt: skip
"""Endings of the names of what FFmpeg reads as video, lower case; a folder's other files are counted and named."""
_TRIED_PATHS = 100
"""Of a list, how many paths show whether its videos have moved."""
_MAX_SUBFOLDERS = 100
"""Folders beside a list in which its videos are looked for; where there are more, each holds one video's frames."""


def is_video(name: str) -> bool:
    """Whether a file name has a video's suffix."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def other_files_note(names: Iterable[str]) -> str | None:
    """Count, by their endings, the files of a folder that are taken for no video; None if there are none."""
    endings = Counter(os.path.splitext(name)[1].lower() or name for name in names)
    if not endings:
        return None
    counts = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
    rest = sum(endings.values()) - sum(count for _, count in endings.most_common(5))
    return f"skipped files whose names are not those of videos: {counts}" + (f", {rest} others" if rest else "")


class PathFinder:
    """Finds listed paths on the disk, listing each folder once.

    Testing each of 220,000 files separately takes minutes on a network drive.
    """

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, bool]] = {}

    def find(self, path: Path) -> Path | None:
        r"""The path if it exists, or else the same path with / for \ if that exists; None if neither does."""
        candidates = (path, Path(str(path).replace("\\", "/"))) if "\\" in str(path) else (path,)
        return next((candidate for candidate in candidates if self.exists(candidate)), None)

    def exists(self, path: Path) -> bool:
        """Whether there is a file or folder of this path; a link to nothing is none."""
        parent, name = os.path.split(os.path.normpath(path))
        if name in ("", ".", ".."):
            return os.path.exists(path)
        if parent not in self._folders:
            try:
                with os.scandir(parent or ".") as entries:
                    # the name of a link is listed even where its target does not exist
                    self._folders[parent] = {e.name: not e.is_symlink() or os.path.exists(e.path) for e in entries}
            except OSError:
                self._folders[parent] = {}
        return self._folders[parent].get(name, False)


def moved_parts(paths: Sequence[str], root: Path, finder: PathFinder) -> int:
    """How many folders at the beginning of listed paths to leave out, so that the rest of them exists below a folder.

    Args:
        paths: as listed, absolute or relative, maybe with backslashes.
        root: the folder that relative paths begin in.
        finder: looks for the paths.

    Returns:
        0 where any of the first paths exists as it is listed, or none does anyhow. Only folders that all paths have in
        common count, so that no two paths become one.
    """
    parts = [PurePosixPath(path.replace("\\", "/")).parts for path in paths]
    columns = zip(*(path[:-1] for path in parts), strict=False)
    common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, columns))
    first = parts[:_TRIED_PATHS]
    if any(finder.find(root / path) is not None for path in paths[:_TRIED_PATHS]):
        return 0
    counts = [sum(finder.exists(root.joinpath(*path[n:])) for path in first) for n in range(common + 1)]
    return counts.index(max(counts))


def likeliest_root(folder: Path, candidates: Sequence[Sequence[str]], finder: PathFinder) -> Path:
    """The folder that a list's paths are relative to: the list's own, or the subfolder that holds the most of them.

    MMAction2 keeps train_list_videos.txt beside a folder videos_train, in which its paths begin.

    Args:
        folder: the list's own.
        candidates: for each of the list's first lines, what may be its path.
        finder: looks for the paths.

    Returns:
        The list's own folder where it holds any of the paths, or where no single subfolder holds the most.
    """

    def count(root: Path) -> int:
        return sum(any(finder.find(root / path) for path in paths) for paths in candidates)

    if count(folder):
        return folder
    counts = {root: count(root) for root in _subfolders(folder)}
    most = max(counts.values(), default=0)
    best = [root for root in counts if counts[root] == most]
    return best[0] if most and len(best) == 1 else folder


def _subfolders(folder: Path) -> Sequence[Path]:
    """The visible subfolders in the order of their names; none if there are more than `_MAX_SUBFOLDERS`."""
    try:
        with os.scandir(folder) as entries:
            subfolders = sorted(folder / e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return ()
    return subfolders if len(subfolders) <= _MAX_SUBFOLDERS else ()


def walk_clips(folder: Path) -> Iterator[tuple[Sequence[Path], Sequence[str]]]:
    """Folder by folder, the clips below a folder, with a progress bar.

    Hidden files and folders are left out. Links to folders are followed, each folder once. The order is that of names.

    Yields:
        The paths of the videos in one folder, or the folder itself where it holds numbered images and no video; and the
        names of its other files.

    Raises:
        UserError: a folder cannot be listed.
    """
    visited: set[str] = set()

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

    with tqdm(desc="looking for videos", unit=" files", delay=2, leave=False) as bar:
        for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
            real = os.path.realpath(parent)
            folders[:] = sorted(
                name for name in folders if real not in visited and not name.startswith(".") and name != "__MACOSX"
            )
            if real in visited:
                continue
            visited.add(real)
            bar.update(len(files))
            names = sorted(name for name in files if not name.startswith("."))
            videos = [Path(parent, name) for name in names if is_video(name)]
            if not videos and Path(parent) != folder and _has_frames(Path(parent), names):
                yield [Path(parent)], ()
            else:
                yield videos, [name for name in names if not is_video(name)]


def _has_frames(folder: Path, names: Sequence[str]) -> bool:
    if not any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in names):
        return False
    try:
        return bool(frame_numbers(folder))
    except UserError:
        return True  # several series of images: a clip, whose problem is reported with its name
