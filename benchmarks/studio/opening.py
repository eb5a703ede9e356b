"""Time to the first frame of a long video, and the server's memory after many clips.

    python -m benchmarks.studio.opening --run demo/before --edits demo/edits

A 10 s 1080p H.264 video with noise (300 frames, about 20 Mbit/s) is corrected as a training clip: time from the
request to the first frame, to all frames, and to the first what-if, 7 fresh servers' medians. Then 1000 different
clips are opened with all frames and one what-if each.
"""

import csv
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.studio.server import measure_copy, start_studio
from stabn.data.annotations.source import DataSource
from stabn.data.video.clip import write_video
from stabn.evaluation.collect import collect_project
from stabn.runs import open_run

REPEATS = 7


def film(path: Path) -> None:
    """A moving gradient with a bright square and noise."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 24, (1080, 1920, 3), np.uint8)
    ramp = np.linspace(0, 180, 1920).astype(np.uint8)[None, :, None]

    def frames() -> Iterator[np.ndarray]:
        for number in range(300):
            picture = np.roll(noise, (7 * number, 11 * number), (0, 1)) + np.roll(ramp, 5 * number, 1)
            picture[400:600, 5 * number : 5 * number + 200] = 235
            yield picture

    write_video(path, frames(), 30, crf=23, preset="veryfast")


def long_video(run: Path, folder: Path) -> dict[str, float]:
    (name, *_) = open_run(run).model().class_names or ()
    film(folder / "long.mp4")
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split"))
        rows.writerow(("long.mp4", name, "train"))
    source = DataSource(str(folder / "clips.csv"))
    collect_project(open_run(run, source), folder / "edits", bound=1.0)
    first, every, answer = [], [], []
    for _ in range(REPEATS):
        with start_studio(run, folder / "edits", "--data.annotations", str(folder / "clips.csv")) as studio:
            frames = studio.client.get("/api/session").json()["frames"]
            clip = {"id": "long.mp4"}
            started = time.perf_counter()
            studio.client.get("/api/clip", params=clip).raise_for_status()
            studio.client.get("/api/frame", params=clip | {"position": 0}).raise_for_status()
            first.append(time.perf_counter() - started)
            for position in range(frames):
                studio.client.get("/api/frame", params=clip | {"position": position}).raise_for_status()
            every.append(time.perf_counter() - started)
            request = clip | {"temporal": "original", "spatial": "original"}
            studio.client.post("/api/what-if", json=request).raise_for_status()
            answer.append(time.perf_counter() - started)
    return {
        "megabytes": round((folder / "long.mp4").stat().st_size / 2**20, 1),
        "seconds_to_first_frame": round(statistics.median(first), 3),
        "seconds_to_all_frames": round(statistics.median(every), 3),
        "seconds_to_what_if": round(statistics.median(answer), 3),
        "repeats": REPEATS,
    }


def memory(run: Path, project: Path, count: int) -> dict[str, float]:
    held = {}
    with start_studio(run, project, "--memory-mb", "16") as studio:
        frames = studio.client.get("/api/session").json()["frames"]
        clips: list[str] = []
        while len(clips) < count:
            page = studio.client.get("/api/data", params={"offset": len(clips), "limit": 200}).json()["clips"]
            clips += [clip["id"] for clip in page]
        held["at start"] = studio.memory()
        for number, clip_id in enumerate(clips[:count], start=1):
            studio.client.get("/api/clip", params={"id": clip_id}).raise_for_status()
            for position in range(frames):
                studio.client.get("/api/frame", params={"id": clip_id, "position": position})
            request = {"id": clip_id, "temporal": "uniform", "spatial": "original"}
            studio.client.post("/api/what-if", json=request).raise_for_status()
            if number in (50, 100, 200, 300, 400, 500, count):
                held[f"after {number}"] = studio.memory()
    return {name: round(value / 2**20) for name, value in held.items()}


if __name__ == "__main__":
    measure_copy(
        __doc__,
        __file__,
        lambda run, project: {
            "10 s of 1080p": long_video(run, project.parent),
            "server's memory in MB, 16 MB allowed to opened clips": memory(run, project, 1000),
        },
    )
