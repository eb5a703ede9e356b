import numpy as np
import pytest

from stabn.data.ground_truth import ClipTruth
from stabn.edits.project import Project, ProjectClip
from stabn.edits.simulate import (
    Simulation,
    blur_boundaries,
    derangement,
    misplace,
    simulate_edits,
    simulated_scores,
    stratified_order,
)
from stabn.errors import UserError
from stabn.records import write_edits

FRAMES = tuple(range(2, 42, 4))  # ten sampled frames of 40


def clip(name, label="a"):
    times = tuple(index / 25 for index in FRAMES)
    return ProjectClip(name, f"{name}.mp4", label, "other", FRAMES, times, (0.5,) * len(FRAMES), (0.0, 0.0, 1.0, 1.0))


CLIPS = [clip(str(n), "abc"[n % 3]) for n in range(20)]
TRUTH = {c.clip_id: ClipTruth(interval=(n + 0.25, n + 12.75)) for n, c in enumerate(CLIPS)}


@pytest.fixture
def project(tmp_path):
    write_edits(tmp_path / "edits.jsonl", [])
    return Project(tmp_path, "0" * 32, tmp_path / "run", None, ("a", "b", "c"), tuple(CLIPS))


def level(relevance, value):
    """(start, end) of each run of frames with at least this relevance."""
    inside = [0, *(int(v >= value) for v in relevance), 0]
    starts = [i for i in range(len(relevance)) if inside[i + 1] and not inside[i]]
    ends = [i + 1 for i in range(len(relevance)) if inside[i + 1] and not inside[i + 2]]
    return list(zip(starts, ends, strict=True))


def test_an_exact_editor_gives_the_truth_of_the_frames_the_network_saw():
    scores = simulated_scores(CLIPS, TRUTH, Simulation())
    assert list(scores) == [c.clip_id for c in CLIPS]
    assert scores["0"] == (1, 1, 1, 0, 0, 0, 0, 0, 0, 0)  # 0.25 to 12.75 has frames 2, 6, 10 of 2, 6, 10, 14, ...
    assert scores["5"] == (0, 1, 1, 1, 0, 0, 0, 0, 0, 0)  # 5.25 to 17.75
    by_frame = {"0": ClipTruth(relevance=tuple(n / 40 for n in range(40)))}
    assert simulated_scores(CLIPS[:1], by_frame, Simulation())["0"] == tuple(n / 40 for n in FRAMES)


def test_the_same_seed_gives_the_same_edits_and_another_one_others():
    for settings in ({"boundary_noise": 3}, {"wrong": 0.5}, {"count": 7}, {"shuffle": True}):
        one, same, other = (simulated_scores(CLIPS, TRUTH, Simulation(**settings, seed=s)) for s in (1, 1, 2))
        assert one == same != other


def test_boundaries_move_by_whole_frames_as_often_forwards_as_backwards_and_never_further_than_asked():
    known = ClipTruth(interval=(20.25, 30.5))
    moves = []
    for seed in range(600):
        got = blur_boundaries(known, 3, 75, np.random.default_rng(seed)).interval
        assert got is not None
        moves.append((got[0] - 20.25, got[1] - 30.5))
    for moved in zip(*moves, strict=True):
        assert set(moved) == {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
        assert abs(np.mean(moved)) < 3 * 2 / np.sqrt(600)  # three standard errors; a move's deviation is 2
    assert abs(np.corrcoef(np.transpose(moves))[0, 1]) < 0.15
    assert blur_boundaries(known, 0, 75, np.random.default_rng(0)) == known


@pytest.mark.parametrize("interval", [(0.0, 1.0), (3.0, 4.5), (39.0, 40.0), (10.25, 10.5), (38.5, 47.0), (45.0, 46.0)])
def test_a_blurred_interval_is_never_empty_and_stays_in_the_video(interval):
    for seed in range(200):
        start, end = blur_boundaries(ClipTruth(interval=interval), 5, 40, np.random.default_rng(seed)).interval
        assert end - start >= min(1.0, interval[1] - interval[0]) - 1e-9
        assert start >= 0
        assert start <= max(39.75, interval[0])
        assert abs(start - interval[0]) <= 5
        assert abs(end - interval[1]) <= 5


def test_runs_of_relevance_are_blurred_one_by_one_and_level_by_level():
    relevance = (0,) * 8 + (0.5,) * 6 + (1.0,) * 6 + (0.5,) * 6 + (0,) * 10 + (1.0,) + (0,) * 3
    moves = {name: set() for name in ("may start", "may end", "must start", "must end")}
    for seed in range(300):
        got = blur_boundaries(ClipTruth(relevance=relevance), 2, 40, np.random.default_rng(seed)).relevance
        assert len(got) == 40
        assert set(got) <= {0.0, 0.5, 1.0}
        (may, alone), (must, same) = level(got, 0.5), level(got, 1.0)
        assert alone == same  # one run, though it reaches both levels
        assert abs(alone[0] - 36) <= 2
        assert abs(alone[1] - 37) <= 2
        for name, value in zip(moves, (may[0] - 8, may[1] - 26, must[0] - 14, must[1] - 20), strict=True):
            moves[name].add(value)
    assert all(seen == {-2, -1, 0, 1, 2} for seen in moves.values())


def test_the_asked_share_of_clips_is_wrong_and_marks_as_much_elsewhere():
    right = simulated_scores(CLIPS, TRUTH, Simulation())
    changed = {}
    for share, count in ((0.1, 2), (0.5, 10), (1.0, 20)):
        scores = simulated_scores(CLIPS, TRUTH, Simulation(wrong=share, seed=4))
        changed[share] = {name for name in scores if scores[name] != right[name]}
        assert 0.7 * count <= len(changed[share]) <= count  # by chance a place may be as good as the right one
        assert all(2 <= sum(score > 0 for score in given) <= 4 for given in scores.values())  # 12.5 frames of 4 each
    assert changed[0.1] < changed[0.5] < changed[1.0]
    assert all(scores[name] == right[name] for name in right if name not in changed[1.0])


def test_a_misplaced_interval_is_as_long_and_anywhere_in_what_was_seen():
    starts = []
    for seed in range(300):
        start, end = misplace(ClipTruth(interval=(0.5, 6.75)), 10, 40, np.random.default_rng(seed)).interval
        assert end - start == pytest.approx(6.25)
        assert start >= 10
        assert end <= 40
        starts.append(start)
    assert np.histogram(starts, 4, (10, 33.75))[0].min() > 50  # 75 are expected
    start, end = misplace(ClipTruth(interval=(0.0, 50.0)), 10, 40, np.random.default_rng(0)).interval
    assert (start, end) == (10, 60)


def test_misplaced_relevance_keeps_its_levels():
    pattern = (0.5, 1.0, 0.0, 0.5)
    known = ClipTruth(relevance=(0,) * 20 + pattern + (0,) * 16)
    places = set()
    for seed in range(200):
        got = misplace(known, 3, 13, np.random.default_rng(seed)).relevance
        at = next(i for i, value in enumerate(got) if value)
        assert got == (0,) * at + pattern + (0,) * (36 - at)
        places.add(at)
    assert places == set(range(3, 10))
    nothing = ClipTruth(relevance=(0.0,) * 9)
    assert misplace(nothing, 0, 9, np.random.default_rng(0)) == nothing
    everything = ClipTruth(relevance=(1.0,) * 9)
    assert misplace(everything, 2, 7, np.random.default_rng(0)).relevance == (0, 0) + (1,) * 7


def test_a_few_clips_are_spread_over_the_classes_and_more_clips_hold_the_fewer():
    labels = ["a"] * 10 + ["b"] * 4 + ["c"]
    order = stratified_order(labels, np.random.default_rng(0))
    assert sorted(order) == list(range(15))
    assert {labels[n] for n in order[:3]} == {"a", "b", "c"}
    assert sorted(labels[n] for n in order[:9]) == ["a"] * 4 + ["b"] * 4 + ["c"]
    assert len({tuple(stratified_order(labels, np.random.default_rng(seed))[:3]) for seed in range(20)}) > 10
    chosen = [set(simulated_scores(CLIPS, TRUTH, Simulation(count=count, seed=3))) for count in (1, 6, 15, 20, 99)]
    assert [len(names) for names in chosen] == [1, 6, 15, 20, 20]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]
    noisy = simulated_scores(CLIPS, TRUTH, Simulation(boundary_noise=3, count=6, seed=3))
    assert noisy.items() <= simulated_scores(CLIPS, TRUTH, Simulation(boundary_noise=3, seed=3)).items()


def test_shuffled_edits_are_those_of_other_clips_each_once():
    truth = {c.clip_id: ClipTruth(relevance=(n / 20,) * 40) for n, c in enumerate(CLIPS)}
    right = simulated_scores(CLIPS, truth, Simulation())
    for seed in range(20):
        given = simulated_scores(CLIPS, truth, Simulation(shuffle=True, seed=seed))
        assert sorted(given.values()) == sorted(right.values())
        assert all(given[name] != right[name] for name in right)
    assert {tuple(derangement(3, np.random.default_rng(seed))) for seed in range(20)} == {(1, 2, 0), (2, 0, 1)}
    with pytest.raises(UserError, match="--shuffle"):
        simulated_scores(CLIPS[:1], truth, Simulation(shuffle=True))
    with pytest.raises(ValueError, match="got 1"):
        derangement(1, np.random.default_rng(0))


def test_clips_without_truth_or_with_an_interval_that_the_network_did_not_see_are_left_out_but_for_a_constant():
    given = simulated_scores(CLIPS, {}, Simulation(constant=1.0, count=2))
    assert list(given.values()) == [(1.0,) * 10] * 2
    truth = {"3": TRUTH["3"], "4": ClipTruth(boxes=((0, 0, 1, 1),)), "stranger": TRUTH["5"]}
    assert list(simulated_scores(CLIPS, truth, Simulation())) == ["3"]
    truth = {c.clip_id: ClipTruth(interval=(5000.0, 7000.0)) for c in CLIPS}
    assert simulated_scores(CLIPS, truth, Simulation()) == {}
    truth["3"] = ClipTruth(interval=(FRAMES[2], FRAMES[2] + 1))
    assert list(simulated_scores(CLIPS, truth, Simulation())) == ["3"]


def test_edits_say_that_and_how_they_were_simulated_and_are_made_once(project):
    settings = Simulation(boundary_noise=2, wrong=0.1, count=5, shuffle=True, seed=7)
    assert simulate_edits(project, TRUTH, settings) == 5
    before = project.edits_file.read_bytes()
    assert simulate_edits(project, TRUTH, settings) == 0
    assert project.edits_file.read_bytes() == before
    for edit in project.history():
        assert edit.author == "simulated"
        assert edit.comment == (
            "simulated from the truth, boundary noise 2, wrong 0.1, shuffled between clips, count 5, seed 7"
        )
    assert simulate_edits(project, TRUTH, author="exact") == 15
    assert {e.comment for e in project.history() if e.author == "exact"} == {"simulated from the truth"}
    assert Simulation(constant=0.5).comment == "simulated: every frame 0.5"


def test_truth_that_does_not_fit_is_refused_and_nothing_is_written(project):
    with pytest.raises(UserError, match=str(project.folder)):
        simulate_edits(project, {"stranger": TRUTH["0"]})
    short = {**TRUTH, "19": ClipTruth(relevance=(0.0, 1.0))}
    with pytest.raises(UserError, match=r"clip 19: .*2.*38"):
        simulate_edits(project, short)
    assert project.edits_file.read_bytes() == b""


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"boundary_noise": -1}, "--boundary_noise: got -1"),
        ({"wrong": 1.5}, "--wrong: got 1.5"),
        ({"wrong": float("nan")}, "--wrong: got nan"),
        ({"count": 0}, "--count: got 0"),
        ({"constant": 2.0}, "--constant: got 2.0, expected a score"),
        ({"seed": -1}, "--seed: got -1"),
        ({"constant": 1.0, "wrong": 0.5}, "--constant: got 1.0 with --wrong"),
        ({"constant": 1.0, "shuffle": True}, "with --shuffle"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, pattern):
    with pytest.raises(UserError, match=pattern):
        Simulation(**fields)
