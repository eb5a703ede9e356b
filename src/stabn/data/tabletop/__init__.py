"""Tabletop: a generated benchmark in which only *when* and *in which order* things happen tells the classes apart.

A clip of 24 to 48 frames at 12 frames a second shows a table. Somewhere in it, for 12 to 18 frames, a hand does one of
fourteen things to an object. Before and after, other objects slide, rise, fall, appear and vanish, an empty hand may
wave, the camera shakes and the light changes; all of that is drawn from random streams that never see the label.
Participants enter with the act and leave with it, so frames outside it carry no trace of the class. Up / down, left /
right, on / off and cover / uncover are each other played backwards: the same frames in another order.

On disk it is a Something-Something v2 data set of H.264 files, plus the truth about every frame (`truth.jsonl`).
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

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
from stabn.data.video import write_video
from stabn.errors import UserError
from stabn.files import write_json, write_text

FORMAT = "stabn-tabletop/1"
FPS = 12
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


def _stream(seed: int, split: str, number: int, name: str) -> np.random.Generator:
    """An independent random stream per clip and purpose; none of them depends on a label."""
    purposes = ("labels", "stage", "clutter", "camera")
    return np.random.default_rng([seed, SPLITS.index(split), number, purposes.index(name)])


def labels_of(seed: int, split: str, count: int) -> tuple[int, ...]:
    """The labels of a split: equally many of each class, in random order."""
    order = _stream(seed, split, 0, "labels").permutation(count)
    return tuple(int(i) % len(ACTS) for i in order)


def plan_clip(seed: int, split: str, number: int, label: int) -> Plan:
    """Decide one clip; two plans that differ in `label` alone differ in nothing but `label`."""
    rng = _stream(seed, split, number, "stage")
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


def _pose(keys: list[Key], u: float) -> tuple[float, float, float, float] | None:
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
    clutter = _stream(seed, split, number, "clutter")
    camera = _stream(seed, split, number, "camera")
    room = draw_room(clutter, SIDE)
    margin = SIDE // 4
    objects = [(Sprite.of(draw_object(look, SIDE)), track) for look, track in _clutter_tracks(plan, clutter)]
    wave = _waving_hand(plan, clutter)
    skin, sleeve = random_colour(clutter, (0.2, 0.7)), random_colour(clutter)
    hand = Sprite.of(draw_hand(skin, sleeve, plan.stage.tilt, SIDE))
    shake = np.cumsum(camera.normal(0, 0.004, (plan.num_frames, 2)), axis=0)
    shake = np.clip(shake - shake.mean(0), -0.05, 0.05)
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
                pose = _pose(script[actor], u) if actor in script else None
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


def _write_one(job: tuple[int, str, int, int, str, str]) -> dict[str, Any]:
    seed, split, number, label, clip_id, folder = job
    path = Path(folder) / f"{clip_id}.mp4"
    plan = plan_clip(seed, split, number, label)
    frames, boxes = draw_clip(seed, split, number, label)
    if not path.exists():
        write_video(path, frames, FPS, preset="veryfast")
    return {"id": clip_id, "split": split, "relevance": plan.relevance, "boxes": boxes}


def generate(folder: Path, *, train: int, validation: int, seed: int = 0, workers: int | None = None) -> None:
    """Write the benchmark into `folder`; what an interrupted run left is completed, a finished one is left alone.

    Args:
        folder: takes `videos/<id>.mp4`, the annotation files of Something-Something v2, `truth.jsonl` (per clip: id,
            split, `relevance` per frame in 0 / 0.5 / 1, `boxes` of the handled object per frame in pixels or null)
            and `tabletop.json` (what was asked for, and whether it is complete).
        train, validation: number of clips of each split.
        seed: another seed gives other clips with the same statistics.
        workers: processes; by default one per core.

    Raises:
        UserError: the folder holds a Tabletop of another seed or size, or too few clips were asked for.
    """
    counts = {"train": train, "validation": validation}
    for split, count in counts.items():
        if count < len(ACTS):
            raise UserError(f"{split}: got {count} clips, expected at least {len(ACTS)}, one per class")
    wanted = {"format": FORMAT, "seed": seed, **counts}
    manifest = folder / "tabletop.json"
    if manifest.exists():
        found = json.loads(manifest.read_text(encoding="utf-8"))
        if {key: found.get(key) for key in wanted} != wanted:
            raise UserError(f"{folder}: holds another Tabletop ({found}), asked for {wanted}; choose another folder")
        if found["complete"]:
            return
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty and holds no Tabletop; choose another folder")
    write_json(manifest, {**wanted, "complete": False})

    names = [template.replace("[", "").replace("]", "") for template in ACTS]
    jobs, first = [], 1
    for split, count in counts.items():
        labels = labels_of(seed, split, count)
        annotations = []
        for number, label in enumerate(labels):
            clip_id, template = str(first + number), list(ACTS)[label]
            jobs.append((seed, split, number, label, clip_id, str(folder / "videos")))
            annotations.append(_annotation(clip_id, template, plan_clip(seed, split, number, label)))
        write_json(folder / f"something-something-v2-{split}.json", annotations)
        first += count
    write_json(folder / "something-something-v2-labels.json", {name: str(i) for i, name in enumerate(names)})

    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        done = pool.map(_write_one, jobs, chunksize=8)
        truth = list(tqdm(done, total=len(jobs), desc="tabletop", unit="clip"))
    write_text(folder / "truth.jsonl", "".join(json.dumps(line) + "\n" for line in truth))
    write_json(manifest, {**wanted, "complete": True})


def _annotation(clip_id: str, template: str, plan: Plan) -> dict[str, Any]:
    thing, other = plan.stage.looks
    placeholders = [other.name, "a cup"] if ACTS[template].cup else [thing.name, other.name]
    placeholders = placeholders[: template.count("[something]")]
    label = template
    for placeholder in placeholders:
        label = label.replace("[something]", placeholder, 1)
    return {"id": clip_id, "label": label, "template": template, "placeholders": placeholders}
