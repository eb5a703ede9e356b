"""Routes for looking: the queue, the data set, one clip, its frames, what-if, and uploads."""

import asyncio
import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from stabn.data.video.clip import probe
from stabn.edits.agreement import alpha
from stabn.errors import UserError
from stabn.records import Edit
from stabn.studio.catalogue import ORDER, Entry
from stabn.studio.session import Studio

KEPT_UPLOADS = 4
MOST_PIXELS = 30_000_000_000  # about eight minutes of full HD
LARGEST = 8192 * 4320  # pixels of a frame; larger ones would take gigabytes while they are prepared

ClipId = Annotated[str, Query(alias="id", max_length=1000)]
Author = Annotated[str, Query(max_length=80)]
Scores = Annotated[list[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]], Field(max_length=4096)]


class Body(BaseModel):
    """What a request may say; anything else is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OneClip(Body):
    """Names a clip."""

    id: str = Field(max_length=1000)


class WhatIf(OneClip):
    """Another attention for a clip."""

    temporal: Literal["edited", "original", "inverse", "uniform"]
    spatial: Literal["original", "inverse", "uniform"]
    scores: Scores | None = None


def found(studio: Studio, clip_id: str) -> Entry:
    """The clip of that id, or the answer 404."""
    try:
        return studio.catalogue.entry(clip_id)
    except KeyError:
        raise HTTPException(404, "There is no such clip; go back to the queue.") from None


def clip_routes(studio: Studio) -> APIRouter:
    """The routes of a studio."""
    routes = APIRouter()
    catalogue, looking, store = studio.catalogue, studio.looking, studio.store

    def by_clip() -> dict[str, list[Edit]]:
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
            "frames": looking.model.frames,
            "people": store.people(),
            "use": store.use(),
            "max_upload_mb": studio.max_upload // 2**20,
            "store": store.kind,
            "version": store.version(),
        }

    @routes.get("/queue")
    def queue() -> dict[str, Any]:
        version, edits = store.version(), by_clip()
        clips = [
            {
                "id": queued.clip.clip_id,
                "label": queued.clip.label,
                "predicted": queued.clip.predicted,
                "confidence": round(queued.confidence, 4),
                "label_probability": round(queued.label_probability, 4),
                "correct": queued.clip.predicted == queued.clip.label,
                "edited_by": [edit.author for edit in edits[queued.clip.clip_id]],
                "updated": edits[queued.clip.clip_id][-1].time if edits[queued.clip.clip_id] else None,
            }
            for queued in catalogue.queue
        ]
        return {"order": ORDER, "version": version, "clips": clips}

    @routes.get("/data")
    def data(
        q: Annotated[str, Query(max_length=1000)] = "",
        split: str = "",
        label: str = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> dict[str, Any]:
        names, edits = catalogue.class_names, by_clip()
        samples = list(catalogue.samples.values())
        chosen = [
            sample
            for sample in samples
            if q.lower() in sample.clip_id.lower()
            and split in ("", sample.split)
            and label in ("", names[sample.label])
        ]
        return {
            "total": len(chosen),
            "splits": sorted({sample.split for sample in samples}),
            "labels": list(names),
            "clips": [
                {
                    "id": sample.clip_id,
                    "label": names[sample.label],
                    "split": sample.split,
                    "in_queue": sample.clip_id in catalogue,
                    "edited_by": [edit.author for edit in edits[sample.clip_id]],
                }
                for sample in chosen[offset : offset + limit]
            ],
        }

    @routes.get("/clip")
    def clip(clip_id: ClipId, author: Author = "") -> dict[str, Any]:
        entry = found(studio, clip_id)
        seen, version = studio.view(entry).seen, store.version()
        edits = store.current_of(clip_id)
        history = store.history(clip_id, author)
        return {
            "id": entry.clip_id,
            "name": entry.name,
            "label": entry.label,
            "split": entry.split,
            "source": entry.source,
            "editable": entry.why_not is None,
            "why_not": entry.why_not,
            "predicted": catalogue.class_names[int(seen.probabilities.argmax())],
            "probabilities": _rounded(seen.probabilities, 6),
            "frame_indices": seen.frame_indices.tolist(),
            "timestamps": _rounded(seen.timestamps, 6),
            "temporal": _rounded(seen.temporal, 6),
            "spatial": spatial_json(seen.spatial),
            "crop": list(seen.crop),
            "edits": [{"author": e.author, "scores": e.scores, "comment": e.comment, "time": e.time} for e in edits],
            "agreement": alpha(np.array([edit.scores for edit in edits])) if len(edits) > 1 else None,
            "history": {
                "scores": history.scores,
                "comment": history.comment,
                "done": history.done,
                "undone": history.undone,
                "event": history.event,
            },
            "version": version,
        }

    @routes.get("/frame")
    def frame(request: Request, clip_id: ClipId, position: int) -> Response:
        view = studio.view(found(studio, clip_id))
        try:
            return _picture(request, view.picture(position))
        except IndexError as error:
            raise HTTPException(404, str(error)) from None

    @routes.get("/thumbnail")
    def thumbnail(request: Request, clip_id: ClipId) -> Response:
        return _picture(request, studio.thumbnails.of(found(studio, clip_id)))

    @routes.post("/prefetch")
    def prefetch(asked: OneClip) -> dict[str, Any]:
        studio.view(found(studio, asked.id))
        return {}

    @routes.post("/what-if")
    def what_if(asked: WhatIf) -> dict[str, Any]:
        view = studio.view(found(studio, asked.id))
        temporal: str | list[float] = asked.temporal
        if asked.temporal == "edited":
            if asked.scores is None or len(asked.scores) != looking.model.frames:
                count = 0 if asked.scores is None else len(asked.scores)
                raise HTTPException(422, f"scores: got {count}, expected {looking.model.frames}, one per frame")
            temporal = asked.scores
        view.perceive  # noqa: B018 -- waiting for them is not part of the answer's time
        started = time.perf_counter()
        probabilities = looking.what_if(view, temporal, asked.spatial)
        milliseconds = 1000 * (time.perf_counter() - started)
        return {"probabilities": _rounded(probabilities, 6), "milliseconds": round(milliseconds, 2)}

    # However many are sent at once: the disk holds few, and the machine is left to those who paint.
    arriving, checking = asyncio.Semaphore(KEPT_UPLOADS), asyncio.Lock()

    @routes.post("/uploads")
    async def upload(request: Request, name: Annotated[str, Query(max_length=1000)] = "video") -> dict[str, Any]:
        clip_id = f"upload:{uuid4().hex}"
        # The name decides nothing: what the file is, decoding it tells.
        path = studio.uploads / uuid4().hex
        studio.uploads.mkdir(exist_ok=True)
        async with arriving:
            try:
                with path.open("wb") as file:
                    async for chunk in request.stream():
                        await run_in_threadpool(file.write, chunk)
                async with checking:
                    await _in_background(_check_video, path, name)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            catalogue.upload(clip_id, name, path)
            for old in catalogue.uploads()[:-KEPT_UPLOADS]:
                with suppress(HTTPException):  # somebody removes it just now
                    remove(old.clip_id)
        return {"id": clip_id, "name": name}

    @routes.delete("/uploads")
    def remove(clip_id: ClipId) -> dict[str, Any]:
        try:
            entry = catalogue.remove_upload(clip_id)
        except KeyError:
            raise HTTPException(404, "There is no such upload.") from None
        looking.forget(clip_id)
        entry.path.unlink(missing_ok=True)
        return {}

    return routes


def _check_video(path: Path, name: str) -> None:
    try:
        info = probe(path, MOST_PIXELS)
    except UserError as error:
        raise HTTPException(422, str(error).replace(str(path), name)) from None
    if info.width * info.height > LARGEST:
        raise HTTPException(422, f"{name}: has frames of {info.width}x{info.height} pixels; make it smaller")
    if info.num_frames < 2:
        raise HTTPException(422, f"{name}: is a picture, not a video; give a video file")


async def _in_background(call: Callable[..., None], *arguments: Any) -> None:
    """Wait for a call that may take minutes, in a thread of its own that does not keep the studio from ending."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            call(*arguments)
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 -- whoever waits gets it
            with suppress(InvalidStateError):  # nobody waits any more
                future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="checking an upload").start()
    await asyncio.wrap_future(future)


def _picture(request: Request, content: bytes) -> Response:
    """A PNG; a browser asks each time, because another project's clip may have the same address tomorrow."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": "private, no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/png", headers=headers)


def _rounded(values: np.ndarray, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]


def spatial_json(spatial: np.ndarray) -> dict[str, Any]:
    """Maps (T, h, w) as the page reads them."""
    frames, height, width = spatial.shape
    return {"frames": frames, "height": height, "width": width, "values": _rounded(spatial.ravel(), 5)}
