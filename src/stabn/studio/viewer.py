"""Opened clips: frames as pictures, what the network answers, and what it answers with another attention.

Encoding a clip is expensive and happens once; an edit only runs the perception branch again.
"""

import io
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stabn.data.dataset import ViewRecord
from stabn.data.segments import segment_frames
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import stream_clip
from stabn.engine.device import device_of
from stabn.errors import UserError
from stabn.evaluation.replaced_attention import ATTENTIONS
from stabn.nn import STABN, Attention, Perceiver
from stabn.nn.backbone import Features
from stabn.nn.fast_inference import for_inference
from stabn.studio.catalogue import CatalogueClip, ClipPrediction
from stabn.studio.not_found import NotFoundError
from stabn.training.kept_features import KeptViews

SHORT_SIDE = 480
"""Pixels of a picture's shorter side at most; smaller videos are sent at their own size."""


class OpenClip:
    """One clip that is being opened or is open. Reading a part waits until it is ready, or raises its error.

    Args:
        clip: which.
        frames: T.
        recorded: what the network answered earlier, if that was recorded.
    """

    def __init__(self, clip: CatalogueClip, frames: int, recorded: ClipPrediction | None) -> None:
        self.clip = clip
        self.recorded = recorded
        self._prediction: Future[ClipPrediction] = Future()
        self._perceiver: Future[Perceiver] = Future()
        self._pictures: tuple[Future[bytes], ...] = tuple(Future() for _ in range(frames))
        if recorded is not None:
            self._prediction.set_result(recorded)

    @property
    def prediction(self) -> ClipPrediction:
        """What the network answers.

        Raises:
            UserError: the video cannot be read.
        """
        return self._prediction.result()

    @property
    def perceiver(self) -> Perceiver:
        """Computes the logits for another attention, on the network's device; raises as `prediction`."""
        return self._perceiver.result()

    def picture(self, position: int) -> bytes:
        """The frame at a position 0..T-1 as PNG, its shorter side at most `SHORT_SIDE` pixels.

        Raises:
            NotFoundError: there is no such position.
            UserError: the video cannot be read.
        """
        if not 0 <= position < len(self._pictures):
            raise NotFoundError(f"position: got {position}, expected 0..{len(self._pictures) - 1}")
        return self._pictures[position].result()

    def size(self) -> int:
        """Bytes of the parts that are ready."""
        pictures = sum(len(picture.result()) for picture in self._pictures if _succeeded(picture))
        return pictures + (self._perceiver.result().nbytes if _succeeded(self._perceiver) else 0)

    def fail(self, error: BaseException) -> None:
        """Raise this error for everybody who waits for a part that is not ready."""
        parts: tuple[Future[Any], ...] = (*self._pictures, self._prediction, self._perceiver)
        for part in parts:
            with suppress(InvalidStateError):  # it is ready
                part.set_exception(error)


def _succeeded(part: Future[Any]) -> bool:
    return part.done() and part.exception() is None


class Viewer:
    """Opens clips in the background, the newest request first, and keeps as many as fit into memory.

    Args:
        model: a copy of it for inference is used, on a GPU if there is one.
        preprocessing: how videos are prepared for it.
        recorded: returns what the network answered earlier for a clip's id, if that was recorded; the same frames are
            shown then. It is called once when a clip is opened.
        kept: the features that training has kept, which are taken in place of running the extractor; those of other
            clips of the data set are added. None without any.
        memory: bytes that opened clips may take; the least recently used one is dropped first.
    """

    WORKERS = 2

    def __init__(
        self,
        model: STABN,
        preprocessing: Preprocessing,
        recorded: Callable[[str], ClipPrediction | None] = lambda clip_id: None,
        *,
        kept: KeptViews | None = None,
        memory: int = 2**30,
    ) -> None:
        device = device_of("auto")
        # float32 everywhere: the page shows these numbers beside results that were measured in float32
        self.model = for_inference(model, "32-true", device).to(device)
        self.preprocessing = preprocessing
        self.recorded = recorded
        self.kept = kept
        self.memory = memory
        self._clips: OrderedDict[str, OpenClip] = OrderedDict()
        self._requests: queue.LifoQueue[OpenClip | None] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._encoder_lock = threading.Lock()  # two encodings at once would take twice the memory and no less time
        for _ in range(self.WORKERS):
            threading.Thread(target=self._process_requests, daemon=True, name="opening clips").start()

    def open(self, clip: CatalogueClip) -> OpenClip:
        """Open a clip, unless it is open already; returns at once."""
        with self._lock:
            opened = self._clips.get(clip.clip_id)
            if opened is not None:
                self._clips.move_to_end(clip.clip_id)
                return opened
            opened = OpenClip(clip, self.model.frames, self.recorded(clip.clip_id))
            self._clips[clip.clip_id] = opened
            if self._closed:
                opened.fail(_closing_error())
            else:
                self._requests.put(opened)
        return opened

    def forget(self, clip_id: str) -> None:
        """Drop a clip from memory; waiting for a part of it raises UserError."""
        with self._lock:
            clip = self._clips.pop(clip_id, None)
        if clip is not None:
            clip.fail(UserError("this video was removed; upload it again"))

    def what_if(self, clip: OpenClip, temporal: str | Sequence[float], spatial: str) -> np.ndarray:
        """The class probabilities with another attention.

        Args:
            clip: the clip.
            temporal: "original", "inverse", "uniform", or T scores in 0..1.
            spatial: "original", "inverse" or "uniform".

        Returns:
            (K,) float32.

        Raises:
            ValueError: scores that are not T numbers in 0..1.
            UserError: the video cannot be read.
        """
        prediction, perceiver = clip.prediction, clip.perceiver
        device = self.model.device
        spatial_map, temporal_map = (
            torch.from_numpy(values)[None].to(device) for values in (prediction.spatial, prediction.temporal)
        )
        attention = _change_attention(Attention(spatial_map, temporal_map), "spatial", spatial)
        if isinstance(temporal, str):
            attention = _change_attention(attention, "temporal", temporal)
        else:
            attention = replace(attention, temporal=torch.tensor([list(temporal)]).to(attention.temporal))
        with torch.inference_mode():
            return _to_numpy(perceiver(attention).float().softmax(1))

    def close(self) -> None:
        """Stop the threads; waiting for a clip raises UserError."""
        with self._lock:
            self._closed = True
            for _ in range(self.WORKERS):
                self._requests.put(None)
            for clip in self._clips.values():
                clip.fail(_closing_error())

    def _process_requests(self) -> None:
        while (opened := self._requests.get()) is not None:
            try:
                self._read_and_predict(opened)
            except Exception as error:  # noqa: BLE001 -- raised where the clip is used; this thread goes on
                opened.fail(error)
                self.forget(opened.clip.clip_id)  # so that it can be opened again once the file is repaired
            self._free_memory()

    def _read_and_predict(self, opened: OpenClip) -> None:
        parameter = next(self.model.parameters())
        kept = None if self.kept is None else self.kept.get(opened.clip.clip_id, parameter)
        if kept is not None and (opened.recorded is None or _same_frames(kept[1], opened.recorded)):
            features, view = kept
            self._predict(opened, features, view)  # before the pictures, which nothing else waits for
            self._read(opened, list(view.frame_indices))
            return
        if opened.recorded is None:
            in_clip = segment_frames(opened.clip.path, opened.clip.segment, opened.clip.clip_id)
            indices = [in_clip[i] for i in self.preprocessing.sampling.for_testing(len(in_clip), 1)[0]]
        else:
            indices = opened.recorded.frame_indices.tolist()
        frames, view = self._read(opened, indices)
        clip_bcthw = self.preprocessing.centre_view(frames)[None]
        with self._encoder_lock, torch.inference_mode():
            features = self.model.encode(clip_bcthw.to(parameter.device, parameter.dtype))
        self._predict(opened, features, view)
        if self.kept is not None and kept is None:
            self.kept.add(opened.clip.clip_id, features, view)

    def _read(self, opened: OpenClip, indices: Sequence[int]) -> tuple[Tensor, ViewRecord]:
        """The resized frames of a clip and how its view is made; its pictures become ready one by one."""
        frames: dict[int, Tensor] = {}
        times: dict[int, float] = {}
        height = width = 0
        for frame in stream_clip(opened.clip.path, indices):
            index = int(frame.frame_indices)
            frames[index] = self.preprocessing.resized(frame.frames)
            times[index] = float(frame.timestamps)
            height, width = frame.frames.shape[2:]
            picture = encode_png(frame.frames[0])
            for part, wanted in zip(opened._pictures, indices, strict=True):
                if wanted == index:
                    part.set_result(picture)
        resized = torch.cat([frames[index] for index in indices])
        corner = self.preprocessing.centre_corner(resized)
        view = ViewRecord(tuple(indices), tuple(times[index] for index in indices), corner, False, (height, width))
        return resized, view

    def _predict(self, opened: OpenClip, features: Features, view: ViewRecord) -> None:
        with self._encoder_lock, torch.inference_mode():
            perceiver = self.model.perceiver(features)
            if opened.recorded is None:
                attention, attention_logits_bk = self.model.attend(features)
                prediction = ClipPrediction(
                    probabilities=_to_numpy(perceiver(attention).softmax(1)),
                    attention_probabilities=_to_numpy(attention_logits_bk.softmax(1)),
                    temporal=_to_numpy(attention.temporal),
                    spatial=_to_numpy(attention.spatial),
                    frame_indices=np.array(view.frame_indices, np.int64),
                    timestamps=np.array(view.timestamps),
                    crop=self.preprocessing.crop_box(*view.size),
                )
                opened._prediction.set_result(prediction)
        opened._perceiver.set_result(perceiver)

    def _free_memory(self) -> None:
        with self._lock:
            sizes = {clip_id: clip.size() for clip_id, clip in self._clips.items() if clip._perceiver.done()}
            newest = next(reversed(self._clips), None)
            excess = sum(sizes.values()) - self.memory
            for clip_id, size in sizes.items():
                if excess > 0 and clip_id != newest:
                    del self._clips[clip_id]
                    excess -= size


def _same_frames(view: ViewRecord, recorded: ClipPrediction) -> bool:
    return list(view.frame_indices) == recorded.frame_indices.tolist()


def _closing_error() -> UserError:
    return UserError("the studio is closing; start it again")


def _change_attention(attention: Attention, part: str, change: str) -> Attention:
    return ATTENTIONS["as-is" if change == "original" else f"{change}-{part}"](attention)


def _to_numpy(value: Tensor) -> np.ndarray:
    return value[0].float().cpu().numpy()


def encode_png(frame: Tensor, short_side: int = SHORT_SIDE) -> bytes:
    """Encode a frame as PNG.

    Args:
        frame: (3, H, W) uint8 RGB.
        short_side: pixels; frames with a longer shorter side are reduced to it.
    """
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    scale = short_side / min(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def round_values(values: np.ndarray, digits: int = 6) -> list[float]:
    """An array's numbers in C order, rounded for JSON."""
    return [round(float(value), digits) for value in values.ravel()]


def spatial_json(spatial: np.ndarray, digits: int = 5) -> dict[str, Any]:
    """Spatial attention (T, h, w) as the page reads it, its values in C order."""
    frames, height, width = spatial.shape
    return {"frames": frames, "height": height, "width": width, "values": round_values(spatial, digits)}
