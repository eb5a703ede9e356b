import av
import numpy as np
import pytest
import torch
from data_videos import numbered_frame, numbers_in
from PIL import Image

from stabn.data.dataset import Sample, VideoDataset
from stabn.data.sampling import Sampling, uniform
from stabn.data.segments import Segment
from stabn.data.transforms import Preprocessing
from stabn.data.video.frame_folder import FPS, frame_numbers
from stabn.data.video.reader import probe, read_chunks, read_clip, read_sampled, stream_clip
from stabn.errors import UserError

WHOLE = Preprocessing(Sampling("uniform", 4), resize=48, crop=48)


@pytest.fixture
def folder(tmp_path):
    """folder("img_{:05}.jpg", range(1, 13)) holds 12 frames that spell 0, 1, ... in the order of the numbers."""

    def make(pattern="img_{:05}.jpg", numbers=range(1, 13), name="clip", **options):
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        for position, number in enumerate(numbers):
            Image.fromarray(numbered_frame(position)).save(path / pattern.format(number), **options)
        return path

    return make


@pytest.mark.parametrize(
    "numbers", [range(12), range(1, 13), range(95, 107), range(0, 60, 5), range(999_995, 1_000_007)]
)
@pytest.mark.parametrize("pattern", ["img_{:05}.jpg", "{:05}.jpg", "{}.png", "frame {}.PNG", "v2 take3-{:d}_rgb.jpeg"])
def test_frames_come_in_the_order_of_their_numbers_whatever_the_first(folder, pattern, numbers):
    path = folder(pattern, numbers)
    clip = read_clip(path, [11, 0, 5, 5])
    assert numbers_in(clip.frames) == [11, 0, 5, 5]
    assert clip.frame_indices.tolist() == [11, 0, 5, 5]
    assert clip.timestamps.tolist() == [11 / FPS, 0, 5 / FPS, 5 / FPS]
    assert clip.path == str(path)
    assert list(frame_numbers(path)) == list(numbers)


def test_every_way_to_read_a_video_reads_a_folder(folder):
    path = folder()
    info = probe(path)
    assert (info.num_frames, info.width, info.height, info.fps) == (12, 64, 48, FPS)
    assert info.timestamps == tuple(i / FPS for i in range(12))
    assert numbers_in(read_sampled(path, lambda count: (count - 1, 0)).frames) == [11, 0]
    streamed = list(stream_clip(path, [7, 2, 7]))
    assert [int(one.frame_indices) for one in streamed] == [2, 7]
    assert [n for one in streamed for n in numbers_in(one.frames)] == [2, 7]
    chunks = list(read_chunks(path, size=5))
    assert [len(chunk.frames) for chunk in chunks] == [5, 5, 2]
    assert [n for chunk in chunks for n in numbers_in(chunk.frames)] == list(range(12))
    assert torch.cat([chunk.frame_indices for chunk in chunks]).tolist() == list(range(12))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
def test_pixels_are_those_of_the_image(folder, suffix):
    path = folder(f"img_{{}}.{suffix}", [1])
    ours = read_clip(path, [0]).frames[0].permute(1, 2, 0).numpy().astype(int)
    with av.open(str(path / f"img_1.{suffix}")) as container:  # FFmpeg's decoders
        theirs = next(container.decode(video=0)).to_ndarray(format="rgb24")
    lossy = suffix in ("jpg", "webp")
    assert abs(ours - theirs).mean() <= (2 if lossy else 0)
    assert abs(ours - numbered_frame(0)).mean() <= (4 if lossy else 0)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_kinds_of_images_become_rgb(tmp_path, mode):
    Image.fromarray(numbered_frame(5)).convert(mode).save(tmp_path / "00001.tif")
    frames = read_clip(tmp_path, [0]).frames
    assert frames.shape == (1, 3, 48, 64)
    assert mode == "1" or numbers_in(frames) == [5]


def test_images_that_a_camera_turned_are_upright(tmp_path):
    turned = Image.fromarray(np.rot90(numbered_frame(9)).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "00001.jpg", exif=exif, quality=95)
    assert numbers_in(read_clip(tmp_path, [0]).frames) == [9]
    assert (probe(tmp_path).width, probe(tmp_path).height) == (64, 48)


def test_what_is_no_frame_in_the_folder_does_not_count(folder):
    path = folder()
    for name in ("Thumbs.db", ".DS_Store", "._img_00001.jpg", "cover.jpg", "notes1.txt"):
        (path / name).write_bytes(b"x")
    for name in ("flow_x_00001.jpg", "flow_y_00001.jpg", "x_00001.jpg"):
        Image.fromarray(numbered_frame(900)).save(path / name)
    assert probe(path).num_frames == 12
    assert numbers_in(read_clip(path, [0]).frames) == [0]


def test_folders_of_which_nobody_can_know_the_frames_are_refused(folder, tmp_path):
    path = folder(name="two")
    Image.fromarray(numbered_frame(0)).save(path / "left_00001.jpg")
    with pytest.raises(UserError, match=r"two: .*img_00001\.jpg .*left_00001\.jpg"):
        probe(path)
    path = folder(name="twice")
    Image.fromarray(numbered_frame(0)).save(path / "img_1.jpg")
    with pytest.raises(UserError, match=r"twice: .*img_00001\.jpg .*img_1\.jpg"):
        read_clip(path, [0])
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("x")
    for read in (probe, lambda path: read_clip(path, [0]), lambda path: list(read_chunks(path))):
        with pytest.raises(UserError, match="none: "):
            read(tmp_path / "none")


def test_a_damaged_image_is_named(folder):
    path = folder()
    file = path / "img_00004.jpg"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"img_00004\.jpg") as caught:
            read_clip(path, [2, 3])
        assert "\n" not in str(caught.value)
        assert numbers_in(read_clip(path, [2, 4]).frames) == [2, 4]
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match=r"img_00004\.jpg"):
        read_clip(path, [3])


@pytest.mark.parametrize("damage", range(40))
def test_any_damage_is_either_an_error_of_the_user_or_an_image(tmp_path, damage):
    rng = np.random.default_rng(damage)
    suffix = ("jpg", "png", "webp", "tif")[damage % 4]
    file = tmp_path / f"1.{suffix}"
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    for position in rng.integers(0, len(content), 1 + damage // 4):
        content[position] = rng.integers(256)
    file.write_bytes(bytes(content))
    refused = None
    try:
        assert read_clip(tmp_path, [0]).frames.dtype == torch.uint8
    except UserError as error:
        refused = str(error)
    assert refused is None or str(file) in refused


def test_an_image_of_another_size_or_depth_is_named(folder):
    path = folder()
    Image.fromarray(numbered_frame(0, height=40)).save(path / "img_00003.jpg")
    with pytest.raises(UserError, match=r"img_00003\.jpg: .*64x40 .*64x48"):
        read_clip(path, [2])
    (path / "deep").mkdir()
    Image.fromarray(np.full((48, 64), 40_000, np.uint16)).save(path / "deep" / "1.png")
    with pytest.raises(UserError, match=r"1\.png: "):
        read_clip(path / "deep", [0])


def test_frames_beyond_the_end_are_refused_as_those_of_a_file(folder):
    path = folder()
    with pytest.raises(UserError, match="12"):
        read_clip(path, [3, 12])
    with pytest.raises(ValueError, match="frame_indices"):
        read_clip(path, [])


@pytest.mark.parametrize("options", [{}, {"cache": True}])
@pytest.mark.parametrize("segment", [None, Segment(4, 10, "frames"), Segment(4 / FPS, 10 / FPS)])
def test_clips_of_a_folder_are_sampled_like_those_of_a_file(folder, options, segment):
    sample = Sample("clip", folder("{:05}.png"), 0, "train", segment)
    item = VideoDataset([sample], WHOLE, class_names=("a",), **options)[0]
    first, count = (0, 12) if segment is None else (4, 6)
    expected = [first + i for i in uniform(count, 4)]
    assert item.frame_indices.tolist() == [expected]
    whole = read_clip(sample.path, expected)
    torch.testing.assert_close(item.clips[0], WHOLE.test_view(whole.frames))
