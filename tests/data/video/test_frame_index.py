"""Parts of files are read without decoding the rest, and are the frames and times of a whole decode."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from data_videos import encode, numbered_frame, numbers_in

from stabn.data.segments import Segment, segment_frames
from stabn.data.video import backends, rgb_frames
from stabn.data.video.backends import VideoFiles
from stabn.data.video.decode import decode
from stabn.data.video.frame_index import index_frames
from stabn.data.video.rgb_frames import NoSuchFrameError, read_frames
from stabn.errors import UserError

COUNT = 120
X265 = ("-x265-params", "log-level=none:pools=1:frame-threads=1:keyint=20")
MILLIS, VARIABLE = "settb=1/1000", ("-fps_mode", "passthrough", "-enc_time_base", "1:1000")
FILMS = {
    "h264.mp4": ("-c:v", "libx264", "-bf", "3", "-g", "20"),
    "h264-open-gop.mkv": ("-c:v", "libx264", "-x264-params", "open-gop=1:keyint=20:bframes=3"),
    "h264-open-gop.mp4": ("-c:v", "libx264", "-x264-params", "open-gop=1:keyint=20:bframes=3"),
    "h264.ts": ("-c:v", "libx264", "-g", "20"),
    "fragments.mp4": ("-c:v", "libx264", "-g", "20", "-movflags", "frag_keyframe+empty_moov"),
    "h265.mp4": ("-c:v", "libx265", *X265),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "2", "-g", "20", "-q:v", "3"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-g", "20", "-q:v", "3"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-bf", "2", "-g", "20", "-q:v", "3"),
    "mpeg2.ts": ("-c:v", "mpeg2video", "-bf", "2", "-g", "20", "-q:v", "3"),
    "vp8.webm": ("-c:v", "libvpx", "-g", "20", "-auto-alt-ref", "1", "-lag-in-frames", "10"),
    "vp9.mkv": ("-c:v", "libvpx-vp9", "-g", "20", "-auto-alt-ref", "1", "-lag-in-frames", "10", "-cpu-used", "8"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "3"),
    "variable.mp4": ("-vf", f"{MILLIS},setpts=40*N+4*mod(N\\,3)", *VARIABLE, "-c:v", "libx264", "-g", "20"),
    "ten-bits.mkv": ("-c:v", "libx264", "-pix_fmt", "yuv420p10le", "-g", "20"),
}
"""File -> how the command line makes it."""
DECODED = {
    "very-variable.mp4": ("-vf", f"{MILLIS},setpts=40*N+N*N", *VARIABLE, "-c:v", "libx264", "-g", "20"),
    "mpeg4-b.avi": ("-c:v", "mpeg4", "-bf", "2", "-g", "20", "-q:v", "3"),
    "interlaced.ts": ("-c:v", "libx264", "-flags", "+ilme+ildct", "-x264-params", "tff=1", "-g", "20"),
    "joined.ts": ("-c:v", "libx264", "-g", "20"),
    "stream.h264": ("-c:v", "libx264", "-g", "20"),
}
"""Files of which the packets do not say enough."""


@pytest.fixture(scope="module")
def film(tmp_path_factory, ffmpeg):
    """film("h264.mp4") is that file, encoded once by the command line."""
    folder = tmp_path_factory.mktemp("films")
    frames = np.stack([numbered_frame(i) for i in range(COUNT)])

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            options = {**FILMS, **DECODED}[name]
            depth = () if "-pix_fmt" in options else ("-pix_fmt", "yuv420p")
            source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-r", "25", "-i", "-")
            command = [ffmpeg, "-v", "error", "-y", *source, *options, *depth, "-threads", "1", str(path)]
            parts = np.split(frames, 2) if name.startswith("joined") else [frames]
            content = b""
            for part in parts:
                subprocess.run(command, input=part.tobytes(), check=True)
                content += path.read_bytes()
            path.write_bytes(content)
        return path

    return make


@pytest.fixture
def decoded(monkeypatch):
    """The frames that were decoded, counted."""
    count = [0]

    def counting(*arguments, **options):
        for frame in decode(*arguments, **options):
            count[0] += 1
            yield frame

    for module in (rgb_frames, backends):
        monkeypatch.setattr(module, "decode", counting)
    return count


@pytest.mark.parametrize("name", [*FILMS, *DECODED])
def test_parts_are_the_frames_and_times_of_a_whole_decode(film, name, monkeypatch, decoded):
    monkeypatch.setattr(backends, "_FAR", 1)
    path = film(name)
    whole = list(read_frames(path))
    assert numbers_in(frame.pixels.transpose(2, 0, 1) for frame in whole) == list(range(COUNT))
    files = VideoFiles("pyav")
    assert (index_frames(path) is not None) == (name in FILMS)
    for first in (0, 19, 20, 21, 57, 58, 59, 60, 61, 99, 118):
        times = files.frame_times(path, whole[first].seconds, None)
        assert times[: first + 1].tolist() == [frame.seconds for frame in whole[: first + 1]]
        decoded[0] = 0
        parts = files.frames(path, [first, first + 1])
        assert [(part.index, part.seconds) for part in parts] == [
            (f.index, f.seconds) for f in whole[first : first + 2]
        ]
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(parts, whole[first : first + 2], strict=True))
        if name in FILMS:
            assert decoded[0] <= 2 * 20 + 4  # at most two groups of pictures
    with pytest.raises(NoSuchFrameError, match=f"{COUNT + 1}"):
        files.frames(path, [COUNT - 1, COUNT + 1])


def test_a_segment_at_the_end_is_not_decoded_from_the_beginning(film, decoded):
    files, path = VideoFiles("pyav"), film("h264.mp4")
    assert len(files.frame_times(path, 4.0)) == COUNT
    assert decoded == [0]
    assert segment_frames(path, Segment(4.0, 4.4), "clip") == range(100, 110)
    assert segment_frames(path, Segment(100, 110, "frames"), "clip") == range(100, 110)


def test_files_without_an_index_are_decoded_no_further_than_to_the_end_of_the_segment(film, decoded):
    files, path = VideoFiles("pyav"), film("joined.ts")
    assert files.frame_times(path, 0.99).tolist() == pytest.approx(np.arange(26) / 25)
    assert decoded == [26]
    assert len(files.frame_times(path, count=20)) == 26  # they are known
    assert len(files.frame_times(path)) == COUNT
    decoded[0] = 0
    assert len(files.frame_times(path, 99.0)) == COUNT
    assert decoded == [0]


def test_a_changed_file_is_indexed_again(tmp_path):
    path = encode(tmp_path / "clip.mp4", [numbered_frame(i) for i in range(6)])
    files = VideoFiles("pyav")
    assert len(files.frame_times(path)) == 6
    encode(path, [numbered_frame(i) for i in range(9)])
    assert len(files.frame_times(path)) == 9


def test_frames_that_an_edit_list_or_a_cut_hides_have_no_number(tmp_path, film, ffmpeg):
    for source in ("h264.mp4", "h264-open-gop.mkv", "h264-open-gop.mp4"):
        path = tmp_path / f"cut-{source}"
        command = [ffmpeg, "-v", "error", "-y", "-ss", "1.0", "-i", str(film(source)), "-c", "copy", str(path)]
        subprocess.run(command, check=True)
        whole = list(read_frames(path))
        index = index_frames(path)
        if index is not None:
            assert index.seconds.tolist() == [frame.seconds for frame in whole]


def test_packets_that_promise_other_frames_than_come_are_found_out(film, monkeypatch):
    """As if a frame in the middle had a packet but were never shown."""
    monkeypatch.setattr(backends, "_FAR", 1)
    path, files = film("h264.mp4"), VideoFiles("pyav")
    index = index_frames(path)
    wrong = np.delete(index.pts, 50)
    monkeypatch.setattr(
        backends, "index_frames", lambda path: type(index)(wrong, index.time_base, index.keys, index.by_reading)
    )
    with pytest.raises(UserError, match=r"h264\.mp4: frame 50"):
        files.frames(path, [49, 50, 51])
