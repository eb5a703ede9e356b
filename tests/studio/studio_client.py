"""A studio on a small edit project, and a client that has its token."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient
from httpx import Response

from stabn.runs import open_run
from stabn.studio.app import build_app
from stabn.studio.serve import open_studio
from stabn.studio.session import Studio

TOKEN = "t" * 43
PORT = 8713
ORIGIN = f"http://127.0.0.1:{PORT}"


class Client(TestClient):
    """Knows the studio behind it."""

    studio: Studio


@contextmanager
def serving(run: Path, project: Path, **options: object) -> Iterator[Client]:
    """A client of a studio in this process."""
    with (
        open_studio(open_run(run), project, **options) as studio,
        Client(
            build_app(studio, TOKEN, PORT),
            base_url=ORIGIN,
            headers={"Authorization": f"token {TOKEN}"},
            raise_server_exceptions=False,
            follow_redirects=False,
        ) as client,
    ):
        client.studio = studio
        yield client


def change(client: Client, clip_id: str, scores: list[float] | None, request: str, **fields: object) -> dict:
    """Post one change and return the answer's JSON."""
    body = {"id": clip_id, "author": "Ann", "request": request, "kind": "paint", "scores": scores, **fields}
    answer = client.post("/api/edit", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def queue(client: Client) -> list[dict]:
    """The clips of the queue."""
    return client.get("/api/queue").json()["clips"]


def uncollected(client: Client, split: str) -> str:
    """A clip of the data set that is not in the queue."""
    clips = client.get("/api/data", params={"split": split, "limit": 200}).json()["clips"]
    return next(clip["id"] for clip in clips if not clip["in_queue"])


def check_refused(answer: Response, status: int | tuple[int, ...], *words: str) -> None:
    """Check an answer's status and that its error is one line with these words."""
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    assert "\n" not in answer.json()["error"]
    for word in words:
        assert word in answer.json()["error"]
