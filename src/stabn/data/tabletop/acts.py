"""The fourteen acts of Tabletop: where each participant is at which moment.

An act lasts from moment 0 to moment 1. Lengths are fractions of the picture's side, x to the right and y down.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from stabn.data.tabletop.scene import TABLE_LEFT, TABLE_RIGHT, TABLE_TOP, Appearance

Key = tuple[float, float, float, float, float]
"""(moment in 0..1 of the act, x, y, angle in degrees, opacity)."""
Motion = Mapping[str, Sequence[Key]]
"""The keys of "object", "other" and "hand", as far as they take part."""

AWAY = -0.2
HIGH = 0.24


@dataclass(frozen=True)
class Setting:
    """Where an act takes place; nothing here depends on the label.

    Attributes:
        x: the middle of the act.
        reach: how far things travel.
        direction: -1 or 1, the side from which things come.
        appearances: of the handled object and of the other object.
        tilt: the hand's rotation in degrees.
    """

    x: float
    reach: float
    direction: int
    appearances: tuple[Appearance, Appearance]
    tilt: float

    def ground(self, which: int = 0) -> float:
        """Centre height at which an object stands on the table."""
        return TABLE_TOP - self.appearances[which].half_height

    @property
    def grip(self) -> float:
        """How far the hand's finger tips are above the centre of the handled object."""
        return self.appearances[0].half_height * 0.7


def pose_at(keys: Sequence[Key], moment: float) -> tuple[float, float, float, float] | None:
    """Position, angle and opacity at a moment, easing between keys; None before the first and after the last key."""
    if not keys[0][0] - 1e-9 <= moment <= keys[-1][0] + 1e-9:
        return None
    after = next((i for i, key in enumerate(keys) if key[0] >= moment), len(keys) - 1)
    if after == 0:
        return keys[0][1:]
    a, b = keys[after - 1], keys[after]
    s = (moment - a[0]) / (b[0] - a[0])
    s = s * s * (3 - 2 * s)
    x, y, angle, opacity = (p + (q - p) * s for p, q in zip(a[1:], b[1:], strict=True))
    return x, y, angle, opacity


def _path(*points: tuple[float, ...]) -> list[Key]:
    """Keys from (moment, x, y) and maybe angle, opaque."""
    return [(u, x, y, angle[0] if angle else 0.0, 1.0) for u, x, y, *angle in points]


def _fading(*points: tuple[float, ...], last: bool = True) -> list[Key]:
    """As `_path`, but transparent at the act's first moment and, where `last` says so, at its last."""
    keys = _path(*points)
    first_pose, last_pose = keys[0][1:4], keys[-1][1:4]
    keys = [(0.0, *first_pose, 0.0), (0.12, *first_pose, 1.0), *[key for key in keys if key[0] > 0.12]]
    if last:
        keys = [*[key for key in keys if key[0] < 0.88], (0.88, *last_pose, 1.0), (1.0, *last_pose, 0.0)]
    return keys


def _held(keys: Sequence[Key], grip: float) -> list[Key]:
    """The hand that carries an object along `keys`."""
    return [(u, x, y - grip, 0.0, opacity) for u, x, y, _, opacity in keys]


def _moving_up(setting: Setting) -> Motion:
    x, outside, low = setting.x, setting.x + setting.direction * 0.9, setting.ground() - 0.1
    carried = _path((0, outside, low), (0.25, x, low), (0.75, x, HIGH), (1, outside, HIGH))
    return {"object": carried, "hand": _held(carried, setting.grip)}


def _moving_left_to_right(setting: Setting) -> Motion:
    left, right, y = setting.x - setting.reach / 2, setting.x + setting.reach / 2, setting.ground()
    grip = y - setting.grip
    return {
        "object": _fading((0, left, y), (0.25, left, y), (0.75, right, y), (1, right, y)),
        "hand": _path((0, left, AWAY), (0.25, left, grip), (0.75, right, grip), (1, right, AWAY)),
    }


def _setting_down(setting: Setting, target: float) -> dict[str, list[Key]]:
    """An object brought from above and set down at height `target`, and the hand that brings it and leaves."""
    x, aside = setting.x, setting.x + setting.direction * 0.16
    brought = _path((0, aside, AWAY), (0.25, aside, HIGH), (0.62, x, target))
    return {
        "object": [*brought, (0.88, x, target, 0, 1), (1, x, target, 0, 0)],
        "hand": [*_held(brought, setting.grip), *_path((0.72, x, target - setting.grip), (1, x, AWAY))],
    }


def _putting_onto(setting: Setting) -> Motion:
    x, y = setting.x, setting.ground(1)
    target = setting.ground() - setting.appearances[1].half_height * 2
    return {"other": _fading((0, x, y), (1, x, y)), **_setting_down(setting, target)}


def _covering(setting: Setting) -> Motion:
    visibility = ((0, 0), (0.12, 1), (0.66, 1), (0.67, 0), (1, 0))
    hidden = [(moment, setting.x, setting.ground(1), 0, opacity) for moment, opacity in visibility]
    return {"other": hidden, **_setting_down(setting, setting.ground())}


def _dropping(setting: Setting) -> Motion:
    x, ground, above = setting.x, setting.ground(), HIGH - setting.grip
    fall = [(0.4 + 0.2 * s, x, HIGH + (ground - HIGH) * s * s) for s in (0.25, 0.5, 0.75, 1.0)]
    return {
        "object": _fading((0, x, HIGH), (0.4, x, HIGH), *fall, (1, x, ground)),
        "hand": [(0, x, above, 0, 0), *_path((0.12, x, above), (0.7, x, above), (1, x, AWAY))],
    }


def _lifting(setting: Setting) -> Motion:
    x, ground, grip = setting.x, setting.ground(), setting.grip
    thing = _fading((0, x, ground), (0.35, x, ground), (0.7, x, HIGH), (1, x, HIGH))
    lifted = [key for key in _held(thing, grip) if key[0] > 0.3]
    return {"object": thing, "hand": [*_path((0, x, AWAY), (0.3, x, ground - grip)), *lifted]}


def _pushing_to_edge(setting: Setting, *, falls: bool) -> Motion:
    d, y = setting.direction, setting.ground()
    edge = TABLE_RIGHT if d > 0 else TABLE_LEFT
    start, stop = edge - d * setting.reach, edge - d * 0.02
    if falls:
        end = [(0.6, edge + d * 0.05, y + 0.07, -d * 50.0), (0.75, edge + d * 0.08, 1.2, -d * 140.0)]
    else:
        end = [(0.58, edge - d * 0.015, y, -d * 14.0), (0.66, stop, y, d * 4.0), (0.75, stop, y, 0.0)]
    behind, tip = -d * (setting.appearances[0].half_width + 0.05), y - 0.02
    first, last = start + behind, stop + behind
    return {
        "object": _fading((0, start, y), (0.25, start, y), (0.5, stop, y), *end),
        "hand": _path((0, first, AWAY), (0.25, first, tip), (0.5, last, tip), (0.75, last, tip), (1, last, AWAY)),
    }


def _picking_up(setting: Setting, *, pretending: bool) -> Motion:
    x, ground, away = setting.x, setting.ground(), AWAY - 0.05
    if pretending:
        thing = _fading((0, x, ground), (1, x, ground))
    else:
        thing = _fading((0, x, ground), (0.45, x, ground), (0.8, x, away), last=False)
    down = ground - setting.grip
    return {
        "object": thing,
        "hand": _path((0, x, AWAY), (0.35, x, down), (0.45, x, down), (0.8, x, away - setting.grip)),
    }


@dataclass(frozen=True)
class Act:
    """What the participants do.

    Attributes:
        motion: what they do in a given setting.
        cup: the handled object is a cup that hides the other one.
    """

    motion: Callable[[Setting], Motion]
    cup: bool = False

    def reversed(self) -> "Act":
        """The same pictures in the opposite order."""

        def motion(setting: Setting) -> Motion:
            return {
                participant: [(1.0 - moment, *pose) for moment, *pose in reversed(keys)]
                for participant, keys in self.motion(setting).items()
            }

        return Act(motion, self.cup)

    def fit(self, setting: Setting) -> Setting:
        """The setting with a cup, if the act needs one, big enough for what it covers."""
        if not self.cup:
            return setting
        thing, other = setting.appearances
        cup = replace(thing, half_width=other.half_width * 1.3, half_height=other.half_height * 1.25)
        return replace(setting, appearances=(cup, other))


MOVING_UP, MOVING_RIGHT = Act(_moving_up), Act(_moving_left_to_right)
PUTTING_ONTO, COVERING = Act(_putting_onto), Act(_covering, cup=True)

ACTS: dict[str, Act] = {
    "Moving [something] up": MOVING_UP,
    "Moving [something] down": MOVING_UP.reversed(),
    "Moving [something] from left to right": MOVING_RIGHT,
    "Moving [something] from right to left": MOVING_RIGHT.reversed(),
    "Putting [something] onto [something]": PUTTING_ONTO,
    "Taking [something] off [something]": PUTTING_ONTO.reversed(),
    "Covering [something] with [something]": COVERING,
    "Uncovering [something] by lifting [something]": COVERING.reversed(),
    "Dropping [something]": Act(_dropping),
    "Lifting [something]": Act(_lifting),
    "Pushing [something] so that it falls off the table": Act(partial(_pushing_to_edge, falls=True)),
    "Pushing [something] so that it almost falls off but doesn't": Act(partial(_pushing_to_edge, falls=False)),
    "Picking [something] up": Act(partial(_picking_up, pretending=False)),
    "Pretending to pick [something] up": Act(partial(_picking_up, pretending=True)),
}
"""Template -> act; a class's label is the position of its template."""
