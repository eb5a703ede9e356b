"""Whether the clips of an edit project are still in the files in which people saw them."""

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from stabn.data.dataset import Sample
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import Reader
from stabn.edits.clip_files import describe_file
from stabn.edits.project import Project, ProjectClip
from stabn.errors import UserError
from stabn.records import Edit

logger = logging.getLogger(__name__)

Changed = Literal["fail", "skip", "keep"]
_SECONDS = 0.005
"""How far a frame's time may lie from the remembered one: containers round to milliseconds."""


def file_difference(
    clip: ProjectClip, sample: Sample, reader: Reader, preprocessing: Preprocessing | None = None
) -> str | None:
    """How a clip's present file differs from the one in which the clip was collected or edited; None if in nothing.

    A file that was encoded again passes if its frames, their times, size and pictures are the same.

    Args:
        clip: of an edit project. Of clips of early versions only the sampled frames, their times and the view are
            known.
        sample: where its video is now.
        reader: reads it.
        preprocessing: of the network, to compare the frames and the view that it would read now.

    Raises:
        UserError: the file cannot be read at all.
    """
    last, num_frames = max(clip.frame_indices), None
    if sample.segment is None:
        info = reader.probe(sample.path)
        num_frames, times = info.num_frames, info.timestamps
        if clip.file is not None and clip.file.frames not in (None, num_frames):
            return f"has {num_frames} frames, and had {clip.file.frames}"
        if last >= num_frames:
            return f"has {num_frames} frames, and frame {last} was read"
        now = {i: times[i] for i in clip.frame_indices}
    else:
        seconds_of_frames = reader.frame_times(sample.path, count=last + 1)
        if last >= len(seconds_of_frames):
            return f"has {len(seconds_of_frames)} frames, and frame {last} was read"
        now = {i: float(seconds_of_frames[i]) for i in clip.frame_indices}
    for index, seconds in zip(clip.frame_indices, clip.timestamps, strict=True):
        if abs(now[index] - seconds) > _SECONDS:
            return f"shows frame {index} at {now[index]:.3f} s, and showed it at {seconds:.3f} s"
    present = describe_file(sample.path, clip.frame_indices, sample.segment, reader)
    if clip.file is not None:
        return clip.file.difference(present)
    if preprocessing is None:
        return None
    if num_frames is not None:
        sampled = preprocessing.sampling.for_testing(num_frames, 1)[0]
        if tuple(sampled) != clip.frame_indices:
            return f"has {num_frames} frames, of which the network reads others than when the clip was collected"
    view = preprocessing.crop_box(present.height, present.width)
    if max(abs(a - b) for a, b in zip(view, clip.crop, strict=True)) > 1e-3:
        return f"is {present.width}x{present.height} pixels, of which the network sees another part than it saw"
    return None


def changed_files(
    clips: Iterable[ProjectClip], samples: Mapping[str, Sample], preprocessing: Preprocessing | None = None
) -> Iterator[tuple[str, str]]:
    """Name the clips whose file is not the one that was edited, or cannot be read.

    Args:
        clips: of an edit project; those that are not among the samples are not checked.
        samples: where the videos are now, by clip id.
        preprocessing: as for `file_difference`.

    Yields:
        The clip's id, and what is wrong, with the file's name.
    """
    known = [clip for clip in clips if clip.clip_id in samples]
    with closing(Reader()) as reader:
        for clip in tqdm(known, desc="comparing files", unit=" clips", delay=2, disable=None, leave=False):
            sample = samples[clip.clip_id]
            if not os.path.exists(sample.path):
                continue  # counted and named as every missing video is
            try:
                difference = file_difference(clip, sample, reader, preprocessing)
            except UserError as error:
                yield clip.clip_id, str(error)
                continue
            if difference is not None:
                yield (
                    clip.clip_id,
                    f"{sample.path}: is not the file of clip {clip.clip_id!r} that was edited: it {difference}",
                )


def check_edit_times(edits: Iterable[Edit], project: Project, source: Path) -> None:
    """Check that edits from elsewhere have the times of the project's frames: else they were made on other files.

    Raises:
        UserError: one has others.
    """
    clips = {clip.clip_id: clip for clip in project.clips}
    for edit in edits:
        known = clips[edit.clip_id].timestamps
        for index, theirs, ours in zip(edit.frame_indices, edit.timestamps, known, strict=True):
            if abs(theirs - ours) > _SECONDS:
                raise UserError(
                    f"{source}: {edit.author} edited frame {index} of clip {edit.clip_id!r} at {theirs:.3f} s, which "
                    f"is at {ours:.3f} s in {project.folder}: the files differ; leave this edit out"
                )


def usable_clips(
    project: Project,
    clips: Collection[ProjectClip],
    samples: Mapping[str, Sample],
    preprocessing: Preprocessing | None,
    changed: Changed = "fail",
) -> frozenset[str]:
    """The ids of the clips whose edits can be used; a line is logged for every clip whose file is another one.

    Args:
        project: for the message.
        clips, samples, preprocessing: as for `changed_files`.
        changed: what becomes of clips whose file is another one; keep uses them as they are.

    Raises:
        UserError: there are such clips, and they are neither to be skipped nor kept, or no other is left.
    """
    ids = {clip.clip_id for clip in clips}
    others = set()
    for clip_id, message in changed_files(clips, samples, preprocessing):
        logger.warning("%s", message)
        others.add(clip_id)
    if others and (changed == "fail" or (changed == "skip" and others == ids)):
        raise UserError(
            f"{project.folder}: {len(others)} of {len(ids)} clips are in other files than were edited; put the edited "
            "files back, or fine-tune with --changed skip to leave these clips out, or keep if only the size differs"
        )
    return frozenset(ids - others if changed == "skip" else ids)
