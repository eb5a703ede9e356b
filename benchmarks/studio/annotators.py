"""Check that every acknowledged edit survives when the server is killed.

    python -m benchmarks.studio.annotators --run demo/before --edits demo/edits

20 people with 50 edits each work at once; when about half of the edits are acknowledged the server gets SIGKILL, is
started again, and everybody goes on, each repeating the request that got no answer. Afterwards every acknowledged edit
must be among the stored events, exactly once.
"""

import json
import sqlite3
import statistics
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from benchmarks.studio.server import StudioServer, measure_copy

PEOPLE, EDITS = 20, 50


def work(person: int, studio: StudioServer, clips: list[str], frames: int, log: list, lock: threading.Lock) -> None:
    rng = np.random.default_rng(person)
    client = httpx.Client(base_url=studio.address, headers={"Authorization": f"token {studio.token}"}, timeout=30)
    for number in range(EDITS):
        body = {
            "id": clips[int(rng.integers(len(clips)))],
            "author": f"person {person}",
            "request": f"person-{person}-{number:04}",
            "kind": "paint",
            "scores": (rng.integers(0, 3, frames) / 2).tolist(),
        }
        for attempt in range(600):
            started = time.perf_counter()
            try:
                answer = client.post("/api/edit", json=body).raise_for_status()
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            with lock:
                log.append((body, answer.json()["event"], 1000 * (time.perf_counter() - started), attempt))
            break
        else:
            raise SystemExit(f"person {person} gave up")


def measure(run: Path, project: Path) -> dict[str, float]:
    (project / "edits.jsonl").write_text("")
    studio = StudioServer(run, project, "--port", "0")
    port = studio.address.rsplit(":", 1)[1]
    studio.command[-1] = port  # where everybody looks for it again
    session = studio.client.get("/api/session").json()
    clips = [clip["id"] for clip in studio.client.get("/api/queue").json()["clips"]]
    log: list = []
    lock = threading.Lock()
    people = [
        threading.Thread(target=work, args=(person, studio, clips, session["frames"], log, lock))
        for person in range(PEOPLE)
    ]
    started = time.perf_counter()
    for person in people:
        person.start()
    while len(log) < PEOPLE * EDITS // 2:
        time.sleep(0.005)
    studio.kill()
    at_kill = len(log)
    studio.start()
    for person in people:
        person.join()
    seconds = time.perf_counter() - started
    studio.stop()
    rows = sqlite3.connect(project / "studio.db").execute("select number, request, scores from stabn_events").fetchall()
    stored = {request: (number, json.loads(scores)) for number, request, scores in rows}
    lost = [b["request"] for b, number, _, _ in log if stored.get(b["request"]) != (number, b["scores"])]
    waits = [wait for _, _, wait, attempt in log if attempt == 0]
    return {
        "people": PEOPLE,
        "edits_acknowledged": len(log),
        "acknowledged_before_the_kill": at_kill,
        "events_stored": len(rows),
        "lost": len(lost),
        "stored_twice": len(rows) - len(stored),
        "repeated_requests": sum(attempt > 0 for *_, attempt in log),
        "median_ms": round(statistics.median(waits), 1),
        "p95_ms": round(float(np.percentile(waits, 95)), 1),
        "seconds_with_restart": round(seconds, 1),
    }


if __name__ == "__main__":
    figures = measure_copy(__doc__, __file__, measure)
    assert not figures["lost"]
    assert not figures["stored_twice"]
