"""Hands that work a page in a real browser and know how long a person takes, for the measurements beside this file.

The keystroke-level model: Card, Moran and Newell, "The keystroke-level model for user performance time with interactive
systems", CACM 23(7), 1980, with its average typist; a press of a mouse button after Kieras (1993). A modifier that is
held counts as one key, a click as pressing and releasing, a drag as pointing, pressing, pointing, releasing.
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from playwright.sync_api import Browser, Page, Playwright, ViewportSize

OPERATORS = {"K": 0.28, "P": 1.1, "B": 0.1, "H": 0.4, "M": 1.35}
SCREEN: ViewportSize = {"width": 1920, "height": 1080}


class Hands:
    """Does things to a page; `count` says how often each operator was needed."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.count = Counter({"drags": 0, "clicks": 0} | dict.fromkeys(OPERATORS, 0))

    def keys(self, *chords: str) -> None:
        """Press one after the other; "Control+Enter" is two keys."""
        for chord in chords:
            self.page.keyboard.press(chord)
            self.count["K"] += len(chord.split("+"))

    def holding(self, modifier: str, keys: Sequence[str]) -> None:
        """Press keys while a modifier stays down."""
        if keys:
            self.keys(modifier)
            self.page.keyboard.down(modifier)
            self.keys(*keys)
            self.page.keyboard.up(modifier)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Move, press, move, release."""
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move(*end, steps=8)
        mouse.up()
        self.count += Counter({"P": 2, "B": 2, "drags": 1})

    def click(self, target: str) -> None:
        """Click on what a selector finds."""
        self.page.click(target)
        self.count += Counter({"P": 1, "B": 2, "clicks": 1})

    def think(self) -> None:
        """Decide what comes next."""
        self.count["M"] += 1

    def change(self) -> None:
        """A hand goes from the mouse to the keyboard or back."""
        self.count["H"] += 1


def seconds(count: Mapping[str, int]) -> float:
    """How long a person takes for the operators counted."""
    return sum(each * count[name] for name, each in OPERATORS.items())


def runs(scores: Iterable[float]) -> Iterator[tuple[int, int, float]]:
    """Stretches of equal scores: first, last, score."""
    at = 0
    for score, group in itertools.groupby(scores):
        size = len(list(group))
        yield at, at + size - 1, score
        at += size


def layers(scores: Sequence[float]) -> list[tuple[int, int, float]]:
    """The ranges to paint over nothing, a higher one over a lower one: ..oo##oo.. is one of 0.5 and one of 1 in it."""
    found = []
    for level in sorted({score for score in scores if score}):
        for first, last, inside in runs(score >= level for score in scores):
            if inside and level in scores[first : last + 1]:
                found.append((first, last, level))
    return found


def browser(playwright: Playwright, executable: str | None) -> Browser:
    """Chromium that asks no other host for anything."""
    arguments = ["--no-sandbox", "--disable-background-networking"]
    return playwright.chromium.launch(executable_path=executable, args=arguments)


def waited(page: Page, condition: str, argument: Any = None) -> float:
    """Seconds until a JavaScript function of the page answers with something true, asked before every picture."""
    started = time.perf_counter()
    page.wait_for_function(condition, arg=argument, polling="raf")
    return time.perf_counter() - started


def summary(corrections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over corrections of {"count", "waiting", "watching"}."""
    counts = [one["count"] for one in corrections]
    hands = [seconds(count) for count in counts]
    waits = [one["waiting"] for one in corrections if one["waiting"] is not None]
    watching = [one["watching"] for one in corrections]
    return {
        "clips": len(corrections),
        "keys": median(count["K"] for count in counts),
        "clicks": median(count["clicks"] for count in counts),
        "drags": median(count["drags"] for count in counts),
        "operators": {name: median(count[name] for count in counts) for name in OPERATORS},
        "seconds_of_hands_and_thought": round(median(hands), 2),
        "seconds_watching": round(median(watching), 2),
        "seconds_waiting_for_next": round(median(waits), 2),
        "seconds_waiting_longest": round(max(waits), 2),
        "seconds": round(median(hands) + median(watching) + median(waits), 1),
    }
