"""All decoders show the frames that the FFmpeg command line shows, whatever the file is made of."""

import inspect
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from data_videos import encode, numbered_frame, numbers_in

from stabn.data.video import backends, file_check, rgb_frames
from stabn.data.video.backends import VideoFiles, torchcodec_fault
from stabn.data.video.decode import decode
from stabn.data.video.reader import probe, read_clip
from stabn.data.video.rgb_frames import read_frames
from stabn.errors import UserError

COUNT = 20
QUIET = ("-v", "error", "-y")
X265 = ("-x265-params", "log-level=none:pools=1:frame-threads=1:keyint=10")
MADE = {
    "h264.mp4": ("-c:v", "libx264", "-bf", "3", "-g", "10"),
    "h264-open-gop.mkv": ("-c:v", "libx264", "-x264-params", "open-gop=1:keyint=8:bframes=3"),
    "h264-slices.ts": ("-c:v", "libx264", "-x264-params", "slices=3"),
    "h264-ten-bits.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p10le"),
    "h265.mp4": ("-c:v", "libx265", *X265),
    "h265-ten-bits.mkv": ("-c:v", "libx265", "-pix_fmt", "yuv420p10le", *X265),
    "vp8.webm": ("-c:v", "libvpx", "-b:v", "1M", "-auto-alt-ref", "1", "-lag-in-frames", "10"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-cpu-used", "8"),
    "av1.mp4": ("-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "2", "-q:v", "3"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-bf", "2", "-q:v", "3"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "3"),
    "mjpeg.mov": ("-c:v", "mjpeg", "-q:v", "3"),
    "interlaced.mp4": ("-c:v", "libx264", "-flags", "+ilme+ildct", "-x264-params", "tff=1"),
    "interlaced.mpg": ("-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-q:v", "3"),
    "variable.mp4": ("-vf", "setpts=(N+N*N/8)/25/TB", "-fps_mode", "vfr", "-c:v", "libx264"),
    "variable.webm": ("-vf", "setpts=(N+N*N/8)/25/TB", "-fps_mode", "vfr", "-c:v", "libvpx-vp9", "-cpu-used", "8"),
    "odd.webm": ("-vf", "pad=67:51:0:0", "-c:v", "libvpx-vp9", "-cpu-used", "8"),
    "odd.mp4": ("-vf", "pad=67:51:0:0", "-pix_fmt", "yuv444p", "-c:v", "libx264"),
    "fragments.mp4": ("-c:v", "libx264", "-g", "5", "-movflags", "frag_keyframe+empty_moov"),
}
"""File -> how the command line makes it."""
REMADE = {
    "turned-right.mp4": ("-display_rotation", "-90"),
    "turned-left.mp4": ("-display_rotation", "90"),
    "turned-over.mp4": ("-display_rotation", "180"),
}
"""Copies of h264.mp4."""
UNTRUSTED = {name for name in MADE if name.startswith(("variable", "odd", "interlaced"))} | {*REMADE}
UNTRUSTED |= {name for name in MADE if "ten-bits" in name or name.endswith((".ts", ".avi", ".mpg"))}
"""Files of which torchcodec may show other frames; it is not used for them."""
UNREAD = {"h264-open-gop.mkv"}
"""Files that torchcodec cannot read; PyAV reads them again."""


@pytest.fixture(scope="module")
def made(tmp_path_factory, ffmpeg):
    """made("h264.mp4") is that file, encoded once by the command line."""
    folder = tmp_path_factory.mktemp("made")
    frames = np.stack([numbered_frame(i) for i in range(COUNT)]).tobytes()

    def make(name: str) -> Path:
        path = folder / name
        if path.exists():
            return path
        if name in REMADE:
            command = [ffmpeg, *QUIET, *REMADE[name], "-i", str(make("h264.mp4")), "-c", "copy", str(path)]
        else:
            source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-r", "25", "-i", "-")
            depth = () if "-pix_fmt" in MADE[name] else ("-pix_fmt", "yuv420p")
            command = [ffmpeg, *QUIET, *source, *MADE[name], *depth, "-threads", "1", str(path)]
        found = subprocess.run(command, input=frames, capture_output=True)
        if b"Unknown encoder" in found.stderr:
            pytest.skip(f"this ffmpeg cannot make {name}")
        assert found.returncode == 0, found.stderr.decode()
        return path

    return make


def shown_by_command(ffmpeg: str, path: Path, width: int, height: int) -> np.ndarray:
    options = ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    found = subprocess.run([ffmpeg, "-v", "error", "-i", str(path), *options, "-"], capture_output=True, check=True)
    return np.frombuffer(found.stdout, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("name", [*MADE, *REMADE])
def test_frames_are_those_of_the_ffmpeg_command(made, ffmpeg, name):
    path = made(name)
    info = probe(path)
    expected = shown_by_command(ffmpeg, path, info.width, info.height)
    ours = np.stack([picture.pixels for picture in read_frames(path)])
    assert ours.shape == expected.shape
    assert np.abs(ours.astype(np.float32) - expected).mean() < 3  # they convert to RGB in different ways
    if name not in REMADE:
        assert numbers_in(ours.transpose(0, 3, 1, 2)) == numbers_in(expected.transpose(0, 3, 1, 2))
        assert numbers_in(ours.transpose(0, 3, 1, 2)) == list(range(COUNT))


@pytest.mark.skipif(torchcodec_fault() is not None, reason="needs torchcodec and FFmpeg's libraries")
@pytest.mark.parametrize("name", [*MADE, *REMADE])
def test_torchcodec_shows_the_same_frames_bit_by_bit(made, name):
    path = made(name)
    pyav, torchcodec = VideoFiles("pyav"), VideoFiles("torchcodec")
    indices = [0, 3, 4, 11, COUNT - 1]
    for _ in range(2):  # the second time by torchcodec, where it is trusted
        ours, theirs = answers(torchcodec, path, indices), answers(pyav, path, indices)
        assert [p.index for p in ours] == [p.index for p in theirs]
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(ours, theirs, strict=True))
        np.testing.assert_allclose([p.seconds for p in ours], [p.seconds for p in theirs], atol=1e-3)
    assert can_seek(torchcodec, path) == (name not in UNTRUSTED | UNREAD)


@pytest.mark.parametrize("name", [*MADE, *REMADE])
def test_seeking_shows_the_same_frames_bit_by_bit(made, name):
    path = made(name)
    files = VideoFiles("pyav")
    whole = list(read_frames(path))
    answers(files, path, [0])
    for first in range(COUNT):
        indices = [first, min(first + 3, COUNT - 1)]
        for ours, expected in zip(files.frames(path, indices), (whole[i] for i in sorted({*indices})), strict=True):
            assert (ours.index, ours.seconds) == (expected.index, expected.seconds)
            assert np.array_equal(ours.pixels, expected.pixels)
    assert can_seek(files, path) == (name not in UNTRUSTED and name.partition(".")[0] not in ("mpeg4", "mjpeg"))


def test_a_file_is_checked_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    checked = []
    check = file_check.missing_bytes
    monkeypatch.setattr(file_check, "missing_bytes", lambda path: checked.append(path) or check(path))
    path = encode(tmp_path / "clip.mkv", [numbered_frame(i) for i in range(6)])
    files = VideoFiles("pyav")
    for _ in range(3):
        assert [frame.index for frame in answers(files, path, [1, 4])] == [1, 4]
    assert checked == [path]
    encode(path, [numbered_frame(i) for i in range(20, 28)])
    assert numbers_in(frame.pixels.transpose(2, 0, 1) for frame in answers(files, path, [7])) == [27]
    assert checked == [path, path]
    path.write_bytes(path.read_bytes()[:-40])
    for _ in range(2):
        with pytest.raises(UserError, match=r"clip\.mkv"):
            files.frames(path, [0])


def test_of_a_file_that_was_timed_only_what_is_needed_is_decoded(video, monkeypatch):
    path = video("mp4", 300, fps=30)  # a key frame every 12 frames
    files, count = VideoFiles("pyav"), 0

    def counting(*arguments, **options):
        nonlocal count
        for frame in decode(*arguments, **options):
            count += 1
            yield frame

    files.probe(path)
    monkeypatch.setattr(rgb_frames, "decode", counting)
    frames = files.frames(path, [250, 255])
    assert numbers_in(frame.pixels.transpose(2, 0, 1) for frame in frames) == [250, 255]
    assert count <= 6 + 12


def test_the_number_of_files_that_are_remembered_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "REMEMBERED_FILES", 2)
    files = VideoFiles("pyav")
    for number in range(3):
        files.probe(encode(tmp_path / f"{number}.mp4", [numbered_frame(i) for i in range(3)]))
    assert list(files._intact) == [str(tmp_path / "1.mp4"), str(tmp_path / "2.mp4")]


def can_seek(files: VideoFiles, path: Path) -> bool:
    return files._intact[str(path)].rate is not None


def answers(files: VideoFiles, path: Path, indices: list[int]) -> list:
    asked = files.sampled_frames(path)
    next(asked)
    return asked.send(indices)


SOUND, COVER = ("-f", "lavfi", "-i", "sine=duration=0.2"), ("-f", "lavfi", "-i", "color=red:size=32x32:duration=0.04")
ATTACHED = ("-map", "0", "-map", "1", "-c:v", "mjpeg", "-frames:v", "1", "-disposition:v", "attached_pic")
NO_FRAME = ("-f", "lavfi", "-i", "testsrc=size=64x48", "-c:v", "libx264", "-frames:v", "0", "-movflags", "empty_moov")
NO_VIDEOS = {f"sound.{suffix}": SOUND for suffix in ("mp4", "webm", "mp3", "wav")}
NO_VIDEOS |= {"song.mp4": (*SOUND, *COVER, *ATTACHED), "none.mp4": NO_FRAME}


@pytest.mark.parametrize("name", NO_VIDEOS)
def test_sound_with_or_without_a_cover_and_a_video_without_a_frame_are_refused(tmp_path, ffmpeg, name):
    subprocess.run([ffmpeg, "-v", "quiet", *NO_VIDEOS[name], str(tmp_path / name)], check=False)
    assert (tmp_path / name).exists()
    with pytest.raises(UserError, match=re.escape(name)):
        probe(tmp_path / name)


def test_a_film_that_was_cut_without_encoding_shows_what_players_show(tmp_path, made, ffmpeg):
    """Its first frames lean on frames that were cut off."""
    for source in ("h264-open-gop.mkv", "h265.mp4"):
        path = tmp_path / f"cut-{source}"
        subprocess.run([ffmpeg, *QUIET, "-ss", "0.5", "-i", str(made(source)), "-c", "copy", str(path)], check=True)
        numbers = numbers_in(picture.pixels.transpose(2, 0, 1) for picture in read_frames(path))
        assert numbers == list(range(numbers[0], COUNT))


class FakeDecoder:
    """torchcodec's `VideoDecoder`, by PyAV."""

    asked: list[tuple[str, str]]
    frames_too_many = 0
    delay = 0.0

    def __init__(self, path, *, dimension_order, device, seek_mode):
        assert (dimension_order, seek_mode) == ("NHWC", "exact")
        type(self).asked.append((Path(path).name, device))
        if Path(path).name.startswith("strange"):
            raise RuntimeError("it does not know this")
        self.path = path
        count = probe(path).num_frames + self.frames_too_many
        self.metadata = SimpleNamespace(num_frames=count, begin_stream_seconds=0.5)

    def get_frames_at(self, indices):
        clip = read_clip(self.path, indices)
        return SimpleNamespace(data=clip.frames.permute(0, 2, 3, 1), pts_seconds=clip.timestamps + 0.5 + self.delay)


@pytest.fixture
def fake(monkeypatch):
    """torchcodec as a module that loads."""
    package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    package.__spec__, decoders.__spec__ = (ModuleSpec(name, None) for name in ("torchcodec", "torchcodec.decoders"))
    decoder = type("VideoDecoder", (FakeDecoder,), {"asked": []})
    decoders.VideoDecoder = decoder
    package.decoders = decoders
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    return decoder


def test_what_pyav_has_found_intact_is_read_by_torchcodec(fake, video):
    path = video("mp4", 36)
    files = VideoFiles("auto")
    first = answers(files, path, [30, 2, 2])
    assert fake.asked == []
    second = answers(files, path, [30, 2, 2])
    assert fake.asked == [("36-12.mp4", "cpu")]
    third = files.frames(path, [2, 30])
    assert len(fake.asked) == 2
    for found in (second, third):
        assert [p.index for p in found] == [2, 30]
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, found, strict=True))
        np.testing.assert_allclose([p.seconds for p in found], [p.seconds for p in first])
    with pytest.raises(UserError, match="36"):
        answers(files, path, [36])


def test_torchcodec_is_left_out_where_it_cannot_promise_the_same_frames(fake, tmp_path):
    frames = [numbered_frame(i) for i in range(6)]
    turned = encode(tmp_path / "turned.mp4", frames, matrix=[0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30])
    variable = encode(tmp_path / "variable.mp4", frames, pts=[0, 40, 240, 280, 1000, 1001])
    single = encode(tmp_path / "single.mp4", frames[:1])
    files = VideoFiles("auto")
    for path in (turned, variable, single):
        for _ in range(2):
            assert [p.index for p in answers(files, path, [0])] == [0]
    assert fake.asked == []


@pytest.mark.parametrize("fault", [{"frames_too_many": 1}, {"delay": 0.2}, {}], ids=["count", "times", "refusal"])
def test_where_torchcodec_finds_another_video_pyav_is_believed(fake, tmp_path, fault):
    for name, value in fault.items():
        setattr(fake, name, value)
    name = "clip.mp4" if fault else "strange.mp4"
    path = encode(tmp_path / name, [numbered_frame(i) for i in range(6)])
    files = VideoFiles("auto")
    for _ in range(3):
        found = answers(files, path, [1, 5])
        assert numbers_in(p.pixels.transpose(2, 0, 1) for p in found) == [1, 5]
        if not files._intact:
            files = VideoFiles("auto") if not fake.asked else files
    assert len(fake.asked) == 1


def test_a_file_that_changed_is_read_by_pyav_first(fake, tmp_path):
    path = encode(tmp_path / "clip.mp4", [numbered_frame(i) for i in range(6)])
    files = VideoFiles("auto")
    answers(files, path, [0])
    encode(path, [numbered_frame(i) for i in range(10, 14)])
    assert numbers_in(p.pixels.transpose(2, 0, 1) for p in answers(files, path, [3])) == [13]
    assert fake.asked == []
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"clip\.mp4"):
        answers(files, path, [0])


def test_the_choice_is_obeyed(fake, video):
    path = video("mp4", 36)
    never, gpu = VideoFiles("pyav"), VideoFiles("cuda")
    for files in (never, gpu):
        answers(files, path, [0])
        answers(files, path, [0])
    assert fake.asked == [("36-12.mp4", "cuda")]


def test_what_is_not_there_cannot_be_asked_for(monkeypatch):
    monkeypatch.setattr("stabn.data.video.backends.find_spec", lambda name: None)
    assert "installed" in torchcodec_fault()
    for decoder in ("torchcodec", "cuda"):
        with pytest.raises(UserError, match=f"--loader.decoder: got {decoder}"):
            VideoFiles(decoder)
    assert VideoFiles("auto")._torchcodec is False


def test_a_torchcodec_that_does_not_load_is_told_and_not_used(fake, monkeypatch, video):
    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "torchcodec.decoders":
                raise RuntimeError("Could not load libtorchcodec. Likely causes:\n 1. FFmpeg is not properly installed")

    monkeypatch.delitem(sys.modules, "torchcodec.decoders")
    monkeypatch.delattr(sys.modules["torchcodec"], "decoders")
    monkeypatch.setattr(sys.modules["torchcodec"], "__path__", [], raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    assert "(Could not load libtorchcodec. Likely causes:)" in torchcodec_fault()
    files = VideoFiles("auto")
    for _ in range(3):
        assert answers(files, video("mp4", 36), [5])[0].index == 5


def test_the_fake_has_the_names_of_the_real_one():
    real = pytest.importorskip("torchcodec.decoders", reason="needs torchcodec", exc_type=(ImportError, RuntimeError))
    known = inspect.signature(real.VideoDecoder.__init__).parameters
    assert {"dimension_order", "device", "seek_mode"} <= set(known)
