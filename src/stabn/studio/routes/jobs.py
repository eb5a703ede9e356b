"""Routes for fine-tuning: start, watch, cancel and resume a job, and what it changed."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from stabn.studio.jobs.outcome import read_clip_outcome, read_outcome
from stabn.studio.routes.clips import RequestBody
from stabn.studio.routes.edits import Author
from stabn.studio.session import Studio

JobId = Annotated[str, Query(alias="id", max_length=100)]


class StartJobRequest(RequestBody):
    """The options of a new job."""

    author: Author
    control: bool = True
    init: Literal["auto", "checkpoint", "scratch"] = "auto"
    epochs: int | None = Field(default=None, ge=1, le=1000)
    gamma: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)


class JobRequest(RequestBody):
    """The id of a job."""

    id: str = Field(max_length=100)


def job_routes(studio: Studio) -> APIRouter:
    """The routes for fine-tuning."""
    routes = APIRouter()
    jobs, store = studio.jobs, studio.store

    @routes.get("/jobs")
    def list_jobs() -> dict[str, Any]:
        return {"jobs": jobs.list()}

    @routes.post("/jobs")
    def start(request: StartJobRequest) -> dict[str, Any]:
        options = request.model_dump(exclude_none=True)
        return {"id": jobs.start(studio.catalogue.project, studio.edits(), use=store.use(), **options)}

    @routes.get("/job")
    def job(job_id: JobId) -> dict[str, Any]:
        return jobs.get(job_id)

    @routes.post("/job/cancel")
    def cancel(request: JobRequest) -> dict[str, Any]:
        jobs.cancel(request.id)
        return jobs.get(request.id)

    @routes.post("/job/resume")
    def resume(request: JobRequest) -> dict[str, Any]:
        jobs.resume(request.id)
        return jobs.get(request.id)

    @routes.get("/job/outcome")
    def outcome(job_id: JobId) -> dict[str, Any]:
        return read_outcome(jobs.find_done(job_id))

    @routes.get("/job/clip")
    def clip(job_id: JobId, clip_id: Annotated[str, Query(alias="clip", max_length=1000)]) -> dict[str, Any]:
        return read_clip_outcome(jobs.find_done(job_id), clip_id)

    return routes
