"""The job of explaining an archive (network, clips, their division into parts), and its output folder.

OUT/job.json               the job; another job in the same folder is refused
OUT/clips/part-00012.parquet   the predictions for clips 12 N to 13 N - 1
OUT/summary.json           progress, and at the end counts, accuracy and speed
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stabn.batch.clips import ArchiveClip, clips_digest, moved_clips, videos_folder
from stabn.data.transforms import Preprocessing
from stabn.errors import UserError, list_differences
from stabn.files import lock_folder, read_json, write_json
from stabn.nn import VideoNetwork
from stabn.runs import network_class_names, network_preprocessing, weights_digest

JOB_FORMAT = "stabn-archive/1"
PART_CLIPS = 256
"""Clips of a part: the work that is lost when a process is killed."""
_OTHER_FOLDER = "give another folder for --out"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArchiveJob:
    """Everything that the predictions depend on but the clips.

    Attributes:
        run: the network's folder, absolute.
        weights: SHA-256 of its weights.
        class_names: K names, in the order of its outputs.
        preprocessing: of its clips.
        precision: Lightning's name of it, never auto.
        table: the list of clips, absolute.
        part_clips: clips per part; the last part may have fewer.
    """

    run: str
    weights: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    precision: str
    table: str
    part_clips: int = PART_CLIPS

    def __post_init__(self) -> None:
        if self.part_clips < 1:
            raise UserError(f"--part-clips: got {self.part_clips}, expected at least 1")

    @classmethod
    def create(
        cls, run: Path, model: VideoNetwork, precision: str, table: Path, part_clips: int = PART_CLIPS
    ) -> "ArchiveJob":
        """The job of a network and a table of clips.

        Raises:
            UserError: its config.json does not fit it.
        """
        preprocessing = network_preprocessing(model, str(run))
        if preprocessing.sampling.frames != model.frames:
            raise UserError(
                f"preprocessing.sampling.frames: got {preprocessing.sampling.frames}, but the network reads "
                f"{model.frames}; correct it in {run}/config.json"
            )
        weights = weights_digest(run)
        assert weights is not None
        where = (os.path.abspath(run), os.path.abspath(table))
        return cls(where[0], weights, network_class_names(model), preprocessing, precision, where[1], part_clips)

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "format": JOB_FORMAT,
            **asdict(self),
            "class_names": list(self.class_names),
            "preprocessing": self.preprocessing.as_json(),
        }

    @property
    def id(self) -> str:
        """Identifies a job wherever its folders are: a digest of all fields but the paths."""
        fields = {name: value for name, value in self.as_json().items() if name not in ("run", "table")}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ArchivePart:
    """The unit of work: consecutive clips whose predictions are one file.

    Attributes:
        number: from 0.
        clips: at least one.
        digest: SHA-256 of the clips.
    """

    number: int
    clips: tuple[ArchiveClip, ...]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", clips_digest(self.clips))

    def file(self, out: Path) -> Path:
        """The file of its predictions."""
        return clips_folder(out) / f"part-{self.number:05}.parquet"


def split_into_parts(clips: Sequence[ArchiveClip], size: int) -> list[ArchivePart]:
    """Split an archive into parts of `size` clips."""
    return [ArchivePart(i, tuple(clips[start : start + size])) for i, start in enumerate(range(0, len(clips), size))]


def clips_folder(out: Path) -> Path:
    """The folder of the Parquet files, which holds nothing else, so that programs read it as one table."""
    return out / "clips"


@contextmanager
def locked_output(out: Path, job: ArchiveJob, clips: Sequence[ArchiveClip]) -> Iterator[Sequence[ArchiveClip]]:
    """Create the output folder or open that of the same job, and lock it for the block.

    Clips may have been appended to the table since the last time, and all videos may have moved to another folder.

    Yields:
        The clips, with their first paths where their videos have moved.

    Raises:
        UserError: the folder holds something else, or another process has locked it.
    """
    clips = _check(out, job, clips)
    out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out, remedy=_OTHER_FOLDER):
        listed = {"clips": len(clips), "videos": videos_folder(clips), "clips_digest": clips_digest(clips)}
        write_json(out / "job.json", {**job.as_json(), **listed})
        for unfinished in clips_folder(out).glob(".part-*"):  # by a process that was killed while it wrote
            unfinished.unlink(missing_ok=True)
        yield clips


_TRIED_PATHS = 100
"""Of an archive whose videos may have moved, how many paths show whether they are still where they were."""


def _check(out: Path, job: ArchiveJob, clips: Sequence[ArchiveClip]) -> Sequence[ArchiveClip]:
    file = out / "job.json"
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(path.name != ".lock" for path in out.iterdir())):
            raise UserError(f"{out}: exists and holds no explained archive; {_OTHER_FOLDER}")
        return clips
    previous = read_json(file, remedy=_OTHER_FOLDER)
    if not isinstance(previous, dict) or previous.get("format") != JOB_FORMAT:
        raise UserError(f"{file}: is not of format {JOB_FORMAT!r}; {_OTHER_FOLDER}")
    fields = job.as_json()
    if previous.get("weights") != fields["weights"]:
        raise UserError(
            f"{out}: holds another job, with other weights ({previous.get('run')}, now {job.run}); {_OTHER_FOLDER}"
        )
    names = ("class_names", "preprocessing", "precision", "part_clips")
    differences = list_differences({n: previous.get(n) for n in names}, {n: fields[n] for n in names})
    if differences:
        raise UserError(f"{out}: holds another job, with other {'; '.join(differences)}; {_OTHER_FOLDER}")
    count, digest, first_folder = (previous.get(name) for name in ("clips", "clips_digest", "videos"))
    if isinstance(count, int) and 0 < count <= len(clips):
        if clips_digest(clips[:count]) == digest:
            return clips
        folder = videos_folder(clips[:count])
        moved = clips if first_folder is None else moved_clips(clips, folder, first_folder)
        still_there = any(os.path.exists(clip.first_path or clip.path) for clip in moved[:_TRIED_PATHS])
        if clips_digest(moved[:count]) == digest and not still_there:
            log.info(
                "note: %s: its videos have moved from %s to %s; it goes on, and rows that are there keep their paths",
                out,
                first_folder,
                folder,
            )
            return moved
    raise UserError(
        f"{out}: holds other clips ({count} of {previous.get('table')}, now {len(clips)} of {job.table}); append "
        f"clips only at the end of the table, move all videos together or none, or {_OTHER_FOLDER}"
    )
