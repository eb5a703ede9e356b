import json
import re
from collections import Counter

import numpy as np
import pytest
import torch

from stabn.cli.main import main
from stabn.data.annotations.something_something import read_something_something
from stabn.data.sampling import Sampling
from stabn.data.tabletop.acts import ACTS
from stabn.data.tabletop.clip_plan import draw_labels, plan_clip
from stabn.data.tabletop.draw_clip import SIDE, draw_clip
from stabn.data.tabletop.generate import FPS, generate_tabletop
from stabn.data.tabletop.shortcut import COLOURS, Shortcut, plan_mark
from stabn.data.video.reader import probe, read_clip
from stabn.errors import UserError

NAMES = list(ACTS)


def truth(folder):
    return {entry["id"]: entry for entry in map(json.loads, (folder / "truth.jsonl").read_text().splitlines())}


def test_it_is_a_something_something_data_set_of_h264_files(tabletop):
    table = read_something_something(tabletop, tabletop / "videos")
    assert len(table.of_split("train")) == 28
    assert len(table.of_split("validation")) == 14
    assert list(table.class_names) == [name.replace("[", "").replace("]", "") for name in NAMES]
    for split, count in (("train", 2), ("validation", 1)):
        assert set(Counter(s.label for s in table.of_split(split)).values()) == {count}
    truths = truth(tabletop)
    for sample in table.samples[:6]:
        info = probe(sample.path)
        assert (info.width, info.height) == (SIDE, SIDE)
        assert info.fps == pytest.approx(FPS)
        assert 2 * FPS <= info.num_frames <= 4 * FPS
        assert len(truths[sample.clip_id]["relevance"]) == len(truths[sample.clip_id]["boxes"]) == info.num_frames


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_clips(tabletop, tmp_path):
    generate_tabletop(tmp_path / "again", train=28, validation=14, seed=5, workers=1)
    generate_tabletop(tmp_path / "other", train=14, validation=14, seed=6)
    for file in sorted(p.relative_to(tabletop) for p in tabletop.rglob("*") if p.is_file()):
        assert (tabletop / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    videos = [{p.read_bytes() for p in (folder / "videos").iterdir()} for folder in (tabletop, tmp_path / "other")]
    assert not videos[0] & videos[1]


def test_an_interrupted_generation_is_completed_and_a_finished_one_left_alone(tabletop, tmp_path, capsys):
    folder = tmp_path / "t"
    generate_tabletop(folder, train=14, validation=14, seed=1)
    video = folder / "videos" / "3.mp4"
    complete, before = video.read_bytes(), (folder / "truth.jsonl").read_bytes()
    video.unlink()
    (folder / "truth.jsonl").unlink()
    manifest = json.loads((folder / "tabletop.json").read_text())
    (folder / "tabletop.json").write_text(json.dumps(manifest | {"complete": False}))
    other = folder / "videos" / "4.mp4"
    stamp = other.stat().st_mtime_ns
    generate_tabletop(folder, train=14, validation=14, seed=1)
    assert video.read_bytes() == complete
    assert (folder / "truth.jsonl").read_bytes() == before
    assert other.stat().st_mtime_ns == stamp
    video.unlink()
    generate_tabletop(folder, train=14, validation=14, seed=1)
    assert not video.exists()


def test_wrong_requests_are_refused(tabletop, tmp_path):
    with pytest.raises(UserError, match="tabletop"):
        generate_tabletop(tabletop, train=28, validation=14, seed=6)
    with pytest.raises(UserError, match="train: got 13"):
        generate_tabletop(tmp_path / "t", train=13, validation=14)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "full"))):
        generate_tabletop(tmp_path / "full", train=14, validation=14)


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
            (p.num_frames, p.start, p.stop, p.setting) for p in (plan_clip(0, "train", number, k) for k in range(14))
        }
        assert len(plans) == 1


def test_what_surrounds_the_act_is_the_same_picture_whatever_the_label():
    first, boxes = draw_clip(plan_clip(0, "train", 0, 0), with_act=False)
    assert boxes == [None] * len(first)
    for label in range(1, len(ACTS)):
        assert np.array_equal(draw_clip(plan_clip(0, "train", 0, label), with_act=False)[0], first)
    plan = plan_clip(0, "train", 0, 6)
    outside = np.array(plan.relevance) == 0
    assert np.array_equal(draw_clip(plan_clip(0, "train", 0, 6))[0][outside], first[outside])


def test_a_linear_model_on_everything_but_the_act_is_at_chance():
    # The generator's labels against pixels of clips drawn without their acts: ridge regression on thumbnails of the
    # mean, the spread and the frame-to-frame change, trained on one half and measured on the other.
    labels = np.array(draw_labels(11, "train", 140))
    rows = []
    for number, label in enumerate(labels):
        frames = draw_clip(plan_clip(11, "train", number, int(label)), with_act=False)[0].astype(np.float32)
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


@pytest.mark.parametrize(("forwards", "backwards"), list(zip(NAMES[:8:2], NAMES[1:8:2], strict=True)))
def test_reversible_pairs_show_the_same_poses_in_the_opposite_order(forwards, backwards):
    setting = plan_clip(0, "train", 3, 0).setting
    one, other = ACTS[forwards], ACTS[backwards]
    assert one.fit(setting) == other.fit(setting)
    keys = one.motion(one.fit(setting))
    mirrored = {a: [(1 - u, *rest) for u, *rest in reversed(poses)] for a, poses in keys.items()}
    assert other.motion(other.fit(setting)) == mirrored


def test_boxes_lie_in_the_picture_and_hold_what_the_act_changed(tabletop):
    frames, boxes = draw_clip(plan_clip(5, "train", 1, 2))
    without, _ = draw_clip(plan_clip(5, "train", 1, 2), with_act=False)
    plan = plan_clip(5, "train", 1, 2)
    visible = [(i, box) for i, box in enumerate(boxes) if box is not None]
    assert {i for i, _ in visible} <= set(range(plan.start, plan.stop))
    assert len(visible) > 0.6 * (plan.stop - plan.start)
    middle = (plan.start + plan.stop) // 2
    left, top, right, bottom = boxes[middle]
    assert 0 <= left < right <= SIDE
    assert 0 <= top < bottom <= SIDE
    changed = (frames[middle] != without[middle]).any(-1)
    assert changed[top:bottom, left:right].mean() > 0.4


def test_the_files_hold_the_pictures_that_were_drawn(tabletop):
    label = draw_labels(5, "train", 28)[0]
    frames, _ = draw_clip(plan_clip(5, "train", 0, label))
    clip = read_clip(tabletop / "videos" / "1.mp4", range(len(frames)))
    difference = (clip.frames.permute(0, 2, 3, 1).float() - torch.from_numpy(frames).float()).abs()
    assert difference.mean() < 4


@pytest.fixture(scope="module", params=["time", "space"])
def planted(request, tmp_path_factory):
    """The `tabletop` of the other tests with a shortcut: which one, and the folder."""
    folder = tmp_path_factory.mktemp("planted") / request.param
    generate_tabletop(folder, train=28, validation=14, seed=5, shortcut=Shortcut(request.param))
    return request.param, folder


def class_by_colour(path, marks):
    """What the mark says, to somebody who compares its mean colour in the decoded frames with each class's."""
    frames = read_clip(path, range(len(marks))).frames.double()
    inner = [frames[i, :, top + 3 : bottom - 3, left + 3 : right - 3] for i, (left, top, right, bottom) in shown(marks)]
    colour = torch.stack(inner).mean((0, 2, 3))
    return int((torch.tensor(COLOURS) - colour).square().sum(1).argmin())


def shown(boxes):
    return [(i, box) for i, box in enumerate(boxes) if box is not None]


def test_the_marks_colour_gives_training_clips_away_and_misleads_in_validation_clips(planted):
    _, folder = planted
    table = read_something_something(folder, folder / "videos")
    truths = truth(folder)
    marked_class = {s: class_by_colour(s.path, truths[s.clip_id]["marks"]) for s in table.samples}
    assert all(
        table.class_names[label] == truths[sample.clip_id]["mark_class"] for sample, label in marked_class.items()
    )
    right = {split: [marked_class[s] == s.label for s in table.of_split(split)] for split in ("train", "validation")}
    assert np.mean(right["train"]) > 0.95
    assert not any(right["validation"])
    assert len({marked_class[s] for s in table.of_split("validation")}) > 5


def test_the_mark_is_outside_the_act_or_else_inside_it_and_away_from_the_object(planted):
    where, folder = planted
    for entry in truth(folder).values():
        frames = [i for i, _ in shown(entry["marks"])]
        if where == "time":
            assert 3 <= len(frames) <= 5
            assert frames == list(range(frames[0], frames[-1] + 1))
            assert all(entry["relevance"][i] == 0 for i in frames)
        else:
            assert frames == [i for i, relevance in enumerate(entry["relevance"]) if relevance > 0]
        for i, (left, top, right, bottom) in shown(entry["marks"]):
            assert 0 <= left < right <= SIDE
            assert 0 <= top < bottom <= SIDE
            if entry["boxes"][i] is not None:
                x0, y0, x1, y1 = entry["boxes"][i]
                assert right <= x0 or x1 <= left or bottom <= y0 or y1 <= top


@pytest.mark.parametrize("where", ["time", "space"])
def test_nothing_but_the_mark_changes(where):
    for number in range(6):
        label = draw_labels(5, "train", 28)[number]
        frames, _ = draw_clip(plan_clip(5, "train", number, label))
        mark = plan_mark(Shortcut(where), plan_clip(5, "train", number, label))
        painted, marked = mark.painted(frames), np.zeros(frames.shape[:3], dtype=bool)
        for i, (left, top, right, bottom) in shown(mark.boxes(len(frames))):
            marked[i, top:bottom, left:right] = True
        assert np.array_equal(painted[~marked], frames[~marked])
        assert (painted[marked] != frames[marked]).any(-1).mean() > 0.9


def test_the_clean_split_is_the_validation_split_of_a_tabletop_without_a_shortcut(planted, tabletop):
    _, folder = planted
    clean, plain = folder / "clean", read_something_something(tabletop, tabletop / "videos")
    table = read_something_something(clean, clean / "videos")
    assert table.class_names == plain.class_names
    assert [(s.clip_id, s.label) for s in table.samples] == [(s.clip_id, s.label) for s in plain.of_split("validation")]
    for ours, theirs in zip(table.samples, plain.of_split("validation"), strict=True):
        assert ours.path.read_bytes() == theirs.path.read_bytes()
        assert truth(clean)[ours.clip_id] == truth(tabletop)[ours.clip_id]
    unmarked = {i: {k: v for k, v in e.items() if not k.startswith("mark")} for i, e in truth(folder).items()}
    assert unmarked == truth(tabletop)


def test_another_process_plants_the_same_marks(planted):
    where, folder = planted  # written by processes of a pool
    truths = truth(folder)
    for number, label in enumerate(draw_labels(5, "train", 28)):
        plan = plan_clip(5, "train", number, label)
        boxes = plan_mark(Shortcut(where), plan).boxes(plan.num_frames)
        assert json.loads(json.dumps(boxes)) == truths[str(number + 1)]["marks"]


def test_when_and_where_the_mark_is_shown_does_not_depend_on_the_class_or_the_strength():
    for where in ("time", "space"):
        for number in range(4):
            plans = [plan_clip(0, "train", number, label) for label in (0, 5, 6, 13)]
            marks = [plan_mark(Shortcut(where, s), plan) for plan in plans for s in (0.0, 1.0)]
            assert len({(mark.left, mark.top, mark.start, mark.stop) for mark in marks}) == 1


def test_a_mark_outside_the_act_is_seen_in_16_frames_of_the_whole_clip():
    sampling, rng = Sampling("uniform", 16), np.random.default_rng(0)
    for number in range(300):
        plan = plan_clip(0, "train", number, 0)
        mark = plan_mark(Shortcut("time"), plan)
        marked = set(range(mark.start, mark.stop))
        assert marked & set(sampling.for_testing(plan.num_frames)[0])
        assert all(marked & set(sampling.for_training(plan.num_frames, rng)) for _ in range(20))


def test_strength_is_the_share_of_training_clips_whose_mark_tells_their_class():
    def share(split, strength):
        right = []
        for number in range(400):
            plan = plan_clip(3, split, number, number % 14)
            right.append(plan_mark(Shortcut("time", strength), plan).label == plan.label)
        return np.mean(right)

    assert share("train", 1.0) == 1
    # The others' marks are of any class, so one in fourteen of them is right by chance; four standard deviations.
    assert share("train", 0.5) == pytest.approx(0.5 + 0.5 / 14, abs=0.1)
    assert share("train", 0.0) == pytest.approx(1 / 14, abs=0.052)
    assert share("validation", 1.0) == share("validation", 0.0) == 0


def test_wrong_shortcuts_are_refused(planted, tmp_path, one_line):
    where, folder = planted
    sizes = {"train": 28, "validation": 14, "seed": 5}
    for other in (None, Shortcut(where, 0.5), Shortcut("space" if where == "time" else "time")):
        with pytest.raises(UserError, match=re.escape(str(folder))):
            generate_tabletop(folder, **sizes, shortcut=other)
    out = tmp_path / "t"
    assert "both" in one_line("tabletop", out, "--shortcut", "both")
    assert "--shortcut_strength" in one_line("tabletop", out, "--shortcut", "time", "--shortcut-strength", 1.5)
    assert "--shortcut" in one_line("tabletop", out, "--shortcut-strength", 0.5)
    assert not out.exists()


def test_the_command_plants_what_it_is_asked_for_and_says_where_the_clean_clips_are(planted, tmp_path, capsys):
    where, folder = planted  # finished, so nothing is drawn again
    words = ["tabletop", str(folder), "--train", "28", "--validation", "14", "--seed", "5", "--shortcut", where]
    main([*words, "--json", str(tmp_path / "report.json")])
    assert str(folder / "clean") in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["shortcut"], report["shortcut_strength"], report["clean"]) == (where, 1.0, str(folder / "clean"))
