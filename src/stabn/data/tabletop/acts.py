"""The fourteen acts of Tabletop: who is where at which moment.

An act lasts from moment 0 to moment 1. Lengths are fractions of the picture's side, x to the right and y down.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from stabn.data.tabletop.drawing import TABLE_LEFT, TABLE_RIGHT, TABLE_TOP, Look

Key = tuple[float, float, float, float, float]
"""(moment in 0..1 of the act, x, y, angle in degrees, opacity)."""


@dataclass(frozen=True)
class Stage:
    """Where an act takes place; nothing here depends on the label.

    Attributes:
        x: the middle of the act.
        reach: how far things travel.
        direction: -1 or 1, the side from which things come.
        looks: the handled object, the other object.
        tilt: the hand's rotation in degrees.
    """

    x: float
    reach: float
    direction: int
    looks: tuple[Look, Look]
    tilt: float

    def ground(self, which: int = 0) -> float:
        """Centre height at which an object stands on the table."""
        return TABLE_TOP - self.looks[which].half_height


AWAY = -0.2
HIGH = 0.24
Script = Callable[[Stage], dict[str, list[Key]]]


def _fading(*poses: tuple[float, float, float, float], first: bool = True, last: bool = True) -> list[Key]:
    """Keys that are transparent at the act's first and last moment where asked."""
    keys: list[Key] = [(*pose, 1.0) for pose in poses]
    if first:
        keys = [(0.0, *poses[0][1:], 0.0), (0.12, *poses[0][1:], 1.0), *[k for k in keys if k[0] > 0.12]]
    if last:
        keys = [*[k for k in keys if k[0] < 0.88], (0.88, *poses[-1][1:], 1.0), (1.0, *poses[-1][1:], 0.0)]
    return keys


def _held(keys: list[Key], grip: float) -> list[Key]:
    """The hand that carries an object along `keys`."""
    return [(u, x, y - grip, 0.0, alpha) for u, x, y, _, alpha in keys]


def _moving_up(stage: Stage) -> dict[str, list[Key]]:
    outside, low = stage.x + stage.direction * 0.9, stage.ground() - 0.1
    carried: list[Key] = [
        (0.0, outside, low, 0, 1),
        (0.25, stage.x, low, 0, 1),
        (0.75, stage.x, HIGH, 0, 1),
        (1.0, outside, HIGH, 0, 1),
    ]
    return {"object": carried, "hand": _held(carried, stage.looks[0].half_height * 0.7)}


def _moving_left_to_right(stage: Stage) -> dict[str, list[Key]]:
    left, right, y = stage.x - stage.reach / 2, stage.x + stage.reach / 2, stage.ground()
    grip = y - stage.looks[0].half_height * 0.7
    return {
        "object": _fading((0, left, y, 0), (0.25, left, y, 0), (0.75, right, y, 0), (1, right, y, 0)),
        "hand": [(0, left, AWAY, 0, 1), (0.25, left, grip, 0, 1), (0.75, right, grip, 0, 1), (1, right, AWAY, 0, 1)],
    }


def _set_down(stage: Stage, start: float, target: float, half_height: float) -> tuple[list[Key], list[Key]]:
    """An object brought from above and set down at height `target`, and the hand that brings it and leaves."""
    aside = stage.x + stage.direction * 0.16
    brought: list[Key] = [(0, aside, AWAY, 0, 1), (0.25, aside, start, 0, 1), (0.62, stage.x, target, 0, 1)]
    hand = [*_held(brought, half_height * 0.7), (0.72, stage.x, target - half_height * 0.7, 0, 1)]
    return [*brought, (0.88, stage.x, target, 0, 1), (1, stage.x, target, 0, 0)], [*hand, (1, stage.x, AWAY, 0, 1)]


def _putting_onto(stage: Stage) -> dict[str, list[Key]]:
    base = stage.looks[1].half_height * 2
    thing, hand = _set_down(stage, HIGH, stage.ground() - base, stage.looks[0].half_height)
    y = stage.ground(1)
    return {"other": _fading((0, stage.x, y, 0), (1, stage.x, y, 0)), "object": thing, "hand": hand}


def _covering(stage: Stage) -> dict[str, list[Key]]:
    cup, hand = _set_down(stage, HIGH, stage.ground(), stage.looks[0].half_height)
    y = stage.ground(1)
    hidden: list[Key] = [
        (0, stage.x, y, 0, 0),
        (0.12, stage.x, y, 0, 1),
        (0.66, stage.x, y, 0, 1),
        (0.67, stage.x, y, 0, 0),
        (1, stage.x, y, 0, 0),
    ]
    return {"other": hidden, "object": cup, "hand": hand}


def _dropping(stage: Stage) -> dict[str, list[Key]]:
    x, ground, grip = stage.x, stage.ground(), stage.looks[0].half_height * 0.7
    fall = [(0.4 + 0.2 * s, x, HIGH + (ground - HIGH) * s * s, 0.0) for s in (0.25, 0.5, 0.75, 1.0)]
    return {
        "object": _fading((0, x, HIGH, 0), (0.4, x, HIGH, 0), *fall, (1, x, ground, 0)),
        "hand": [
            (0, x, HIGH - grip, 0, 0),
            (0.12, x, HIGH - grip, 0, 1),
            (0.7, x, HIGH - grip, 0, 1),
            (1, x, AWAY, 0, 1),
        ],
    }


def _lifting(stage: Stage) -> dict[str, list[Key]]:
    x, ground, grip = stage.x, stage.ground(), stage.looks[0].half_height * 0.7
    thing = _fading((0, x, ground, 0), (0.35, x, ground, 0), (0.7, x, HIGH, 0), (1, x, HIGH, 0))
    hand = [(0.0, x, AWAY, 0.0, 1.0), (0.3, x, ground - grip, 0.0, 1.0), *[k for k in _held(thing, grip) if k[0] > 0.3]]
    return {"object": thing, "hand": hand}


def _pushing_to_edge(stage: Stage, *, falls: bool) -> dict[str, list[Key]]:
    d, y = stage.direction, stage.ground()
    edge = TABLE_RIGHT if d > 0 else TABLE_LEFT
    start = edge - d * stage.reach
    pushed = [(0.0, start, y, 0.0), (0.25, start, y, 0.0), (0.5, edge - d * 0.02, y, 0.0)]
    if falls:
        pushed += [(0.6, edge + d * 0.05, y + 0.07, -d * 50.0), (0.75, edge + d * 0.08, 1.2, -d * 140.0)]
    else:
        pushed += [
            (0.58, edge - d * 0.015, y, -d * 14.0),
            (0.66, edge - d * 0.02, y, d * 4.0),
            (0.75, edge - d * 0.02, y, 0),
        ]
    behind, tip = -d * (stage.looks[0].half_width + 0.05), y - 0.02
    hand: list[Key] = [
        (0, start + behind, AWAY, 0, 1),
        (0.25, start + behind, tip, 0, 1),
        (0.5, edge - d * 0.02 + behind, tip, 0, 1),
        (0.75, edge - d * 0.02 + behind, tip, 0, 1),
        (1, edge - d * 0.02 + behind, AWAY, 0, 1),
    ]
    return {"object": _fading(*pushed), "hand": hand}


def _picking_up(stage: Stage, *, pretending: bool) -> dict[str, list[Key]]:
    x, ground, grip = stage.x, stage.ground(), stage.looks[0].half_height * 0.7
    if pretending:
        thing = _fading((0, x, ground, 0), (1, x, ground, 0))
    else:
        thing = _fading((0, x, ground, 0), (0.45, x, ground, 0), (0.8, x, AWAY - 0.05, 0), last=False)
    down = ground - grip
    return {
        "object": thing,
        "hand": [(0, x, AWAY, 0, 1), (0.35, x, down, 0, 1), (0.45, x, down, 0, 1), (0.8, x, AWAY - 0.05 - grip, 0, 1)],
    }


@dataclass(frozen=True)
class Act:
    """What the participants do.

    Attributes:
        script: the keys of "object", "other" and "hand" on a given stage.
        cup: the handled object is a cup that hides the other one.
    """

    script: Script
    cup: bool = False

    def backwards(self) -> "Act":
        """The same pictures in the opposite order."""

        def script(stage: Stage) -> dict[str, list[Key]]:
            return {
                actor: [(1.0 - u, x, y, angle, alpha) for u, x, y, angle, alpha in reversed(keys)]
                for actor, keys in self.script(stage).items()
            }

        return Act(script, self.cup)

    def staged(self, stage: Stage) -> Stage:
        """The stage with a cup, if the act needs one, big enough for what it covers."""
        if not self.cup:
            return stage
        thing, other = stage.looks
        cup = replace(thing, half_width=other.half_width * 1.3, half_height=other.half_height * 1.25)
        return replace(stage, looks=(cup, other))


MOVING_UP, MOVING_RIGHT = Act(_moving_up), Act(_moving_left_to_right)
PUTTING_ONTO, COVERING = Act(_putting_onto), Act(_covering, cup=True)

ACTS: dict[str, Act] = {
    "Moving [something] up": MOVING_UP,
    "Moving [something] down": MOVING_UP.backwards(),
    "Moving [something] from left to right": MOVING_RIGHT,
    "Moving [something] from right to left": MOVING_RIGHT.backwards(),
    "Putting [something] onto [something]": PUTTING_ONTO,
    "Taking [something] off [something]": PUTTING_ONTO.backwards(),
    "Covering [something] with [something]": COVERING,
    "Uncovering [something] by lifting [something]": COVERING.backwards(),
    "Dropping [something]": Act(_dropping),
    "Lifting [something]": Act(_lifting),
    "Pushing [something] so that it falls off the table": Act(partial(_pushing_to_edge, falls=True)),
    "Pushing [something] so that it almost falls off but doesn't": Act(partial(_pushing_to_edge, falls=False)),
    "Picking [something] up": Act(partial(_picking_up, pretending=False)),
    "Pretending to pick [something] up": Act(partial(_picking_up, pretending=True)),
}
"""Template -> act."""
