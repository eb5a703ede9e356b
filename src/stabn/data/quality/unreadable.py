"""Broken clips among many: each is left out and named; too many of them end the work.

Nothing takes the place of a clip that is left out: batches become smaller.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from stabn.data.dataset import ClipBatch, Skipped, VideoDataset
from stabn.data.video.decode import NoSuchFrameError
from stabn.data.video.subprocess_worker import StoppedError
from stabn.errors import UserError, first_of

SHARE = 0.01
"""Of a split's clips, how many may be broken where nothing else is said."""
FEW = 10
"""So many may be in small splits, too, as long as half of the clips are left."""


class Tolerant(Dataset[ClipBatch]):
    """A data set whose item is an empty batch with the reason in `skipped` where the clip cannot be read.

    A file that took too long or crashed its decoder is not tried again.

    Args:
        dataset: whose videos these are.
    """

    def __init__(self, dataset: VideoDataset) -> None:
        self.dataset = dataset
        self._stopped: dict[str, Skipped] = {}

    def __len__(self) -> int:
        """How many videos."""
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> ClipBatch:
        """The item of the data set, or an empty one.

        Args:
            index: of the video, or (epoch, index).

        Raises:
            UserError: the video can be read but lacks a scored frame, so that the scores are of another video.
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
                skipped = Skipped(sample.clip_id, legible(str(sample.path)), legible(str(error)))
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


def legible(text: str) -> str:
    """One line of UTF-8, whatever the names of files are made of."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")


@dataclass
class _Case:
    skipped: Skipped
    times: int = 0


class Tally:
    """Who was left out, how often, and whether these are too many.

    Args:
        clips: how many clips each split has.
        share: of a split's clips that may be broken, 0 to 1; None for a hundredth, or ten where half of the clips are
            left. With a share above 0 one broken clip is never too many, unless it is the only one.
    """

    def __init__(self, clips: Mapping[str, int], share: float | None = None) -> None:
        self.clips = dict(clips)
        self.share = share
        self.cases: dict[tuple[str, str], _Case] = {}

    def __len__(self) -> int:
        """How many clips were left out at least once."""
        return len(self.cases)

    def allowed(self, split: str) -> int:
        """How many clips of a split may be broken."""
        count = self.clips[split]
        if self.share is None:
            return max(int(count * SHARE), min(FEW, count // 2))
        return min(max(int(count * self.share), int(self.share > 0)), count - 1)

    def add(self, split: str, skipped: Iterable[Skipped], *, tell: bool = True) -> None:
        """Count clips that were left out, and name on stderr those that had not been before.

        Raises:
            UserError: there are too many.
        """
        for one in skipped:
            key = (split, one.clip_id)
            if key not in self.cases:
                self.cases[key] = _Case(one)
                if tell:
                    print(f"skipped, {split}: {one.reason}", file=sys.stderr, flush=True)
            self.cases[key].times += 1
        broken = [case.skipped for (of, _), case in self.cases.items() if of == split]
        if len(broken) > self.allowed(split):
            first = first_of([one.path for one in broken], 3)
            raise UserError(
                f"split {split}: {len(broken)} of {self.clips[split]} clips cannot be read ({first}), and "
                f"{self.allowed(split)} may be; find all of them with `stabn check-data` and leave them out with "
                "--data.exclude, or allow more with --loader.broken"
            )

    def as_json(self) -> list[dict[str, Any]]:
        """[{"clip_id", "path", "split", "reason", "times"}, ...] in the order of their discovery."""
        return [
            {
                "clip_id": clip_id,
                "path": case.skipped.path,
                "split": split,
                "reason": case.skipped.reason,
                "times": case.times,
            }
            for (split, clip_id), case in self.cases.items()
        ]

    def load(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Go on from what `as_json` gave."""
        self.cases = {
            (v["split"], v["clip_id"]): _Case(Skipped(v["clip_id"], v["path"], v["reason"]), v["times"]) for v in values
        }
