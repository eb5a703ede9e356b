"""One clip of Tabletop: what is decided about it, and its pictures."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stabn.data.tabletop.acts import ACTS, AWAY, Key, Stage
from stabn.data.tabletop.drawing import (
    TABLE_TOP,
    Look,
    Sprite,
    draw_cup,
    draw_hand,
    draw_object,
    draw_room,
    paste,
    random_colour,
    random_look,
)

SIDE = 128
DECISIVE = (0.25, 0.75)
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Plan:
    """All that is decided about one clip before a pixel is drawn.

    Attributes:
        label: position in `ACTS`.
        num_frames: length of the clip.
        start, stop: the frames (from, to exclusive) of the act.
        stage: where the act takes place.
    """

    label: int
    num_frames: int
    start: int
    stop: int
    stage: Stage

    def moment(self, frame: int) -> float | None:
        """The act's moment 0..1 at a frame, None outside the act."""
        if not self.start <= frame < self.stop:
            return None
        return (frame - self.start) / (self.stop - self.start - 1)

    @property
    def relevance(self) -> tuple[float, ...]:
        """Per frame: 1.0 while the decisive thing happens, 0.5 while hand or object come and go, 0.0 elsewhere."""
        moments = [self.moment(frame) for frame in range(self.num_frames)]
        return tuple(0.0 if u is None else 1.0 if DECISIVE[0] <= u <= DECISIVE[1] else 0.5 for u in moments)


def stream(seed: int, split: str, number: int, name: str) -> np.random.Generator:
    """An independent random stream per clip and purpose; none of them depends on a label."""
    purposes = ("labels", "stage", "clutter", "camera", "mark")
    return np.random.default_rng([seed, SPLITS.index(split), number, purposes.index(name)])


def labels_of(seed: int, split: str, count: int) -> tuple[int, ...]:
    """The labels of a split: equally many of each class, in random order."""
    order = stream(seed, split, 0, "labels").permutation(count)
    return tuple(int(i) % len(ACTS) for i in order)


def plan_clip(seed: int, split: str, number: int, label: int) -> Plan:
    """Decide one clip; two plans that differ in `label` alone differ in nothing but `label`."""
    rng = stream(seed, split, number, "stage")
    num_frames = int(rng.integers(24, 49))
    length = int(rng.integers(12, 19))
    start = int(rng.integers(0, num_frames - length + 1))
    stage = Stage(
        x=rng.uniform(0.34, 0.66),
        reach=rng.uniform(0.3, 0.42),
        direction=int(rng.choice((-1, 1))),
        looks=(random_look(rng), random_look(rng)),
        tilt=rng.uniform(-14, 14),
    )
    return Plan(label, num_frames, start, start + length, stage)


def pose_at(keys: list[Key], u: float) -> tuple[float, float, float, float] | None:
    """Position, angle and opacity at a moment, easing between keys; None before the first and after the last key."""
    if not keys[0][0] - 1e-9 <= u <= keys[-1][0] + 1e-9:
        return None
    after = next((i for i, key in enumerate(keys) if key[0] >= u), len(keys) - 1)
    if after == 0:
        return keys[0][1:]
    a, b = keys[after - 1], keys[after]
    s = (u - a[0]) / (b[0] - a[0])
    s = s * s * (3 - 2 * s)
    x, y, angle, alpha = (p + (q - p) * s for p, q in zip(a[1:], b[1:], strict=True))
    return x, y, angle, alpha


def _clutter_tracks(plan: Plan, rng: np.random.Generator) -> Iterator[tuple[Look, np.ndarray]]:
    """Objects that nobody touches, with (num_frames, 3) arrays of x, y and opacity."""
    for _ in range(int(rng.integers(1, 3))):
        look = random_look(rng, (0.06, 0.1))
        rests = bool(rng.uniform() < 0.6)
        ground = TABLE_TOP - look.half_height
        here = np.array([rng.uniform(0.18, 0.82), ground, float(rng.uniform() < 0.7)])
        track = np.empty((plan.num_frames, 3))
        frame = 0
        while frame < plan.num_frames:
            pause, duration = int(rng.integers(1, 6)), int(rng.integers(4, 9))
            air = rng.uniform() < 0.4
            there = np.array(
                [rng.uniform(0.1, 0.9), rng.uniform(0.15, 0.5) if air else ground, float(rng.uniform() < 0.75)]
            )
            if rng.uniform() < 0.5:
                there[0] = here[0]
            for step in range(pause + duration):
                if frame + step >= plan.num_frames:
                    break
                s = max(0, step - pause) / duration
                track[frame + step] = here + (there - here) * s * s * (3 - 2 * s)
            frame += pause + duration
            here = there
        if rests:
            track[plan.start : plan.stop] = track[plan.start]
        yield look, track


def _waving_hand(plan: Plan, rng: np.random.Generator) -> np.ndarray | None:
    """A (num_frames, 2) path of an empty hand before or after the act, NaN where it is away; None for no such hand."""
    wanted, x, offset = rng.uniform() < 0.4, rng.uniform(0.2, 0.8), rng.uniform()
    gaps = [(a, b) for a, b in ((0, plan.start), (plan.stop, plan.num_frames)) if b - a >= 8]
    if not wanted or not gaps:
        return None
    first, last = gaps[int(rng.integers(len(gaps)))]
    length = min(last - first, 12)
    first += int(offset * (last - first - length + 1))
    path = np.full((plan.num_frames, 2), np.nan)
    u = np.linspace(0, 1, length)
    path[first : first + length, 0] = x + 0.12 * np.sin(2 * np.pi * u)
    path[first : first + length, 1] = np.interp(u, (0, 0.3, 0.7, 1), (AWAY, 0.34, 0.34, AWAY))
    return path


def camera_shake(plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """How far the camera looks to the right and down in each frame.

    Args:
        plan: the clip.
        rng: its "camera" stream, of which this is the first draw.

    Returns:
        (num_frames, 2) fractions of the side, within 0.05 of 0.
    """
    shake = np.cumsum(rng.normal(0, 0.004, (plan.num_frames, 2)), axis=0)
    return np.clip(shake - shake.mean(0), -0.05, 0.05)


def draw_clip(
    seed: int, split: str, number: int, label: int, *, with_act: bool = True
) -> tuple[np.ndarray, list[tuple[int, int, int, int] | None]]:
    """The pictures of one clip and the box of the handled object in each.

    Args:
        seed, split, number: which clip.
        label: position in `ACTS`.
        with_act: False leaves the act out: what remains is what surrounds it, and does not depend on `label`.

    Returns:
        (num_frames, 128, 128, 3) uint8 RGB, and per frame (left, top, right, bottom) in pixels or None.
    """
    plan = plan_clip(seed, split, number, label)
    clutter = stream(seed, split, number, "clutter")
    camera = stream(seed, split, number, "camera")
    room = draw_room(clutter, SIDE)
    margin = SIDE // 4
    objects = [(Sprite.of(draw_object(look, SIDE)), track) for look, track in _clutter_tracks(plan, clutter)]
    wave = _waving_hand(plan, clutter)
    skin, sleeve = random_colour(clutter, (0.2, 0.7)), random_colour(clutter)
    hand = Sprite.of(draw_hand(skin, sleeve, plan.stage.tilt, SIDE))
    shake = camera_shake(plan, camera)
    light = np.exp(np.cumsum(camera.normal(0, 0.05, plan.num_frames)))
    light = np.clip(light / light.mean(), 0.6, 1.4)

    act = list(ACTS.values())[label]
    stage = act.staged(plan.stage)
    script = act.script(stage)
    sprites = {
        "object": Sprite.of((draw_cup if act.cup else draw_object)(stage.looks[0], SIDE)),
        "other": Sprite.of(draw_object(stage.looks[1], SIDE)),
    }
    frames, boxes = [], []
    for frame in range(plan.num_frames):
        canvas = room.copy()
        for sprite, track in objects:
            x, y, alpha = track[frame]
            paste(canvas, sprite, (margin + x * SIDE, margin + y * SIDE), alpha=alpha)
        if wave is not None and not np.isnan(wave[frame, 0]):
            paste(canvas, hand, (margin + wave[frame, 0] * SIDE, margin + wave[frame, 1] * SIDE))
        u, box = plan.moment(frame), None
        if with_act and u is not None:
            for actor in ("other", "object", "hand"):
                pose = pose_at(script[actor], u) if actor in script else None
                if pose is None or pose[3] <= 0.02:
                    continue
                centre = (margin + pose[0] * SIDE, margin + pose[1] * SIDE)
                drawn = paste(canvas, hand if actor == "hand" else sprites[actor], centre, pose[2], pose[3])
                box = drawn if actor == "object" else box
        left, top = (round(margin + value * SIDE) for value in shake[frame])
        view = canvas.crop((left, top, left + SIDE, top + SIDE))
        frames.append(np.clip(np.asarray(view) * light[frame], 0, 255).astype(np.uint8))
        boxes.append(_visible(box, left, top))
    return np.stack(frames), boxes


def _visible(box: tuple[float, float, float, float] | None, left: int, top: int) -> tuple[int, int, int, int] | None:
    if box is None:
        return None
    x0, y0, x1, y1 = box[0] - left, box[1] - top, box[2] - left, box[3] - top
    x0, y0, x1, y1 = (int(min(max(value, 0), SIDE)) for value in (x0, y0, x1, y1))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
