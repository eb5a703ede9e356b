"""Keys and seconds per correction: 20 clips of a queue in a real Chromium, with the truth as the target.

    python -m benchmarks.studio.correction --run demo/before --edits demo/edits --truth demo/tabletop/truth.jsonl

Each clip is played once, every frame gets its true relevance, and Enter saves and opens the next; once with the
keyboard alone, in the fewest keys that ranges entered from either end need, and once with keys and mouse. Keys, clicks
and drags are counted and timed by keystrokes.py; waiting is measured, from Enter to the next clip's first frame. What
the studio has saved is compared with the truth. Writes its part of correction.json beside this file; the other part is
written by correction_label_studio.py.
"""

import argparse
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.settings import describe_machine
from benchmarks.studio.keystrokes import OPERATORS, SCREEN, Hands, browser, layers, runs, summary, waited
from benchmarks.studio.server import StudioServer, start_studio

RESULTS = Path(__file__).with_name("correction.json")
KEYS = {0.0: "1", 0.5: "2", 1.0: "3"}
READY = "() => document.querySelector('#timeline:not([data-old]) .cell[data-loaded]') !== null"
ALL = "() => !document.querySelector('#timeline:not([data-old]) .cell:not([data-loaded])')"

Range = tuple[int, int, float]


def write_part(name: str, figures: dict[str, Any]) -> None:
    """Replace one part of correction.json and leave the other."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    load = round(os.getloadavg()[0], 1)
    results |= {"operators": OPERATORS, name: figures | {"machine": describe_machine() | {"load": load}}}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def way(start: int | None, to: int, last: int) -> list[str]:
    """The fewest keys to a frame; from None, where playing has led to any frame, by way of an end."""
    ways = [["Home"] + ["ArrowRight"] * to, ["End"] + ["ArrowLeft"] * (last - to)]
    if start is not None:
        ways.append(["ArrowRight" if to > start else "ArrowLeft"] * abs(to - start))
    return min(ways, key=len)


def plan(ranges: Sequence[Range], last: int) -> list[tuple[list[str], list[str], str]]:
    """For each range the keys that lead to it, those with shift held, and its level; each from the better end."""
    plans = []
    for ends in itertools.product((False, True), repeat=len(ranges)):
        at, keys = None, []
        for (first, final, level), turned in zip(ranges, ends, strict=True):
            begin, end = (final, first) if turned else (first, final)
            keys.append((way(at, begin, last), way(begin, end, last), KEYS[level]))
            at = end
        plans.append(keys)
    return min(plans, key=cost)


def cost(keys: list[tuple[list[str], list[str], str]]) -> float:
    """Seconds: a thought for each range, a key more where shift is held."""
    pressed = sum(len(free) + len(held) + bool(held) + 1 for free, held, _ in keys)
    return pressed * OPERATORS["K"] + len(keys) * OPERATORS["M"]


def by_keys(hands: Hands, target: Sequence[float]) -> None:
    """Ranges one after another or in layers, whichever is quicker."""
    apart = [(first, final, level) for first, final, level in runs(target) if level]
    last = len(target) - 1
    for free, held, level in min((plan(ranges, last) for ranges in (apart, layers(target))), key=cost):
        hands.think()
        hands.keys(*free)
        hands.holding("Shift", held)
        hands.keys(level)
    hands.think()
    hands.keys("Enter")


def by_mouse(hands: Hands, target: Sequence[float]) -> None:
    """Select by dragging over the network's track, then the level's key; the right hand leaves the mouse for Enter."""
    cells = hands.page.locator("#timeline .cell .network")
    for first, final, level in layers(target):
        hands.think()
        boxes = [cells.nth(at).locator("..").bounding_box() for at in (first, final)]
        hands.drag(*((box["x"] + box["width"] / 2, box["y"] + 8) for box in boxes if box))
        hands.keys(KEYS[level])
    hands.think()
    hands.change()
    hands.keys("Enter")
    hands.change()


def queue(page: Page, studio: StudioServer, truth: dict[str, list[float]], work: Callable) -> dict[str, Any]:
    """Correct the whole queue."""
    clips = studio.client.get("/api/queue").json()["clips"]
    page.goto(f"{studio.address}/?token={studio.token}")
    page.evaluate("name => localStorage.setItem('stabn-name', name)", work.__name__)
    page.goto(f"{studio.address}/")
    page.wait_for_timeout(2000)
    page.evaluate("id => { location.hash = `#/clip?id=${encodeURIComponent(id)}`; }", clips[0]["id"])
    opening = waited(page, READY)
    done, equal, every = [], 0, []
    for number, clip in enumerate(clips):
        request = {"id": clip["id"], "author": work.__name__}
        clip_data = studio.client.get("/api/clip", params=request).json()
        target = [truth[clip["id"]][at] for at in clip_data["frame_indices"]]
        length = len(truth[clip["id"]]) * clip_data["timestamps"][-1] / clip_data["frame_indices"][-1]
        waited(page, ALL)
        hands = Hands(page)
        hands.keys("Space")
        page.wait_for_timeout(1000 * length)
        page.evaluate("() => { document.querySelector('#timeline').dataset.old = ''; }")
        work(hands, target)
        more = number + 1 < len(clips)
        waiting = waited(page, READY) if more else waited(page, "() => document.querySelector('#all-done') !== null")
        if more:
            every.append(waiting + waited(page, ALL))
        done.append({"count": hands.count, "watching": length, "waiting": waiting if more else None})
        equal += studio.client.get("/api/clip", params=request).json()["history"]["scores"] == target
    return summary(done) | {
        "seconds_to_all_frames_of_next": round(sorted(every)[len(every) // 2], 2),
        "seconds_to_open_the_first": round(opening, 2),
        "saved_as_wanted": f"{equal} of {len(clips)}",
    }


def first_clips(edits: Path, folder: Path, count: int) -> Path:
    """A copy of an edit project with its first clips and without edits."""
    shutil.copytree(edits, folder, ignore=shutil.ignore_patterns("edits.jsonl", "studio.db*", "jobs"))
    lines = (folder / "clips.jsonl").read_text().splitlines(keepends=True)
    (folder / "clips.jsonl").write_text("".join(lines[:count]))
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--edits", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--chromium")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.truth.read_text().splitlines()]
    truth = {line["id"]: line["relevance"] for line in lines}
    figures = {}
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        opened = browser(playwright, arguments.chromium)
        for name, work in (("keyboard", by_keys), ("mouse", by_mouse)):
            project = first_clips(arguments.edits, Path(temporary) / name, arguments.clips)
            with start_studio(arguments.run, project) as studio:
                figures[name] = queue(opened.new_page(viewport=SCREEN), studio, truth, work)
        opened.close()
    write_part("studio", figures)
