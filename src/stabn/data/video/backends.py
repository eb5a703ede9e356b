"""Which library decodes: PyAV always, and torchcodec, where it loads, for what PyAV has found to be sound.

Both give the same frames of usual files, bit by bit; of others (rotated, interlaced, more than 8 bits, odd sizes, a
variable rate) they were seen to give different ones, and those are left to PyAV. torchcodec seeks, so that it is faster
where few frames of many are wanted, but it shows damaged files as if nothing were wrong. So PyAV decodes every file
first, from its beginning to its end, and torchcodec takes over when the same unchanged file is read again.

Nothing here loads torch before torchcodec is used.
"""

import os
from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from stabn.data.video import decode as decoding
from stabn.data.video.decode import Picture, Sampled, VideoInfo
from stabn.errors import UserError

Decoder = Literal["auto", "pyav", "torchcodec", "cuda"]
"""auto is torchcodec where it loads, and else PyAV alone; cuda is torchcodec on the GPU, whose colours are rounded
otherwise; torchcodec and cuda refuse to work without it."""

_REMEMBERED = 2**18
"""Files of which is known that they are sound, some 50 MB of them; those used longest ago are forgotten."""


@dataclass(frozen=True, slots=True)
class _Sound:
    """A usual file of a steady rate that PyAV has decoded without a complaint."""

    size: int
    mtime_ns: int
    count: int
    step: float  # seconds from frame to frame


class VideoFiles:
    """Video files as pictures, read in this process.

    Args:
        decoder: which library.

    Raises:
        UserError: torchcodec is asked for and does not load.
    """

    def __init__(self, decoder: Decoder = "auto") -> None:
        self.decoder = decoder
        self._sound: OrderedDict[str, _Sound] = OrderedDict()
        self._seeks = decoder != "pyav" and find_spec("torchcodec") is not None
        if decoder in ("torchcodec", "cuda"):
            fault = torchcodec_fault()
            if fault is not None:
                raise UserError(f"--loader.decoder: got {decoder}, but {fault}; give auto, `stabn doctor` tells more")

    def probe(self, path: Path | str) -> VideoInfo:
        """As `stabn.data.video.decode.probe`."""
        return decoding.probe(path)

    def pictures(self, path: Path | str, indices: Sequence[int]) -> list[Picture]:
        """The frames of these numbers, each once.

        Raises:
            UserError: as `stabn.data.video.decode.pictures`.
        """
        known = self._known(path)
        found = None if known is None else self._sought(path, known, indices)
        return list(decoding.pictures(path, indices)) if found is None else found

    def sampled(self, path: Path | str) -> Generator[int | list[Picture], Sequence[int], None]:
        """In two steps: yields how many frames there are, then those whose numbers were sent.

        Raises:
            UserError: as `stabn.data.video.decode.Sampled`.
        """
        known = self._known(path)
        if known is not None:
            indices = yield known.count
            found = self._sought(path, known, indices)
            # PyAV, too, reads no further than to the last of them
            yield list(decoding.pictures(path, indices)) if found is None else found
            return
        sampled = Sampled(path)
        self._remember(path, sampled)
        indices = yield sampled.count
        yield sampled.pictures(indices)

    def chunks(self, path: Path | str, size: int) -> Generator[list[Picture]]:
        """As `stabn.data.video.decode.chunks`."""
        return decoding.chunks(path, size)

    def _known(self, path: Path | str) -> _Sound | None:
        known = self._sound.get(os.fspath(path))
        if known is None:
            return None
        status = decoding.file_status(Path(path))
        return known if (status.st_size, status.st_mtime_ns) == (known.size, known.mtime_ns) else None

    def _remember(self, path: Path | str, sampled: Sampled) -> None:
        steps = np.diff(sampled.seconds)
        if not sampled.usual or not len(steps) or steps.min() < 0.9 * steps.max():
            return
        status = decoding.file_status(Path(path))
        step = float(sampled.seconds[-1]) / len(steps)
        self._sound[os.fspath(path)] = _Sound(status.st_size, status.st_mtime_ns, sampled.count, step)
        if len(self._sound) > _REMEMBERED:
            self._sound.popitem(last=False)

    def _sought(self, path: Path | str, known: _Sound, indices: Sequence[int]) -> list[Picture] | None:
        """What torchcodec gives; None, and never again for this file, where it is not what PyAV has found."""
        wanted = sorted(set(indices))
        if wanted[-1] >= known.count:
            raise decoding.out_of_range(path, indices, known.count)
        if not self._seeks:
            return None
        try:
            pixels, seconds, count = torchcodec_frames(path, wanted, "cuda" if self.decoder == "cuda" else "cpu")
        except Exception:  # noqa: BLE001 -- whatever it cannot do, PyAV has done already
            count, seconds = -1, np.empty(0)
        if count != known.count or np.abs(seconds - known.step * np.array(wanted)).max() > known.step / 2:
            del self._sound[os.fspath(path)]
            return None
        return [Picture(*each) for each in zip(wanted, pixels, seconds.tolist(), strict=True)]


def torchcodec_fault() -> str | None:
    """Why torchcodec cannot be used here, in a few words; None where it can."""
    if find_spec("torchcodec") is None:
        return "torchcodec is not installed"
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"torchcodec does not load ({lines[0] if lines else type(error).__name__})"
    return None


def torchcodec_frames(path: Path | str, indices: Sequence[int], device: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Some frames by torchcodec, sought with the exact positions of all of them.

    Args:
        path: a video file.
        indices: T ascending frames.
        device: cpu or cuda.

    Returns:
        (T, H, W, 3) uint8 RGB; (T,) float64, seconds since the first frame; and how many frames the file has.
    """
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(os.fspath(path), dimension_order="NHWC", device=device, seek_mode="exact")
    found = decoder.get_frames_at(list(indices))
    seconds = found.pts_seconds.cpu().numpy() - float(decoder.metadata.begin_stream_seconds)
    return found.data.cpu().numpy(), seconds, int(decoder.metadata.num_frames)
