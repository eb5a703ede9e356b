"""Tabletop on disk: a Something-Something v2 data set of H.264 files, and the truth about every frame."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stabn.data.tabletop.acts import ACTS
from stabn.data.tabletop.clip_plan import SPLITS, ClipPlan, draw_labels, plan_clip
from stabn.data.tabletop.draw_clip import draw_clip
from stabn.data.tabletop.shortcut import Shortcut, plan_mark
from stabn.data.video.clip import write_video
from stabn.errors import UserError, list_differences
from stabn.files import read_json, write_json, write_text

FORMAT = "stabn-tabletop/1"
FPS = 12
CLASS_NAMES = tuple(template.replace("[", "").replace("]", "") for template in ACTS)
"""In the order of `ACTS`."""


def generate_tabletop(
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
            `tabletop.json` (the settings, and whether it is complete).
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
    settings: dict[str, Any] = {"format": FORMAT, "seed": seed, **counts}
    if shortcut is not None:
        settings |= {"shortcut": shortcut.where, "shortcut_strength": shortcut.strength}
    manifest = folder / "tabletop.json"
    if manifest.exists():
        existing = read_json(manifest, remedy="choose another folder")
        if differences := list_differences({k: v for k, v in existing.items() if k != "complete"}, settings):
            raise UserError(
                f"{folder}: holds a Tabletop with other options: {'; '.join(differences)}; give its options, or choose "
                "another folder"
            )
        if existing["complete"]:
            return
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty and holds no Tabletop; choose another folder")
    write_json(manifest, {**settings, "complete": False})

    labels = [(split, n, label) for split in counts for n, label in enumerate(draw_labels(seed, split, counts[split]))]
    plans = {str(i): plan_clip(seed, *clip) for i, clip in enumerate(labels, start=1)}
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            results = pool.map(partial(_write_clip, folder, shortcut), plans.items(), chunksize=8)
            truth = list(tqdm(results, total=len(plans), desc="tabletop", unit="clip"))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # an interrupted command does not finish all clips first
            raise
    _write_annotations(folder, plans, truth)
    if shortcut is not None:
        clean = {clip_id: plan for clip_id, plan in plans.items() if plan.split == "validation"}
        unmarked = [{k: v for k, v in line.items() if k not in ("marks", "mark_class")} for line in truth]
        _write_annotations(folder / "clean", clean, [line for line in unmarked if line["id"] in clean])
    write_json(manifest, {**settings, "complete": True})


def _write_clip(folder: Path, shortcut: Shortcut | None, clip: tuple[str, ClipPlan]) -> dict[str, Any]:
    """Write a clip's files, those that are not there, and return its truth."""
    clip_id, plan = clip
    frames, boxes = draw_clip(plan)
    truth = {"id": clip_id, "split": plan.split, "relevance": plan.relevance, "boxes": boxes}
    files = {folder / "videos" / f"{clip_id}.mp4": frames}
    if shortcut is not None:
        mark = plan_mark(shortcut, plan)
        files = {path: mark.painted(frames) for path in files}
        if plan.split == "validation":
            files[folder / "clean" / "videos" / f"{clip_id}.mp4"] = frames
        truth |= {"marks": mark.boxes(len(frames)), "mark_class": CLASS_NAMES[mark.label]}
    for path, pictures in files.items():
        if not path.exists():
            write_video(path, pictures, FPS, preset="veryfast")
    return truth


def _write_annotations(folder: Path, plans: Mapping[str, ClipPlan], truth: Sequence[Mapping[str, Any]]) -> None:
    """The files of Something-Something v2, where a split without clips is an empty list, and truth.jsonl."""
    for split in SPLITS:
        annotations = [_annotation(clip_id, plan) for clip_id, plan in plans.items() if plan.split == split]
        write_json(folder / f"something-something-v2-{split}.json", annotations)
    write_json(folder / "something-something-v2-labels.json", {name: str(i) for i, name in enumerate(CLASS_NAMES)})
    write_text(folder / "truth.jsonl", "".join(json.dumps(line) + "\n" for line in truth))


def _annotation(clip_id: str, plan: ClipPlan) -> dict[str, Any]:
    template = list(ACTS)[plan.label]
    thing, other = plan.setting.appearances
    placeholders = [other.name, "a cup"] if plan.act.cup else [thing.name, other.name]
    placeholders = placeholders[: template.count("[something]")]
    label = template
    for placeholder in placeholders:
        label = label.replace("[something]", placeholder, 1)
    return {"id": clip_id, "label": label, "template": template, "placeholders": placeholders}
