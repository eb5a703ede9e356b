"""Features kept on disk: rows that survive their writer, and views that depend on the clip alone."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch

from stabn.data.dataset import Sample, VideoDataset, ViewRecord
from stabn.data.feature_store import FeatureShape, FeatureStore, KeptDataset
from stabn.data.sampling import Sampling
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.data.video.clip import write_video
from stabn.errors import UserError

SHAPE = FeatureShape((2, 3, 2, 2), (0, 0), "float16")
RECORD = ViewRecord((0, 4, 9), (0.0, 0.4, 0.9), (1, 2), True, (40, 60))


def row(value: float, shape: FeatureShape = SHAPE) -> np.ndarray:
    return np.full(shape.values, value, shape.dtype)


def test_rows_come_back_with_how_their_view_was_made(tmp_path):
    shape = FeatureShape((2, 3, 2, 2), (1, 5), "float32")
    values = np.arange(shape.values, dtype="float32")
    FeatureStore(tmp_path, shape).add([("one", values, RECORD), ("two", row(2, shape), RECORD)])
    features, tokens, record = FeatureStore(tmp_path, shape).get("one")
    assert torch.equal(features.flatten(), torch.arange(24.0))
    assert torch.equal(tokens, torch.arange(24.0, 29.0)[None])
    assert record == RECORD
    with pytest.raises(KeyError):
        FeatureStore(tmp_path, shape).get("three")


def test_a_writer_and_its_readers_see_the_same_rows_and_a_key_is_kept_once(tmp_path):
    one, other = FeatureStore(tmp_path, SHAPE), FeatureStore(tmp_path, SHAPE)
    one.add([("a", row(1), RECORD)])
    other.add([("b", row(2), RECORD), ("a", row(9), RECORD)])
    assert [float(store.get(key)[0].mean()) for store in (one, other) for key in "ab"] == [1, 2, 1, 2]
    assert (tmp_path / "features.bin").stat().st_size == 2 * SHAPE.row_bytes


def write_until_killed(folder):
    store = FeatureStore(folder, SHAPE)
    for number in range(10**6):
        store.add([(f"{number}", row(number % 100), RECORD)])


def test_after_sigkill_every_row_that_is_listed_is_whole_and_writing_goes_on(tmp_path):
    writer = multiprocessing.get_context("spawn").Process(target=write_until_killed, args=(tmp_path,))
    writer.start()
    while len(FeatureStore(tmp_path, SHAPE)) < 20:
        assert writer.is_alive()
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with (tmp_path / "rows.jsonl").open("ab") as index:
        index.write(b'{"key": "torn')  # as a writer leaves it that dies in the middle of a line
    store = FeatureStore(tmp_path, SHAPE)
    count = len(store)
    store.add([("next", row(7), RECORD)])
    again = FeatureStore(tmp_path, SHAPE)
    assert len(again) == count + 1
    assert all(bool((again.get(f"{n}")[0] == n % 100).all()) for n in range(count))
    assert bool((again.get("next")[0] == 7).all())


def test_rows_of_another_shape_are_refused_by_the_folder(tmp_path):
    FeatureStore(tmp_path, SHAPE)
    with pytest.raises(UserError, match=r"about\.json"):
        FeatureStore(tmp_path, FeatureShape((2, 3, 2, 3), (0, 0), "float16"))


def test_a_full_disk_is_told_with_the_options_that_help(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, SHAPE)
    store.add([("a", row(1), RECORD)])

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*--loader\.features.*--loader\.views 0"):
        store.add([("b", row(2), RECORD)])
    monkeypatch.undo()
    assert "b" not in FeatureStore(tmp_path, SHAPE).known_keys()
    store.add([("b", row(2), RECORD)])
    assert float(FeatureStore(tmp_path, SHAPE).get("b")[0].mean()) == 2


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = np.random.default_rng(0).integers(0, 256, (12, 40, 48, 3), dtype=np.uint8)
    for name in "ab":
        write_video(folder / f"{name}.mp4", frames, 10)
    return [Sample(name, folder / f"{name}.mp4", label, "train") for label, name in enumerate("ab")]


def dataset(samples, **options) -> VideoDataset:
    preprocessing = Preprocessing(Sampling("uniform", 3), resize=36, crop=32)
    options = {"augmentation": Augmentation(jitter=0.2, flip=True), "stored_views": 2, **options}
    return VideoDataset(samples, preprocessing, class_names=["left", "right"], **options)


def test_a_stored_view_depends_on_the_clip_and_the_view_and_returns_after_as_many_epochs(samples):
    one = dataset(samples, seed=1)
    other = dataset(samples[::-1], seed=2)  # another training: another order, another seed
    for epoch in range(4):
        ours, theirs = one.with_epoch(epoch), other.with_epoch(epoch)
        assert torch.equal(ours[0].pixels, theirs[1].pixels)
        assert ours.view_key(0) == theirs.view_key(1) == one.with_epoch(epoch % 2).view_key(0)
    assert one.view_key(0) != one.with_epoch(1).view_key(0)
    assert one.view_key(0) != one.view_key(1)


def test_the_key_changes_with_the_file_and_with_all_that_is_done_with_it(samples, tmp_path):
    known = {dataset(samples).view_key(0)}
    for options in ({"augmentation": Augmentation(flip=False)}, {"augmentation": None}):
        known.add(dataset(samples, **options).view_key(0))
    moved = tmp_path / samples[0].path.name
    moved.write_bytes(samples[0].path.read_bytes() + b" ")
    known.add(dataset([Sample("a", moved, 0, "train")]).view_key(0))
    assert len(known) == 4


def test_an_item_has_all_of_the_clips_but_features_in_place_of_pixels(samples, tmp_path):
    clips = dataset(samples)
    store = FeatureStore(tmp_path, SHAPE)
    kept = KeptDataset(clips, store)
    with pytest.raises(UserError, match=r"a\.mp4"):
        kept[0]
    for view in range(2):
        of_epoch = clips.with_epoch(view)
        store.add([(of_epoch.view_key(0), row(view + 1), of_epoch.read_view(0)[1])])
    for epoch in range(3):
        item, expected = kept.with_epoch(epoch)[0], clips.with_epoch(epoch)[0]
        assert torch.equal(item.features, torch.full((1, *SHAPE.map), epoch % 2 + 1.0, dtype=torch.float16))
        assert item.pixels.shape == (1, 3, 3, 0, 0)
        for name in ("labels", "frame_indices", "timestamps", "scores", "has_scores"):
            assert torch.equal(getattr(item, name), getattr(expected, name)), name


def test_a_changed_picture_in_a_folder_of_frames_gives_another_view(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(bytes([number]))
    sample = Sample("a", folder, 0, "train")
    before, same = (dataset([sample]).view_key(0) for _ in range(2))
    os.utime(folder / "1.jpg", (1, 10**10))
    assert before == same != dataset([sample]).view_key(0)


@pytest.mark.parametrize("damage", ["rows.jsonl", "features.bin"])
def test_a_damaged_store_is_told_by_its_file(tmp_path, damage):
    FeatureStore(tmp_path, SHAPE).add([("a", row(1), RECORD), ("b", row(2), RECORD)])
    if damage == "rows.jsonl":
        (tmp_path / damage).write_bytes(b"\0\0\0\n")
    else:
        os.truncate(tmp_path / damage, SHAPE.row_bytes)
    with pytest.raises(UserError, match=rf"{tmp_path / damage}: .*remove the folder"):
        FeatureStore(tmp_path, SHAPE)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"{tmp_path / 'file' / 'store'}: .*--loader\.features"):
        FeatureStore(tmp_path / "file" / "store", SHAPE)
