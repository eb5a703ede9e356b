"""Tabletop: a generated benchmark in which only *when* and *in which order* things happen tells the classes apart.

A clip of 24 to 48 frames at 12 frames a second shows a table. Somewhere in it, for 12 to 18 frames, a hand does one of
fourteen things to an object. Before and after, other objects slide, rise, fall, appear and vanish, an empty hand may
wave, the camera shakes and the light changes; all of that is drawn from random streams that never see the label.
Participants enter with the act and leave with it, so frames outside it carry no trace of the class. Up / down, left /
right, on / off and cover / uncover are each other played backwards: the same frames in another order.

On disk it is a Something-Something v2 data set of H.264 files, plus the truth about every frame (`truth.jsonl`). On
request a shortcut is planted in it (`stabn.data.tabletop.shortcut`).
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stabn.data.tabletop.acts import ACTS
from stabn.data.tabletop.clips import SIDE, SPLITS, Plan, draw_clip, labels_of, plan_clip
from stabn.data.tabletop.shortcut import Shortcut, plan_mark
from stabn.data.video.clip import write_video
from stabn.errors import UserError
from stabn.files import read_json, write_json, write_text

__all__ = ["FPS", "SIDE", "Shortcut", "draw_clip", "generate", "labels_of", "plan_clip"]

FORMAT = "stabn-tabletop/1"
FPS = 12
NAMES = tuple(template.replace("[", "").replace("]", "") for template in ACTS)
"""The class names, in the order of `ACTS`."""


@dataclass(frozen=True)
class _Job:
    """One clip to write.

    Attributes:
        seed, split, number: which clip.
        clip_id: its name.
        plan: what was decided about it.
        shortcut: what is planted in it, None for nothing.
        folder: the data set's.
    """

    seed: int
    split: str
    number: int
    clip_id: str
    plan: Plan
    shortcut: Shortcut | None
    folder: Path


def generate(
    folder: Path,
    *,
    train: int,
    validation: int,
    seed: int = 0,
    shortcut: Shortcut | None = None,
    workers: int | None = None,
) -> None:
    """Write the benchmark into `folder`; what an interrupted run left is completed, a finished one is left alone.

    With a shortcut, `folder/clean` is a data set of its own: the validation clips without their marks, byte by byte as
    without a shortcut.

    Args:
        folder: takes `videos/<id>.mp4`, the annotation files of Something-Something v2, `truth.jsonl` (per clip: id,
            split, `relevance` per frame in 0 / 0.5 / 1, `boxes` of the handled object per frame in pixels or null; with
            a shortcut also `marks`, boxes of the mark, and `mark_class`, the name of the class that it tells) and
            `tabletop.json` (what was asked for, and whether it is complete).
        train, validation: number of clips of each split.
        seed: another seed gives other clips with the same statistics.
        shortcut: what to plant; None for nothing.
        workers: processes; by default one per core.

    Raises:
        UserError: the folder holds another Tabletop, or too few clips were asked for.
    """
    counts = {"train": train, "validation": validation}
    for split, count in counts.items():
        if count < len(ACTS):
            raise UserError(f"{split}: got {count} clips, expected at least {len(ACTS)}, one per class")
    wanted: dict[str, Any] = {"format": FORMAT, "seed": seed, **counts}
    if shortcut is not None:
        wanted |= {"shortcut": shortcut.where, "shortcut_strength": shortcut.strength}
    manifest = folder / "tabletop.json"
    if manifest.exists():
        found = read_json(manifest, remedy="choose another folder")
        if {key: value for key, value in found.items() if key != "complete"} != wanted:
            raise UserError(f"{folder}: holds another Tabletop ({found}), asked for {wanted}; choose another folder")
        if found["complete"]:
            return
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty and holds no Tabletop; choose another folder")
    write_json(manifest, {**wanted, "complete": False})

    jobs = _jobs(folder, counts, seed, shortcut)
    _write_annotations(folder, jobs)
    if shortcut is not None:
        _write_annotations(folder / "clean", [job for job in jobs if job.split == "validation"])
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        done = pool.map(_write_one, jobs, chunksize=8)
        truth = list(tqdm(done, total=len(jobs), desc="tabletop", unit="clip"))
    _write_truth(folder, truth)
    if shortcut is not None:
        unmarked = [{k: v for k, v in line.items() if k not in ("marks", "mark_class")} for line in truth]
        _write_truth(folder / "clean", [line for line in unmarked if line["split"] == "validation"])
    write_json(manifest, {**wanted, "complete": True})


def _jobs(folder: Path, counts: dict[str, int], seed: int, shortcut: Shortcut | None) -> list[_Job]:
    jobs: list[_Job] = []
    for split, count in counts.items():
        first = len(jobs) + 1
        for number, label in enumerate(labels_of(seed, split, count)):
            plan = plan_clip(seed, split, number, label)
            jobs.append(_Job(seed, split, number, str(first + number), plan, shortcut, folder))
    return jobs


def _write_one(job: _Job) -> dict[str, Any]:
    """Write a clip's files, those that are not there, and give its truth."""
    frames, boxes = draw_clip(job.seed, job.split, job.number, job.plan.label)
    truth = {"id": job.clip_id, "split": job.split, "relevance": job.plan.relevance, "boxes": boxes}
    name = f"{job.clip_id}.mp4"
    video, unmarked = job.folder / "videos" / name, job.folder / "clean" / "videos" / name
    if job.shortcut is None:
        files = {video: frames}
    else:
        mark = plan_mark(job.shortcut, job.seed, job.split, job.number, job.plan)
        files = {video: mark.painted(frames)} | ({unmarked: frames} if job.split == "validation" else {})
        truth |= {"marks": mark.boxes(len(frames)), "mark_class": NAMES[mark.label]}
    for path, pictures in files.items():
        if not path.exists():
            write_video(path, pictures, FPS, preset="veryfast")
    return truth


def _write_truth(folder: Path, truth: Sequence[dict[str, Any]]) -> None:
    write_text(folder / "truth.jsonl", "".join(json.dumps(line) + "\n" for line in truth))


def _write_annotations(folder: Path, jobs: Sequence[_Job]) -> None:
    """The files of Something-Something v2; a split without clips is an empty list."""
    for split in SPLITS:
        annotations = [
            _annotation(job.clip_id, list(ACTS)[job.plan.label], job.plan) for job in jobs if job.split == split
        ]
        write_json(folder / f"something-something-v2-{split}.json", annotations)
    write_json(folder / "something-something-v2-labels.json", {name: str(i) for i, name in enumerate(NAMES)})


def _annotation(clip_id: str, template: str, plan: Plan) -> dict[str, Any]:
    thing, other = plan.stage.looks
    placeholders = [other.name, "a cup"] if ACTS[template].cup else [thing.name, other.name]
    placeholders = placeholders[: template.count("[something]")]
    label = template
    for placeholder in placeholders:
        label = label.replace("[something]", placeholder, 1)
    return {"id": clip_id, "label": label, "template": template, "placeholders": placeholders}
