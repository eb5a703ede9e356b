"""The studio's web application: who may come in, how errors are told, and the static page."""

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

from stabn.errors import UserError
from stabn.studio.routes.clips import clip_routes
from stabn.studio.routes.edits import edit_routes
from stabn.studio.routes.jobs import job_routes
from stabn.studio.security import Guard, Limit
from stabn.studio.session import Studio

STATIC = Path(__file__).parent / "static"
IMPORT_BYTES = 64 * 2**20

log = logging.getLogger(__name__)


def build_app(studio: Studio, token: str, port: int) -> FastAPI:
    """The application of a studio.

    Args:
        studio: what it works with.
        token: who knows it may come in.
        port: where it is served.
    """
    limits = {"/api/uploads": studio.max_upload, "/api/import": IMPORT_BYTES}
    app = FastAPI(
        title="stabn studio",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[Middleware(Guard, token=token, port=port), Middleware(Limit, limits=limits)],
    )
    for routes in (clip_routes, edit_routes, job_routes):
        app.include_router(routes(studio), prefix="/api")
    app.mount("/", _Static(directory=STATIC, html=True))
    app.add_exception_handler(UserError, _mistake)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(OSError, _no_room)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _broken)
    return app


class _Static(StaticFiles):
    """Files of the page; a browser asks each time whether they changed, so that an update shows at once."""

    def file_response(self, full_path, stat_result, scope: Scope, status_code: int = 200):  # type: ignore[no-untyped-def]
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _mistake(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": " ".join(str(error).split())}, 400)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "request"
    return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = error.detail or HTTPStatus(error.status_code).phrase
    return JSONResponse({"error": message}, error.status_code, error.headers)


def _no_room(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    return JSONResponse({"error": f"{error.strerror or error}; look at the disk of the project and try again"}, 507)


def _gone(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "The request ended early."}, 400)  # nobody reads it


def _broken(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": "Something broke in the studio; its terminal says what."}, 500)
