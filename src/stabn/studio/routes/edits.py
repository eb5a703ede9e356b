"""Routes for edits: changes, people, the choice of what fine-tuning uses, export and import."""

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, Field, StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from stabn.edits.agreement import measure_agreement
from stabn.edits.formats import FORMATS, EditFormat
from stabn.edits.merge import AUTHOR
from stabn.errors import UserError
from stabn.records import Edit, utc_now
from stabn.studio.routes.clips import ClipRequest, RequestBody, Scores
from stabn.studio.session import Studio
from stabn.studio.storage.events import EditChange, check_author

Author = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(check_author)]
FormatName = Annotated[str, Query(max_length=40)]


class EditRequest(ClipRequest):
    """A change of an author's edit of a clip."""

    author: Author
    request: str = Field(pattern="^[A-Za-z0-9_-]{8,64}$")
    kind: Literal["paint", "undo", "redo", "clear"]
    scores: Scores | None
    comment: str = Field(default="", max_length=2000)


class UseRequest(RequestBody):
    """What fine-tuning makes of several people's edits."""

    use: str = Field(max_length=100)
    author: Author


def edit_routes(studio: Studio) -> APIRouter:
    """The routes for edits."""
    routes = APIRouter()
    catalogue, store = studio.catalogue, studio.store

    @routes.post("/edit")
    def edit(body: EditRequest) -> dict[str, Any]:
        studio.ensure_queued(catalogue.clip(body.id))
        clip = catalogue.project_clips[body.id]
        try:
            change = EditChange(
                clip_id=clip.clip_id,
                frame_indices=clip.frame_indices,
                timestamps=clip.timestamps,
                scores=None if body.scores is None else tuple(body.scores),
                time=utc_now(),
                **body.model_dump(exclude={"id", "scores"}),
            )
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        number = store.append(change)
        studio.edits_file.request_push()
        return {"event": number, "version": store.version()}

    @routes.get("/changes")
    def changes(since: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        version = store.version()
        clips = store.changed_clips(since) if version > since else ()
        if any(clip_id not in catalogue.project_clips for clip_id in clips):
            studio.queue_shared_clips()
        if clips:
            studio.edits_file.request_push()  # the changes may come from a colleague's studio
        problem, left_out = studio.edits_file.problem, len(studio.edits_file.left_out)
        if problem is None and left_out:
            problem = f"{left_out} corrections are of clips that this project does not have, and are left out here."
        return {"version": version, "clips": clips, "use": store.use(), "problem": problem}

    @routes.get("/people")
    def people() -> dict[str, Any]:
        edits, names = studio.edits(), store.people()
        labels = {clip_id: clip.label for clip_id, clip in catalogue.project_clips.items()}
        agreement = measure_agreement(edits, labels)
        counts = Counter(edit.author for edit in edits)
        authors: dict[str, list[str]] = defaultdict(list)
        for edit in edits:
            authors[edit.clip_id].append(edit.author)
        shared = {clip_id: of_clip for clip_id, of_clip in authors.items() if len(of_clip) > 1}
        by_class = Counter(labels[clip_id] for clip_id in shared)
        return {
            "people": [{"name": name, "clips": counts[name]} for name in names],
            "agreement": {
                "project": agreement.project,
                "classes": [
                    {"label": label, "alpha": agreement.classes.get(label), "clips": count}
                    for label, count in sorted(by_class.items())
                ],
                "clips": [
                    {"id": clip_id, "label": labels[clip_id], "alpha": agreement.clips.get(clip_id), "people": of_clip}
                    for clip_id, of_clip in shared.items()
                ],
            },
            "use": store.use(),
            "choices": ["latest", "mean", "median", *(f"{AUTHOR}{name}" for name in names)],
        }

    @routes.put("/use")
    def use(request: UseRequest) -> dict[str, Any]:
        name = request.use.removeprefix(AUTHOR)
        if name != request.use and name not in store.people():
            raise UserError(f"use: got {request.use!r}, but {name!r} has made no edit; choose one of the people")
        store.set_use(request.use, request.author)
        return {"use": store.use()}

    @routes.get("/export")
    def export(format: FormatName) -> Response:
        edit_format = _find_format(format)
        name = f"edits-{datetime.now(UTC):%Y%m%d-%H%M%S}{edit_format.suffix}"
        edits = studio.edits()  # before the clips are read: one may join the queue meanwhile
        text = edit_format.write(edits, catalogue.project_clips)
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(text.encode(), media_type=edit_format.media_type, headers=headers)

    @routes.post("/import")
    async def import_file(
        request: Request, format: FormatName, name: Annotated[str, Query(max_length=1000)] = "the file"
    ) -> dict[str, Any]:
        return await run_in_threadpool(import_text, await request.body(), _find_format(format), name)

    def import_text(content: bytes, edit_format: EditFormat, name: str) -> dict[str, Any]:
        try:
            edits = edit_format.read(content.decode("utf-8-sig"), name, catalogue.project_clips)
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: is not UTF-8 text ({error}); save it as UTF-8") from None
        current: dict[tuple[str, str], Edit] = {(edit.clip_id, edit.author): edit for edit in store.current()}
        changes = []
        for edit in edits:
            previous = current.get((edit.clip_id, edit.author))
            if previous is None or (previous.scores, previous.comment) != (edit.scores, edit.comment):
                current[edit.clip_id, edit.author] = edit
                try:
                    changes.append(EditChange.importing(edit))
                except ValueError as error:
                    raise UserError(f"{name}: {error}") from None
        store.append_all(changes)
        studio.edits_file.request_push()
        return {"imported": len(changes), "unchanged": len(edits) - len(changes)}

    return routes


def _find_format(name: str) -> EditFormat:
    if name not in FORMATS:
        raise HTTPException(422, f"format: got {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
