"""What is asked of an archive: which network, which clips, cut into which parts; and the folder that takes the answers.

OUT/job.json               what was asked for; another job in the same folder is refused
OUT/clips/part-00012.parquet   the answers for clips 12 N to 13 N - 1
OUT/summary.json           how far it is, and in the end how many, how well, how fast
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stabn.batch.clips import ArchiveClip, digest
from stabn.data.transforms import Preprocessing
from stabn.errors import UserError
from stabn.files import alone, read_json, write_json
from stabn.nn import ResNet3D
from stabn.runs import class_names_of, preprocessing_of, weights_of

JOB_FORMAT = "stabn-archive/1"
PART_CLIPS = 256
"""Clips of a part: what a killed process has to do again."""
_ELSEWHERE = "give another folder for --out"


@dataclass(frozen=True)
class Job:
    """What the answers depend on, whatever computes them.

    Attributes:
        run: the network's folder, absolute.
        weights: a digest of its weights.
        class_names: K names, in the order of its outputs.
        preprocessing: how videos are prepared for it.
        precision: with which it computes.
        table: where the clips are listed, absolute.
        part_clips: how many clips a part has; the last one may have fewer.
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
    def of(cls, run: Path, model: ResNet3D, precision: str, table: Path, part_clips: int = PART_CLIPS) -> "Job":
        """The job of a network.

        Raises:
            UserError: its config.json does not fit it.
        """
        preprocessing = preprocessing_of(model, str(run))
        if preprocessing.sampling.frames != model.frames:
            raise UserError(
                f"preprocessing.sampling.frames: got {preprocessing.sampling.frames}, but the network reads "
                f"{model.frames}; correct it in {run}/config.json"
            )
        weights = weights_of(run)
        assert weights is not None
        where = (os.path.abspath(run), os.path.abspath(table))
        return cls(where[0], weights, class_names_of(model), preprocessing, precision, where[1], part_clips)

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
        """What tells jobs apart wherever their folders lie: a digest of all but the paths."""
        told = {name: value for name, value in self.as_json().items() if name not in ("run", "table")}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Part:
    """The unit of work: some clips, whose answers are one file.

    Attributes:
        number: from 0.
        clips: neighbours in the archive.
    """

    number: int
    clips: tuple[ArchiveClip, ...]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.clips:
            raise ValueError("clips: got none, expected at least one")
        object.__setattr__(self, "digest", digest(self.clips))

    def file(self, out: Path) -> Path:
        """Where its answers are."""
        return clips_folder(out) / f"part-{self.number:05}.parquet"


def parts(clips: Sequence[ArchiveClip], size: int) -> list[Part]:
    """An archive cut into parts."""
    return [Part(i, tuple(clips[start : start + size])) for i, start in enumerate(range(0, len(clips), size))]


def clips_folder(out: Path) -> Path:
    """The folder of the Parquet files, which holds nothing else, so that programs can read all of it at once."""
    return out / "clips"


@contextmanager
def claimed(out: Path, job: Job, clips: Sequence[ArchiveClip]) -> Iterator[None]:
    """Nobody else works in the folder within the block, and it holds this job or its beginning.

    A table may have grown at its end since the last time; then only what is new is done.

    Raises:
        UserError: the folder holds something else, or another process is at work in it.
    """
    _check(out, job, clips)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out, remedy=_ELSEWHERE):
        write_json(out / "job.json", {**job.as_json(), "clips": len(clips), "clips_digest": digest(clips)})
        for left in clips_folder(out).glob(".part-*"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        yield


def _check(out: Path, job: Job, clips: Sequence[ArchiveClip]) -> None:
    file = out / "job.json"
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(path.name != ".lock" for path in out.iterdir())):
            raise UserError(f"{out}: exists and holds no explained archive; {_ELSEWHERE}")
        return
    former = read_json(file, remedy=_ELSEWHERE)
    if not isinstance(former, dict) or former.get("format") != JOB_FORMAT:
        raise UserError(f"{file}: is not of format {JOB_FORMAT!r}; {_ELSEWHERE}")
    wanted = job.as_json()
    for name in ("weights", "class_names", "preprocessing", "precision", "part_clips"):
        if former.get(name) != wanted[name]:
            values = f" ({former.get(name)}, now {wanted[name]})" if name in ("precision", "part_clips") else ""
            raise UserError(
                f"{out}: holds the answers of another job: its {name} differ from those of this one{values}; "
                f"{_ELSEWHERE}"
            )
    count = former.get("clips")
    if not isinstance(count, int) or digest(clips[:count]) != former.get("clips_digest"):
        raise UserError(
            f"{out}: holds the answers for other clips ({count} of {former.get('table')}, now {len(clips)} of "
            f"{job.table}); clips may be added at the end alone, or {_ELSEWHERE}"
        )
