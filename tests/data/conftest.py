from collections.abc import Callable
from pathlib import Path

import pytest
from data_videos import encode, numbered_frame


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """video("mp4", 36) is an H.264 file with B-frames, video("webm", 36) a VP9 one; each is encoded once."""
    folder = tmp_path_factory.mktemp("videos")

    def make(kind: str, count: int, fps: int = 12) -> Path:
        path = folder / f"{count}-{fps}.{kind}"
        if not path.exists():
            codec, options = {
                "mp4": ("libx264", {"bf": "2", "g": "12", "crf": "18"}),
                "webm": ("libvpx-vp9", {"crf": "20", "b": "0", "cpu-used": "8", "deadline": "realtime"}),
            }[kind]
            faststart = {"movflags": "+faststart"} if kind == "mp4" else {}
            frames = (numbered_frame(i) for i in range(count))
            encode(path, frames, codec=codec, fps=fps, options=options, container_options=faststart)
        return path

    return make


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """The FFmpeg command line, another program than the libraries that decode here."""
    found = pytest.importorskip("imageio_ffmpeg", reason="needs the ffmpeg command").get_ffmpeg_exe()
    assert isinstance(found, str)
    return found
