"""The pictures of one clip of Tabletop, and where the handled object is in them."""

from collections.abc import Iterator

import numpy as np

from stabn.data.tabletop.acts import AWAY, pose_at
from stabn.data.tabletop.clip_plan import ClipPlan
from stabn.data.tabletop.scene import (
    TABLE_TOP,
    Appearance,
    Sprite,
    draw_cup,
    draw_hand,
    draw_object,
    draw_room,
    paste_sprite,
    random_appearance,
    random_colour,
)

SIDE = 128
"""Pixels of a picture's side."""
_MARGIN = SIDE // 4
"""Pixels around the picture that are drawn too, so that the camera can shake."""


def draw_clip(plan: ClipPlan, *, with_act: bool = True) -> tuple[np.ndarray, list[tuple[int, int, int, int] | None]]:
    """The pictures of one clip and the box of the handled object in each.

    Args:
        plan: of the clip.
        with_act: False leaves the act out: what remains is what surrounds it, and does not depend on the label.

    Returns:
        (num_frames, 128, 128, 3) uint8 RGB, and per frame (left, top, right, bottom) in pixels or None.
    """
    clutter, camera = plan.random_stream("clutter"), plan.random_stream("camera")
    room = draw_room(clutter, SIDE)
    bystanders = [(Sprite.of(draw_object(thing, SIDE)), track) for thing, track in _clutter_tracks(plan, clutter)]
    wave = _waving_hand(plan, clutter)
    skin, sleeve = random_colour(clutter, (0.2, 0.7)), random_colour(clutter)
    shake = plan.camera_shake(camera)
    light = np.exp(np.cumsum(camera.normal(0, 0.05, plan.num_frames)))
    light = np.clip(light / light.mean(), 0.6, 1.4)

    setting = plan.act.fit(plan.setting)
    motion = plan.act.motion(setting)
    sprites = {
        "object": Sprite.of((draw_cup if plan.act.cup else draw_object)(setting.appearances[0], SIDE)),
        "other": Sprite.of(draw_object(setting.appearances[1], SIDE)),
        "hand": Sprite.of(draw_hand(skin, sleeve, setting.tilt, SIDE)),
    }
    frames, boxes = [], []
    for frame in range(plan.num_frames):
        canvas = room.copy()
        for sprite, track in bystanders:
            x, y, opacity = track[frame]
            paste_sprite(canvas, sprite, (_MARGIN + x * SIDE, _MARGIN + y * SIDE), opacity=opacity)
        if wave is not None and not np.isnan(wave[frame, 0]):
            x, y = wave[frame]
            paste_sprite(canvas, sprites["hand"], (_MARGIN + x * SIDE, _MARGIN + y * SIDE))
        moment, box = plan.moment(frame), None
        if with_act and moment is not None:
            for participant in ("other", "object", "hand"):
                pose = pose_at(motion[participant], moment) if participant in motion else None
                if pose is None or pose[3] <= 0.02:
                    continue
                centre = (_MARGIN + pose[0] * SIDE, _MARGIN + pose[1] * SIDE)
                pasted = paste_sprite(canvas, sprites[participant], centre, pose[2], pose[3])
                box = pasted if participant == "object" else box
        left, top = (round(_MARGIN + value * SIDE) for value in shake[frame])
        view = canvas.crop((left, top, left + SIDE, top + SIDE))
        frames.append(np.clip(np.asarray(view) * light[frame], 0, 255).astype(np.uint8))
        boxes.append(None if box is None else _visible_part(box, left, top))
    return np.stack(frames), boxes


def _visible_part(box: tuple[float, float, float, float], left: int, top: int) -> tuple[int, int, int, int] | None:
    x0, y0, x1, y1 = (int(min(max(v - o, 0), SIDE)) for v, o in zip(box, (left, top, left, top), strict=True))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _clutter_tracks(plan: ClipPlan, rng: np.random.Generator) -> Iterator[tuple[Appearance, np.ndarray]]:
    """Objects that nobody touches, with (num_frames, 3) arrays of x, y and opacity."""
    for _ in range(int(rng.integers(1, 3))):
        appearance = random_appearance(rng, (0.06, 0.1))
        rests = bool(rng.uniform() < 0.6)
        ground = TABLE_TOP - appearance.half_height
        position = np.array([rng.uniform(0.18, 0.82), ground, float(rng.uniform() < 0.7)])
        track = np.empty((plan.num_frames, 3))
        frame = 0
        while frame < plan.num_frames:
            pause, duration = int(rng.integers(1, 6)), int(rng.integers(4, 9))
            flies = rng.uniform() < 0.4
            target = np.array(
                [rng.uniform(0.1, 0.9), rng.uniform(0.15, 0.5) if flies else ground, float(rng.uniform() < 0.75)]
            )
            if rng.uniform() < 0.5:
                target[0] = position[0]
            steps = np.arange(min(pause + duration, plan.num_frames - frame))
            s = (np.maximum(0, steps - pause) / duration)[:, None]
            track[frame : frame + len(steps)] = position + (target - position) * s * s * (3 - 2 * s)
            frame += pause + duration
            position = target
        if rests:
            track[plan.start : plan.stop] = track[plan.start]
        yield appearance, track


def _waving_hand(plan: ClipPlan, rng: np.random.Generator) -> np.ndarray | None:
    """A (num_frames, 2) path of an empty hand before or after the act, NaN where it is away; None for no such hand."""
    waves, x, offset = rng.uniform() < 0.4, rng.uniform(0.2, 0.8), rng.uniform()
    gaps = [(a, b) for a, b in ((0, plan.start), (plan.stop, plan.num_frames)) if b - a >= 8]
    if not waves or not gaps:
        return None
    first, last = gaps[int(rng.integers(len(gaps)))]
    length = min(last - first, 12)
    first += int(offset * (last - first - length + 1))
    path = np.full((plan.num_frames, 2), np.nan)
    u = np.linspace(0, 1, length)
    path[first : first + length, 0] = x + 0.12 * np.sin(2 * np.pi * u)
    path[first : first + length, 1] = np.interp(u, (0, 0.3, 0.7, 1), (AWAY, 0.34, 0.34, AWAY))
    return path
