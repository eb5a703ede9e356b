"""The task of correction.py in Label Studio: keys, clicks, drags and seconds that one correction takes there.

    python -m venv elsewhere && elsewhere/bin/pip install label-studio
    python -m benchmarks.studio.correction_label_studio --label-studio elsewhere/bin/label-studio \\
        --edits demo/edits --truth demo/tabletop/truth.jsonl

Label Studio's template for classifying the frames of videos (TimelineLabels) with two labels; unmarked frames are
irrelevant. 20 clips are uploaded, then labelled as one stream: play, key 1, drag over all that may matter, key 2, drag
over what certainly matters within it, submit. What was saved is read back and compared with the truth, and the frame
that it shows is compared with the frame that its counter names. Writes its part of correction.json beside this file.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.studio.correction import write_part
from benchmarks.studio.keystrokes import SCREEN, Hands, browser, layers, summary, waited

CONFIG = """<View>
  <TimelineLabels name="videoLabels" toName="video">
    <Label value="may matter"/><Label value="certainly matters"/>
  </TimelineLabels>
  <Video name="video" value="$video" timelineHeight="120" framerate="FPS"/>
</View>"""
USER, PASSWORD = "annotator@example.com", "annotator-1"
LEVELS = {0.5: ("1", "may matter"), 1.0: ("2", "certainly matters")}
# the timeline counts the clip's frames, and the middle of the video is painted
READY = """([frames, before]) => {
  const control = document.querySelector(".lsf-frames-control"), canvas = document.querySelector("canvas");
  if (!control || !canvas?.width || window.Htx?.task?.id === before) return false;
  const middle = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data;
  return control.innerText.endsWith(`of ${frames}`) && middle[3] > 0;
}"""
# the video's pixels, which are painted in their own size; as text, because long lists are slow to pass
PICTURE = """([width, height]) => {
  const canvas = document.querySelector("canvas"), left = (canvas.width - width) / 2;
  const seen = canvas.getContext("2d").getImageData(left, (canvas.height - height) / 2, width, height).data;
  return Array.from(seen, (value) => String.fromCharCode(value)).join("");
}"""


@contextmanager
def label_studio(program: Path, folder: Path) -> Iterator[str]:
    """A started Label Studio with a user, on an empty folder; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    quiet = {"COLLECT_ANALYTICS": "False", "LATEST_VERSION_CHECK": "False", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
    where = ["--internal-host", "127.0.0.1", "--host", address, "--port", str(port), "--data-dir", str(folder)]
    who = ["--username", USER, "--password", PASSWORD]
    command = [str(program), "start", "--no-browser", *where, *who]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try:
                httpx.get(f"{address}/health", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.5)
        else:
            raise SystemExit(f"Label Studio did not start: {(folder / 'log').read_text()[-500:]}")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def pictures(path: Path) -> tuple[list[np.ndarray], float]:
    """All frames of a video as (H, W, 3), and how many there are in a second."""
    with av.open(str(path)) as file:
        rate = float(file.streams.video[0].average_rate or 0)
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)], rate


class Browsing:
    """A page on which the user is signed in, and the API through its cookies."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        page.goto(f"{address}/user/login/")
        page.fill("[name=email]", USER)
        page.fill("[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_load_state()

    def api(self, path: str, **body: Any) -> Any:
        token = next(c["value"] for c in self.page.context.cookies() if c["name"] == "csrftoken")
        headers = {"X-CSRFToken": token, "Referer": self.address}
        call = self.page.request.post if body else self.page.request.get
        answer = call(f"{self.address}/api/{path}", headers=headers, **body)
        if not answer.ok:
            raise SystemExit(f"{path}: {answer.status} {answer.text()[:300]}")
        return answer.json()


def timeline(page: Page) -> tuple[float, float, float]:
    """Middle of frame 1, height of the row that is drawn on, width of a frame; the counter stands at frame 1."""
    box = page.locator(".lsf-timeline-frames__indicator").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + 37, box["width"]


def correct(page: Page, truth: list[float], fps: float) -> dict[str, Any]:
    """One clip up to the save; the cheapest way that we found."""
    hands = Hands(page)
    left, row, width = timeline(page)
    hands.keys("Control+Alt+Space")
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.1", polling="raf")
    page.wait_for_function("() => document.querySelector('video').paused", polling="raf")
    for first, last, level in layers(truth):
        hands.think()
        hands.keys(LEVELS[level][0])
        hands.drag((left + width * first, row), (left + width * last, row))
    hands.think()
    hands.click("button[name=submit]")  # 1.3 s; Ctrl+Enter costs 0.56 s and twice 0.4 s for the hand
    return {"count": hands.count, "watching": len(truth) / fps}


def saved(task: dict[str, Any], frames: int) -> list[float]:
    """Scores of all frames as submitted; the highest where ranges overlap."""
    scores = [0.0] * frames
    for result in task["annotations"][0]["result"]:
        level = next(at for at, (_, name) in LEVELS.items() if [name] == result["value"]["timelinelabels"])
        for span in result["value"]["ranges"]:
            for at in range(span["start"] - 1, span["end"]):
                scores[at] = max(scores[at], level)
    return scores


def shown(page: Page, frames: list[np.ndarray]) -> tuple[int, int]:
    """Of the frames that its counter named after a click on the ruler: how many looked like it, out of how many."""
    left, row, width = timeline(page)
    height_of, width_of = frames[0].shape[:2]
    right = 0
    for number in range(len(frames)):
        page.mouse.click(left + width * number, row - 29)
        for _ in range(8):  # a busy machine seeks slowly
            page.wait_for_timeout(250)
            named = int(page.inner_text(".lsf-frames-control").split()[0]) - 1
            text = page.evaluate(PICTURE, [width_of, height_of]).encode("latin-1")
            seen = np.frombuffer(text, np.uint8).reshape(height_of, width_of, 4)[..., :3].astype(int)
            far = [np.abs(seen - frame).mean() for frame in frames]
            if named == number and far[number] <= min(far) + 0.01:
                right += 1
                break
    return right, len(frames)


def measure(page: Page, address: str, clips: list[dict[str, Any]], truth: dict[str, list[float]]) -> dict[str, Any]:
    films = [pictures(Path(clip["path"])) for clip in clips]
    wanted = [truth[clip["clip_id"]] for clip in clips]
    here = Browsing(page, address)
    config = CONFIG.replace("FPS", f"{films[0][1]:g}")
    project = here.api("projects", data={"title": "relevance", "label_config": config})["id"]
    for clip in clips:
        path = Path(clip["path"])
        upload = {"name": path.name, "mimeType": "video/mp4", "buffer": path.read_bytes()}
        here.api(f"projects/{project}/import", multipart={"file": upload})
    page.goto(f"{address}/projects/{project}/data")
    page.wait_for_selector("text=Label All Tasks")
    page.wait_for_timeout(2000)
    page.click("text=Label All Tasks")
    opening = waited(page, READY, [len(wanted[0]), None])
    done, exact = [], []
    for number, scores in enumerate(wanted):
        if number < 3:
            exact.append(shown(page, films[number][0]))
            page.reload()
            waited(page, READY, [len(scores), None])
        task = page.evaluate("() => Htx.task.id")
        one = correct(page, scores, films[number][1])
        more = number + 1 < len(wanted)
        one["waiting"] = waited(page, READY, [len(wanted[number + 1]), task]) if more else None
        done.append(one)
    page.wait_for_timeout(2000)
    tasks = here.api(f"projects/{project}/export?exportType=JSON")
    tasks.sort(key=lambda task: task["id"])
    equal = sum(saved(task, len(scores)) == scores for task, scores in zip(tasks, wanted, strict=True))
    return {
        "version": here.api("version")["release"],
        "how": "measured by correction_label_studio.py; keys and mouse, unchanged hotkeys",
        "mouse": summary(done),
        "seconds_to_open_the_first": round(opening, 2),
        "saved_as_wanted": f"{equal} of {len(wanted)}",
        "frames_shown_as_counted": f"{sum(a for a, _ in exact)} of {sum(b for _, b in exact)}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label-studio", type=Path, required=True)
    parser.add_argument("--edits", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--chromium")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in (arguments.edits / "clips.jsonl").read_text().splitlines()[: arguments.clips]]
    lines = [json.loads(line) for line in arguments.truth.read_text().splitlines()]
    with (
        tempfile.TemporaryDirectory() as temporary,
        label_studio(arguments.label_studio, Path(temporary)) as address,
        sync_playwright() as playwright,
    ):
        opened = browser(playwright, arguments.chromium)
        page = opened.new_page(viewport=SCREEN)
        page.route(re.compile(f"^(?!{address}|data:|blob:)"), lambda route: route.abort())
        figures = measure(page, address, rows, {line["id"]: line["relevance"] for line in lines})
        opened.close()
    write_part("label_studio", figures)
