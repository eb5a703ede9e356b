"""Routes for correcting: edits, people, the choice of what fine-tuning uses, export and import."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from stabn.edits.agreement import agreement
from stabn.edits.formats import FORMATS
from stabn.edits.merge import AUTHOR
from stabn.errors import UserError
from stabn.records import Edit, now
from stabn.studio.routes.clips import Body, Scores, found
from stabn.studio.session import Studio
from stabn.studio.storage.events import Change, check_author

Person = Annotated[str, Field(min_length=1, max_length=80)]


class EditChange(Body):
    """One change of a person's edit of a clip."""

    id: str = Field(max_length=1000)
    author: Person
    request: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")
    kind: Literal["paint", "undo", "redo", "clear"]
    scores: Scores | None
    comment: str = Field(default="", max_length=2000)


class Use(Body):
    """What fine-tuning makes of several people's edits."""

    use: str = Field(max_length=100)
    author: Person


def edit_routes(studio: Studio) -> APIRouter:
    """The routes of a studio."""
    routes = APIRouter()
    catalogue, store = studio.catalogue, studio.store

    @routes.post("/edit")
    def edit(change: EditChange) -> dict[str, Any]:
        entry = found(studio, change.id)
        studio.adopt(entry)
        clip = catalogue.clip(change.id)
        assert clip is not None
        frames = len(clip.frame_indices)
        if change.scores is not None and len(change.scores) != frames:
            raise HTTPException(422, f"scores: got {len(change.scores)}, expected {frames}, one per frame")
        event = store.append(
            _valid(
                Change,
                request=change.request,
                kind=change.kind,
                clip_id=change.id,
                frame_indices=clip.frame_indices,
                timestamps=clip.timestamps,
                scores=None if change.scores is None else tuple(change.scores),
                author=person(change.author),
                time=now(),
                comment=change.comment,
            )
        )
        studio.file.soon()
        return {"event": event, "version": store.version()}

    def problem() -> str | None:
        left_out = len(studio.file.left_out)
        if studio.file.problem is None and left_out:
            return f"{left_out} corrections are of clips that this project does not have, and are left out here."
        return studio.file.problem

    @routes.get("/changes")
    def changes(since: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        version = store.version()
        clips = store.changed(since) if version > since else ()
        if any(clip_id not in catalogue for clip_id in clips):
            studio.catch_up()
        if clips:
            studio.file.soon()  # they may come from a colleague's studio
        return {"version": version, "clips": clips, "use": store.use(), "problem": problem()}

    @routes.get("/people")
    def people() -> dict[str, Any]:
        edits = studio.edits()
        labels = {clip.clip_id: clip.label for clip in catalogue.project.clips}
        found_agreement = agreement(edits, labels)
        by_person: dict[str, int] = dict.fromkeys(store.people(), 0)
        by_clip: dict[str, list[str]] = {}
        by_class: dict[str, int] = {}
        for edit in edits:
            by_person[edit.author] = by_person.get(edit.author, 0) + 1
            by_clip.setdefault(edit.clip_id, []).append(edit.author)
        shared = {clip_id: names for clip_id, names in by_clip.items() if len(names) > 1}
        for clip_id in shared:
            by_class[labels[clip_id]] = by_class.get(labels[clip_id], 0) + 1
        return {
            "people": [{"name": name, "clips": count} for name, count in by_person.items()],
            "agreement": {
                "project": found_agreement.project,
                "classes": [
                    {"label": label, "alpha": found_agreement.classes.get(label), "clips": count}
                    for label, count in sorted(by_class.items())
                ],
                "clips": [
                    {"id": clip_id, "label": labels[clip_id], "alpha": found_agreement.clips.get(clip_id), "people": p}
                    for clip_id, p in shared.items()
                ],
            },
            "use": store.use(),
            "choices": ["latest", "mean", "median", *(f"author:{name}" for name in by_person)],
        }

    @routes.put("/use")
    def use(choice: Use) -> dict[str, Any]:
        name = choice.use.removeprefix(AUTHOR)
        if name != choice.use and name not in store.people():
            raise UserError(f"use: got {choice.use!r}, but {name!r} has made no edit; choose one of the people")
        store.set_use(choice.use, person(choice.author))
        return {"use": store.use()}

    @routes.get("/export")
    def export(format: Annotated[str, Query(max_length=40)]) -> Response:
        form = _format(format)
        name = f"edits-{datetime.now(UTC):%Y%m%d-%H%M%S}{form.suffix}"
        edits = studio.edits()  # first: a clip may join the queue meanwhile
        text = form.write(edits, {clip.clip_id: clip for clip in catalogue.project.clips})
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(text.encode(), media_type=form.media_type, headers=headers)

    @routes.post("/import")
    async def take_in(
        request: Request,
        format: Annotated[str, Query(max_length=40)],
        name: Annotated[str, Query(max_length=1000)] = "the file",
    ) -> dict[str, Any]:
        form = _format(format)
        body = await request.body()

        def read() -> tuple[Edit, ...]:
            clips = {clip.clip_id: clip for clip in catalogue.project.clips}
            try:
                return form.read(body.decode("utf-8-sig"), name, clips)
            except UnicodeDecodeError as error:
                raise UserError(f"{name}: is not UTF-8 text ({error}); save it as UTF-8") from None

        edits = await run_in_threadpool(read)
        return await run_in_threadpool(store_all, edits)

    def store_all(edits: tuple[Edit, ...]) -> dict[str, Any]:
        current = {(edit.clip_id, edit.author): edit for edit in store.current()}
        fresh = []
        for edit in edits:
            before = current.get((edit.clip_id, edit.author))
            if before is None or (before.scores, before.comment) != (edit.scores, edit.comment):
                current[edit.clip_id, edit.author] = edit
                fresh.append(_valid(Change.importing, edit))
        store.append_all(fresh)
        studio.file.soon()
        return {"imported": len(fresh), "unchanged": len(edits) - len(fresh)}

    return routes


def person(name: str) -> str:
    """A person's name without spaces around it, or the answer 422."""
    _valid(check_author, name.strip())
    return name.strip()


def _valid(make: Callable[..., Any], *arguments: Any, **fields: Any) -> Any:
    try:
        return make(*arguments, **fields)
    except UserError:
        raise
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


def _format(name: str) -> Any:
    if name not in FORMATS:
        raise HTTPException(422, f"format: got {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
