"""Who is let in: the token, the host name, the origin, and how much a request may send."""

import socket

import pytest
from studio_client import ORIGIN, PORT, TOKEN, Client

from stabn.errors import UserError
from stabn.studio.app import build_app
from stabn.studio.security import Forwarding
from stabn.studio.serve import bind_socket

ENDPOINTS = ["/", "/main.js", "/api/session", "/api/queue", "/api/export?format=jsonl", "/docs", "/nothing"]


@pytest.fixture
def stranger(shared: Client) -> Client:
    """A client of the same studio that has no token."""
    other = Client(shared.app, base_url=ORIGIN, follow_redirects=False)
    other.headers.pop("Authorization", None)
    return other


@pytest.mark.parametrize("path", ENDPOINTS)
def test_without_a_token_nothing_is_shown(stranger: Client, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 403
    assert "stabn studio" in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "t", TOKEN.upper(), "tökén"])
def test_a_wrong_token_sees_nothing(stranger: Client, token: str) -> None:
    for path, given in (("/", token), ("/api/session", TOKEN)):  # the right one is for the first page only
        assert stranger.get(path, params={"token": given}).status_code == 403
    assert stranger.get("/api/session", headers={"Authorization": f"token {token}".encode()}).status_code == 403
    assert stranger.get("/api/session", headers={"Cookie": f"stabn-{PORT}={token}".encode()}).status_code == 403


def test_the_printed_address_gives_a_cookie_and_hides_the_token(stranger: Client) -> None:
    answer = stranger.get("/", params={"token": TOKEN})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite" in cookie
    assert stranger.get("/").status_code == 200
    assert stranger.get("/api/session").status_code == 200


OTHERS = ["example.org", f"example.org:{PORT}", "127.0.0.1.example.org", "", "[", "10.0.0.1", "a@127.0.0.1"]
OURS = ["127.0.0.1", "localhost", "[::1]:1234", "LOCALHOST:8888"]


@pytest.mark.parametrize("host", [*OTHERS, *OURS])
def test_only_names_of_this_machine_are_let_in_whatever_the_port(shared: Client, host: str) -> None:
    assert shared.get("/api/session", headers={"Host": host}).status_code == (200 if host in OURS else 403)


ORIGINS = ["https://example.org", "null", f"http://127.0.0.1:{PORT + 1}", f"https://127.0.0.1:{PORT}"]


@pytest.mark.parametrize(
    "headers",
    [
        *({"Origin": origin} for origin in ORIGINS),
        *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site")),
    ],
)
@pytest.mark.parametrize("request_line", ["POST edit", "PUT use", "POST uploads", "POST jobs", "DELETE uploads"])
def test_changes_asked_for_by_other_pages_are_refused(shared, request_line, headers):
    method, path = request_line.split()
    assert shared.request(method, f"/api/{path}", headers=headers).status_code == 403


def test_our_own_page_may_change_something(shared: Client) -> None:
    answer = shared.put("/api/use", json={"use": "mean", "author": "Ann"}, headers={"Origin": ORIGIN})
    assert answer.json() == {"use": "mean"}


def test_every_answer_forbids_framing_sniffing_and_other_hosts(shared: Client) -> None:
    for path in ("/", "/api/session", "/api/nothing"):
        headers = shared.get(path).headers
        policy = headers["content-security-policy"]
        assert all(word in policy for word in ("default-src 'none'", "frame-ancestors 'none'"))
        assert all(word not in policy for word in ("unsafe", "http"))
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        ("uploads", b"", {"Content-Length": str(2 * 2**30)}),
        ("uploads", (b"\0" * 2**20 for _ in range(64)), {}),
        ("edit", b" " * (2 * 2**20), {}),
    ],
    ids=["announced", "without its length", "not an upload"],
)
def test_a_body_that_is_too_large_is_refused_and_leaves_no_file(shared, path, content, headers):
    answer = shared.post(f"/api/{path}", content=content, headers=headers)
    assert answer.status_code == 413
    assert "MB" in answer.json()["error"]
    assert not shared.studio.uploads.exists() or list(shared.studio.uploads.iterdir()) == []


OUTSIDE = "https://name-8713.app.github.dev"
ROOT = "/proxy/8713"


@pytest.fixture(scope="module")
def forwarded(shared: Client) -> Client:
    """A browser with the cookie of a studio that is forwarded."""
    app = build_app(shared.studio, TOKEN, PORT, Forwarding((f"{OUTSIDE}:443/",), f"{ROOT}/"))
    client = Client(app, base_url=OUTSIDE, follow_redirects=False)
    answer = client.get(f"{ROOT}/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{ROOT}/")
    assert f"path={ROOT}/" in answer.headers["set-cookie"].lower()
    return client


@pytest.mark.parametrize("host", [OUTSIDE.removeprefix("https://"), f"localhost:{PORT}"])
@pytest.mark.parametrize("root", [ROOT, ""], ids=["path passed on", "path taken away"])
def test_a_forwarded_page_and_its_changes_are_served(forwarded: Client, host: str, root: str) -> None:
    headers = {"Host": host, "Origin": OUTSIDE, "Cookie": f"stabn-{PORT}={TOKEN}"}
    for path in ("/", "/main.js", "/lib/api.js", "/api/session"):
        assert forwarded.get(root + path, headers=headers).status_code == 200, path
    assert forwarded.put(f"{root}/api/use", json={"use": "mean", "author": "Ann"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": OUTSIDE.replace("https", "http")},
        {"Origin": OUTSIDE, "Host": "evil.example"},
        {"Origin": OUTSIDE, "Cookie": f"stabn-{PORT}=x"},
    ],
)
def test_a_forwarded_studio_still_refuses_strangers(forwarded: Client, headers: dict[str, str]) -> None:
    headers = {"Cookie": f"stabn-{PORT}={TOKEN}", **headers}
    forwarded.cookies.clear()
    assert forwarded.put(f"{ROOT}/api/use", json={"use": "mean", "author": "A"}, headers=headers).status_code == 403


def test_without_its_last_slash_the_path_of_a_forwarder_leads_to_the_page(forwarded: Client) -> None:
    answer = forwarded.get(ROOT, headers={"Cookie": f"stabn-{PORT}={TOKEN}"})
    assert (answer.status_code, answer.headers["location"]) == (307, f"{ROOT}/")


def test_the_page_loads_everything_by_addresses_relative_to_itself(shared: Client) -> None:
    assert 'src="/' not in shared.get("/").text
    assert 'href="/' not in shared.get("/").text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"origins": ("*",)}, "--origin"),
        ({"origins": ("https://*.github.dev",)}, "--origin"),
        ({"origins": ("name.github.dev",)}, "--origin"),
        ({"origins": ("https://a.b/proxy",)}, "--root-path"),
        ({"root_path": "proxy"}, "--root-path"),
    ],
)
def test_origins_and_paths_that_are_none_are_refused(options, named):
    with pytest.raises(UserError, match=named):
        Forwarding(**options)


def test_a_port_that_is_forwarded_is_not_replaced_by_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=str(port)):
            bind_socket(port, exactly=True)
        with bind_socket(port) as other:
            assert other.getsockname()[1] != port
    with pytest.raises(UserError, match=r"--host.*192\.0\.2\.1"):
        bind_socket(0, "192.0.2.1")
