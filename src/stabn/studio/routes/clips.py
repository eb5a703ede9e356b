"""Routes for clips: the queue, the data set, one clip, its frames, what-if, and uploads."""

import asyncio
import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from stabn.data.video.reader import probe
from stabn.edits.agreement import krippendorff_alpha
from stabn.errors import UserError
from stabn.explain.drawing import COLOUR_SCALES, attention_colour
from stabn.records import Edit
from stabn.studio.catalogue import ORDER
from stabn.studio.not_found import NotFoundError
from stabn.studio.session import Studio
from stabn.studio.viewer import round_values, spatial_json

MAX_UPLOADS = 4
MAX_VIDEO_PIXELS = 30_000_000_000  # about eight minutes of full HD
MAX_FRAME_PIXELS = 8192 * 4320  # preparing larger frames would take gigabytes

ClipId = Annotated[str, Query(alias="id", max_length=1000)]
Scores = Annotated[list[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]], Field(max_length=4096)]


class RequestBody(BaseModel):
    """The body of a request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ClipRequest(RequestBody):
    """The id of a clip."""

    id: str = Field(max_length=1000)


class WhatIfRequest(ClipRequest):
    """Another attention for a clip."""

    temporal: Literal["edited", "original", "inverse", "uniform"]
    spatial: Literal["original", "inverse", "uniform"]
    scores: Scores | None = None


def clip_routes(studio: Studio) -> APIRouter:
    """The routes for clips."""
    routes = APIRouter()
    catalogue, viewer, store = studio.catalogue, studio.viewer, studio.store

    def edits_by_clip() -> dict[str, list[Edit]]:
        groups: dict[str, list[Edit]] = defaultdict(list)
        for edit in store.current():
            groups[edit.clip_id].append(edit)
        return groups

    @routes.get("/session")
    def session() -> dict[str, Any]:
        return {
            "run": str(studio.run.folder),
            "project": str(catalogue.project.folder),
            "class_names": catalogue.class_names,
            "frames": viewer.model.frames,
            "people": store.people(),
            "use": store.use(),
            "max_upload_mb": studio.max_upload // 2**20,
            "store": store.kind,
            "version": store.version(),
            "colours": {name: attention_colour(np.linspace(0, 1, 256), name).tolist() for name in COLOUR_SCALES},
        }

    @routes.get("/queue")
    def queue() -> dict[str, Any]:
        version, groups = store.version(), edits_by_clip()
        clips = []
        for queued in catalogue.queue:
            clip, edits = queued.clip, groups[queued.clip.clip_id]
            clips.append(
                {
                    "id": clip.clip_id,
                    "label": clip.label,
                    "predicted": clip.predicted,
                    "confidence": round(queued.confidence, 4),
                    "label_probability": round(queued.label_probability, 4),
                    "correct": clip.predicted == clip.label,
                    "edited_by": [edit.author for edit in edits],
                    "updated": edits[-1].time if edits else None,
                }
            )
        return {"order": ORDER, "version": version, "clips": clips}

    @routes.get("/data")
    def data(
        q: Annotated[str, Query(max_length=1000)] = "",
        split: str = "",
        label: str = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> dict[str, Any]:
        names, groups = catalogue.class_names, edits_by_clip()
        samples = list(catalogue.samples.values())
        matching = [
            sample
            for sample in samples
            if q.lower() in sample.clip_id.lower()
            and split in ("", sample.split)
            and label in ("", names[sample.label])
        ]
        return {
            "total": len(matching),
            "splits": sorted({sample.split for sample in samples}),
            "labels": list(names),
            "clips": [
                {
                    "id": sample.clip_id,
                    "label": names[sample.label],
                    "split": sample.split,
                    "in_queue": sample.clip_id in catalogue.project_clips,
                    "edited_by": [edit.author for edit in groups[sample.clip_id]],
                }
                for sample in matching[offset : offset + limit]
            ],
        }

    @routes.get("/clip")
    def clip(clip_id: ClipId, author: Annotated[str, Query(max_length=80)] = "") -> dict[str, Any]:
        clip = catalogue.clip(clip_id)
        prediction, version = viewer.open(clip).prediction, store.version()
        edits = store.current(clip_id)
        return {
            "id": clip.clip_id,
            "name": clip.name,
            "label": clip.label,
            "split": clip.split,
            "source": clip.source,
            "editable": clip.read_only_reason is None,
            "why_not": clip.read_only_reason,
            "predicted": catalogue.class_names[int(prediction.probabilities.argmax())],
            "probabilities": round_values(prediction.probabilities),
            "frame_indices": prediction.frame_indices.tolist(),
            "timestamps": round_values(prediction.timestamps),
            "temporal": round_values(prediction.temporal),
            "spatial": spatial_json(prediction.spatial),
            "crop": list(prediction.crop),
            "edits": [{"author": e.author, "scores": e.scores, "comment": e.comment, "time": e.time} for e in edits],
            "agreement": krippendorff_alpha(np.array([edit.scores for edit in edits])) if len(edits) > 1 else None,
            "history": vars(store.history(clip_id, author)),
            "version": version,
        }

    @routes.get("/frame")
    def frame(request: Request, clip_id: ClipId, position: int) -> Response:
        return _png_response(request, viewer.open(catalogue.clip(clip_id)).picture(position))

    @routes.get("/thumbnail")
    def thumbnail(request: Request, clip_id: ClipId) -> Response:
        return _png_response(request, studio.thumbnails.png(clip_id))

    @routes.post("/prefetch")
    def prefetch(request: ClipRequest) -> dict[str, Any]:
        viewer.open(catalogue.clip(request.id))
        return {}

    @routes.post("/what-if")
    def what_if(request: WhatIfRequest) -> dict[str, Any]:
        clip = viewer.open(catalogue.clip(request.id))
        temporal: str | list[float] = request.temporal
        if temporal == "edited":
            temporal = request.scores or []
            if len(temporal) != viewer.model.frames:
                raise HTTPException(422, f"scores: got {len(temporal)}, expected {viewer.model.frames}, one per frame")
        clip.perceiver  # noqa: B018 -- opening the clip is not part of the measured time
        started = time.perf_counter()
        probabilities = viewer.what_if(clip, temporal, request.spatial)
        milliseconds = 1000 * (time.perf_counter() - started)
        return {"probabilities": round_values(probabilities), "milliseconds": round(milliseconds, 2)}

    # However many uploads arrive at once, few take disk space and one is decoded, so that the editor stays fast.
    upload_slots, check_lock = asyncio.Semaphore(MAX_UPLOADS), asyncio.Lock()

    @routes.post("/uploads")
    async def upload(request: Request, name: Annotated[str, Query(max_length=1000)] = "video") -> dict[str, Any]:
        clip_id = f"upload:{uuid4().hex}"
        # The name's suffix is not trusted: decoding decides whether the file is a video.
        path = studio.uploads / uuid4().hex
        studio.uploads.mkdir(exist_ok=True)
        async with upload_slots:
            try:
                with path.open("wb") as file:
                    async for chunk in request.stream():
                        await run_in_threadpool(file.write, chunk)
                async with check_lock:
                    await _run_in_daemon_thread(_check_video, path, name)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            catalogue.add_upload(clip_id, name, path)
            for old in list(catalogue.uploads)[:-MAX_UPLOADS]:
                with suppress(NotFoundError):
                    remove(old)
        return {"id": clip_id, "name": name}

    @routes.delete("/uploads")
    def remove(clip_id: ClipId) -> dict[str, Any]:
        clip = catalogue.uploads.pop(clip_id, None)
        if clip is None:
            raise NotFoundError("There is no such upload.")
        viewer.forget(clip_id)
        clip.path.unlink(missing_ok=True)
        return {}

    return routes


def _check_video(path: Path, name: str) -> None:
    try:
        info = probe(path, MAX_VIDEO_PIXELS)
    except UserError as error:
        raise HTTPException(422, str(error).replace(str(path), name)) from None
    if info.width * info.height > MAX_FRAME_PIXELS:
        raise HTTPException(422, f"{name}: has frames of {info.width}x{info.height} pixels; make it smaller")
    if info.num_frames < 2:
        raise HTTPException(422, f"{name}: is a picture, not a video; give a video file")


async def _run_in_daemon_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    """Await a call that may take minutes; its thread does not keep the process from ending."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(call(*arguments))
        except BaseException as error:  # noqa: BLE001 -- raised where the future is awaited
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="checking an upload").start()
    return await asyncio.wrap_future(future)


def _png_response(request: Request, content: bytes) -> Response:
    """A PNG that the browser revalidates each time, because another project's clip may have the same address."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": "private, no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/png", headers=headers)
