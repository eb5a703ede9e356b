"""Labelled videos as one table, whatever their annotation format, and the table's clips as batches."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from stabn.data.boxes import Box, box_map
from stabn.data.ground_truth import ClipTruth
from stabn.data.segments import Segment, frames_of
from stabn.data.transforms import Augmentation, Colours, Preprocessing, mirrored_classes
from stabn.data.video.clip import Clip
from stabn.data.video.decode import NoSuchFrameError
from stabn.data.video.reader import Reader
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
        truth: when and where the labelled thing happens, by clip id, for the clips of which the data says so.
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

    def of_split(self, split: str) -> tuple[Sample, ...]:
        """The samples of one split, in the table's order.

        Raises:
            UserError: the table has no sample of that split.
        """
        chosen = tuple(sample for sample in self.samples if sample.split == split)
        if not chosen:
            known = ", ".join(sorted({sample.split for sample in self.samples})) or "none"
            raise UserError(f"split: got {split!r}, but the data has only: {known}; mark some clips as {split}")
        return chosen

    def numbered(self, class_names: Sequence[str]) -> "Table":
        """The same videos with the class numbers of a network; labels are matched by name.

        Args:
            class_names: K names, this table's among them, in the order of the network's outputs.

        Raises:
            ValueError: one of the table's classes is not among them.
        """
        strangers = [name for name in self.class_names if name not in class_names]
        if strangers:
            raise ValueError(f"class_names: got none called {strangers[0]!r}, expected all of the table's")
        numbers = [class_names.index(name) for name in self.class_names]
        samples = tuple(replace(sample, label=numbers[sample.label]) for sample in self.samples)
        return replace(self, class_names=tuple(class_names), samples=samples)


@dataclass(frozen=True)
class FrameScores:
    """The temporal attention that a person wants for one clip, M'_t of Eq. 6.

    Attributes:
        frame_indices: T source frames, ascending.
        scores: T importances in 0..1.
    """

    frame_indices: tuple[int, ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.frame_indices):
            raise ValueError(f"scores: got {len(self.scores)} for {len(self.frame_indices)} frames, expected one each")
        if list(self.frame_indices) != sorted(self.frame_indices) or min(self.frame_indices, default=0) < 0:
            raise ValueError(f"frame_indices: got {self.frame_indices}, expected ascending frames from 0")
        if not all(0 <= score <= 1 for score in self.scores):
            raise ValueError(f"scores: got {self.scores}, expected numbers in 0..1")

    def at(self, frame_indices: Int64[Tensor, " t"]) -> Float32[Tensor, " t"]:
        """The scores of any frames: on the line between those of the scored neighbours, and level beyond the ends."""
        return torch.from_numpy(np.interp(frame_indices, self.frame_indices, self.scores)).float()


@dataclass(frozen=True)
class Skipped:
    """A clip that could not be read and was left out.

    Attributes:
        clip_id: its name.
        path: of its video.
        reason: one line that names the file.
    """

    clip_id: str
    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """B clips for the network. One item of a `VideoDataset` is such a batch already: one row, or one per test window.

    Attributes:
        pixels: (B, 3, T, S, S) uint8, RGB; already the mirror image where the clip is mirrored.
        labels: (B,) int64; already the mirrored class where the clip is mirrored.
        clip_ids: B names; all windows of a video share its name.
        scores: (B, T) float32 in 0..1; zeros where there are none.
        has_scores: (B,) bool.
        frame_indices: (B, T) int64, counted from 0 in the source file.
        timestamps: (B, T) float64, seconds since the first frame of the file.
        preprocessing: how the pixels become `clips`.
        colours: B, how each clip's colours are varied; none where none is.
        maps: (B, T, h, w) float32 in 0..1, where a person wants the network to look, on the grid of its features; None
            where nobody said anything about any clip.
        has_maps: (B, T) bool, for which frames somebody did; None likewise.
        skipped: the clips that belong to the batch but could not be read; B may be 0 then.
    """

    pixels: UInt8[Tensor, "b 3 t s s"]
    labels: Int64[Tensor, " b"]
    clip_ids: tuple[str, ...]
    scores: Float32[Tensor, "b t"]
    has_scores: Bool[Tensor, " b"]
    frame_indices: Int64[Tensor, "b t"]
    timestamps: Float64[Tensor, "b t"]
    preprocessing: Preprocessing
    colours: tuple[Colours, ...] = ()
    maps: Float32[Tensor, "b t _ _"] | None = None
    has_maps: Bool[Tensor, "b t"] | None = None
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        rows, frames = len(self.pixels), self.pixels.shape[2]
        if self.pixels.dtype != torch.uint8:
            raise ValueError(f"pixels: got {self.pixels.dtype}, expected torch.uint8")
        if self.colours and len(self.colours) != rows:
            raise ValueError(f"colours: got {len(self.colours)}, expected {rows}, one per clip, or none")
        for name in ("labels", "clip_ids", "has_scores"):
            if len(getattr(self, name)) != rows:
                raise ValueError(f"{name}: got {len(getattr(self, name))}, expected {rows}, one per clip")
        for name in ("scores", "frame_indices", "timestamps"):
            if getattr(self, name).shape != (rows, frames):
                raise ValueError(f"{name}: got shape {tuple(getattr(self, name).shape)}, expected ({rows}, {frames})")

    @cached_property
    def clips(self) -> Float32[Tensor, "b 3 t s s"]:
        """What the network reads, made where the pixels are: a quarter of the bytes is moved to a GPU."""
        return self.preprocessing.network_clips(self.pixels, self.colours)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "ClipBatch":
        """The same batch with its tensors on `device`."""
        return self._with({name: one.to(device, non_blocking=non_blocking) for name, one in self._tensors().items()})

    def pin_memory(self) -> "ClipBatch":
        """The same batch in page-locked memory; `torch.utils.data.DataLoader` calls this."""
        return self._with({name: tensor.pin_memory() for name, tensor in self._tensors().items()})

    def _with(self, tensors: dict[str, Any]) -> "ClipBatch":
        return replace(self, **tensors)

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def collate(items: Sequence[ClipBatch]) -> ClipBatch:
    """One batch with the rows of all items in their order; give this to the data loader as `collate_fn`."""
    read = [item for item in items if item.clip_ids] or items[:1]  # what could not be read knows of no maps
    tensors = {name: torch.cat([getattr(item, name) for item in read]) for name in read[0]._tensors()}
    return ClipBatch(
        clip_ids=tuple(clip_id for item in read for clip_id in item.clip_ids),
        preprocessing=read[0].preprocessing,
        colours=tuple(colours for item in read for colours in item.colours),
        skipped=tuple(skipped for item in items for skipped in item.skipped),
        **tensors,
    )


class VideoDataset(Dataset[ClipBatch]):
    """Clips of labelled videos.

    With an `augmentation` the clips are for training: random frames, crop, colour and mirroring, a pure function of
    (seed, epoch, index), whatever the number of workers. Without one they are for testing: `clips` evenly placed
    windows per video, centre crop, one row of the item each. A video that has `scores` is sampled at exactly the scored
    frames, so that Eq. 6 compares like with like; with `vary_scored` at random frames like the others, whose scores lie
    on the line between the scored ones.

    Args:
        samples: the videos, in the order of the indices.
        preprocessing: how the network sees them.
        class_names: K names, to find the class of a mirror image.
        augmentation: how to vary training clips; None for testing.
        seed: of all chance.
        epoch: of all chance, too; see `with_epoch`.
        clips: windows per video when testing.
        crops: views per window when testing, 1 or 3; see `Preprocessing.test_squares`.
        scores: by clip id; ids that are not among the samples are ignored, so that splits can share one mapping.
        cache: keep the resized frames of every video (uint8, in this process) after its first reading.
        vary_scored: for training with uniform sampling alone: a dense clip may lie where nothing was scored.
        boxes: where to look, by clip id: per source frame a box in its pixels, or None where nothing is said.
        grid: the side of the maps that are made of boxes, in cells.

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
        self.class_names = tuple(class_names)
        self._mirrored = mirrored_classes(class_names)
        self.vary_scored = vary_scored
        self.boxes = boxes or {}
        self.grid = grid
        self._reader = Reader(timeout=0)
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._within: dict[tuple[Path, Segment], range] = {}
        self._cache: dict[tuple[Path, Segment | None], Clip] | None = {} if cache else None

    def with_epoch(self, epoch: int) -> "VideoDataset":
        """The same data in another epoch: other random choices, the same cache."""
        other = copy(self)
        other.epoch = epoch
        return other

    def only(self, samples: Sequence[Sample]) -> "VideoDataset":
        """Some of the clips, for testing; those of a data set for training would vary otherwise than they do in it."""
        other = copy(self)
        other.samples = tuple(samples)
        return other

    def read_by(self, reader: Reader) -> "VideoDataset":
        """The same data, and the same cache, read in another way; by default in this process, however long it takes."""
        other = copy(self)
        other._reader = reader
        return other

    @property
    def views(self) -> int:
        """Rows per video."""
        return self.clips * self.crops

    def __len__(self) -> int:
        """How many videos."""
        return len(self.samples)

    def __getitem__(self, index: int) -> ClipBatch:
        """One row, or one per window, and per crop of it, when testing with several.

        Raises:
            UserError: the video cannot be read, or lacks a scored frame.
        """
        sample = self.samples[index]
        rng = np.random.default_rng((self.seed, self.epoch, index % len(self.samples)))
        scored = self.scores.get(sample.clip_id)
        clip = self._read(sample, rng, scored)
        label = sample.label
        frames = self.preprocessing.sampling.frames
        if self.augmentation is None:
            windows = clip.frames.split(frames)
            views = [view for window in windows for view in self.preprocessing.test_squares(window, self.crops)]
            corner, flipped, colours = self.preprocessing.centre_corner(clip.frames), False, None
        else:
            mirrored = self._mirrored[label]
            view = self.augmentation.training_view(clip.frames, self.preprocessing, rng, may_flip=mirrored is not None)
            if view.flipped and mirrored is not None:
                label = mirrored
            views = [view.pixels]
            corner, flipped, colours = view.corner, view.flipped, view.colours
        rows = len(views)
        where: dict[str, Any] = self._where(sample, clip.frame_indices, corner, flipped) if self.boxes else {}
        return ClipBatch(
            # in memory as they were decoded, the channels last; a row can be copied at once
            pixels=torch.stack([view.permute(0, 2, 3, 1) for view in views]).permute(0, 4, 1, 2, 3),
            labels=torch.full((rows,), label),
            clip_ids=(sample.clip_id,) * rows,
            scores=torch.zeros(rows, frames) if scored is None else self._scores(scored, clip.frame_indices)[None],
            has_scores=torch.full((rows,), scored is not None),
            frame_indices=clip.frame_indices.view(-1, frames).repeat_interleave(self.crops, 0),
            timestamps=clip.timestamps.view(-1, frames).repeat_interleave(self.crops, 0),
            preprocessing=self.preprocessing,
            colours=() if colours is None else (colours,),
            **{name: value.view(rows, frames, *value.shape[1:]) for name, value in where.items()},
        )

    def _scores(self, scored: FrameScores, frame_indices: Int64[Tensor, " t"]) -> Float32[Tensor, " t"]:
        # A short clip repeats its last frame, and each repetition may have a score of its own.
        return scored.at(frame_indices) if self.vary_scored else torch.tensor(scored.scores, dtype=torch.float32)

    def _where(
        self, sample: Sample, frame_indices: Int64[Tensor, " n"], corner: tuple[int, int], flipped: bool
    ) -> dict[str, Tensor]:
        """The maps and has_maps of frames seen through the square at a corner."""
        known = self.boxes.get(sample.clip_id, ())
        maps = torch.zeros(len(frame_indices), self.grid, self.grid)
        has_maps = torch.zeros(len(frame_indices), dtype=torch.bool)
        size = self._sizes[sample.path]
        crop = self.preprocessing.view_box(*size, corner)
        for row, index in enumerate(frame_indices.tolist()):
            box = known[index] if index < len(known) else None
            if box is not None:
                maps[row] = box_map(box, crop, size, self.grid, self.grid)
                has_maps[row] = True
        return {"maps": maps.flip(-1) if flipped else maps, "has_maps": has_maps}

    def _read(self, sample: Sample, rng: np.random.Generator, scored: FrameScores | None) -> Clip:
        """The resized frames of all windows, one window after the other."""

        def choose(within: range) -> tuple[int, ...]:
            if scored is not None and not self.vary_scored:
                return scored.frame_indices
            sampling = self.preprocessing.sampling
            if self.augmentation is not None:
                return tuple(within[i] for i in sampling.for_training(len(within), rng))
            return tuple(within[i] for window in sampling.for_testing(len(within), self.clips) for i in window)

        if self._cache is None:
            if sample.segment is None:
                clip = self._reader.read_sampled(sample.path, lambda num_frames: choose(range(num_frames)))
            else:
                within = self._frames_of(sample.path, sample.segment, sample.clip_id)
                clip = self._reader.read_clip(sample.path, choose(within))
            self._sizes[sample.path] = (clip.frames.shape[-2], clip.frames.shape[-1])
            return replace(clip, frames=self.preprocessing.resized(clip.frames))
        if (sample.path, sample.segment) not in self._cache:
            self._cache[sample.path, sample.segment] = self._resized_whole(sample)
        whole = self._cache[sample.path, sample.segment]
        first, last = int(whole.frame_indices[0]), int(whole.frame_indices[-1])
        indices = torch.tensor(choose(range(first, last + 1)))
        if indices.min() < first or indices.max() > last:
            wrong = int(indices.max() if indices.max() > last else indices.min())
            raise NoSuchFrameError(
                f"{sample.path}: has no frame {wrong}, only {first}..{last}; choose frames in that range"
            )
        return Clip(whole.frames[indices - first], indices, whole.timestamps[indices - first], whole.path)

    def _frames_of(self, path: Path, segment: Segment, clip_id: str) -> range:
        # finding them decodes the source once more, so it happens once
        if (path, segment) not in self._within:
            self._within[path, segment] = frames_of(path, segment, clip_id, self._reader.probe)
        return self._within[path, segment]

    def _resized_whole(self, sample: Sample) -> Clip:
        # in chunks, so that a long video is never in memory at its full size
        within = None if sample.segment is None else self._frames_of(sample.path, sample.segment, sample.clip_id)
        chunks = []
        for chunk in self._reader.read_chunks(sample.path):
            self._sizes[sample.path] = (chunk.frames.shape[-2], chunk.frames.shape[-1])
            if within is not None:
                if chunk.frame_indices[0] >= within.stop:
                    break
                chunk = _only(chunk, within)
            if len(chunk.frames):
                chunks.append(replace(chunk, frames=self.preprocessing.resized(chunk.frames)))
        joined = {n: torch.cat([getattr(c, n) for c in chunks]) for n in ("frames", "frame_indices", "timestamps")}
        return Clip(**joined, path=chunks[0].path)


def _only(clip: Clip, within: range) -> Clip:
    """The frames of a clip that lie in a range of the source; maybe none."""
    kept = (clip.frame_indices >= within.start) & (clip.frame_indices < within.stop)
    return Clip(clip.frames[kept], clip.frame_indices[kept], clip.timestamps[kept], clip.path)
