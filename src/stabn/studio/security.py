"""Access to the studio: only a browser on this machine that has the token, and only from the studio's own page.

The threats are other web pages in the same browser (other origins, DNS rebinding), other users of the machine (who do
not know the token), and requests too large for memory or disk.
"""

import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class AccessControl:
    """Middleware that passes a request on to the application, or refuses it.

    - The Host header must be a name of this machine's loopback, which prevents DNS rebinding.
    - The token must be in the cookie that visiting `/?token=...` sets, or in `Authorization: token ...`; without it
      every path is refused alike.
    - A request that changes something must not come from a page of another origin.

    Args:
        app: the application.
        token: the secret.
        port: part of the cookie's name, because browsers share cookies between the ports of a host.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app = app
        self.token = token
        self.cookie = f"stabn-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        response = self._refusal_or_redirect(scope)
        if response is not None:
            response.headers["Connection"] = "close"  # the rest of a refused request is not read

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (response or self.app)(scope, receive, with_headers)

    def _refusal_or_redirect(self, scope: Scope) -> Response | None:
        """The response to a request that must not reach the application; None if it may."""
        headers = Headers(scope=scope)
        if _host_name(headers.get("host", "")) not in LOOPBACK:
            return PlainTextResponse("Refused: the studio answers only to names of this machine.", 403)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if scope["path"] == "/" and self._is_token(query.pop("token", None)):
            redirect = RedirectResponse("/" + ("?" + urlencode(query) if query else ""), 303)
            redirect.set_cookie(self.cookie, self.token, httponly=True, samesite="lax", path="/")
            return redirect
        kind, _, value = headers.get("authorization", "").partition(" ")
        token = value if kind.lower() in ("token", "bearer") else HTTPConnection(scope).cookies.get(self.cookie)
        if not self._is_token(token):
            return PlainTextResponse(
                "Refused: open the address with ?token=... that `stabn studio` printed in its terminal.", 403
            )
        if scope["method"] not in _SAFE and _is_cross_origin(headers):
            return PlainTextResponse("Refused: this request comes from another web page.", 403)
        return None

    def _is_token(self, value: str | None) -> bool:
        return value is not None and secrets.compare_digest(value.encode(), self.token.encode())


def _host_name(host: str) -> str | None:
    if not set(host).isdisjoint("@#?/\\"):
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_cross_origin(headers: Headers) -> bool:
    """Whether a page of another origin sent this. Programs send no Origin; they are trusted with the token alone."""
    origin = headers.get("origin")
    if origin is not None:
        return origin != f"http://{headers.get('host')}"
    return headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


class BodyLimit:
    """Middleware that refuses request bodies above their path's limit, before or while they are received.

    Args:
        app: the application.
        limits: bytes at most, by path.
        default: bytes at most for every other path.
    """

    def __init__(self, app: ASGIApp, limits: dict[str, int], default: int = 2**20) -> None:
        self.app = app
        self.limits = limits
        self.default = default

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.limits.get(scope["path"], self.default)
        error = f"The request is larger than {limit / 2**20:.0f} MB; send less."
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            await JSONResponse({"error": error}, 413, {"Connection": "close"})(scope, receive, send)
            return
        received = 0

        async def count_received() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, error)
            return message

        await self.app(scope, count_received, send)
