"""Who is let in: the token, the host name, the origin, and how much a request may send."""

import pytest
from studio_client import ORIGIN, PORT, TOKEN, Client

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
    assert stranger.get("/", params={"token": token}).status_code == 403
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


def test_the_token_opens_only_the_first_page(stranger: Client) -> None:
    assert stranger.get("/api/session", params={"token": TOKEN}).status_code == 403


@pytest.mark.parametrize(
    "host", ["example.org", f"example.org:{PORT}", "127.0.0.1.example.org", "", "[", "10.0.0.1", "a@127.0.0.1"]
)
def test_other_host_names_are_refused_so_that_none_can_be_pointed_here(shared: Client, host: str) -> None:
    assert shared.get("/api/session", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]:1234", "LOCALHOST:8888"])
def test_names_of_this_machine_are_let_in_whatever_the_port(shared: Client, host: str) -> None:
    assert shared.get("/api/session", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{PORT + 1}"},
        {"Origin": f"https://127.0.0.1:{PORT}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/edit"),
        ("PUT", "/api/use"),
        ("POST", "/api/uploads"),
        ("POST", "/api/jobs"),
        ("DELETE", "/api/uploads"),
    ],
)
def test_changes_asked_for_by_other_pages_are_refused(shared, method, path, headers):
    assert shared.request(method, path, headers=headers).status_code == 403


def test_our_own_page_may_change_something(shared: Client) -> None:
    answer = shared.put("/api/use", json={"use": "mean", "author": "Ann"}, headers={"Origin": ORIGIN})
    assert answer.json() == {"use": "mean"}


def test_every_answer_forbids_framing_sniffing_and_other_hosts(shared: Client) -> None:
    for path in ("/", "/api/session", "/api/nothing"):
        headers = shared.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_a_body_that_announces_too_much_is_refused_before_it_is_read(shared: Client) -> None:
    answer = shared.post("/api/uploads", content=b"", headers={"Content-Length": str(2 * 2**30)})
    assert answer.status_code == 413
    assert "MB" in answer.json()["error"]


def test_a_body_that_hides_its_length_is_cut_off_and_leaves_no_file(shared: Client) -> None:
    def chunks():
        for _ in range(64):
            yield b"\0" * 2**20

    answer = shared.post("/api/uploads", content=chunks())
    assert answer.status_code == 413
    assert list(shared.studio.uploads.iterdir()) == []


def test_other_requests_are_small(shared: Client) -> None:
    assert shared.post("/api/edit", content=b" " * (2 * 2**20)).status_code == 413
