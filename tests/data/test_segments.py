from fractions import Fraction

import pytest
from data_videos import encode, numbered_frame

from stabn.data.dataset import FrameScores, Sample, VideoDataset
from stabn.data.sampling import Sampling, uniform
from stabn.data.segments import Segment, segment_frames
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.errors import UserError

WHOLE = Preprocessing(Sampling("uniform", 4), resize=48, crop=48)
OPTIONS = ({}, {"cache": True})


@pytest.fixture
def item(video):
    """The one item of a data set with a segment of a video of 36 frames at 12 per second."""

    def make(segment, path=None, **options):
        sample = Sample("clip", path or video("mp4", 36), 0, "train", segment)
        return VideoDataset([sample], WHOLE, class_names=("a",), **options)[0]

    return make


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        (Segment(0, None, "frames"), range(36)),
        (Segment(10, 20, "frames"), range(10, 20)),
        (Segment(30, 99, "frames"), range(30, 36)),
        (Segment(35, 36, "frames"), range(35, 36)),
        (Segment(0, 1), range(12)),
        (Segment(1, 2.5), range(12, 30)),
        (Segment(1.01, 2.51), range(13, 31)),  # a frame on show since before the start does not belong
        (Segment(2.9), range(35, 36)),
    ],
)
def test_a_segment_holds_the_frames_from_its_start_to_before_its_end(video, segment, expected):
    assert segment_frames(video("mp4", 36), segment, "clip") == expected
    # the definition, frame by frame
    times = [i / 12 for i in range(36)]
    end = float("inf") if segment.end is None else segment.end
    asked = range(36) if segment.unit == "frames" else times
    assert [i for i, value in enumerate(asked) if segment.start <= value < end] == list(expected)


def test_without_a_segment_a_clip_is_all_of_its_source(video):
    assert segment_frames(video("mp4", 3), None, "clip") == range(3)


def test_seconds_mean_the_times_of_a_variable_frame_rate(tmp_path):
    times = [0, 100, 200, 1000, 1100, 5000]
    path = encode(tmp_path / "v.mkv", (numbered_frame(i) for i in range(6)), pts=times, codec="libx264")
    for start, end, expected in ((0, 1, [0, 1, 2]), (1, 5, [3, 4]), (1.1, None, [4, 5]), (0.2, 1.0, [2])):
        assert list(segment_frames(path, Segment(start, end), "clip")) == expected


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((-1, 2), "start: got -1"),
        ((float("nan"), 2), "start: got nan"),
        ((float("inf"), None), "start: got inf"),
        ((2, 2), "end: got 2"),
        ((2, 1, "frames"), "end: got 1"),
        ((2, float("nan")), "end: got nan"),
        ((0, float("inf")), "end: got inf"),
        ((0.5, 2, "frames"), "start: got 0.5"),
        ((0, 2.5, "frames"), "end: got 2.5"),
        ((0, 1, "minutes"), "unit"),
    ],
)
def test_a_segment_checks_itself(values, told):
    with pytest.raises((ValueError, TypeError), match=told):
        Segment(*values)


@pytest.mark.parametrize("segment", [Segment(36, None, "frames"), Segment(3.5, 9), Segment(1.01, 1.05)])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_segment_without_a_frame_is_told_with_clip_segment_and_length(item, segment, options):
    with pytest.raises(UserError, match=r"'clip'.* 36 .* 2\.92 s") as caught:
        item(segment, **options)
    assert str(segment) in str(caught.value)
    assert str(segment).startswith(segment.unit)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("segment", [Segment(10, 22, "frames"), Segment(Fraction(10, 12).__float__(), 22 / 12)])
def test_sampled_frames_lie_in_the_segment_and_are_numbered_as_in_the_source(item, options, segment):
    got = item(segment, **options)
    assert got.frame_indices.tolist() == [[10 + i for i in uniform(12, 4)]]
    assert got.timestamps[0].tolist() == pytest.approx([i / 12 for i in got.frame_indices[0].tolist()])
    whole = item(None, scores={"clip": FrameScores(tuple(got.frame_indices[0].tolist()), (0.0,) * 4)})
    assert (got.clips == whole.clips).all()


@pytest.mark.parametrize("options", OPTIONS)
def test_windows_training_frames_and_short_segments_stay_inside(item, options):
    windows = item(Segment(10, 20, "frames"), clips=3, **options).frame_indices
    assert windows.min() >= 10
    assert windows.max() < 20
    for epoch in range(5):
        found = item(Segment(1, 2), augmentation=Augmentation(), epoch=epoch, **options).frame_indices
        assert 12 <= found.min() <= found.max() < 24
    assert item(Segment(34, None, "frames"), **options).frame_indices.tolist() == [[34, 35, 35, 35]]


@pytest.mark.parametrize("options", OPTIONS)
def test_scores_are_of_frames_of_the_source(item, options):
    scores = {"clip": FrameScores((11, 12, 13, 14), (0.0, 0.5, 1.0, 0.0))}
    got = item(Segment(10, 20, "frames"), scores=scores, **options)
    assert got.frame_indices.tolist() == [[11, 12, 13, 14]]
    assert got.scores.tolist() == [[0.0, 0.5, 1.0, 0.0]]


def test_several_clips_of_one_file_keep_apart_in_the_cache(video):
    path = video("mp4", 36)
    segments = (None, Segment(0, 12, "frames"), Segment(12, 24, "frames"), Segment(2, 3))
    samples = [Sample(f"clip{i}", path, 0, "train", segment) for i, segment in enumerate(segments)]
    plain, cached = (VideoDataset(samples, WHOLE, class_names=("a",), cache=cache) for cache in (False, True))
    starts = []
    for index in (*range(4), *range(4)):
        assert (plain[index].clips == cached[index].clips).all()
        assert (plain[index].frame_indices == cached[index].frame_indices).all()
        assert (plain[index].timestamps == cached[index].timestamps).all()
        starts.append(int(cached[index].frame_indices[0, 0]))
    assert starts[:4] == [4, 1, 13, 25]


def test_a_scored_frame_outside_what_is_cached_is_refused(item):
    with pytest.raises(UserError, match=r" 3, .*10\.\.19"):
        item(Segment(10, 20, "frames"), cache=True, scores={"clip": FrameScores((3, 12, 13, 14), (0.0,) * 4)})


def test_segments_are_written_as_people_write_numbers():
    assert str(Segment(3, 7.25)) == "seconds 3 to 7.25"
    assert str(Segment(3.0, None, "frames")) == "frames 3 to the end"
    assert Segment(3, 7) == Segment(3.0, 7.0)
