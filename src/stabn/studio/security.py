"""Access to the studio: only a browser on this machine that has the token, and only from the studio's own page.

The threats are other web pages in the same browser (other origins, DNS rebinding), other users of the machine (who do
not know the token), and requests too large for memory or disk.
"""

import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stabn.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY_HOST = ("0.0.0.0", "::")
"""Addresses on which a server listens for all of a machine's; no browser names them."""
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


@dataclass(frozen=True)
class Forwarding:
    """Where browsers reach a studio that is behind a forwarder.

    Attributes:
        origins: schemes, hosts and ports of its page in browsers, such as https://name-8713.app.github.dev.
        root_path: the path under which it is forwarded, such as /proxy/8713; "" for none.
        host: the address of this machine on which it listens.

    Raises:
        UserError: an origin or the path is none.
    """

    origins: tuple[str, ...] = ()
    root_path: str = ""
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "origins", tuple(map(_parse_origin, self.origins)))
        path = self.root_path.rstrip("/")
        if (path and not path.startswith("/")) or not set(path).isdisjoint('?#\\ %;"\r\n') or "//" in path:
            raise UserError(f"--root-path: got {self.root_path!r}, expected a path such as /proxy/8713")
        object.__setattr__(self, "root_path", path)

    @property
    def host_names(self) -> frozenset[str]:
        """The host names that a request may have; no others, which prevents DNS rebinding."""
        of_origins = (urlsplit(origin).hostname for origin in self.origins)
        return frozenset({*LOOPBACK, self.host.lower(), *filter(None, of_origins)} - set(ANY_HOST))

    @property
    def is_local(self) -> bool:
        """Whether browsers reach it as on this machine alone."""
        return self == Forwarding()


def _parse_origin(text: str) -> str:
    """An origin as browsers write it: lower case, without the usual port."""
    expected = "expected the beginning of the page's address, such as https://name-8713.app.github.dev"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UserError(f"--origin: got {text!r}, {expected}") from None
    if parts.path not in ("", "/") and parts.scheme in ("http", "https"):
        raise UserError(f"--origin: got {text!r} with a path, {expected}; give the path with --root-path")
    if parts.scheme not in ("http", "https") or not host or "*" in host or parts.query or parts.fragment or "@" in text:
        raise UserError(f"--origin: got {text!r}, {expected}")
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if port in (None, usual) else f":{port}")


class AccessControl:
    """Middleware that passes a request on to the application, or refuses it.

    - The Host header must be a name of this machine's loopback or of an origin that was named, which prevents DNS
      rebinding.
    - The token must be in the cookie that visiting `/?token=...` sets, or in `Authorization: token ...`; without it
      every path is refused alike.
    - A request that changes something must not come from a page of another origin.
    - The path of a forwarder is taken away, if it has not done so itself.

    Args:
        app: the application.
        token: the secret.
        port: part of the cookie's name, because browsers share cookies between the ports of a host.
        forwarding: where browsers reach the studio.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, forwarding: Forwarding = Forwarding()) -> None:
        self.app = app
        self.token = token
        self.cookie = f"stabn-{port}"
        self.forwarding = forwarding
        self.host_names = forwarding.host_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        root = self.forwarding.root_path
        if root and scope["path"].startswith(f"{root}/"):
            path = scope["path"].removeprefix(root)
            scope = {**scope, "path": path, "raw_path": path.encode()}
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
        if _host_name(headers.get("host", "")) not in self.host_names:
            remedy = "if its page is forwarded, start it with --origin and the beginning of the page's address"
            return PlainTextResponse(f"Refused: the studio answers only to names of this machine; {remedy}.", 403)
        root = self.forwarding.root_path
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if scope["path"] in ("/", root or "/") and self._is_token(query.pop("token", None)):
            redirect = RedirectResponse(f"{root}/" + ("?" + urlencode(query) if query else ""), 303)
            redirect.set_cookie(self.cookie, self.token, httponly=True, samesite="lax", path=f"{root}/")
            return redirect
        kind, _, value = headers.get("authorization", "").partition(" ")
        token = value if kind.lower() in ("token", "bearer") else HTTPConnection(scope).cookies.get(self.cookie)
        if not self._is_token(token):
            return PlainTextResponse(
                "Refused: open the address with ?token=... that `stabn studio` printed in its terminal.", 403
            )
        if scope["method"] not in _SAFE and self._is_cross_origin(headers):
            remedy = "if it is the studio's own, forwarded, start the studio with --origin and its address"
            return PlainTextResponse(f"Refused: this request comes from another web page; {remedy}.", 403)
        if root and scope["path"] == root:  # without the slash the page's own addresses would miss the path
            return RedirectResponse(f"{root}/", 307)
        return None

    def _is_cross_origin(self, headers: Headers) -> bool:
        """Whether a page of another origin sent this. Programs send no Origin; they are trusted with the token."""
        origin = headers.get("origin")
        if origin is not None:
            host = headers.get("host", "")
            is_direct = _host_name(host) in (*LOOPBACK, self.forwarding.host) and origin == f"http://{host}"
            return not is_direct and origin not in self.forwarding.origins
        return headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")

    def _is_token(self, value: str | None) -> bool:
        return value is not None and secrets.compare_digest(value.encode(), self.token.encode())


def _host_name(host: str) -> str | None:
    if not set(host).isdisjoint("@#?/\\"):
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


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
