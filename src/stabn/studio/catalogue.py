"""Every clip that can be opened, by id. Ids come from requests: they are looked up here and never become paths."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from stabn.data.dataset import Sample, Table
from stabn.data.segments import Segment
from stabn.edits.project import ARRAYS, Project, ProjectClip, adopt
from stabn.errors import UserError
from stabn.records import Record
from stabn.studio.viewer import Seen

ORDER = (
    "Confident mistakes first: the more the network preferred its wrong answer to the true class, the more there is "
    "to correct."
)


@dataclass(frozen=True)
class Entry:
    """A clip that can be opened.

    Attributes:
        clip_id: its name in the data set; of an upload, a name that the studio made.
        name: what people call it.
        path: the video file.
        label: the true class, or None for an upload.
        split: train or validation, or None for an upload.
        source: whether it is in the queue, only in the data set, or an upload.
        segment: the part of the file that is the clip; None for all of it.
    """

    clip_id: str
    name: str
    path: Path
    label: str | None
    split: str | None
    source: Literal["queue", "data", "upload"]
    segment: Segment | None = None

    @property
    def why_not(self) -> str | None:
        """Why edits of this clip are not kept; None for those that are."""
        if self.source == "upload":
            return "This video is not part of the training data, so nothing that you paint is kept."
        if self.split != "train":
            return "Validation clips measure the network; correcting them would spoil the measure, so nothing is kept."
        return None


@dataclass(frozen=True)
class Queued:
    """A clip of the queue.

    Attributes:
        clip: the project's clip.
        confidence: the network's probability of its own answer.
        label_probability: its probability of the true class.
    """

    clip: ProjectClip
    confidence: float
    label_probability: float

    @property
    def worth(self) -> float:
        """What the queue is sorted by."""
        return self.confidence - self.label_probability


class Catalogue:
    """The clips of an edit project, of the data set behind it, and uploads.

    Args:
        project: the edit project.
        table: the run's labelled videos, with the network's class names.
    """

    def __init__(self, project: Project, table: Table) -> None:
        self.project = project
        self.class_names = table.class_names
        self._samples: Mapping[str, Sample] = {sample.clip_id: sample for sample in table.samples}
        self._uploads: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._read()

    def _read(self) -> None:
        self._rows = {clip.clip_id: row for row, clip in enumerate(self.project.clips)}
        strangers = [clip_id for clip_id in self._rows if clip_id not in self._samples]
        if strangers:
            raise UserError(
                f"{self.project.folder}: clip {strangers[0]!r} is not in the run's data; give the run it was "
                "collected from, or its data with --data.annotations"
            )
        self.queue = sorted(self._queued(), key=lambda queued: -queued.worth)

    @property
    def samples(self) -> Mapping[str, Sample]:
        """The labelled videos, by clip id."""
        return self._samples

    @property
    def project_ids(self) -> tuple[str, ...]:
        """The ids of the clips in the queue, in the project's order."""
        return tuple(self._rows)

    def __contains__(self, clip_id: str) -> bool:
        """Whether the clip is in the queue."""
        return clip_id in self._rows

    def entry(self, clip_id: str) -> Entry:
        """The clip of that id.

        Raises:
            KeyError: there is none.
        """
        uploaded = self._uploads.get(clip_id)
        if uploaded is not None:
            return uploaded
        sample = self._samples[clip_id]
        # The path is the data's, not the project's: the videos may have moved since it was collected.
        source: Literal["queue", "data"] = "queue" if clip_id in self._rows else "data"
        label = self.class_names[sample.label]
        return Entry(clip_id, clip_id, sample.path, label, sample.split, source, sample.segment)

    def upload(self, clip_id: str, name: str, path: Path) -> Entry:
        """Take in an uploaded video."""
        entry = self._uploads[clip_id] = Entry(clip_id, name, path, None, None, "upload")
        return entry

    def uploads(self) -> list[Entry]:
        """The uploaded videos, the oldest first."""
        return list(self._uploads.values())

    def remove_upload(self, clip_id: str) -> Entry:
        """Forget an uploaded video.

        Raises:
            KeyError: there is none of that id.
        """
        return self._uploads.pop(clip_id)

    def clip(self, clip_id: str) -> ProjectClip | None:
        """The clip of the queue of that id, or None."""
        row = self._rows.get(clip_id)
        return None if row is None else self.project.clips[row]

    def frame_indices(self, clip_id: str) -> tuple[int, ...]:
        """The source frames of a clip of the queue; empty for others."""
        clip = self.clip(clip_id)
        return () if clip is None else clip.frame_indices

    def known(self, clip_id: str) -> Seen | None:
        """What the network answered when the clip was collected; None for a clip that is not in the queue."""
        row = self._rows.get(clip_id)
        if row is None:
            return None
        clip = self.project.clips[row]
        with safe_open(self.project.folder / "attention.safetensors", "numpy") as file:
            probabilities, temporal, spatial = (
                file.get_slice(name)[row] for name in ("probabilities", "temporal", "spatial")
            )
        return Seen(
            probabilities=probabilities,
            attention_probabilities=None,
            temporal=temporal,
            spatial=spatial,
            frame_indices=np.array(clip.frame_indices, np.int64),
            timestamps=np.array(clip.timestamps),
            crop=clip.crop,
        )

    def adopt(self, entry: Entry, seen: Seen) -> None:
        """Put a training clip into the queue that was not collected, because somebody corrects it.

        Raises:
            ValueError: its edits are not to be kept.
            UserError: the project cannot be written.
        """
        with self._lock:
            if entry.clip_id in self._rows:
                return
            if entry.why_not is not None or seen.attention_probabilities is None:
                raise ValueError(f"{entry.clip_id}: got a clip that cannot be adopted, expected a fresh training clip")
            record = Record(
                clip_id=entry.clip_id,
                path=str(entry.path.resolve()),
                class_names=self.class_names,
                probabilities=seen.probabilities,
                attention_probabilities=seen.attention_probabilities,
                temporal=seen.temporal,
                spatial=seen.spatial,
                frame_indices=seen.frame_indices,
                timestamps=seen.timestamps,
                crop=seen.crop,
                label=self._samples[entry.clip_id].label,
            )
            try:
                self.project = adopt(self.project, record)
            except (OSError, SafetensorError) as error:
                raise UserError(f"{self.project.folder}: cannot be written ({error}); make room there") from None
            self._read()

    def _queued(self) -> list[Queued]:
        source = self.project.folder / "attention.safetensors"
        count = len(self.project.clips)
        number = {name: index for index, name in enumerate(self.class_names)}
        try:
            with safe_open(source, "numpy") as file:
                probabilities = file.get_tensor("probabilities")
                rows = min(file.get_slice(name).get_shape()[0] for name in ARRAYS)
            if rows < count:
                raise ValueError(f"{rows} rows for {count} clips")
            strangers = {name for clip in self.project.clips for name in (clip.predicted, clip.label)} - set(number)
            if strangers:
                raise ValueError(f"the network has no class {min(strangers)!r}")
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(f"{source}: is damaged ({error}); collect the project again with `stabn collect`") from None
        return [
            Queued(
                clip,
                confidence=float(probabilities[row, number[clip.predicted]]),
                label_probability=float(probabilities[row, number[clip.label]]),
            )
            for row, clip in enumerate(self.project.clips)
        ]
