import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stabn.data.dataset import Sample
from stabn.data.flow import encoded_flow, write_flow
from stabn.data.segments import Segment
from stabn.data.video.reader import IN_PROCESS, read_clip
from stabn.errors import UserError


@pytest.fixture
def opencv():
    pytest.importorskip("cv2", reason="needs OpenCV")


@pytest.fixture
def picture() -> np.ndarray:
    """(120, 160, 3) with structure everywhere."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((160, 120)))


@pytest.fixture
def video(picture, tmp_path) -> Path:
    """A folder of four frames whose content moves two pixels to the right and one up each time."""
    for i in range(4):
        (tmp_path / "video").mkdir(exist_ok=True)
        Image.fromarray(np.roll(picture, (-i, 2 * i), (0, 1))).save(tmp_path / "video" / f"{i + 1:05}.png")
    return tmp_path / "video"


@pytest.mark.parametrize(("right", "down"), [(3, 0), (-4, 2), (0, 0)])
def test_red_and_green_are_the_way_of_a_pixel_to_the_next_frame(opencv, picture, right, down):
    flow = encoded_flow(picture, np.roll(picture, (down, right), (0, 1)))
    inner = np.median(flow[20:-20, 20:-20].reshape(-1, 3), axis=0)
    assert np.abs(inner - (128 + 6.4 * right, 128 + 6.4 * down, 128)).max() <= 1
    assert (flow.dtype, flow.shape, int(flow[..., 2].min())) == (np.uint8, picture.shape, 128)


def test_pictures_smaller_than_the_library_takes_have_flow_too(opencv, picture):
    small = picture[:24, :20]
    assert np.array_equal(encoded_flow(small, small), np.full_like(small, 128))


@pytest.mark.parametrize(("segment", "fields"), [(None, 3), (Segment(1, 3, "frames"), 1), (Segment(2, 3, "frames"), 1)])
def test_a_clip_has_a_field_between_its_frames_and_is_read_like_any_folder_of_frames(
    opencv, video, tmp_path, segment, fields
):
    sample = Sample("a", video, 0, "train", segment)
    write_flow(sample, tmp_path / "flow", IN_PROCESS)
    names = sorted(path.name for path in (tmp_path / "flow").iterdir())
    assert names == [f"{i + 1:06}.png" for i in range(fields)]
    inner = (
        read_clip(tmp_path / "flow", list(range(fields))).frames[:, :, 20:-20, 20:-20].float().median(3)[0].median(2)[0]
    )
    still = segment is not None and segment.start == 2
    expected = [128, 128, 128] if still else [128 + 12.8, 128 - 6.4, 128]
    assert np.abs(inner.numpy() - expected).max() <= 1


def test_a_video_that_cannot_be_read_leaves_nothing(opencv, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"broken\.mp4"):
        write_flow(Sample("a", tmp_path / "broken.mp4", 0, "train"), tmp_path / "flow", IN_PROCESS)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]


def test_without_opencv_one_line_says_what_to_install(video, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"stabn\[flow\]"):
        write_flow(Sample("a", video, 0, "train"), tmp_path / "flow", IN_PROCESS)
