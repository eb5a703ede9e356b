"""The state of one running studio."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stabn.errors import UserError
from stabn.records import Edit
from stabn.runs import Run
from stabn.studio.catalogue import Catalogue, CatalogueClip
from stabn.studio.jobs.manager import JobManager
from stabn.studio.storage.edits_file import EditsFile
from stabn.studio.storage.events import Store
from stabn.studio.thumbnails import Thumbnails
from stabn.studio.viewer import Viewer


@dataclass(frozen=True, eq=False)
class Studio:
    """The state of one running studio.

    Attributes:
        run: the run whose mistakes are corrected.
        catalogue: the clips.
        viewer: opens clips: their frames and what the network answers.
        thumbnails: small pictures of the clips.
        store: the edits, as events.
        edits_file: the project's edits.jsonl, synchronised with the store.
        jobs: fine-tuning.
        uploads: the folder of uploaded videos.
        max_upload: bytes of an uploaded video at most.
    """

    run: Run
    catalogue: Catalogue
    viewer: Viewer
    thumbnails: Thumbnails
    store: Store
    edits_file: EditsFile
    jobs: JobManager
    uploads: Path
    max_upload: int

    def ensure_queued(self, clip: CatalogueClip) -> None:
        """Add the clip to the queue unless it is there, so that its edits are kept.

        Raises:
            UserError: edits of this clip are not kept, its video cannot be read, or is another file than before.
        """
        if clip.read_only_reason is not None:
            raise UserError(f"{clip.name}: {clip.read_only_reason}")
        if clip.clip_id not in self.catalogue.project_clips:
            self.catalogue.add_to_queue(clip, self.viewer.open(clip).prediction)
        else:
            self.catalogue.check_file(clip.clip_id)

    def edits(self) -> tuple[Edit, ...]:
        """Everybody's current edits of clips in the queue and their frames, in the order of their last change."""
        clips = self.catalogue.project_clips
        return tuple(
            edit
            for edit in self.store.current()
            if edit.clip_id in clips and edit.frame_indices == clips[edit.clip_id].frame_indices
        )

    def queue_shared_clips(self) -> None:
        """Add the training clips that a colleague with the same database has corrected and this project lacks."""
        for clip_id in {edit.clip_id for edit in self.store.current()} - set(self.catalogue.project_clips):
            if clip_id in self.catalogue.samples:
                clip = self.catalogue.clip(clip_id)
                if clip.read_only_reason is None:
                    with suppress(UserError):  # the video cannot be read here; `EditsFile.left_out` has its edits
                        self.ensure_queued(clip)
