import json
from functools import partial
from pathlib import Path

import pytest
import torch
from data_videos import numbers_in
from torch.utils.data import DataLoader

from stabn.data.annotations.something_something import read_something_something
from stabn.data.clip_batch import ClipBatch, collate
from stabn.data.dataset import FrameScores, Sample, Table, VideoDataset
from stabn.data.sampling import Sampling, uniform
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.data.video.reader import Reader
from stabn.errors import UserError

CLASSES = ("move left", "move right", "stay", "turn left")
WHOLE = Preprocessing(Sampling("uniform", 4), resize=48, crop=48)  # the whole height of the test videos
LABELS = {"Moving something up": "1", "Moving something, something and something down": "0"}


def numbers_of(clip_cthw: torch.Tensor) -> list[int]:
    """The numbers that a test view of a 48x64 video spells: its centre crop starts at column 8, one block further."""
    frames = clip_cthw.transpose(0, 1) * torch.tensor(WHOLE.std).view(3, 1, 1) + torch.tensor(WHOLE.mean).view(3, 1, 1)
    padded = torch.cat([torch.zeros(len(frames), 3, 48, 8), frames], dim=3) * 255
    return [number // 2 for number in numbers_in(padded)]


def numbers_lost(numbers: list[int]) -> list[int]:
    """What is left of frame numbers whose first column of bits is cropped away."""
    return [(n & ~1 & ~32) // 2 for n in numbers]


@pytest.fixture
def samples(video) -> tuple[Sample, ...]:
    return tuple(
        Sample(f"clip{i}", video(kind, count), label, "train")
        for i, (kind, count, label) in enumerate([("mp4", 36, 0), ("webm", 36, 2), ("mp4", 3, 3), ("mp4", 40, 1)])
    )


@pytest.fixture
def dataset(samples):
    return partial(VideoDataset, samples, WHOLE, class_names=CLASSES)


def same(a: ClipBatch, b: ClipBatch) -> bool:
    return a.clip_ids == b.clip_ids and all(
        torch.equal(getattr(a, n), getattr(b, n)) for n in ("clips", "labels", "scores", "frame_indices", "timestamps")
    )


def test_test_clips_show_the_sampled_frames(dataset):
    for index, count in enumerate([36, 36, 3, 40]):
        item = dataset()[index]
        expected = list(uniform(count, 4))
        assert item.frame_indices.tolist() == [expected]
        assert numbers_of(item.clips[0]) == numbers_lost(expected)
        assert item.clip_ids == (f"clip{index}",)
        torch.testing.assert_close(item.timestamps, item.frame_indices / 12, atol=1e-3, rtol=0, check_dtype=False)
        assert not item.has_scores.any()


def test_several_test_windows_are_rows_with_one_name(dataset):
    item = dataset(clips=3)[0]
    assert item.clips.shape == (3, 3, 4, 48, 48)
    assert item.frame_indices.tolist() == [list(w) for w in WHOLE.sampling.for_testing(36, 3)]
    assert item.clip_ids == ("clip0",) * 3
    assert item.labels.tolist() == [0, 0, 0]
    batch = collate([item, dataset(clips=3)[1]])
    assert batch.clip_ids == ("clip0",) * 3 + ("clip1",) * 3
    assert batch.clips.shape[0] == 6


def test_a_training_item_depends_on_seed_epoch_and_index_alone(dataset):
    training = partial(dataset, augmentation=Augmentation(0.3, flip=True))
    forwards = [training(seed=1, epoch=2)[i] for i in range(4)]
    backwards = [training(seed=1, epoch=2)[i] for i in (3, 2, 1, 0)]
    assert all(same(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    for other in (training(seed=2, epoch=2), training(seed=1, epoch=3)):
        assert not any(same(a, other[i]) for i, a in enumerate(forwards))
    assert same(training(seed=1, epoch=2)[-1], forwards[3])
    cached = training(seed=1, epoch=2, cache=True)
    assert not same(cached.with_epoch(1)[0], forwards[0])
    assert same(cached.with_epoch(1).with_epoch(2)[0], forwards[0])


def test_the_cache_changes_nothing_but_the_time(dataset, monkeypatch):
    for options in ({}, {"augmentation": Augmentation(0.3, flip=True), "seed": 5}, {"clips": 2}):
        plain, cached = dataset(**options), dataset(**options, cache=True)
        expected = [plain[i] for i in range(4)]
        assert all(same(cached[i], item) for i, item in enumerate(expected))
        with monkeypatch.context() as patch:
            patch.setattr(Reader, "read_chunks", lambda self, path: pytest.fail(f"{path} was decoded again"))
            patch.setattr(Reader, "read_sampled", lambda self, path, choose: pytest.fail("decoded"))
            assert all(same(cached[i], item) for i, item in enumerate(expected))
            later = cached.with_epoch(3)
            assert len(later) == 4
            third = [later[i] for i in range(4)]
        assert all(same(plain.with_epoch(3)[i], item) for i, item in enumerate(third))


def test_scored_clips_show_exactly_the_scored_frames(dataset):
    scores = {"clip1": FrameScores((2, 8, 8, 33), (0.0, 0.5, 0.5, 1.0)), "elsewhere": FrameScores((1,), (1.0,))}
    for options in ({"augmentation": Augmentation(0.3, flip=True)}, {}, {"cache": True}):
        data = dataset(scores=scores, **options)
        for epoch in range(3):
            item = data.with_epoch(epoch)[1]
            assert item.frame_indices.tolist() == [[2, 8, 8, 33]]
            assert item.scores.tolist() == [[0.0, 0.5, 0.5, 1.0]]
            assert item.has_scores.tolist() == [True]
        assert data[0].has_scores.tolist() == [False]
        assert data[0].scores.tolist() == [[0.0] * 4]


def test_scores_of_another_length_are_refused(dataset):
    with pytest.raises(UserError, match=r"clip1: .*2 .*4"):
        dataset(scores={"clip1": FrameScores((0, 1), (0.0, 1.0))})


def test_a_mirrored_clip_gets_the_mirrored_class(dataset):
    seen = set()
    flipping = dataset(augmentation=Augmentation(flip=True), cache=True)
    plain = dataset(augmentation=Augmentation(), cache=True)
    for epoch in range(8):
        for index in range(4):
            item, still = flipping.with_epoch(epoch)[index], plain.with_epoch(epoch)[index]
            flipped = not torch.equal(item.clips, still.clips)
            if flipped:
                assert torch.equal(item.clips, still.clips.flip(-1))
            seen.add((still.labels.item(), item.labels.item(), flipped))
    assert seen == {
        (0, 0, False),
        (0, 1, True),
        (1, 1, False),
        (1, 0, True),
        (2, 2, False),
        (2, 2, True),
        (3, 3, False),  # "turn left" has no "turn right" among the classes: never mirrored
    }


def test_a_scored_clip_may_be_mirrored_with_its_scores_kept(dataset):
    scores = {"clip0": FrameScores((1, 2, 3, 4), (0.0, 0.5, 1.0, 1.0))}
    data = dataset(augmentation=Augmentation(flip=True), scores=scores, cache=True)
    items = [data.with_epoch(epoch)[0] for epoch in range(10)]
    assert {item.labels.item() for item in items} == {0, 1}
    assert all(item.scores.tolist() == [[0.0, 0.5, 1.0, 1.0]] for item in items)


def test_loader_workers_give_the_same_batches(dataset):
    data = dataset(augmentation=Augmentation(0.2, flip=True), seed=3)
    here = list(DataLoader(data, batch_size=3, collate_fn=collate))
    there = list(DataLoader(data, batch_size=3, collate_fn=collate, num_workers=2))
    assert [len(batch.labels) for batch in here] == [3, 1]
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_a_batch_moves_as_a_whole(dataset):
    batch = collate([dataset()[i] for i in range(2)])
    moved = batch.to("meta")
    assert moved.clip_ids == batch.clip_ids
    assert {t.device.type for t in moved._tensors().values()} == {"meta"}
    assert batch.clips.dtype == torch.float32
    assert batch.labels.dtype == batch.frame_indices.dtype == torch.int64
    assert batch.timestamps.dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 0}, "clips"),
        ({"clips": 2, "augmentation": Augmentation()}, "clips"),
        ({"clips": 2, "scores": {"clip0": FrameScores((0, 1, 2, 3), (1.0,) * 4)}}, "clips"),
        ({"class_names": ("a", "b")}, r"label: got 2 .*'clip1'"),
    ],
)
def test_several_windows_are_for_testing_only_and_labels_have_a_name(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        dataset(**options)


FIRST, SECOND = Sample("a", Path("a.mp4"), 0, "train"), Sample("b", Path("b.mp4"), 1, "validation")
TABLE = Table(("x", "y"), (FIRST, SECOND))


def test_a_table_gives_splits_and_takes_the_class_numbers_of_a_network():
    assert TABLE.of_split("validation") == (SECOND,)
    found = TABLE.with_class_names(("y", "z", "x"))
    assert found.class_names == ("y", "z", "x")
    assert [sample.label for sample in found.samples] == [2, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TABLE.of_split("test"), r"'test'.*train, validation"),
        (lambda: TABLE.with_class_names(("x", "z")), r"class_names: .*'y'"),
        (lambda: Table(("x",), (FIRST, FIRST)), "clip_id: got 'a' twice"),
        (lambda: Table(("x", "x"), (FIRST,)), "class_names: got 'x' twice"),
        (lambda: Table(("x",), (FIRST, SECOND)), r"label: got 1 .*'b'"),
        (lambda: Sample("a", Path("a.mp4"), -1, "train"), "label: got -1"),
        (lambda: Sample("", Path("a.mp4"), 0, "train"), "clip_id"),
        (lambda: FrameScores((1, 2), (0.5,)), "scores"),
        (lambda: FrameScores((-1, 1), (0.5, 0.5)), "frame_indices"),
        (lambda: FrameScores((1, 2), (0.5, 1.5)), "1.5"),
    ],
)
def test_tables_samples_and_scores_check_themselves(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def entry(clip_id: int | str, template: str = "Moving [something] up") -> dict:
    return {"id": clip_id, "label": "moving pen up", "template": template, "placeholders": ["pen"]}


@pytest.fixture
def something(tmp_path):
    """Writes the annotation files and empty videos; each may be replaced by the caller."""

    def write(train=None, validation=None, labels=LABELS, videos=("1.webm", "2.mp4", "7.webm"), name="{}") -> tuple:
        name = "something-something-v2-{}.json" if name == "{}" else name
        down = "Moving [something], [something] and [something] down"
        contents = {
            "labels": labels,
            "train": [entry("1"), entry(2, down)] if train is None else train,
            "validation": [entry("7")] if validation is None else validation,
        }
        (tmp_path / "videos").mkdir(exist_ok=True)
        for file in videos:
            (tmp_path / "videos" / file).touch()
        for part, content in contents.items():
            (tmp_path / name.format(part)).write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path, tmp_path / "videos"

    return write


@pytest.mark.parametrize("name", ["{}", "{}.json"])
def test_something_something_becomes_a_table(something, name):
    folder, videos = something(name=name)
    table = read_something_something(folder, videos)
    assert table.class_names == ("Moving something, something and something down", "Moving something up")
    assert table.of_split("train") == (
        Sample("1", videos / "1.webm", 1, "train"),
        Sample("2", videos / "2.mp4", 0, "train"),
    )
    assert table.of_split("validation") == (Sample("7", videos / "7.webm", 1, "validation"),)
    assert len(read_something_something(folder, videos, splits=("validation",)).samples) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train": [entry("1"), entry("1")]}, "'1'"),
        ({"validation": [entry("1")]}, "'1'"),
        ({"train": [entry("1", "Eating [something]")]}, "'Eating something'"),
        ({"train": [entry("../1")]}, r"entry 0.*'\.\./1'"),
        ({"train": [entry("a\\b")]}, "entry 0"),
        ({"train": [entry("..")]}, "entry 0"),
        ({"train": [entry("")]}, "entry 0"),
        ({"train": [entry("1\n")]}, "entry 0"),
        ({"train": [entry(True)]}, r"entry 0.*True"),
        ({"train": [{"id": "1"}]}, r"entry 0.*None"),
        ({"train": ["1"]}, r"entry 0.*'1'"),
        ({"train": {"1": "up"}}, "dict"),
        ({"train": "[{,}]"}, "train"),
        ({"labels": []}, "list"),
        ({"labels": {"a": "0", "b": "2"}}, "'2'"),
        ({"labels": {"a": "0", "b": "0"}}, "'b'"),
        ({"labels": {"a": "zero"}}, "'zero'"),
        ({"labels": {"a": -1}}, "-1"),
    ],
)
def test_wrong_something_something_files_are_refused_in_one_line(something, files, message):
    folder, videos = something(**files)
    with pytest.raises(UserError, match=message) as caught:
        read_something_something(folder, videos)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_missing_something_something_files_are_named(something):
    folder, videos = something()
    with pytest.raises(UserError, match="none"):
        read_something_something(folder, folder / "none")
    (folder / "something-something-v2-validation.json").unlink()
    with pytest.raises(UserError, match=r"something-something-v2-validation\.json"):
        read_something_something(folder, videos)
    with pytest.raises(UserError, match=r"something-something-v2-labels\.json"):
        read_something_something(folder / "nowhere", videos)
