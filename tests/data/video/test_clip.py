import os
import shlex
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from data_videos import encode, numbered_frame, numbers_in
from PIL import Image

from stabn.data.video.clip import Clip, write_video
from stabn.data.video.reader import probe, read_chunks, read_clip, read_sampled
from stabn.data.video.truncation import missing_bytes
from stabn.errors import UserError

KINDS = ["mp4", "webm"]


def refusal(path: Path, read=probe) -> str:
    """The message of the refusal: one line that names the file."""
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert ";" in message  # what to do about it follows
    return message


def test_the_test_video_really_has_reordered_frames(video):
    with av.open(str(video("mp4", 36))) as container:
        assert any(frame.pict_type == av.video.frame.PictureType.B for frame in container.decode(video=0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("count", "asked"), [(1, [0]), (3, [0, 1, 2]), (36, [0, 12, 18, 35]), (36, [5, 5, 30, 2, 35, 35])]
)
def test_frames_are_exactly_those_asked_for_with_repeats_and_in_any_order(video, kind, count, asked):
    path = video(kind, count)
    clip = read_clip(path, asked)
    assert numbers_in(clip.frames) == asked
    assert clip.frame_indices.tolist() == asked
    assert clip.frames.shape == (len(asked), 3, 48, 64)
    assert clip.path == str(path)


def test_a_ten_second_video_is_exact_at_every_frame(video):
    path = video("mp4", 300, fps=30)
    assert probe(path).num_frames == 300
    chunks = list(read_chunks(path, size=128))
    assert [len(chunk.frames) for chunk in chunks] == [128, 128, 44]
    assert [n for chunk in chunks for n in numbers_in(chunk.frames)] == list(range(300))
    assert [i for chunk in chunks for i in chunk.frame_indices.tolist()] == list(range(300))
    assert numbers_in(read_clip(path, [17, 171, 299]).frames) == [17, 171, 299]


@pytest.mark.parametrize("kind", KINDS)
def test_timestamps_are_seconds_since_the_first_frame(video, kind):
    info = probe(video(kind, 36))
    np.testing.assert_allclose(info.timestamps, np.arange(36) / 12, atol=1e-3)  # WebM rounds to milliseconds
    assert info.fps == pytest.approx(12, rel=1e-3)
    assert (info.width, info.height) == (64, 48)
    clip = read_clip(video(kind, 36), [3, 20])
    assert clip.timestamps.tolist() == [info.timestamps[3], info.timestamps[20]]


@pytest.mark.parametrize(
    ("name", "times", "fps"),
    [("variable.mp4", [0, 40, 240, 280, 1000, 1001, 3000], 2), ("late.mkv", [5000, 5100, 5200, 5300], 10)],
)
def test_a_variable_frame_rate_keeps_its_times_and_a_late_first_frame_is_time_zero(tmp_path, name, times, fps):
    path = encode(tmp_path / name, [numbered_frame(i) for i in range(len(times))], pts=times)
    info = probe(path)
    np.testing.assert_allclose(info.timestamps, (np.array(times) - times[0]) / 1000, atol=1e-4)
    assert info.fps == pytest.approx(fps)
    assert numbers_in(read_clip(path, range(len(times))).frames) == list(range(len(times)))


def test_invisible_frames_are_not_counted(tmp_path):
    whole = encode(tmp_path / "whole.webm", [numbered_frame(i) for i in range(20)], codec="libvpx")
    path = tmp_path / "hidden.webm"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            data = bytearray(bytes(packet))
            if number in (7, 12):
                data[0] &= ~0x10  # VP8's "show frame" bit, RFC 6386 section 9.1
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            target.mux(copy)
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 20
    assert probe(path).num_frames == 18
    assert numbers_in(read_clip(path, range(18)).frames) == [i for i in range(20) if i not in (7, 12)]


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path, video):
    path = tmp_path / "trimmed.mp4"
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(video("mp4", 36))) as source, av.open(str(path), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        shift = int(5 / 12 / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                target.mux(packet)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 36
    assert probe(path).num_frames == 31
    assert numbers_in(read_clip(path, [0, 30]).frames) == [5, 35]
    assert probe(path).timestamps[0] == 0.0


@pytest.mark.parametrize("size", [(33, 41), (17, 40), (40, 47)])
def test_odd_sizes_are_written_with_a_repeated_edge_and_read_back(tmp_path, size):
    frames = [numbered_frame(i, *size) for i in range(5)]
    write_video(tmp_path / "odd.mp4", frames, 12)
    clip = read_clip(tmp_path / "odd.mp4", range(5))
    height, width = (side + side % 2 for side in size)
    assert clip.frames.shape == (5, 3, height, width)
    assert numbers_in(clip.frames) == list(range(5))
    assert (clip.frames[:, :, -1].float() - clip.frames[:, :, size[0] - 1].float()).abs().max() < 12


def test_an_odd_sized_vp9_video_keeps_its_size(tmp_path):
    path = encode(tmp_path / "odd.webm", [numbered_frame(i, 33, 41) for i in range(3)], codec="libvpx-vp9")
    assert read_clip(path, [2]).frames.shape == (1, 3, 33, 41)
    assert (probe(path).height, probe(path).width) == (33, 41)


ONE = 1 << 16
CLOCKWISE = [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30]  # right becomes down, in ISO 14496-12's matrix (a b u c d v x y w)
COUNTERCLOCKWISE = [0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30]
HALF_TURN = [-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30]


@pytest.mark.parametrize(
    ("matrix", "turns"), [(CLOCKWISE, -1), (COUNTERCLOCKWISE, 1), (HALF_TURN, 2)], ids=["right", "left", "over"]
)
def test_rotated_recordings_come_out_upright(tmp_path, matrix, turns):
    frames = [numbered_frame(i) for i in range(4)]
    plain = read_clip(encode(tmp_path / "plain.mp4", frames), range(4))
    path = encode(tmp_path / "turned.mp4", frames, matrix=matrix)
    assert torch.equal(read_clip(path, range(4)).frames, torch.rot90(plain.frames, turns, (2, 3)))
    info = probe(path)
    assert (info.height, info.width) == ((48, 64) if turns == 2 else (64, 48))


def test_colours_survive_writing_and_reading(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (20, 60, 200), (250, 250, 250), (0, 0, 0)]
    for suffix in KINDS:
        path = tmp_path / f"colours.{suffix}"
        write_video(path, np.stack([np.full((32, 32, 3), c, np.uint8) for c in colours]), 12, crf=4)
        means = read_clip(path, range(len(colours))).frames.float().mean((2, 3))
        np.testing.assert_allclose(means, colours, atol=4)


@pytest.mark.parametrize("kind", KINDS)
def test_choosing_after_counting_gives_the_same_clip_as_asking_directly(video, kind, monkeypatch):
    expected = read_clip(video(kind, 36), [7, 7, 35])
    counts = []

    def choose(count):
        counts.append(count)
        return (7, 7, 35)

    one_pass = read_sampled(video(kind, 36), choose)
    monkeypatch.setattr("stabn.data.video.scan._HELD_BYTES", 20_000)
    two_passes = read_sampled(video(kind, 36), choose)
    assert counts == [36, 36]
    for clip in (one_pass, two_passes):
        assert torch.equal(clip.frames, expected.frames)
        assert torch.equal(clip.timestamps, expected.timestamps)


@pytest.mark.parametrize("read", [lambda p: read_clip(p, [3, 36]), lambda p: read_sampled(p, lambda n: [n])])
def test_a_frame_that_the_video_does_not_have_is_refused(video, read):
    message = refusal(video("mp4", 36), read)
    assert "36" in message
    assert "35" in message


@pytest.mark.parametrize("indices", [[], [-1], [0, -5]])
def test_no_frame_or_a_negative_one_is_a_programming_error(video, indices):
    with pytest.raises(ValueError, match="frame_indices"):
        read_clip(video("mp4", 3), indices)


def test_missing_files_directories_empty_files_and_playlists_of_other_files_are_named(tmp_path, video):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{video('mp4', 3)}'\n")
    for path in (tmp_path / "gone.mp4", tmp_path, tmp_path / "empty.mp4", tmp_path / "list.mp4"):
        refusal(path)


@pytest.mark.parametrize("text", ["a text, not a video\n" * 50, "I am a video, honestly.\n" * 100, "x", "\n" * 9999])
@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "text.webm"])
def test_a_text_file_is_not_a_video(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    refusal(tmp_path / name)


def test_an_animated_webp_is_refused_with_a_command_that_converts_it(tmp_path):
    path = tmp_path / "it's animated.webp"
    pictures = [Image.fromarray(numbered_frame(i)) for i in range(4)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 200, 100, 50], lossless=True)
    command = shlex.split(refusal(path).partition(" convert it by ")[2])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], check=True)
    converted = tmp_path / "it's animated.png"
    assert numbers_in(read_clip(converted, range(4)).frames) == list(range(4))
    np.testing.assert_allclose(probe(converted).timestamps, [0, 0.1, 0.3, 0.4], atol=1e-3)


@pytest.mark.parametrize("kind", ["mp4", "late.mp4", "webm"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path, video, kind, part):
    whole = video(kind, 36) if kind in KINDS else encode(tmp_path / "w.mp4", [numbered_frame(i) for i in range(36)])
    content = whole.read_bytes()
    assert (content.find(b"moov") < content.find(b"mdat")) == (kind == "mp4")
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(content[: int(len(content) * part)])
    for read in (probe, lambda p: read_clip(p, [0]), lambda p: list(read_chunks(p))):
        assert f" {missing_bytes(path)} bytes" in refusal(path, read)


def test_a_whole_file_lacks_nothing_and_a_cut_one_what_was_cut(tmp_path, video):
    for kind in KINDS:
        content = video(kind, 36).read_bytes()
        path = tmp_path / f"copy.{kind}"
        for cut in (0, 1, 700):
            path.write_bytes(content[: len(content) - cut])
            assert missing_bytes(path) == cut
        path.write_bytes(content + b"\0" * 5)
        assert missing_bytes(path) == 0
    (tmp_path / "other").write_bytes(b"RIFF1234AVI ")
    assert missing_bytes(tmp_path / "other") == 0


def test_a_damaged_frame_is_named(tmp_path, video):
    path = tmp_path / "damaged.mp4"
    shutil.copy(video("mp4", 36), path)
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.is_keyframe][1]
        position, size = packet.pos, packet.size
    with path.open("r+b") as file:
        file.seek(position + size // 2)
        file.write(bytes(size // 2))
    assert "frame" in refusal(path)


def test_frames_that_change_their_size_are_refused(tmp_path):
    path = tmp_path / "grows.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=12)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for start, (height, width) in ((0, (48, 64)), (2, (96, 128))):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width, encoder.pix_fmt = height, width, "yuvj420p"
            encoder.time_base = Fraction(1, 12)
            for i in range(2):
                frame = av.VideoFrame.from_ndarray(numbered_frame(i, height, width)).reformat(format="yuvj420p")
                frame.pts = start + i
                for packet in encoder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
    message = refusal(path)
    assert "frame 2" in message
    assert "128x96" in message
    assert "64x48" in message
    assert len(read_clip(path, [0, 1]).frames) == 2


def test_probe_notices_that_a_file_was_replaced(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, [numbered_frame(i) for i in range(3)], 12)
    assert probe(path) is probe(path)
    write_video(path, [numbered_frame(i) for i in range(5)], 12)
    assert probe(path).num_frames == 5


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_stays_open(tmp_path, video):
    def open_files() -> list[str]:
        found = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                found.append(os.readlink(entry))
            except FileNotFoundError:
                continue
        return [name for name in found if name.endswith((".mp4", ".webm"))]

    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(video("mp4", 36).read_bytes()[:-100])
    read_clip(video("mp4", 36), [0])
    refusal(damaged)
    refusal(video("mp4", 36), lambda p: read_clip(p, [99]))
    abandoned = read_chunks(video("mp4", 36), size=2)
    next(abandoned)
    abandoned.close()
    with pytest.raises(ValueError, match="frame 1"):
        write_video(tmp_path / "wrong.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], 12)
    assert open_files() == []
    assert not (tmp_path / "wrong.mp4").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["damaged.mp4"]


def test_ffmpeg_stays_silent(tmp_path, video, capfd):
    content = bytearray(video("mp4", 36).read_bytes())
    content[len(content) // 2 : len(content) // 2 + 300] = bytes(300)
    (tmp_path / "damaged.mp4").write_bytes(content)
    (tmp_path / "text.mp4").write_text("no video" * 100)
    for name in ("damaged.mp4", "text.mp4"):
        refusal(tmp_path / name)
    write_video(tmp_path / "new.mp4", [numbered_frame(0)], 12)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", KINDS)
def test_the_same_frames_give_the_same_bytes(tmp_path, suffix):
    frames = np.stack([numbered_frame(i) for i in range(8)])
    write_video(tmp_path / f"a.{suffix}", frames, 12)
    write_video(tmp_path / f"b.{suffix}", iter(frames), Fraction(12))
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert numbers_in(read_clip(tmp_path / f"a.{suffix}", range(8)).frames) == list(range(8))


def test_written_mp4_starts_with_its_header_and_keeps_variable_times(tmp_path):
    path = tmp_path / "timed.mp4"
    times = [0.0, 0.5, 0.6, 2.0]
    write_video(path, [numbered_frame(i) for i in range(4)], 12, timestamps=times)
    content = path.read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")
    np.testing.assert_allclose(probe(path).timestamps, times, atol=1e-4)


@pytest.mark.parametrize("fps", [12, Fraction(30000, 1001), 25])
def test_written_videos_have_the_rate_asked_for(tmp_path, fps):
    write_video(tmp_path / "rate.mp4", [numbered_frame(i) for i in range(10)], fps)
    np.testing.assert_allclose(probe(tmp_path / "rate.mp4").timestamps, np.arange(10) / float(fps), atol=1e-4)


GREY = np.zeros((16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "options", "token"),
    [
        (("a.mp4", [], 12), {}, "frames"),
        (("a.avi", [GREY], 12), {}, "a.avi"),
        (("a.mp4", [GREY], 0), {}, "fps: got 0"),
        (("a.mp4", [GREY.astype(np.float32)], 12), {}, "frame 0: got float32"),
        (("a.mp4", [GREY[..., 0]], 12), {}, r"frame 0: got uint8 \(16, 16\)"),
        (("a.mp4", [GREY, GREY[:8]], 12), {}, r"frame 1: got uint8 \(8, 16, 3\)"),
        (("a.mp4", [GREY, GREY], 12), {"timestamps": [0.0]}, "timestamps: got 1"),
        (("a.mp4", [GREY], 12), {"timestamps": [0.0, 1.0]}, "timestamps: got 2"),
        (("a.mp4", [GREY, GREY], 12), {"timestamps": [1.0, 1.0]}, "timestamps"),
        (("a.mp4", [GREY, GREY], 12), {"timestamps": [-1.0, 1.0]}, "timestamps"),
    ],
)
def test_frames_that_cannot_be_written_are_refused_and_leave_no_file(tmp_path, arguments, options, token):
    name, *rest = arguments
    with pytest.raises(ValueError, match=token):
        write_video(tmp_path / name, *rest, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_checks_its_shapes():
    frames, indices, times = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.arange(2), torch.zeros(2).double()
    Clip(frames, indices, times, "v")
    with pytest.raises((ValueError, TypeError)):
        Clip(frames, torch.arange(3), times, "v")
    with pytest.raises((ValueError, TypeError)):
        Clip(frames.float(), indices, times, "v")
