"""What FFmpeg shows of a file when nobody tells it to be careful; no torch, so that a guard's process can load it."""

import hashlib
from pathlib import Path

import av

from stabn.errors import UserError


class Plain:
    """Decodes as most programs do: an error ends it, and whatever comes before the end is shown."""

    def frames(self, path: Path | str) -> tuple[int, str]:
        """How many frames there are, and SHA-256 of their RGB values.

        Raises:
            UserError: FFmpeg has complained.
        """
        digest, count = hashlib.sha256(), 0
        try:
            with av.open(str(path)) as container:
                for frame in container.decode(video=0):
                    digest.update(frame.to_ndarray(format="rgb24").tobytes())
                    count += 1
        except Exception as error:  # noqa: BLE001 -- a damaged file makes PyAV raise nearly anything
            raise UserError(f"{path}: {error}") from None
        return count, digest.hexdigest()
