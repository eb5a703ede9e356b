"""Inspect one video file by decoding all of it. Imports no torch, as it runs in processes that decode."""

import hashlib
import statistics
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from av.video.reformatter import VideoReformatter

from stabn.data.video.decode import decode
from stabn.data.video.file_check import file_status

_THUMBNAIL = 32  # pixels a side; videos whose thumbnails are all equal have the same content
_STEADY = 0.1  # largest deviation of a step from the median one, as a share of it
_ROUNDED = 0.0015  # seconds; deviations up to here come from Matroska's milliseconds


class Inspector:
    """Inspects video files; the process that decodes holds one."""

    def inspect(self, path: Path | str) -> dict[str, Any]:
        """Decode a file from beginning to end and describe it.

        Returns:
            {"bytes": SHA-256 of the file, "pictures": SHA-256 of its frames as thumbnails, equal for a copy in another
            container, "frames", "announced": number of frames in the container's header or None, "width", "height",
            "seconds": time of the last frame, "times": times of all frames if their rate is variable, else None}.

        Raises:
            UserError: it cannot be read.
        """
        pictures, times, reformatter = hashlib.sha256(), [], VideoReformatter()
        with closing(decode(path)) as frames:
            for item in frames:
                times.append(item.seconds)
                small = reformatter.reformat(
                    item.frame, _THUMBNAIL, _THUMBNAIL, "gray", interpolation="AREA", threads=1
                )
                pictures.update(small.to_ndarray().tobytes())
        return {
            "bytes": self.digest(path),
            "pictures": pictures.hexdigest(),
            "frames": len(times),
            "announced": item.frames or None,
            "width": item.display.width,
            "height": item.display.height,
            "seconds": round(times[-1], 6),
            "times": [round(time, 6) for time in times] if has_variable_rate(times) else None,
        }

    def digest(self, path: Path | str) -> str:
        """SHA-256 of a file.

        Raises:
            UserError: it cannot be read.
        """
        file_status(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def has_variable_rate(times: list[float]) -> bool:
    """Whether the steps between frames differ by more than a tenth of the median step, and by more than rounding.

    Args:
        times: when each frame appears, in seconds, ascending.
    """
    steps = [after - before for before, after in pairwise(times)]
    if not steps:
        return False
    median = statistics.median(steps)
    return max(abs(step - median) for step in steps) > max(_STEADY * median, _ROUNDED)
