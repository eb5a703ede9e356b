"""Leave out clips that cannot be read: each is named, and too many of them are an error.

Nothing takes the place of a clip that is left out: batches become smaller.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from stabn.data.clip_batch import ClipBatch, SkippedClip
from stabn.data.dataset import VideoDataset
from stabn.data.feature_store import KeptDataset
from stabn.data.video.rgb_frames import NoSuchFrameError
from stabn.data.video.subprocess_worker import StoppedError
from stabn.errors import UserError, join_names

SHARE = 0.01
"""The share of a split's clips that may be unreadable by default."""
FEW = 10
"""How many may be unreadable in small splits by default, as long as half of the clips are left."""

_LOGGER = logging.getLogger(__name__)


class SkipUnreadable(Dataset[ClipBatch]):
    """A data set whose item is an empty batch, with the reason in `skipped`, where the clip cannot be read.

    A file that took too long or crashed its decoder is not tried again.

    Args:
        dataset: the clips.
    """

    def __init__(self, dataset: VideoDataset | KeptDataset) -> None:
        self.dataset = dataset
        self._stopped: dict[str, SkippedClip] = {}

    def __len__(self) -> int:
        """How many videos."""
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> ClipBatch:
        """The item of the data set, or an empty one.

        Args:
            index: of the video, or (epoch, index).

        Raises:
            NoSuchFrameError: the video can be read but lacks a scored frame, so that the scores are of another video.
        """
        dataset = self.dataset
        if isinstance(index, tuple):
            epoch, index = index
            dataset = dataset.with_epoch(epoch)
        sample = dataset.samples[index]
        skipped = self._stopped.get(sample.clip_id)
        if skipped is None:
            try:
                return dataset[index]
            except NoSuchFrameError:
                raise
            except UserError as error:
                skipped = SkippedClip(sample.clip_id, printable_line(str(sample.path)), printable_line(str(error)))
                if isinstance(error, StoppedError):
                    self._stopped[sample.clip_id] = skipped
        frames, side = dataset.preprocessing.sampling.frames, dataset.preprocessing.crop
        return ClipBatch(
            pixels=torch.empty(0, 3, frames, side, side, dtype=torch.uint8),
            labels=torch.empty(0, dtype=torch.int64),
            clip_ids=(),
            scores=torch.empty(0, frames),
            has_scores=torch.empty(0, dtype=torch.bool),
            frame_indices=torch.empty(0, frames, dtype=torch.int64),
            timestamps=torch.empty(0, frames, dtype=torch.float64),
            preprocessing=dataset.preprocessing,
            skipped=(skipped,),
        )


def printable_line(text: str) -> str:
    """Text as one line of valid UTF-8; names of files may hold other bytes and line breaks."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")


@dataclass
class _Case:
    skipped: SkippedClip
    times: int = 0


class SkipCounter:
    """Counts the clips of each split that were left out, and raises an error when there are too many.

    Args:
        clips: how many clips each split has.
        share: of a split's clips that may be unreadable, 0 to 1; None for a hundredth, or ten where half of the clips
            are left. With a share above 0 one such clip is never too many, unless it is the only one.

    Attributes:
        cases: what was skipped, by (split, clip id).
    """

    def __init__(self, clips: Mapping[str, int], share: float | None = None) -> None:
        self.clips = dict(clips)
        self.share = share
        self.cases: dict[tuple[str, str], _Case] = {}

    def __len__(self) -> int:
        """How many clips were left out at least once."""
        return len(self.cases)

    def allowed(self, split: str) -> int:
        """How many clips of a split may be unreadable."""
        count = self.clips[split]
        if self.share is None:
            return max(int(count * SHARE), min(FEW, count // 2))
        return min(max(int(count * self.share), int(self.share > 0)), count - 1)

    def add(self, split: str, skipped: Iterable[SkippedClip], *, tell: bool = True) -> None:
        """Count clips that were left out, and log those that had not been before.

        Args:
            split: of the clips.
            skipped: the clips.
            tell: whether to log.

        Raises:
            UserError: there are too many.
        """
        for clip in skipped:
            key = (split, clip.clip_id)
            if key not in self.cases:
                self.cases[key] = _Case(clip)
                if tell:
                    _LOGGER.warning("skipped, %s: %s", split, clip.reason)
            self.cases[key].times += 1
        paths = [case.skipped.path for (case_split, _), case in self.cases.items() if case_split == split]
        if len(paths) > self.allowed(split):
            names = join_names(paths, 3)
            raise UserError(
                f"split {split}: {len(paths)} of {self.clips[split]} clips cannot be read ({names}), and "
                f"{self.allowed(split)} may be; find all of them with `stabn check-data` and leave them out with "
                "--data.exclude, or allow more with --loader.broken"
            )

    def as_json(self) -> list[dict[str, Any]]:
        """[{"clip_id", "path", "split", "reason", "times"}, ...] in the order of their discovery."""
        return [
            {**asdict(case.skipped), "split": split, "times": case.times} for (split, _), case in self.cases.items()
        ]

    def load(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Restore the counts that `as_json` gave."""
        self.cases = {
            (v["split"], v["clip_id"]): _Case(SkippedClip(v["clip_id"], v["path"], v["reason"]), v["times"])
            for v in values
        }
