"""Frames, colours, streams and times are those that the FFmpeg command line shows."""

import re
import subprocess

import numpy as np
import pytest

from stabn.data.quality.inspect_video import Inspector
from stabn.data.video.backends import VideoFiles
from stabn.data.video.reader import frame_size, probe
from stabn.data.video.rgb_frames import read_frames
from stabn.errors import UserError

TURNS = [(), ("90",), ("180",), ("270",)]
FLIPS = [(), ("-display_hflip",)]
ASPECTS = [None, "16/15", "1/2"]
DEPTHS = {"usual": "yuv420p", "ten": "yuv420p10le", "wide": "yuv422p10le", "full": "yuv444p"}


@pytest.fixture(scope="module")
def run(ffmpeg, tmp_path_factory):
    """run("-i", "a.mp4", ...) calls the command line in a folder of the module and gives what it writes to stdout."""
    folder = tmp_path_factory.mktemp("display")

    def call(*options: str) -> bytes:
        return subprocess.run(
            [ffmpeg, "-v", "error", "-y", *options], cwd=folder, check=True, capture_output=True
        ).stdout

    call.folder = folder
    return call


def source(size: str, seconds: float = 0.12, rate: int = 25) -> tuple[str, ...]:
    return (
        "-f",
        "lavfi",
        "-i",
        f"testsrc2=size=64x48:rate={rate}:duration={seconds},format=yuv444p,scale={size},setsar=1",
    )


def assert_shown_as_by_ffmpeg(run, name: str) -> None:
    path = run.folder / name
    info = probe(path)
    assert frame_size(path) == (info.width, info.height)
    described = Inspector().inspect(path)
    assert (described["width"], described["height"]) == (info.width, info.height)
    raw = ("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    expected = np.frombuffer(run("-i", name, "-vf", "scale=iw*sar:ih", *raw), np.uint8)
    expected = expected.reshape(info.num_frames, info.height, info.width, 3)
    files = VideoFiles()
    files.probe(path)
    for frames in (read_frames(path), files.frames(path, range(info.num_frames))):
        assert np.array_equal(np.stack([frame.pixels for frame in frames]), expected)


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("kind", ["usual", "odd"])
def test_all_display_matrices_and_pixel_shapes_are_shown(run, kind, aspect):
    name, stretch = (
        f"{kind}-{(aspect or '1').replace('/', '-')}.mp4",
        () if aspect is None else ("-vf", f"setsar={aspect}"),
    )
    codec = (
        ("-c:v", "libx264", "-pix_fmt", "yuv420p") if kind == "usual" else ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p")
    )
    run(*source("64:48" if kind == "usual" else "67:51"), *stretch, *codec, name)
    for turn in TURNS:
        for flip in FLIPS:
            rotation = ("-display_rotation", *turn) if turn else ()
            run(*rotation, *flip, "-i", name, "-c", "copy", "turned.mp4")
            assert_shown_as_by_ffmpeg(run, "turned.mp4")


@pytest.mark.parametrize("colours", [(), ("-colorspace", "bt2020nc", "-color_range", "pc")], ids=["default", "bt2020"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_colours_are_those_of_the_ffmpeg_command(run, depth, colours):
    run(*source("64:48"), "-c:v", "libx264", "-pix_fmt", DEPTHS[depth], *colours, f"{depth}.mkv")
    assert_shown_as_by_ffmpeg(run, f"{depth}.mkv")


def test_pixels_that_change_their_shape_are_refused(run):
    for aspect in ("2/1", "1/1"):
        run(*source("64:48", 1.0), "-vf", f"setsar={aspect}", "-c:v", "libx264", f"{aspect[0]}.ts")
    path = run.folder / "changes.ts"
    path.write_bytes(b"".join((run.folder / f"{number}.ts").read_bytes() for number in (2, 1)))
    with pytest.raises(UserError, match=r"changes\.ts: frame .* 64x48 and not 128x48"):
        probe(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi", "ts"])
def test_the_film_is_read_and_not_a_still_beside_it(run, suffix):
    run(*source("320:240"), "-frames:v", "1", "still.jpg")
    run(*source("64:48", 0.8), "-c:v", "libx264", "-pix_fmt", "yuv420p", "film.mp4")
    for inputs in (("still.jpg", "film.mp4"), ("film.mp4", "still.jpg")):
        name = f"both.{suffix}"
        run(*(word for file in inputs for word in ("-i", file)), "-map", "0", "-map", "1", "-c", "copy", name)
        info = probe(run.folder / name)
        assert (info.num_frames, info.width, info.height) == (20, 64, 48)
        np.testing.assert_allclose(info.timestamps, np.arange(20) / 25, atol=1e-3)


JOINED = {
    "mpg": ("-c:v", "mpeg2video", "-bf", "2"),
    "vob": ("-c:v", "mpeg2video"),
    "ts": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    "h264": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
}


@pytest.mark.parametrize("parts", [(0, 0), (0, 0, 0), (0, 95440), (7000, 100)], ids=str)
@pytest.mark.parametrize("suffix", JOINED)
def test_times_go_on_where_recordings_were_joined(run, suffix, parts):
    """They begin at those seconds; the clock of 33 bits begins anew after 95,443 s."""
    content = b""
    for begin in parts:
        run(*source("64:48", 1), *JOINED[suffix], "-output_ts_offset", str(begin), f"part.{suffix}")
        content += (run.folder / f"part.{suffix}").read_bytes()
    path = run.folder / f"joined.{suffix}"
    path.write_bytes(content)
    np.testing.assert_allclose(probe(path).timestamps, np.arange(25 * len(parts)) / 25, atol=1e-9)


def test_a_joined_part_keeps_its_rate(run):
    run(*source("64:48", 1), *JOINED["ts"], "a.ts")
    run(*source("64:48", 1, 50), *JOINED["ts"], "b.ts")
    path = run.folder / "rates.ts"
    path.write_bytes((run.folder / "a.ts").read_bytes() + (run.folder / "b.ts").read_bytes())
    np.testing.assert_allclose(probe(path).timestamps, [*np.arange(25) / 25, *(1 + np.arange(50) / 50)], atol=1e-9)


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_a_joined_recording_with_another_stream_number_is_refused_and_can_be_taken_out(run, suffix):
    run(*source("64:48", 1), *JOINED[suffix], f"a.{suffix}")
    first = (run.folder / f"a.{suffix}").read_bytes()
    if suffix == "ts":
        run(*source("64:48", 1), *JOINED[suffix], "-mpegts_start_pid", "0x200", "b.ts")
        second = (run.folder / "b.ts").read_bytes()
    else:
        second = first.replace(b"\0\0\1\xe0", b"\0\0\1\xe1")
    path = run.folder / f"numbers.{suffix}"
    path.write_bytes(first + second + first)
    files = VideoFiles("pyav")
    for read in (probe, files.frame_times):
        with pytest.raises(UserError, match=rf"numbers\.{suffix}: has two recordings") as refused:
            read(path)
    joint = int(re.search(r"head -c (\d+)", str(refused.value))[1])
    path.write_bytes((first + second)[:joint])
    assert probe(path).num_frames == 25
    path.write_bytes((first + second)[joint:])
    assert probe(path).num_frames == 25


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_videos_that_were_recorded_at_the_same_time_are_one_recording(run, suffix):
    sources = (*source("64:48", 1), *source("32:32", 1))
    run(*sources, "-map", "0", "-map", "1", *JOINED[suffix], f"two.{suffix}")
    assert probe(run.folder / f"two.{suffix}").num_frames == 25


def test_a_transport_stream_that_lost_packets_is_refused(run):
    run(*source("320:240", 1), *JOINED["ts"], "whole.ts")
    content = (run.folder / "whole.ts").read_bytes()
    path = run.folder / "lost.ts"
    middle = len(content) // 188 // 2 * 188
    path.write_bytes(content[:middle] + content[middle + 3 * 188 :])
    with pytest.raises(UserError, match=r"lost\.ts: is damaged"):
        probe(path)


def test_times_of_an_avi_with_reordered_frames_are_those_of_its_rate(run):
    run(*source("64:48", 1), "-c:v", "libx264", "-bf", "3", "-pix_fmt", "yuv420p", "reordered.avi")
    np.testing.assert_allclose(probe(run.folder / "reordered.avi").timestamps, np.arange(25) / 25, atol=1e-9)
