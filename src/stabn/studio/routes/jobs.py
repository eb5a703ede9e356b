"""Routes for fine-tuning: start, watch, cancel, go on, and what came of it."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.exceptions import HTTPException

from stabn.studio.routes.clips import Body
from stabn.studio.routes.edits import Person, person
from stabn.studio.session import Studio

JobId = Annotated[str, Query(alias="id", max_length=100)]


class NewJob(Body):
    """What to fine-tune with."""

    author: Person
    control: bool = True
    epochs: int | None = Field(default=None, ge=1, le=1000)
    gamma: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)


class OneJob(Body):
    """Names a job."""

    id: str = Field(max_length=100)


def job_routes(studio: Studio) -> APIRouter:
    """The routes of a studio."""
    routes = APIRouter()
    jobs, store = studio.jobs, studio.store

    def known(call: Callable[..., Any], *arguments: str) -> Any:
        try:
            return call(*arguments)
        except KeyError:
            raise HTTPException(404, "There is no such job or clip of it.") from None

    @routes.get("/jobs")
    def listed() -> dict[str, Any]:
        return {"jobs": jobs.list()}

    @routes.post("/jobs")
    def start(new: NewJob) -> dict[str, Any]:
        options = {k: v for k, v in (("epochs", new.epochs), ("gamma", new.gamma)) if v is not None}
        job_id = jobs.start(
            studio.catalogue.project,
            studio.edits(),
            use=store.use(),
            control=new.control,
            options=options,
            author=person(new.author),
        )
        return {"id": job_id}

    @routes.get("/job")
    def job(job_id: JobId) -> dict[str, Any]:
        return known(jobs.get, job_id)

    @routes.post("/job/cancel")
    def cancel(asked: OneJob) -> dict[str, Any]:
        known(jobs.cancel, asked.id)
        return known(jobs.get, asked.id)

    @routes.post("/job/resume")
    def resume(asked: OneJob) -> dict[str, Any]:
        known(jobs.resume, asked.id)
        return known(jobs.get, asked.id)

    @routes.get("/job/outcome")
    def outcome(job_id: JobId) -> dict[str, Any]:
        return known(jobs.outcome, job_id)

    @routes.get("/job/clip")
    def clip(job_id: JobId, clip_id: Annotated[str, Query(alias="clip", max_length=1000)]) -> dict[str, Any]:
        return known(jobs.clip, job_id, clip_id)

    return routes
