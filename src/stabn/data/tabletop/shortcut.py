"""A planted shortcut: a mark whose colour gives the class of a training clip away, and misleads in validation clips.

`time` puts it where nothing happens, so that looking at the right moment avoids it. `space` puts it into the frames of
the act, where only looking at the right place does. The mark is painted over finished pictures and drawn from a random
stream of its own; nothing else of a clip changes, and neither place nor time of the mark depends on the class.
"""

import colorsys
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stabn.data.tabletop.acts import ACTS, pose_at
from stabn.data.tabletop.clip_plan import ClipPlan
from stabn.data.tabletop.draw_clip import SIDE
from stabn.data.tabletop.scene import Colour

SIDES = {"time": 32, "space": 20}
"""Pixels of 128: the larger square is shown for 5 frames, the smaller one for 12 to 18. The small recipe's network
learns the shortcut at these sizes, and did not with 14 pixels in 5 frames."""
MARGIN = 7
"""Pixels from the edge: what lies inside is in the middle 8/9 of the picture, which networks of the recipes see."""
LASTING = 5
"""Frames: 16 random frames of 16 equal parts of 48 frames always hit one of five in a row, but can miss four."""

Box = tuple[int, int, int, int]


def _hue(twelfth: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(twelfth / 12, 1.0, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


COLOURS: tuple[Colour, ...] = (*map(_hue, range(12)), (0, 0, 0), (255, 255, 255))
"""One per class: twelve hues, black and white; at least 127 apart in RGB, and apart still under jitter of 0.2."""
FRAME: Colour = (255, 255, 255)
"""The mark's outermost two pixels, so that it stands out from any background."""


@dataclass(frozen=True)
class Shortcut:
    """Which shortcut is planted.

    Attributes:
        where: "time", in frames that do not matter; "space", in the frames of the act, away from the handled object.
        strength: the share of training clips whose mark tells their class, 0..1; the others' is of a random class.
    """

    where: Literal["time", "space"]
    strength: float = 1.0


@dataclass(frozen=True)
class Mark:
    """The mark of one clip.

    Attributes:
        label: position in `ACTS` of the class that it tells, truly or not.
        left, top: its corner in pixels, in every marked frame the same.
        side: of the square, in pixels.
        start, stop: the marked frames, from, to exclusive.
    """

    label: int
    left: int
    top: int
    side: int
    start: int
    stop: int

    @property
    def box(self) -> Box:
        """(left, top, right, bottom) in pixels, right and bottom exclusive."""
        return self.left, self.top, self.left + self.side, self.top + self.side

    def boxes(self, num_frames: int) -> list[Box | None]:
        """Per frame (left, top, right, bottom) in pixels, None where the mark is not."""
        return [self.box if self.start <= frame < self.stop else None for frame in range(num_frames)]

    def painted(self, frames: np.ndarray) -> np.ndarray:
        """A copy of (num_frames, 128, 128, 3) uint8 RGB pictures with the mark on them."""
        marked = frames.copy()
        left, top, right, bottom = self.box
        square = marked[self.start : self.stop, top:bottom, left:right]
        square[:] = FRAME
        square[:, 2:-2, 2:-2] = COLOURS[self.label]
        return marked


def plan_mark(shortcut: Shortcut, plan: ClipPlan) -> Mark:
    """The mark of one clip; only its `label` depends on the clip's."""
    rng = plan.random_stream("mark")
    chance, anyone, step = rng.uniform(), int(rng.integers(len(ACTS))), int(rng.integers(1, len(ACTS)))
    if plan.split == "train":
        label = plan.label if chance < shortcut.strength else anyone
    else:
        label = (plan.label + step) % len(ACTS)
    side = SIDES[shortcut.where]
    if shortcut.where == "time":
        left, top = (int(rng.integers(MARGIN, SIDE - MARGIN - side + 1)) for _ in range(2))
        return Mark(label, left, top, side, *_idle_stretch(plan, rng))
    places = _free_places(_reach(plan), side)
    left, top = places[int(rng.integers(len(places)))]
    return Mark(label, left, top, side, plan.start, plan.stop)


def _idle_stretch(plan: ClipPlan, rng: np.random.Generator) -> tuple[int, int]:
    """Consecutive frames outside the act: five, or as many as there is room for, which is never less than three."""
    gaps = ((0, plan.start), (plan.stop, plan.num_frames))
    length = min(LASTING, max(stop - start for start, stop in gaps))
    starts = [first for start, stop in gaps for first in range(start, stop - length + 1)]
    first = starts[int(rng.integers(len(starts)))]
    return first, first + length


def _reach(plan: ClipPlan) -> np.ndarray:
    """(128, 128) bool, where the handled object would be in any act: the mark's place may not tell the class."""
    shake = plan.camera_shake(plan.random_stream("camera"))
    reachable = np.zeros((SIDE, SIDE), dtype=bool)
    for act in ACTS.values():
        setting = act.fit(plan.setting)
        keys, thing = act.motion(setting)["object"], setting.appearances[0]
        for frame in range(plan.start, plan.stop):
            moment = plan.moment(frame)
            pose = None if moment is None else pose_at(keys, moment)
            if pose is None:
                continue
            half = (thing.half_width, thing.half_height)
            if pose[2]:  # rotated: within the circle around it
                half = (math.hypot(*half),) * 2
            centre = np.array(pose[:2]) - shake[frame]
            low = np.maximum(np.floor((centre - half) * SIDE).astype(int) - 2, 0)  # 2: drawing rounds
            high = np.maximum(np.ceil((centre + half) * SIDE).astype(int) + 2, 0)
            reachable[low[1] : high[1], low[0] : high[0]] = True
    return reachable


def _free_places(reachable: np.ndarray, side: int) -> list[tuple[int, int]]:
    """Every (left, top) at which a square is out of reach; one is always below the table, where nothing is pushed."""
    windows = np.lib.stride_tricks.sliding_window_view(reachable, (side, side))
    free = np.logical_not(np.any(windows, axis=(-2, -1)))
    inner = np.zeros_like(free)
    inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = free[MARGIN:-MARGIN, MARGIN:-MARGIN]
    tops, lefts = np.nonzero(inner if inner.any() else free)
    return [(int(left), int(top)) for left, top in zip(lefts, tops, strict=True)]
