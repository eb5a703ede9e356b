"""Every clip that can be opened, by id. Ids come from requests: they are looked up here and never become paths."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from stabn.data.dataset import Sample, Table
from stabn.data.segments import Segment
from stabn.data.video.reader import Reader
from stabn.edits.changed_files import file_difference
from stabn.edits.clip_files import describe_file
from stabn.edits.project import ARRAYS, Project, ProjectClip, add_clip
from stabn.errors import UserError
from stabn.records import Record
from stabn.studio.not_found import NotFoundError

ORDER = (
    "Confident mistakes first: the more the network preferred its wrong answer to the true class, the more there is "
    "to correct."
)


@dataclass(frozen=True, eq=False)
class ClipPrediction:
    """What the network answers for one clip with its own attention.

    Attributes:
        probabilities: (K,) float32, softmax of the perception branch.
        attention_probabilities: (K,) float32 likewise of the attention branch; None where that was not recorded.
        temporal: (T,) float32 in 0..1.
        spatial: (T, h, w) float32 in 0..1, over the crop.
        frame_indices: (T,) int64, counted from 0 in the source file.
        timestamps: (T,) float64, seconds since the first frame of the file.
        crop: (left, top, right, bottom) of the network's view, fractions of the frame.
    """

    probabilities: np.ndarray
    attention_probabilities: np.ndarray | None
    temporal: np.ndarray
    spatial: np.ndarray
    frame_indices: np.ndarray
    timestamps: np.ndarray
    crop: tuple[float, float, float, float]


@dataclass(frozen=True)
class CatalogueClip:
    """A clip that can be opened.

    Attributes:
        clip_id: its id in the data set; for an upload, an id that the studio made.
        name: its name on the page.
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
    def read_only_reason(self) -> str | None:
        """Why edits of this clip are not kept; None if they are."""
        if self.source == "upload":
            return "This video is not part of the training data, so nothing that you paint is kept."
        if self.split != "train":
            return "Validation clips measure the network; correcting them would bias the measure, so nothing is kept."
        return None


@dataclass(frozen=True)
class QueuedClip:
    """A clip of the queue.

    Attributes:
        clip: the project's clip.
        confidence: the network's probability of the class that it predicted.
        label_probability: its probability of the true class.
    """

    clip: ProjectClip
    confidence: float
    label_probability: float


class Catalogue:
    """The clips of an edit project, of its run's data set, and uploads.

    Args:
        project: the edit project.
        table: the run's labelled videos, with the network's class names.

    Attributes:
        samples: the labelled videos, by clip id.
        project_clips: the clips of the project, by clip id, in the project's order.
        queue: the same, confident mistakes first.
        uploads: the uploaded videos by clip id, the oldest first.

    Raises:
        UserError: the project does not fit the table, or is damaged.
    """

    def __init__(self, project: Project, table: Table) -> None:
        self.class_names = table.class_names
        self.samples: Mapping[str, Sample] = {sample.clip_id: sample for sample in table.samples}
        self.uploads: dict[str, CatalogueClip] = {}
        self._checked: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._set_project(project)

    def _set_project(self, project: Project) -> None:
        self.project = project
        self.project_clips = {clip.clip_id: clip for clip in project.clips}
        for clip_id in self.project_clips:
            if clip_id not in self.samples:
                raise UserError(
                    f"{project.folder}: clip {clip_id!r} is not in the run's data; give the run it was collected "
                    "from, or its data with --data.annotations"
                )
        self.queue = sorted(self._read_queue(), key=lambda queued: queued.label_probability - queued.confidence)

    def clip(self, clip_id: str) -> CatalogueClip:
        """Look up a clip.

        Raises:
            NotFoundError: there is no clip of that id.
        """
        if clip_id in self.uploads:
            return self.uploads[clip_id]
        if clip_id not in self.samples:
            raise NotFoundError("There is no such clip; go back to the queue.")
        sample = self.samples[clip_id]
        # The path comes from the data, not the project: the videos may have moved since it was collected.
        source: Literal["queue", "data"] = "queue" if clip_id in self.project_clips else "data"
        label = self.class_names[sample.label]
        return CatalogueClip(clip_id, clip_id, sample.path, label, sample.split, source, sample.segment)

    def add_upload(self, clip_id: str, name: str, path: Path) -> None:
        """Add an uploaded video."""
        self.uploads[clip_id] = CatalogueClip(clip_id, name, path, None, None, "upload")

    def recorded_prediction(self, clip_id: str) -> ClipPrediction | None:
        """What the network answered when the clip was collected; None for a clip that is not in the queue."""
        clip = self.project_clips.get(clip_id)
        if clip is None:
            return None
        row = list(self.project_clips).index(clip_id)
        with safe_open(self.project.folder / "attention.safetensors", "numpy") as file:
            arrays = {name: file.get_slice(name)[row] for name in ("probabilities", "temporal", "spatial")}
        return ClipPrediction(
            **arrays,
            attention_probabilities=None,
            frame_indices=np.array(clip.frame_indices, np.int64),
            timestamps=np.array(clip.timestamps),
            crop=clip.crop,
        )

    def add_to_queue(self, clip: CatalogueClip, prediction: ClipPrediction) -> None:
        """Add a training clip that was not collected, so that its edits are kept.

        Raises:
            UserError: the project cannot be written.
        """
        with self._lock:
            if clip.clip_id in self.project_clips:
                return
            record = Record(
                clip_id=clip.clip_id,
                path=str(clip.path.resolve()),
                class_names=self.class_names,
                label=self.samples[clip.clip_id].label,
                **vars(prediction),
            )
            try:
                indices = prediction.frame_indices.tolist()
                file = describe_file(clip.path, indices, clip.segment, Reader(timeout=0))
                project = add_clip(self.project, record, file)
            except (OSError, SafetensorError) as error:
                raise UserError(f"{self.project.folder}: cannot be written ({error}); free some disk space") from None
            self._set_project(project)

    def check_file(self, clip_id: str) -> None:
        """Check that a clip of the queue is in the file in which it was collected; repeated until the file changes.

        Raises:
            UserError: it is in another one, where its frames may lie at other times.
        """
        sample = self.samples[clip_id]
        try:
            status = os.stat(sample.path)
            state = (status.st_size, status.st_mtime_ns)
            if self._checked.get(clip_id) == state:
                return
            difference = file_difference(self.project_clips[clip_id], sample, Reader(timeout=0))
        except (OSError, UserError):
            return  # edits of a video that is away are kept; fine-tuning checks it again
        if difference is not None:
            raise UserError(
                f"{sample.path}: is not the file in which clip {clip_id!r} was collected: it {difference}; put that "
                "file back, or collect again"
            )
        self._checked[clip_id] = state

    def _read_queue(self) -> list[QueuedClip]:
        source = self.project.folder / "attention.safetensors"
        clips = self.project.clips
        class_indices = {name: index for index, name in enumerate(self.class_names)}
        try:
            with safe_open(source, "numpy") as file:
                probabilities = file.get_tensor("probabilities")
                rows = min(file.get_slice(name).get_shape()[0] for name in ARRAYS)
            if rows < len(clips):
                raise ValueError(f"{rows} rows for {len(clips)} clips")
            unknown = {name for clip in clips for name in (clip.predicted, clip.label)} - set(class_indices)
            if unknown:
                raise ValueError(f"the network has no class {min(unknown)!r}")
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(f"{source}: is damaged ({error}); collect the project again with `stabn collect`") from None
        return [
            QueuedClip(clip, float(row[class_indices[clip.predicted]]), float(row[class_indices[clip.label]]))
            for clip, row in zip(clips, probabilities, strict=False)  # rows beyond the clips do not count
        ]
