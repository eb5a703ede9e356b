"""The studio's web application: access control, routes, errors as JSON, and the static page."""

import logging
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from stabn.errors import UserError, describe_os_error
from stabn.studio.not_found import NotFoundError
from stabn.studio.routes.clips import clip_routes
from stabn.studio.routes.edits import edit_routes
from stabn.studio.routes.jobs import job_routes
from stabn.studio.security import AccessControl, BodyLimit, Forwarding
from stabn.studio.session import Studio

STATIC = Path(__file__).parent / "static"
MAX_IMPORT = 64 * 2**20

log = logging.getLogger(__name__)


def build_app(studio: Studio, token: str, port: int, forwarding: Forwarding = Forwarding()) -> FastAPI:  # noqa: B008
    """Build the application of a studio.

    Args:
        studio: its state.
        token: the secret that gives access.
        port: where it is served.
        forwarding: where browsers reach it.
    """
    limits = {"/api/uploads": studio.max_upload, "/api/import": MAX_IMPORT}
    app = FastAPI(
        title="stabn studio",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[
            Middleware(AccessControl, token=token, port=port, forwarding=forwarding),
            Middleware(BodyLimit, limits=limits),
        ],
    )
    for routes in (clip_routes, edit_routes, job_routes):
        app.include_router(routes(studio), prefix="/api")
    app.mount("/", _Static(directory=STATIC, html=True))
    for kind in (UserError, NotFoundError, RequestValidationError, HTTPException, ClientDisconnect, OSError, Exception):
        app.add_exception_handler(kind, _error_response)
    return app


class _Static(StaticFiles):
    """The page's files; a browser asks each time whether they changed, so that an update shows at once."""

    def file_response(self, full_path, stat_result, scope: Scope, status_code: int = 200):  # type: ignore[no-untyped-def]
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _error_response(request: Request, error: Exception) -> JSONResponse:
    """Convert any error to one JSON shape: {"error": one line}."""
    headers = None
    match error:
        case UserError():
            status, message = 400, " ".join(str(error).split())
        case NotFoundError():
            status, message = 404, str(error)
        case RequestValidationError():
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"][1:]) or "request"
            # A validator's own message names the field already.
            own = first["type"] == "value_error"
            status, message = 422, str(first["ctx"]["error"]) if own else f"{field}: {first['msg']}"
        case HTTPException():
            status, message = error.status_code, error.detail or HTTPStatus(error.status_code).phrase
            headers = error.headers
        case ClientDisconnect():
            status, message = 400, "The request ended early."
        case OSError():
            status, message = 507, f"{describe_os_error(error)}, and try again"
        case _:
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
            status, message = 500, "The studio failed; the error is in its terminal."
    return JSONResponse({"error": message}, status, headers)
