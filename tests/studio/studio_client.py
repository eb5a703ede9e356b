"""A studio on a small edit project, and a client that has its token."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient

from stabn.runs import open_run
from stabn.studio.app import build_app
from stabn.studio.serve import studio_on
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
        studio_on(open_run(run), project, **options) as studio,
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
    """Post one change and give its answer."""
    body = {"id": clip_id, "author": "Ann", "request": request, "kind": "paint", "scores": scores, **fields}
    answer = client.post("/api/edit", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()
