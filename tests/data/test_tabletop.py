import json
from collections import Counter

import numpy as np
import pytest
import torch

from stabn.data.datasets import read_something_something
from stabn.data.tabletop import FPS, SIDE, draw_clip, generate, labels_of, plan_clip
from stabn.data.tabletop.acts import ACTS
from stabn.data.video import probe, read_clip
from stabn.errors import UserError

NAMES = list(ACTS)
REVERSED = [
    ("Moving [something] up", "Moving [something] down"),
    ("Moving [something] from left to right", "Moving [something] from right to left"),
    ("Putting [something] onto [something]", "Taking [something] off [something]"),
    ("Covering [something] with [something]", "Uncovering [something] by lifting [something]"),
]


def truth(folder):
    return {entry["id"]: entry for entry in map(json.loads, (folder / "truth.jsonl").read_text().splitlines())}


def test_there_are_at_least_twelve_templates():
    assert len(ACTS) >= 12


def test_it_is_a_something_something_data_set_of_h264_files(tabletop):
    table = read_something_something(tabletop, tabletop / "videos")
    assert len(table.of_split("train")) == 28
    assert len(table.of_split("validation")) == 14
    assert list(table.class_names) == [name.replace("[", "").replace("]", "") for name in NAMES]
    for split, count in (("train", 2), ("validation", 1)):
        assert set(Counter(s.label for s in table.of_split(split)).values()) == {count}
    known = truth(tabletop)
    for sample in table.samples[:6]:
        info = probe(sample.path)
        assert (info.width, info.height) == (SIDE, SIDE)
        assert info.fps == pytest.approx(FPS)
        assert 2 * FPS <= info.num_frames <= 4 * FPS
        assert len(known[sample.clip_id]["relevance"]) == len(known[sample.clip_id]["boxes"]) == info.num_frames


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_clips(tabletop, tmp_path):
    generate(tmp_path / "again", train=28, validation=14, seed=5, workers=1)
    generate(tmp_path / "other", train=28, validation=14, seed=6)
    for file in sorted(p.relative_to(tabletop) for p in tabletop.rglob("*") if p.is_file()):
        assert (tabletop / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    videos = [{p.read_bytes() for p in (folder / "videos").iterdir()} for folder in (tabletop, tmp_path / "other")]
    assert not videos[0] & videos[1]


def test_an_interrupted_generation_is_completed_and_a_finished_one_left_alone(tabletop, tmp_path, capsys):
    folder = tmp_path / "t"
    generate(folder, train=14, validation=14, seed=1)
    video = folder / "videos" / "3.mp4"
    complete, before = video.read_bytes(), (folder / "truth.jsonl").read_bytes()
    video.unlink()
    (folder / "truth.jsonl").unlink()
    manifest = json.loads((folder / "tabletop.json").read_text())
    (folder / "tabletop.json").write_text(json.dumps(manifest | {"complete": False}))
    other = folder / "videos" / "4.mp4"
    stamp = other.stat().st_mtime_ns
    generate(folder, train=14, validation=14, seed=1)
    assert video.read_bytes() == complete
    assert (folder / "truth.jsonl").read_bytes() == before
    assert other.stat().st_mtime_ns == stamp
    video.unlink()
    generate(folder, train=14, validation=14, seed=1)
    assert not video.exists()


def test_wrong_requests_are_refused(tabletop, tmp_path):
    with pytest.raises(UserError, match="holds another Tabletop"):
        generate(tabletop, train=28, validation=14, seed=6)
    with pytest.raises(UserError, match="expected at least 14"):
        generate(tmp_path / "t", train=13, validation=14)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        generate(tmp_path / "full", train=14, validation=14)


def test_relevance_has_three_levels_with_the_decisive_frames_a_short_part_anywhere():
    starts, shares = [], []
    for number in range(200):
        plan = plan_clip(0, "train", number, number % len(ACTS))
        relevance = np.array(plan.relevance)
        assert set(relevance) <= {0.0, 0.5, 1.0}
        assert (relevance[plan.start : plan.stop] > 0).all()
        assert (np.delete(relevance, range(plan.start, plan.stop)) == 0).all()
        decisive = np.flatnonzero(relevance == 1)
        assert (np.diff(decisive) == 1).all()
        shares.append(len(decisive) / plan.num_frames)
        starts.append(plan.start / (plan.num_frames - (plan.stop - plan.start) + 1))
    assert 0.1 < np.mean(shares) < 0.35
    assert np.histogram(starts, 4, (0, 1))[0].min() > 30


def test_only_the_label_differs_between_plans_that_differ_in_the_label():
    for number in range(5):
        plans = {
            (p.num_frames, p.start, p.stop, p.stage) for p in (plan_clip(0, "train", number, k) for k in range(14))
        }
        assert len(plans) == 1


def test_what_surrounds_the_act_is_the_same_picture_whatever_the_label():
    first, boxes = draw_clip(0, "train", 0, 0, with_act=False)
    assert boxes == [None] * len(first)
    for label in range(1, len(ACTS)):
        assert np.array_equal(draw_clip(0, "train", 0, label, with_act=False)[0], first)
    plan = plan_clip(0, "train", 0, 6)
    outside = np.array(plan.relevance) == 0
    assert np.array_equal(draw_clip(0, "train", 0, 6)[0][outside], first[outside])


def test_a_linear_model_on_everything_but_the_act_is_at_chance():
    # The generator's labels against pixels of clips drawn without their acts: ridge regression on thumbnails of the
    # mean, the spread and the frame-to-frame change, trained on one half and measured on the other.
    labels = np.array(labels_of(11, "train", 224))
    rows = []
    for number, label in enumerate(labels):
        frames = draw_clip(11, "train", number, int(label), with_act=False)[0].astype(np.float32)
        small = frames.reshape(len(frames), 8, 16, 8, 16, 3).mean((2, 4))
        change = np.diff(small, axis=0)
        rows.append(np.concatenate([small.mean(0), small.std(0), change.mean(0), np.abs(change).mean(0)]).ravel())
    features = np.stack(rows)
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    half = len(labels) // 2
    targets = np.eye(len(ACTS))[labels]
    gram = features[:half] @ features[:half].T + 100 * np.eye(half)
    weights = features[:half].T @ np.linalg.solve(gram, targets[:half] - 1 / len(ACTS))
    right = int(((features[half:] @ weights).argmax(1) == labels[half:]).sum())
    chance = 1 / len(ACTS)
    # Four standard deviations of guessing; the act itself, drawn in, is far above (see benchmarks).
    assert right < half * chance + 4 * np.sqrt(half * chance * (1 - chance)), right


@pytest.mark.parametrize(("forwards", "backwards"), REVERSED)
def test_reversible_pairs_show_the_same_poses_in_the_opposite_order(forwards, backwards):
    stage = plan_clip(0, "train", 3, 0).stage
    one, other = ACTS[forwards], ACTS[backwards]
    assert one.staged(stage) == other.staged(stage)
    keys = one.script(one.staged(stage))
    mirrored = {a: [(1 - u, *rest) for u, *rest in reversed(poses)] for a, poses in keys.items()}
    assert other.script(other.staged(stage)) == mirrored


def test_boxes_lie_in_the_picture_and_hold_what_the_act_changed(tabletop):
    frames, boxes = draw_clip(5, "train", 1, 2)
    without, _ = draw_clip(5, "train", 1, 2, with_act=False)
    plan = plan_clip(5, "train", 1, 2)
    seen = [(i, box) for i, box in enumerate(boxes) if box is not None]
    assert {i for i, _ in seen} <= set(range(plan.start, plan.stop))
    assert len(seen) > 0.6 * (plan.stop - plan.start)
    middle = (plan.start + plan.stop) // 2
    left, top, right, bottom = boxes[middle]
    assert 0 <= left < right <= SIDE
    assert 0 <= top < bottom <= SIDE
    changed = (frames[middle] != without[middle]).any(-1)
    assert changed[top:bottom, left:right].mean() > 0.4


def test_the_files_hold_the_pictures_that_were_drawn(tabletop):
    label = labels_of(5, "train", 28)[0]
    frames, _ = draw_clip(5, "train", 0, label)
    clip = read_clip(tabletop / "videos" / "1.mp4", range(len(frames)))
    difference = (clip.frames.permute(0, 2, 3, 1).float() - torch.from_numpy(frames).float()).abs()
    assert difference.mean() < 4
