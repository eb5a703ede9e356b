"""Clips that people look at: frames as pictures, what the network saw, and what it answers with another attention.

Encoding a clip is the expensive part and happens once; an edit runs `perceive` again, and nothing else.
"""

import io
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stabn.data.segments import Segment, frames_of
from stabn.data.transforms import Preprocessing
from stabn.data.video.clip import stream_clip
from stabn.engine.device import device_of
from stabn.errors import UserError
from stabn.evaluation.predict import ATTENTIONS
from stabn.nn import STABN, Attention, Perceiver
from stabn.nn.fast_inference import quick

SHORT_SIDE = 480
"""Pixels of a picture's shorter side at most; smaller videos are sent as they are."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network answered for one clip with its own attention.

    Attributes:
        probabilities: (K,) float32, softmax of the perception branch.
        attention_probabilities: (K,) float32 likewise of the attention branch; None where that was not recorded.
        temporal: (T,) float32 in 0..1.
        spatial: (T, h, w) float32 in 0..1, over the crop.
        frame_indices: (T,) int64, counted from 0 in the source file.
        timestamps: (T,) float64, seconds since the first frame of the file.
        crop: (left, top, right, bottom) of the network's view, fractions of the frame.
    """

    probabilities: np.ndarray
    attention_probabilities: np.ndarray | None
    temporal: np.ndarray
    spatial: np.ndarray
    frame_indices: np.ndarray
    timestamps: np.ndarray
    crop: tuple[float, float, float, float]


class View:
    """One opened clip. Its parts arrive one after the other; whoever asks waits for the part, or gets its error."""

    def __init__(self, path: Path, frames: int, known: Seen | None = None, segment: Segment | None = None) -> None:
        self.path = path
        self.segment = segment
        self.known = known
        self._seen: Future[Seen] = Future()
        self._perceive: Future[Perceiver] = Future()
        self._pictures: tuple[Future[bytes], ...] = tuple(Future() for _ in range(frames))
        if known is not None:
            self._seen.set_result(known)

    @property
    def seen(self) -> Seen:
        """What the network answered.

        Raises:
            UserError: the video cannot be read.
        """
        return self._seen.result()

    @property
    def perceive(self) -> Perceiver:
        """What the network answers with another attention, on its device; raises as `seen`."""
        return self._perceive.result()

    def picture(self, position: int) -> bytes:
        """The frame at a position 0..T-1 as PNG, without loss, at most `SHORT_SIDE` high or wide.

        Raises:
            IndexError: there is no such position.
            UserError: the video cannot be read.
        """
        if not 0 <= position < len(self._pictures):
            raise IndexError(f"position: got {position}, expected 0..{len(self._pictures) - 1}")
        return self._pictures[position].result()

    @property
    def done(self) -> bool:
        """Whether everything has arrived, or never will."""
        return self._perceive.done()

    def size(self) -> int:
        """Bytes that the arrived parts take."""
        pictures = {id(p): len(p.result()) for p in self._pictures if p.done() and p.exception() is None}
        perceive = self._perceive
        arrived = perceive.done() and perceive.exception() is None
        return sum(pictures.values()) + (perceive.result().nbytes if arrived else 0)

    def fail(self, error: BaseException) -> None:
        """Give everybody who waits for what has not arrived this error."""
        parts: tuple[Future[Any], ...] = (*self._pictures, self._seen, self._perceive)
        for part in parts:
            with suppress(InvalidStateError):  # it has arrived
                part.set_exception(error)


class Looking:
    """Opens clips in the background, the newest request first, and keeps as many as fit into memory.

    Args:
        model: a copy of it that only answers is used, on a GPU where there is one.
        preprocessing: how videos are prepared for it.
        memory: bytes that opened clips may take; the one used longest ago leaves first.
    """

    WORKERS = 2

    def __init__(self, model: STABN, preprocessing: Preprocessing, *, memory: int = 2**30) -> None:
        device = device_of("auto")
        # float32 everywhere: what people see here stands beside answers that were measured in it
        self.model = quick(model, "32-true", device).to(device)
        self.preprocessing = preprocessing
        self.memory = memory
        self._views: OrderedDict[str, View] = OrderedDict()
        self._waiting: queue.LifoQueue[tuple[str, View] | None] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._encoding = threading.Lock()  # two encodings at once would take twice the memory and no less time
        for _ in range(self.WORKERS):
            threading.Thread(target=self._work, daemon=True, name="opening clips").start()

    def open(
        self,
        clip_id: str,
        path: Path,
        known: Callable[[], Seen | None] = lambda: None,
        segment: Segment | None = None,
    ) -> View:
        """The view of a clip, opened now if it is not open yet; returns at once.

        Args:
            clip_id: what to remember it by.
            path: the video.
            known: what the network answered, if that was recorded; then the same frames are shown. It is asked for
                only when the clip is opened, not each time somebody looks at it.
            segment: the part of the video that is the clip; None for all of it.
        """
        with self._lock:
            view = self._views.get(clip_id)
            if view is not None:
                self._views.move_to_end(clip_id)
                return view
            view = self._views[clip_id] = View(path, self.model.frames, known(), segment)
            if self._closed:
                view.fail(_closing())
            else:
                self._waiting.put((clip_id, view))
        return view

    def forget(self, clip_id: str) -> None:
        """Drop a clip from memory; who waits for a part of it is told so."""
        with self._lock:
            view = self._views.pop(clip_id, None)
        if view is not None:
            view.fail(UserError("this video was removed; upload it again"))

    def what_if(self, view: View, temporal: str | Sequence[float], spatial: str) -> np.ndarray:
        """The probabilities that the network gives with another attention.

        Args:
            view: the clip.
            temporal: "original", "inverse", "uniform", or T scores in 0..1.
            spatial: "original", "inverse" or "uniform".

        Returns:
            (K,) float32.

        Raises:
            ValueError: another word, or scores that are not T numbers in 0..1.
            UserError: the video cannot be read.
        """
        seen, perceive = view.seen, view.perceive
        device = self.model.fc.weight.device
        attention = Attention(
            torch.from_numpy(seen.spatial)[None].to(device), torch.from_numpy(seen.temporal)[None].to(device)
        )
        attention = _changed(attention, "spatial", spatial)
        if isinstance(temporal, str):
            attention = _changed(attention, "temporal", temporal)
        else:
            attention = replace(attention, temporal=torch.tensor([list(temporal)]).to(attention.temporal))
        with torch.inference_mode():
            logits_bk = perceive(attention)
        return logits_bk[0].float().softmax(0).cpu().numpy()

    def close(self) -> None:
        """Let the threads end; who waits for a clip is told so."""
        with self._lock:
            self._closed = True
            for _ in range(self.WORKERS):
                self._waiting.put(None)
            for view in self._views.values():
                view.fail(_closing())

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            clip_id, view = job
            try:
                self._open(view)
            except Exception as error:  # noqa: BLE001 -- whoever waits gets it; the thread goes on
                view.fail(error)
                self.forget(clip_id)  # so that a mended file can be opened again
            self._make_room()

    def _open(self, view: View) -> None:
        indices = self._indices(view)
        frames: dict[int, Tensor] = {}
        times: dict[int, float] = {}
        for one in stream_clip(view.path, indices):
            index = int(one.frame_indices)
            frames[index] = self.preprocessing.resized(one.frames)
            times[index] = float(one.timestamps)
            height, width = one.frames.shape[2:]
            picture = as_png(one.frames[0])
            for position, wanted in enumerate(indices):
                if wanted == index:
                    view._pictures[position].set_result(picture)
        clip = self.preprocessing.centre_view(torch.cat([frames[index] for index in indices]))[None]
        parameter = next(self.model.parameters())
        with self._encoding, torch.inference_mode():
            features = self.model.encode(clip.to(parameter.device, parameter.dtype))
            perceive = self.model.perceiver(features)
            if view.known is None:
                attention, attention_logits_bk = self.model.attend(features)
                logits_bk = perceive(attention)
                view._seen.set_result(
                    Seen(
                        probabilities=_numbers(logits_bk.softmax(1)),
                        attention_probabilities=_numbers(attention_logits_bk.softmax(1)),
                        temporal=_numbers(attention.temporal),
                        spatial=_numbers(attention.spatial),
                        frame_indices=np.array(indices, np.int64),
                        timestamps=np.array([times[index] for index in indices]),
                        crop=self.preprocessing.crop_box(height, width),
                    )
                )
        view._perceive.set_result(perceive)

    def _indices(self, view: View) -> list[int]:
        if view.known is not None:
            return [int(index) for index in view.known.frame_indices]
        within = frames_of(view.path, view.segment, view.path.stem)
        return [within[index] for index in self.preprocessing.sampling.for_testing(len(within), 1)[0]]

    def _make_room(self) -> None:
        with self._lock:
            sizes = {clip_id: view.size() for clip_id, view in self._views.items() if view.done}
            newest = next(reversed(self._views), None)
            for clip_id, size in list(sizes.items()):
                if sum(sizes.values()) <= self.memory:
                    break
                if clip_id != newest:
                    del self._views[clip_id]
                    sizes[clip_id] -= size


def _closing() -> UserError:
    return UserError("the studio is closing; start it again")


def _changed(attention: Attention, which: str, how: str) -> Attention:
    name = "as-is" if how == "original" else f"{how}-{which}"
    if name not in ATTENTIONS:
        raise ValueError(f"{which}: got {how!r}, expected original, inverse or uniform")
    return ATTENTIONS[name](attention)


def _numbers(value: Tensor) -> np.ndarray:
    return value[0].float().cpu().numpy()


def as_png(frame: Tensor, short_side: int = SHORT_SIDE) -> bytes:
    """A frame as PNG.

    Args:
        frame: (3, H, W) uint8 RGB.
        short_side: frames with a longer shorter side are reduced to it.
    """
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    scale = short_side / min(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=1)
    return buffer.getvalue()
