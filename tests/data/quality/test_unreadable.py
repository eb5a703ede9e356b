import pickle

import pytest
import torch
from hanging import HangsOnSome
from torch.utils.data import DataLoader

from stabn.data.clip_batch import SkippedClip, collate
from stabn.data.dataset import FrameScores, Sample, VideoDataset
from stabn.data.quality.unreadable import SkipCounter, SkipUnreadable
from stabn.data.sampling import Sampling
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.data.video.reader import Reader
from stabn.errors import UserError

SMALL = Preprocessing(Sampling("uniform", 4), resize=36, crop=32)


@pytest.fixture
def dataset(video, tmp_path):
    """Clip 1 of three is no video."""
    (tmp_path / "broken.mp4").write_bytes(b"\0broken" * 100)
    paths = [video("mp4", 36), tmp_path / "broken.mp4", video("webm", 36)]
    samples = [Sample(f"clip{i}", path, i, "train") for i, path in enumerate(paths)]

    def make(**options) -> VideoDataset:
        return VideoDataset(samples, SMALL, class_names=("a", "b", "c"), **options)

    return make


@pytest.mark.parametrize("options", [{}, {"cache": True}, {"clips": 2}, {"augmentation": Augmentation()}], ids=str)
def test_a_clip_that_cannot_be_read_is_an_empty_item_with_its_reason(dataset, tmp_path, options):
    skipping = SkipUnreadable(dataset(**options))
    assert len(skipping) == 3
    item = skipping[1]
    assert item.clips.shape == (0, 3, 4, 32, 32)
    assert item.clip_ids == ()
    (skipped,) = item.skipped
    assert (skipped.clip_id, skipped.path) == ("clip1", str(tmp_path / "broken.mp4"))
    assert skipped.reason.startswith(skipped.path)
    whole = collate([skipping[i] for i in range(3)])
    rows = options.get("clips", 1)
    assert whole.clip_ids == ("clip0",) * rows + ("clip2",) * rows
    assert whole.skipped == (skipped,)
    assert torch.equal(whole.clips, torch.cat([skipping.dataset[i].clips for i in (0, 2)]))
    alone = collate([item])
    assert len(alone.clips) == 0
    assert alone.to("cpu").skipped == (skipped,)


def test_an_item_of_an_epoch_is_that_of_the_data_set_in_that_epoch(dataset):
    training = dataset(augmentation=Augmentation(), seed=3)
    assert torch.equal(SkipUnreadable(training)[4, 0].clips, training.with_epoch(4)[0].clips)
    assert not torch.equal(SkipUnreadable(training)[5, 0].clips, training.with_epoch(4)[0].clips)


def test_maps_of_the_clips_that_can_be_read_stay(dataset):
    boxes = {"clip0": [(0, 0, 20, 20)] * 36}
    skipping = SkipUnreadable(dataset(boxes=boxes, grid=2))
    batch = collate([skipping[i] for i in (1, 0, 2)])
    assert batch.maps.shape == (2, 4, 2, 2)
    assert batch.has_maps.tolist() == [[True] * 4, [False] * 4]


def test_scores_for_frames_that_a_sound_video_has_not_are_a_mistake(dataset):
    scores = {"clip0": FrameScores((0, 1, 2, 36), (0.0,) * 4)}
    for options in ({}, {"cache": True}):
        with pytest.raises(UserError, match="36"):
            SkipUnreadable(dataset(scores=scores, **options))[0]


def test_a_video_that_hangs_is_not_tried_again(video, tmp_path, monkeypatch):
    monkeypatch.setattr("stabn.data.video.reader.VideoFiles", HangsOnSome)
    path = tmp_path / "hang-0.mp4"
    path.write_bytes(video("mp4", 36).read_bytes())
    reader = Reader(timeout=1)
    data = VideoDataset([Sample("a", path, 0, "train")], SMALL, class_names=("a", "b")).with_reader(reader)
    skipping = SkipUnreadable(data)
    first = skipping[0].skipped
    assert "1 s" in first[0].reason
    monkeypatch.setattr(reader, "read_sampled", lambda *arguments: pytest.fail("tried again"))
    assert skipping[0].skipped == first
    reader.close()


def test_workers_read_in_processes_of_their_own(dataset):
    reader = Reader(timeout=20)
    skipping = SkipUnreadable(dataset(augmentation=Augmentation(), seed=1).with_reader(reader))
    here = [skipping[i] for i in range(3)]  # the reader has a process before the workers are forked
    there = list(DataLoader(skipping, 1, num_workers=2, collate_fn=collate))
    assert [item.clip_ids for item in there] == [("clip0",), (), ("clip2",)]
    assert all(torch.equal(a.clips, b.clips) for a, b in zip(here, there, strict=True))
    assert [item.skipped for item in there] == [item.skipped for item in here]
    assert torch.equal(skipping[0].clips, here[0].clips)
    again = pickle.loads(pickle.dumps(skipping))
    assert torch.equal(again[2].clips, here[2].clips)
    reader.close()


@pytest.mark.parametrize(
    ("clips", "share", "allowed"),
    [
        (40_000, None, 400),
        (1_000, None, 10),
        (100, None, 10),
        (14, None, 7),
        (2, None, 1),
        (1, None, 0),
        (1_000, 0.05, 50),
        (28, 0.01, 1),
        (28, 0.0, 0),
        (28, 1.0, 27),
        (1, 0.5, 0),
    ],
)
def test_how_many_clips_may_be_broken(clips, share, allowed):
    counter = SkipCounter({"train": clips, "validation": 3}, share)
    assert counter.allowed("train") == allowed
    for number in range(allowed):
        counter.add("train", [SkippedClip(str(number), f"{number}.mp4", "broken")])
    with pytest.raises(UserError, match=f"{allowed + 1} of {clips}"):
        counter.add("train", [SkippedClip("one more", "one-more.mp4", "broken")])


def test_each_clip_is_named_once_and_counted_every_time(caplog):
    counter = SkipCounter({"train": 100, "validation": 100})
    one, other = SkippedClip("1", "1.mp4", "1.mp4: is empty"), SkippedClip("2", "2.mp4", "2.mp4: is empty")
    for _ in range(3):
        counter.add("train", [one])
    counter.add("train", [one, other])
    counter.add("validation", [])
    assert caplog.messages == ["skipped, train: 1.mp4: is empty", "skipped, train: 2.mp4: is empty"]
    caplog.clear()
    assert len(counter) == 2
    assert [(case["clip_id"], case["times"]) for case in counter.as_json()] == [("1", 4), ("2", 1)]
    again = SkipCounter({"train": 100, "validation": 100})
    again.load(counter.as_json())
    again.add("train", [other])
    assert caplog.messages == []
    assert [case["times"] for case in again.as_json()] == [4, 2]
