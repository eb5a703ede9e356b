"""Files that took the place of those that were edited."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stabn.data.dataset import Sample
from stabn.data.segments import Segment
from stabn.data.video.clip import write_video
from stabn.data.video.reader import Reader
from stabn.edits.changed_files import file_difference
from stabn.edits.clip_files import ClipFile, describe_file
from stabn.edits.project import ProjectClip

FRAMES, FPS = 24, 10


def pictures(count: int, side: int = 64) -> torch.Tensor:
    """A white square that moves by two pixels a frame over a slope of grey, (count, 3, side, side) uint8."""
    frames = np.tile(np.linspace(40, 160, side).astype(np.uint8), (count, 3, side, 1))
    for number in range(count):
        left = (2 * number * side // 64) % (side - side // 4)
        frames[number, :, side // 4 : side // 2, left : left + side // 4] = 250
    return torch.from_numpy(frames)


def video(path: Path, frames: torch.Tensor, fps: int = FPS, crf: int = 18) -> Path:
    write_video(path, frames.permute(0, 2, 3, 1).contiguous().numpy(), fps, crf=crf)
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return video(tmp_path_factory.mktemp("original") / "a.mp4", pictures(FRAMES))


def edited(path: Path, segment: Segment | None = None) -> ProjectClip:
    indices = (4, 8, 12, 16)
    times = tuple(index / FPS for index in indices)
    file = describe_file(path, indices, segment, Reader(timeout=0))
    return ProjectClip("a", str(path), "x", "y", indices, times, (0.5,) * 4, (0.0, 0.0, 1.0, 1.0), file)


@pytest.mark.parametrize(
    ("frames", "fps", "told"),
    [
        (pictures(FRAMES), 40, "frame 4 at 0.100 s, and showed it at 0.400 s"),
        (pictures(FRAMES).repeat_interleave(4, 0), 40, "96 frames, and had 24"),
        (pictures(FRAMES - 2), FPS, "22 frames, and had 24"),
        (pictures(FRAMES, 32), FPS, "32x32 pixels, and was 64x64"),
        (pictures(FRAMES).flip(-1), FPS, "another picture in frame 4"),
        (pictures(FRAMES).roll(4, 0), FPS, "another picture in frame 4"),
    ],
    ids=["retimed", "40 fps", "shorter", "proxy", "mirrored", "begins earlier"],
)
def test_another_file_of_the_same_name_is_known_by_what_differs(frames, fps, told, original, tmp_path):
    sample = Sample("a", video(tmp_path / "a.mp4", frames, fps), 0, "train")
    difference = file_difference(edited(original), sample, Reader(timeout=0))
    assert difference is not None
    assert told in difference


def test_the_same_frames_encoded_again_or_beyond_the_segment_are_no_difference(original, tmp_path):
    clip = edited(original)
    again = Sample("a", video(tmp_path / "a.mp4", pictures(FRAMES), crf=35), 0, "train")
    assert file_difference(clip, again, Reader(timeout=0)) is None
    part = Segment(0.2, 2.0)
    longer = Sample("a", video(tmp_path / "b.mp4", pictures(FRAMES + 6)), 0, "train", part)
    assert file_difference(edited(original, part), longer, Reader(timeout=0)) is None


def test_clips_of_earlier_projects_are_known_by_their_times(original, tmp_path):
    clip = replace(edited(original), file=None)
    assert file_difference(clip, Sample("a", original, 0, "train"), Reader(timeout=0)) is None
    fast = Sample("a", video(tmp_path / "a.mp4", pictures(FRAMES), 40), 0, "train")
    assert "0.100 s" in str(file_difference(clip, fast, Reader(timeout=0)))


def test_what_is_remembered_survives_json_and_checks_itself(original):
    file = edited(original).file
    assert file is not None
    assert ClipFile.from_json(file.as_json()) == file
    assert list(file.thumbnails) == [4, 8, 12, 16]
    with pytest.raises(ValueError, match="thumbnails"):
        replace(file, thumbnails={4: "00"})
