import numpy as np
import pytest

from stabn.data.sampling import Sampling, dense, dense_starts, uniform, uniform_jittered

COUNTS = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 36, 48, 64, 100, 299]
LENGTHS = [1, 2, 3, 4, 7, 8, 16, 32]


def every_sampler():
    for n in COUNTS:
        for length in LENGTHS:
            rng = np.random.default_rng(n * 1000 + length)
            for stride in (1, 2, 5):
                for start in {0, n // 2, n - 1}:
                    yield n, length, dense(n, length, start, stride)
                for clips in (1, 2, 3):
                    for window in Sampling("dense", length, stride).for_testing(n, clips):
                        yield n, length, window
                yield n, length, Sampling("dense", length, stride).for_training(n, rng)
            for clips in (1, 2, 3):
                for clip in range(clips):
                    yield n, length, uniform(n, length, clip, clips)
            yield n, length, uniform_jittered(n, length, rng)


def test_every_sampler_gives_length_ascending_frames_in_range_and_repeats_only_the_last_of_a_short_video():
    for n, length, indices in every_sampler():
        assert len(indices) == length
        assert all(isinstance(i, int) for i in indices)
        assert list(indices) == sorted(indices)
        assert indices[0] >= 0
        assert indices[-1] < n
        if n < length:
            assert indices == tuple(range(n)) + (n - 1,) * (length - n)


def test_uniform_takes_segment_centres_and_several_clips_evenly_spaced_phases():
    assert uniform(8, 4) == (1, 3, 5, 7)
    assert uniform(9, 3) == (1, 4, 7)
    assert uniform(10, 4) == (1, 3, 6, 8)  # segments of 2.5 frames: centres 1.25, 3.75, 6.25, 8.75
    assert uniform(16, 16) == tuple(range(16))
    assert uniform(36, 16) == (1, 3, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    assert uniform(16, 4, 0, 2) == (1, 5, 9, 13)
    assert uniform(16, 4, 1, 2) == (3, 7, 11, 15)
    assert Sampling("uniform", 4).for_testing(16, 2) == ((1, 5, 9, 13), (3, 7, 11, 15))


def test_dense_takes_neighbours_and_repeats_the_last_frame_past_the_end():
    assert dense(10, 4, 3) == (3, 4, 5, 6)
    assert dense(10, 4, 2, stride=2) == (2, 4, 6, 8)
    assert dense(10, 4, 7) == (7, 8, 9, 9)
    assert dense(10, 4, 5, stride=3) == (5, 8, 9, 9)


def test_dense_starts_cover_the_video_from_its_beginning_to_its_end():
    assert dense_starts(40, 32, 1) == (4,)
    assert dense_starts(40, 32, 2) == (0, 8)
    assert dense_starts(40, 32, 3) == (0, 4, 8)
    assert dense_starts(40, 8, 2, stride=5) == (0, 4)
    assert dense_starts(10, 32, 3) == (0, 0, 0)
    for n in COUNTS:
        for length in LENGTHS:
            starts = dense_starts(n, length, 4)
            assert starts[0] == 0
            assert dense(n, length, starts[-1])[-1] == n - 1


def test_jittered_uniform_takes_one_frame_of_each_segment_and_reaches_all_frames():
    seen = set()
    for seed in range(200):
        indices = uniform_jittered(10, 4, np.random.default_rng(seed))
        for (low, high), index in zip(((0, 2), (2, 5), (5, 7), (7, 10)), indices, strict=True):
            assert low <= index < high
        seen.update(indices)
    assert seen == set(range(10))


def test_training_is_random_and_depends_on_the_seed_alone():
    for sampling in (Sampling("dense", 8), Sampling("uniform", 8)):
        drawn = [sampling.for_training(64, np.random.default_rng(seed)) for seed in range(20)]
        assert drawn == [sampling.for_training(64, np.random.default_rng(seed)) for seed in range(20)]
        assert len(set(drawn)) > 10


def test_dense_training_reaches_the_first_and_the_last_start():
    starts = {Sampling("dense", 4).for_training(6, np.random.default_rng(seed))[0] for seed in range(50)}
    assert starts == {0, 1, 2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sampling("sparse", 8), "sparse"),
        (lambda: Sampling("dense", 0), "frames: got 0"),
        (lambda: Sampling("dense", 8, 0), "stride: got 0"),
        (lambda: Sampling("uniform", 8, 2), "stride: got 2"),
        (lambda: dense(0, 4, 0), "num_frames: got 0"),
        (lambda: dense(4, 4, 4), r"start: got 4, expected 0\.\.3"),
        (lambda: uniform(8, 4, 2, 2), r"clip: got 2, expected 0\.\.1"),
        (lambda: uniform(8, 0), "length: got 0"),
        (lambda: dense_starts(8, 4, 0), "clips: got 0"),
        (lambda: Sampling("uniform", 4).for_testing(8, 0), "clips: got 0"),
        (lambda: uniform_jittered(0, 4, np.random.default_rng(0)), "num_frames: got 0"),
    ],
)
def test_wrong_numbers_are_refused_with_what_was_expected(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


# The published recognisers, by hand from the rules in their official codes.


def test_segments_are_those_of_tsn():
    assert Sampling("segments", 8).for_testing(50) == ((3, 9, 15, 21, 28, 34, 40, 46),)  # tick 6.25
    # "Twice" in TSM's code: the centres and the beginnings.
    assert Sampling("segments", 4).for_testing(16, 2) == ((2, 6, 10, 14), (0, 4, 8, 12))
    # Too short: frames in order, some of them again.
    assert Sampling("segments", 8).for_testing(5) == ((0, 0, 1, 2, 2, 3, 4, 4),)  # tick 0.625
    # Flow, five fields each: tick (36 - 5 + 1) / 4 = 8.
    assert Sampling("segments", 20, snippet=5).for_testing(36) == (
        (4, 5, 6, 7, 8, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 28, 29, 30, 31, 32),
    )
    # Snippets overlap where the segments are shorter, and repeat the last frame: tick 2.
    assert Sampling("segments", 9, snippet=3).for_testing(8) == ((1, 2, 3, 3, 4, 5, 5, 6, 7),)
    assert Sampling("segments", 6, snippet=3).for_testing(2) == ((0, 1, 1, 0, 1, 1),)


def test_training_segments_are_random_frames_of_whole_segments_that_never_reach_the_last_frames():
    seen = [set(), set(), set()]
    for seed in range(200):
        indices = Sampling("segments", 3).for_training(14, np.random.default_rng(seed))
        for place, index in enumerate(indices):
            seen[place].add(index)
    assert seen == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}]
    starts = {
        Sampling("segments", 10, snippet=5).for_training(8, np.random.default_rng(seed))[::5] for seed in range(200)
    }
    assert starts == {(a, 2 + b) for a in (0, 1) for b in (0, 1)}  # (8 - 5 + 1) // 2 = 2
    short = {Sampling("segments", 3).for_training(2, np.random.default_rng(seed)) for seed in range(200)}
    assert short == {(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)}


def test_snippets_are_those_of_abm():
    # tick (20 - 3 + 1) / 4 = 4.5
    assert Sampling("snippets", 12, snippet=3).for_testing(20) == ((2, 3, 4, 6, 7, 8, 11, 12, 13, 15, 16, 17),)
    # Three shifts: gap 4.5 // 3 = 1, and 2 x 2 is not below 4; two: gap 2, and 1 x 3 is below 4, so 3.
    assert [clip[::3] for clip in Sampling("snippets", 12, snippet=3).for_testing(20, 3)] == [
        (0, 4, 9, 13), (1, 5, 10, 14), (2, 6, 11, 15),
    ]  # fmt: skip
    assert [clip[::3] for clip in Sampling("snippets", 12, snippet=3).for_testing(20, 2)] == [
        (0, 4, 9, 13), (3, 7, 12, 16),
    ]  # fmt: skip
    # Fewer than 4 + 3 - 1 frames: the first ones; fewer than 4: each once, the ends repeated.
    assert Sampling("snippets", 12, snippet=3).for_testing(5) == ((0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 4),)
    assert Sampling("snippets", 4).for_testing(2) == ((0, 0, 1, 1),)
    seen = {Sampling("snippets", 8, snippet=2).for_training(12, np.random.default_rng(s))[::2] for s in range(300)}
    # a = 2.75: round(i a) = 0, 3, 6 (5.5 to even), 8, and 0 or 1 more.
    assert {tuple(np.array(one) - (0, 3, 6, 8)) for one in seen} == {
        (a, b, c, d) for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)
    }


def test_one_random_offset_is_shared_by_all_segments_of_blvnet():
    seen = {Sampling("shared-offset", 4).for_training(14, np.random.default_rng(seed)) for seed in range(100)}
    assert seen == {(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)}
    assert Sampling("shared-offset", 4).for_testing(14) == ((1, 5, 8, 12),)  # tick 3.5
    short = Sampling("shared-offset", 4).for_training(2, np.random.default_rng(0))
    assert list(short) == sorted(short)
    assert set(short) <= {0, 1}


@pytest.mark.parametrize("mode", ["segments", "snippets", "shared-offset"])
@pytest.mark.parametrize("snippet", [1, 3])
def test_published_samplings_stay_within_videos_of_any_length(mode, snippet):
    if mode == "shared-offset" and snippet == 3:
        with pytest.raises(ValueError, match="snippet: got 3 in shared-offset mode, expected 1"):
            Sampling(mode, 12, snippet=3)
        return
    sampling = Sampling(mode, 12, snippet=snippet)
    for n in COUNTS:
        clips = [sampling.for_training(n, np.random.default_rng(n)), *sampling.for_testing(n, 1 + n % 3)]
        for indices in clips:
            assert len(indices) == 12
            assert all(isinstance(i, int) for i in indices)
            assert min(indices) >= 0
            assert max(indices) < n


def test_snippets_must_fill_the_clip_and_are_stored_only_where_there_are_any():
    with pytest.raises(ValueError, match="frames: got 10, expected a multiple of snippet = 3"):
        Sampling("segments", 10, snippet=3)
    assert Sampling("segments", 9, snippet=3).as_json() == {
        "mode": "segments", "frames": 9, "stride": 1, "snippet": 3,
    }  # fmt: skip
    assert Sampling("uniform", 9).as_json() == {"mode": "uniform", "frames": 9, "stride": 1}
