"""Video files of which some hang or crash their decoder; no torch, so that a process that decodes can load it."""

import ctypes
import os
import time
from collections.abc import Generator

from stabn.data.quality.inspect_video import Inspector
from stabn.data.video.backends import VideoFiles


class HangsOnSome(VideoFiles):
    """Video files of which those named hang-*.mp4 hang their decoder, and those named crash-*.mp4 crash it."""

    def sampled_frames(self, path: object) -> Generator:
        stumble(path)
        return super().sampled_frames(path)

    def frame_chunks(self, path: object, size: int) -> Generator:
        stumble(path)
        return super().frame_chunks(path, size)


class HangingInspector(Inspector):
    """Stumbles over the same files."""

    def inspect(self, path: object) -> dict:
        stumble(path)
        return super().inspect(path)


def stumble(path: object) -> None:
    """Hang or crash, by the file's name."""
    name = os.path.basename(str(path))
    if name.startswith("hang-"):
        time.sleep(3600)
    if name.startswith("crash-"):
        ctypes.string_at(0)
