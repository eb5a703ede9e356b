"""Small pictures of clips for lists, made once each and kept in memory."""

import threading
from functools import lru_cache

from stabn.data.segments import segment_frames
from stabn.data.video.reader import stream_clip
from stabn.studio.catalogue import Catalogue
from stabn.studio.viewer import encode_png

MAX_THUMBNAILS = 2000
SHORT_SIDE = 96


class Thumbnails:
    """One picture per clip: the middle one of the frames that the network saw, or the first if these are not known.

    Args:
        catalogue: the clips.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._cached_png = lru_cache(MAX_THUMBNAILS)(self._make_png)
        self._lock = threading.Lock()  # lists request dozens at once; decoding one at a time leaves CPU to the editor

    def png(self, clip_id: str) -> bytes:
        """The clip's picture as PNG.

        Raises:
            NotFoundError: there is no clip of that id.
            UserError: the video cannot be read.
        """
        with self._lock:
            return self._cached_png(clip_id)

    def _make_png(self, clip_id: str) -> bytes:
        clip = self.catalogue.clip(clip_id)
        if clip_id in self.catalogue.project_clips:
            indices = self.catalogue.project_clips[clip_id].frame_indices
            index = indices[len(indices) // 2]
        else:
            index = segment_frames(clip.path, clip.segment, clip_id)[0] if clip.segment else 0
        return encode_png(next(iter(stream_clip(clip.path, [index]))).frames[0], SHORT_SIDE)
