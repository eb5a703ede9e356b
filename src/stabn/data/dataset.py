"""Labelled videos as a table, and a data set that gives their clips."""

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from stabn.data.boxes import Box, box_map
from stabn.data.class_balance import count_classes
from stabn.data.clip_batch import ClipBatch
from stabn.data.ground_truth import ClipTruth
from stabn.data.segments import Segment, segment_frames
from stabn.data.spelling import IGNORED, near_doubles, normalise_label, normalise_split, unusual_splits
from stabn.data.transforms import Augmentation, ColorFactors, Preprocessing, mirrored_classes
from stabn.data.video.clip import Clip
from stabn.data.video.reader import Reader
from stabn.data.video.rgb_frames import NoSuchFrameError
from stabn.errors import UserError


@dataclass(frozen=True)
class Sample:
    """One labelled video.

    Attributes:
        clip_id: its name, unique in its table.
        path: the video file, or the folder of its frames.
        label: index into the table's class names.
        split: "train", "validation", ...
        segment: the part of the source that is the clip; None for all of it. Frames are numbered as in the source.
    """

    clip_id: str
    path: Path
    label: int
    split: str
    segment: Segment | None = None

    def __post_init__(self) -> None:
        for name in ("clip_id", "split"):
            if not getattr(self, name):
                raise ValueError(f"{name}: got an empty string, expected a name")
        if self.label < 0:
            raise ValueError(f"label: got {self.label}, expected 0 or more")


@dataclass(frozen=True)
class Table:
    """All labelled videos of a data set.

    Attributes:
        class_names: K names, in the order of the network's outputs.
        samples: the videos of all splits.
        truth: when and where the labelled action happens, by clip id, for the clips whose annotations say so.
    """

    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    truth: Mapping[str, ClipTruth] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in (("class_names", self.class_names), ("clip_id", [s.clip_id for s in self.samples])):
            repeated = [value for value, count in Counter(values).items() if count > 1]
            if repeated:
                raise ValueError(f"{name}: got {repeated[0]!r} twice, expected unique names")
        for sample in self.samples:
            if sample.label >= len(self.class_names):
                raise ValueError(
                    f"label: got {sample.label} for {sample.clip_id!r}, expected 0..{len(self.class_names) - 1}"
                )

    def spelling_notes(self) -> Iterator[str]:
        """What may be misspelled: splits that no verb reads by itself, and classes that look alike; a line each."""
        others = unusual_splits(Counter(sample.split for sample in self.samples))
        if others is not None:
            yield (
                f"clips left out, as their split is neither train, validation nor test: {others}; correct it, name it "
                f"with --split, or write {IGNORED} to leave them out without this note"
            )
        clips = Counter(sample.label for sample in self.samples)
        for pair in near_doubles({name: clips[label] for label, name in enumerate(self.class_names)}):
            yield f"classes {pair}; give both one name if they are the same"

    def of_split(self, split: str) -> tuple[Sample, ...]:
        """The samples of one split, which may be called as `normalise_split` reads it, in the table's order.

        Raises:
            UserError: the table has no sample of that split.
        """
        names = {split, normalise_split(split)}
        samples = tuple(sample for sample in self.samples if sample.split in names)
        if not samples:
            splits = ", ".join(sorted({sample.split for sample in self.samples})) or "none"
            raise UserError(f"split: got {split!r}, but the data has only: {splits}; mark some clips as {split}")
        return samples

    def with_class_names(self, class_names: Sequence[str]) -> "Table":
        """The same videos with the class numbers of a network; labels are matched by name.

        Networks of earlier versions may have names that `normalise_label` changes; those match what it makes of them.

        Args:
            class_names: K names, this table's among them, in the order of the network's outputs.

        Raises:
            ValueError: one of the table's classes is not among them.
        """
        evened = [normalise_label(name) for name in class_names]
        by_name = {name: evened.index(name) for name in evened} | {name: k for k, name in enumerate(class_names)}
        missing = [name for name in self.class_names if name not in by_name]
        if missing:
            raise ValueError(f"class_names: got none called {missing[0]!r}, expected all of the table's")
        numbers = [by_name[name] for name in self.class_names]
        samples = tuple(replace(sample, label=numbers[sample.label]) for sample in self.samples)
        return replace(self, class_names=tuple(class_names), samples=samples)


@dataclass(frozen=True)
class FrameScores:
    """The temporal attention that a person wants for one clip: M'_t of Eq. 6.

    Attributes:
        frame_indices: T source frames; ascending, but for those of overlapping snippets.
        scores: T importances in 0..1.
        weight: in 0..1, how much they count; below 1 where nobody looked at the clip itself.
    """

    frame_indices: tuple[int, ...]
    scores: tuple[float, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.frame_indices):
            raise ValueError(f"scores: got {len(self.scores)} for {len(self.frame_indices)} frames, expected one each")
        if min(self.frame_indices, default=0) < 0:
            raise ValueError(f"frame_indices: got {self.frame_indices}, expected frames from 0")
        if not all(0 <= score <= 1 for score in self.scores):
            raise ValueError(f"scores: got {self.scores}, expected numbers in 0..1")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight: got {self.weight}, expected a number in 0..1")

    def at(self, frame_indices: Int64[Tensor, " t"]) -> Float32[Tensor, " t"]:
        """The scores of any frames, interpolated linearly, and constant beyond the first and last scored frame.

        Raises:
            ValueError: the scored frames are not ascending.
        """
        if list(self.frame_indices) != sorted(self.frame_indices):
            raise ValueError(f"frame_indices: got {self.frame_indices}, expected ascending frames")
        return torch.from_numpy(np.interp(frame_indices, self.frame_indices, self.scores)).float()


@dataclass(frozen=True)
class ViewRecord:
    """How one view of a clip was made: what a batch needs beside its pixels.

    Attributes:
        frame_indices: N source frames, all windows one after the other.
        timestamps: N seconds.
        corner: (top, left) of the square in pixels of the resized frame.
        flipped: whether it is the mirror image.
        size: (height, width) of the source in pixels.
        colours: factors of the colours; None where they are not varied.
    """

    frame_indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    corner: tuple[int, int]
    flipped: bool
    size: tuple[int, int]
    colours: ColorFactors | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values; colours are in the features already."""
        return {
            "frames": list(self.frame_indices),
            "times": list(self.timestamps),
            "corner": list(self.corner),
            "flipped": self.flipped,
            "size": list(self.size),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ViewRecord":
        """The record that `as_json` wrote."""
        top, left = value["corner"]
        height, width = value["size"]
        return cls(tuple(value["frames"]), tuple(value["times"]), (top, left), value["flipped"], (height, width))


class VideoDataset(Dataset[ClipBatch]):
    """Clips of labelled videos.

    With an `augmentation` the clips are for training: random frames, crop, colour and mirroring, a pure function of
    (seed, epoch, index), whatever the number of workers. Without one they are for testing: `clips` evenly placed
    windows per video, centre crop, one row of the item each. A video that has `scores` is sampled at exactly the scored
    frames, so that Eq. 6 compares like with like; with `vary_scored` at random frames like the others, with
    interpolated scores.

    Args:
        samples: the videos, in the order of the indices.
        preprocessing: how the network sees them.
        class_names: K names, to find the class of a mirror image.
        augmentation: how to vary training clips; None for testing.
        seed: for the choice of frames, crops, colours and mirroring.
        epoch: likewise; see `with_epoch`.
        clips: windows per video when testing.
        crops: views per window when testing, 1 or 3; see `Preprocessing.test_squares`.
        scores: by clip id; ids that are not among the samples are ignored, so that splits can share one mapping.
        cache: keep the resized frames of every video (uint8, in this process) after its first read.
        vary_scored: for training with uniform sampling only: a dense clip may lie where nothing was scored.
        boxes: where to look, by clip id: per source frame a box in its pixels, or None for no statement.
        grid: the side of the maps that are made of boxes, in cells.
        stored_views: number of views of a training clip that epochs take in turn, each a function of the clip and the
            view alone, so that their features can be kept; 0 for another view in every epoch.

    Raises:
        ValueError: several windows or crops while training or with scores, or a label outside the class names.
        UserError: scores for another number of frames than the network reads.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        *,
        class_names: Sequence[str],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        epoch: int = 0,
        clips: int = 1,
        crops: int = 1,
        scores: Mapping[str, FrameScores] | None = None,
        cache: bool = False,
        vary_scored: bool = False,
        boxes: Mapping[str, Sequence[Box | None]] | None = None,
        grid: int = 1,
        stored_views: int = 0,
    ) -> None:
        frames = preprocessing.sampling.frames
        scores = scores or {}
        if clips < 1 or (clips > 1 and (augmentation is not None or scores)):
            raise ValueError(f"clips: got {clips}, expected 1 or more, and 1 for training and with scores")
        if crops not in (1, 3) or (crops == 3 and (augmentation is not None or scores or boxes)):
            raise ValueError(f"crops: got {crops}, expected 1 or 3, and 1 for training and with scores or boxes")
        if vary_scored and (augmentation is None or preprocessing.sampling.mode != "uniform"):
            raise ValueError("vary_scored: got True, expected it for training with uniform sampling only")
        for sample in samples:
            if sample.label >= len(class_names):
                raise ValueError(
                    f"label: got {sample.label} for {sample.clip_id!r}, expected 0..{len(class_names) - 1}"
                )
            scored = scores.get(sample.clip_id)
            if scored is not None and len(scored.scores) != frames:
                raise UserError(
                    f"{sample.clip_id}: has {len(scored.scores)} scores, but the network reads {frames} frames; "
                    "use edits made with this network's number of frames"
                )
        self.samples = tuple(samples)
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = epoch
        self.clips = clips
        self.crops = crops
        self.scores = scores
        self._has_weights = any(scored.weight < 1 for scored in scores.values())
        self.class_names = tuple(class_names)
        self._mirrored = mirrored_classes(class_names)
        self.vary_scored = vary_scored
        self.boxes = boxes or {}
        self.grid = grid
        self.stored_views = stored_views
        self._reader = Reader(timeout=0)
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._folder_states: dict[Path, tuple[int, ...]] = {}
        self._segment_frames: dict[tuple[Path, Segment], range] = {}
        self._cache: dict[tuple[Path, Segment | None], Clip] | None = {} if cache else None

    def with_epoch(self, epoch: int) -> "VideoDataset":
        """The same data in another epoch: other random choices, the same cache."""
        return self._copy(epoch=epoch)

    def subset(self, samples: Sequence[Sample]) -> "VideoDataset":
        """Some of the clips, for testing only: a training clip varies by its index in the whole data set."""
        return self._copy(samples=tuple(samples))

    def with_reader(self, reader: Reader) -> "VideoDataset":
        """The same data and cache with another reader; the default one decodes in this process without a time limit."""
        return self._copy(_reader=reader)

    def _copy(self, **attributes: Any) -> "VideoDataset":
        other = copy(self)
        vars(other).update(attributes)
        return other

    @property
    def views(self) -> int:
        """Rows per video."""
        return self.clips * self.crops

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) int64: how many of the videos are of each class."""
        return count_classes([sample.label for sample in self.samples], len(self.class_names))

    def __len__(self) -> int:
        """How many videos."""
        return len(self.samples)

    def __getitem__(self, index: int) -> ClipBatch:
        """One clip: one row, or when testing one per window and crop.

        Raises:
            UserError: the video cannot be read, or lacks a scored frame.
        """
        views, record = self.read_view(index)
        return self.batch_of(index, record, views)

    def read_view(self, index: int) -> tuple[list[UInt8[Tensor, "t 3 s s"]], ViewRecord]:
        """The pixels of a clip's rows, and how they were made.

        Raises:
            UserError: as for an item.
        """
        sample = self.samples[index]
        if self.stored_views and self.augmentation is not None:
            rng = np.random.default_rng((self._view, zlib.crc32(sample.clip_id.encode("utf-8", "surrogatepass"))))
        else:
            rng = np.random.default_rng((self.seed, self.epoch, index % len(self.samples)))
        clip = self._read(sample, rng, self.scores.get(sample.clip_id))
        frames = self.preprocessing.sampling.frames
        if self.augmentation is None:
            windows = clip.frames.split(frames)
            views = [view for window in windows for view in self.preprocessing.test_squares(window, self.crops)]
            corner, flipped, colours = self.preprocessing.centre_corner(clip.frames), False, None
        else:
            may_flip = self._mirrored[sample.label] is not None
            view = self.augmentation.training_view(clip.frames, self.preprocessing, rng, may_flip=may_flip)
            views, corner, flipped, colours = [view.pixels], view.corner, view.flipped, view.colours
        size = self._sizes[Path(clip.path)]
        indices, times = tuple(clip.frame_indices.tolist()), tuple(clip.timestamps.tolist())
        return views, ViewRecord(indices, times, corner, flipped, size, colours)

    @property
    def _view(self) -> int:
        # a clip that is drawn again in one epoch has the number of a distant one
        return self.epoch % 2**32 % self.stored_views

    def view_key(self, index: int) -> str:
        """A name of this epoch's view of a clip: of the file, the frames and all that is done with them."""
        sample, scored = self.samples[index], self.scores.get(self.samples[index].clip_id)
        augmentation = None if self.augmentation is None else asdict(self.augmentation)
        value = {
            "clip": sample.clip_id,
            "file": (sample.path.name, self._file_state(sample.path)),
            "segment": None if sample.segment is None else repr(sample.segment),
            "frames": None if scored is None or self.vary_scored else scored.frame_indices,
            "mirrored": self._mirrored[sample.label] is not None,
            "preprocessing": self.preprocessing.as_json(),
            "view": None if augmentation is None else (self._view, augmentation),
        }
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]

    def _file_state(self, path: Path) -> tuple[int, ...] | None:
        """What changes with the content: size and time, of a folder of frames those of all its files; None without."""
        if not path.exists():
            return None
        if not path.is_dir():
            stat = path.stat()
            return stat.st_size, stat.st_mtime_ns
        if path not in self._folder_states:  # there may be many files
            stats = [entry.stat() for entry in os.scandir(path)]
            newest = max((stat.st_mtime_ns for stat in stats), default=0)
            self._folder_states[path] = len(stats), sum(stat.st_size for stat in stats), newest
        return self._folder_states[path]

    def batch_of(self, index: int, record: ViewRecord, views: Sequence[UInt8[Tensor, "t 3 s s"]] | None) -> ClipBatch:
        """The item that `read_view` makes; without pixels where `views` is None."""
        sample, frames = self.samples[index], self.preprocessing.sampling.frames
        scored, mirrored = self.scores.get(sample.clip_id), self._mirrored[sample.label]
        label = mirrored if record.flipped and mirrored is not None else sample.label
        frame_indices, timestamps = torch.tensor(record.frame_indices), torch.tensor(record.timestamps).double()
        rows = 1 if views is None else len(views)
        maps: dict[str, Any] = self._maps(sample, frame_indices, record) if self.boxes else {}
        weight = 1.0 if scored is None else scored.weight
        return ClipBatch(
            # in memory as they were decoded, the channels last; a row can be copied at once
            pixels=torch.zeros(rows, 3, frames, 0, 0, dtype=torch.uint8)
            if views is None
            else torch.stack([view.permute(0, 2, 3, 1) for view in views]).permute(0, 4, 1, 2, 3),
            labels=torch.full((rows,), label),
            clip_ids=(sample.clip_id,) * rows,
            scores=torch.zeros(rows, frames) if scored is None else self._scores(scored, frame_indices)[None],
            has_scores=torch.full((rows,), scored is not None),
            frame_indices=frame_indices.view(-1, frames).repeat_interleave(self.crops, 0),
            timestamps=timestamps.view(-1, frames).repeat_interleave(self.crops, 0),
            preprocessing=self.preprocessing,
            colours=() if record.colours is None else (record.colours,),
            score_weights=torch.full((rows,), weight) if self._has_weights else None,
            **{name: value.view(rows, frames, *value.shape[1:]) for name, value in maps.items()},
        )

    def _scores(self, scored: FrameScores, frame_indices: Int64[Tensor, " t"]) -> Float32[Tensor, " t"]:
        # A short clip repeats its last frame, and each repetition may have a score of its own.
        return scored.at(frame_indices) if self.vary_scored else torch.tensor(scored.scores, dtype=torch.float32)

    def _maps(self, sample: Sample, frame_indices: Int64[Tensor, " n"], record: ViewRecord) -> dict[str, Tensor]:
        """The maps and has_maps of frames of which the network sees the square at a corner."""
        known = self.boxes.get(sample.clip_id, ())
        boxes = [known[index] if index < len(known) else None for index in frame_indices.tolist()]
        crop = self.preprocessing.view_box(*record.size, record.corner)
        maps = torch.stack([box_map(box, crop, record.size, self.grid, self.grid) for box in boxes])
        has_maps = torch.tensor([box is not None for box in boxes])
        return {"maps": maps.flip(-1) if record.flipped else maps, "has_maps": has_maps}

    def _read(self, sample: Sample, rng: np.random.Generator, scored: FrameScores | None) -> Clip:
        """The resized frames of all windows, one window after the other."""

        def choose(source_frames: range) -> tuple[int, ...]:
            if scored is not None and not self.vary_scored:
                return scored.frame_indices
            sampling, count = self.preprocessing.sampling, len(source_frames)
            if self.augmentation is not None:
                return tuple(source_frames[i] for i in sampling.for_training(count, rng))
            return tuple(source_frames[i] for window in sampling.for_testing(count, self.clips) for i in window)

        if self._cache is not None:
            return self._read_cached(sample, choose)
        if sample.segment is None:
            clip = self._reader.read_sampled(sample.path, lambda num_frames: choose(range(num_frames)))
        else:
            clip = self._reader.read_clip(sample.path, choose(self._frames_of_segment(sample, sample.segment)))
        return self._resized(clip)

    def _read_cached(self, sample: Sample, choose: Callable[[range], tuple[int, ...]]) -> Clip:
        assert self._cache is not None
        key = sample.path, sample.segment
        if key not in self._cache:
            self._cache[key] = self._read_whole(sample)
        whole = self._cache[key]
        first, last = int(whole.frame_indices[0]), int(whole.frame_indices[-1])
        indices = torch.tensor(choose(range(first, last + 1)))
        if indices.min() < first or indices.max() > last:
            wrong = int(indices.max() if indices.max() > last else indices.min())
            raise NoSuchFrameError(
                f"{sample.path}: has no frame {wrong}, only {first}..{last}; choose frames in that range"
            )
        return Clip(whole.frames[indices - first], indices, whole.timestamps[indices - first], whole.path)

    def _read_whole(self, sample: Sample) -> Clip:
        """All resized frames of a clip, read in parts, so that a long video is never in memory at its full size."""
        if sample.segment is None:
            clips = self._reader.read_chunks(sample.path)
        else:
            clips = self._reader.stream_clip(sample.path, self._frames_of_segment(sample, sample.segment))
        chunks = [self._resized(clip) for clip in clips]
        joined = {n: torch.cat([getattr(c, n) for c in chunks]) for n in ("frames", "frame_indices", "timestamps")}
        return Clip(**joined, path=chunks[0].path)

    def _resized(self, clip: Clip) -> Clip:
        self._sizes[Path(clip.path)] = (clip.frames.shape[-2], clip.frames.shape[-1])
        return replace(clip, frames=self.preprocessing.resized(clip.frames))

    def _frames_of_segment(self, sample: Sample, segment: Segment) -> range:
        # finding them may decode the source up to the segment, so it happens once
        key = sample.path, segment
        if key not in self._segment_frames:
            self._segment_frames[key] = segment_frames(sample.path, segment, sample.clip_id, self._reader)
        return self._segment_frames[key]
