"""Small pictures of clips for lists, made once each and kept in memory."""

import threading
from collections import OrderedDict

from stabn.data.segments import frames_of
from stabn.data.video.clip import stream_clip
from stabn.studio.catalogue import Catalogue, Entry
from stabn.studio.viewer import as_png

KEPT = 2000
SHORT_SIDE = 96


class Thumbnails:
    """One picture per clip: the middle one of the frames that the network saw, or the first where that is unknown.

    Args:
        catalogue: the clips.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()  # lists ask for dozens at once; one decoder leaves the machine to the editor

    def of(self, entry: Entry) -> bytes:
        """The clip's picture as PNG.

        Raises:
            UserError: the video cannot be read.
        """
        with self._lock:
            picture = self._kept.get(entry.clip_id)
            if picture is None:
                indices = self.catalogue.frame_indices(entry.clip_id)
                if indices:
                    middle = indices[len(indices) // 2]
                else:
                    middle = frames_of(entry.path, entry.segment, entry.clip_id)[0] if entry.segment else 0
                picture = as_png(next(iter(stream_clip(entry.path, [middle]))).frames[0], SHORT_SIDE)
                self._kept[entry.clip_id] = picture
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(entry.clip_id)
            return picture
