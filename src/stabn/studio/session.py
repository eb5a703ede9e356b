"""What one running studio works with."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stabn.errors import UserError
from stabn.records import Edit
from stabn.runs import Run
from stabn.studio.catalogue import Catalogue, Entry
from stabn.studio.jobs.manager import Jobs
from stabn.studio.storage.edits_file import EditsFile
from stabn.studio.storage.events import Store
from stabn.studio.thumbnails import Thumbnails
from stabn.studio.viewer import Looking, View


@dataclass(frozen=True, eq=False)
class Studio:
    """Everything that one running studio works with.

    Attributes:
        run: whose mistakes are corrected.
        catalogue: the clips.
        looking: what the network saw in them.
        thumbnails: small pictures of them.
        store: the edits, as events.
        file: the project's edits.jsonl, kept in step with the store.
        jobs: fine-tuning.
        uploads: the folder for uploaded videos.
        max_upload: bytes.
    """

    run: Run
    catalogue: Catalogue
    looking: Looking
    thumbnails: Thumbnails
    store: Store
    file: EditsFile
    jobs: Jobs
    uploads: Path
    max_upload: int

    def view(self, entry: Entry) -> View:
        """The clip, opened."""
        return self.looking.open(entry.clip_id, entry.path, lambda: self.catalogue.known(entry.clip_id), entry.segment)

    def adopt(self, entry: Entry) -> None:
        """Make sure that the clip is in the queue, so that its edits count.

        Raises:
            UserError: edits of this clip are not kept, or its video cannot be read.
        """
        if entry.why_not is not None:
            raise UserError(f"{entry.name}: {entry.why_not}")
        if entry.clip_id not in self.catalogue:
            self.catalogue.adopt(entry, self.view(entry).seen)

    def edits(self) -> tuple[Edit, ...]:
        """Everybody's current edits of clips in the queue and their frames, in the order of their last change."""
        frames = self.catalogue.frame_indices
        return tuple(edit for edit in self.store.current() if edit.frame_indices == frames(edit.clip_id))

    def catch_up(self) -> None:
        """Adopt the training clips that a colleague with the same database has corrected and this project lacks."""
        for clip_id in {edit.clip_id for edit in self.store.current()} - set(self.catalogue.project_ids):
            if clip_id in self.catalogue.samples:
                entry = self.catalogue.entry(clip_id)
                if entry.why_not is None:
                    with suppress(UserError):  # a video that cannot be read here; `EditsFile.left_out` has its edits
                        self.adopt(entry)
