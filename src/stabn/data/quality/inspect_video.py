"""Statistics of one video from reading all of it. Imports no torch, as it runs in decoding processes."""

import hashlib
import statistics
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from av.video.reformatter import VideoReformatter

from stabn.data.video.decode import decode, file_status, upright_size

_THUMBNAIL = 32  # pixels a side; what is equal in all of them is the same film
_STEADY = 0.1  # of the usual step from frame to frame, and at least what Matroska's milliseconds make of it
_ROUNDED = 0.0015


class Inspector:
    """Reads video files from beginning to end."""

    def inspect(self, path: Path | str) -> dict[str, Any]:
        """What a file is.

        Returns:
            {"bytes": SHA-256 of the file, "pictures": of its frames reduced to thumbnails, which copies into another
            container share, "frames", "announced": frames that the container speaks of or None, "width", "height",
            "seconds": when the last frame appears, "times": when each does if they do so at no steady rate, else None}.

        Raises:
            UserError: it cannot be read.
        """
        path = Path(path)
        file_status(path)
        pictures, times, reformatter = hashlib.sha256(), [], VideoReformatter()
        with closing(decode(path)) as shown:
            for item in shown:
                times.append(item.seconds)
                small = reformatter.reformat(
                    item.frame, _THUMBNAIL, _THUMBNAIL, "gray", interpolation="AREA", threads=1
                )
                pictures.update(small.to_ndarray().tobytes())
        width, height = upright_size(item.frame)
        return {
            "bytes": self.digest(path),
            "pictures": pictures.hexdigest(),
            "frames": len(times),
            "announced": item.announced.frames or None,
            "width": width,
            "height": height,
            "seconds": round(times[-1], 6),
            "times": [round(time, 6) for time in times] if is_variable(times) else None,
        }

    def digest(self, path: Path | str) -> str:
        """SHA-256 of a file.

        Raises:
            UserError: it cannot be read.
        """
        file_status(Path(path))
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def is_variable(times: list[float]) -> bool:
    """Whether some frames are on show longer than others, by more than a tenth and more than rounding does.

    Args:
        times: when each frame appears, in seconds, ascending.
    """
    steps = [after - before for before, after in pairwise(times)]
    if not steps:
        return False
    usual = statistics.median(steps)
    return max(abs(step - usual) for step in steps) > max(_STEADY * usual, _ROUNDED)
