"""What becomes of damaged videos, whether reading ten thousand clips leaks, and what the process that decodes costs.

    python -m benchmarks.faults --out OUT --videos VIDEOS

VIDEOS is a folder of real MP4 files; without it small ones are made. Some are encoded again by other codecs. Of all of
them damaged copies are made, each is read to its end, and its frames are compared with those of the undamaged file; so
they are as FFmpeg shows them by default. "other frames" is the bad outcome: nobody is told. Then clips are read by the
process of its own and without it, in turns of a hundred; the machine may be shared, so only ratios count.
"""

import argparse
import os
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from tqdm import tqdm

from benchmarks.faults.plain import Plain
from benchmarks.settings import write_results
from stabn.data.video.backends import VideoFiles
from stabn.data.video.reader import TIMEOUT, Reader
from stabn.data.video.subprocess_worker import StoppedError, WorkerProcess
from stabn.errors import UserError

sys.path.append(str(Path(__file__).parents[2] / "tests" / "data"))
from damaged_videos import KINDS, damaged, make_originals

CODECS = {
    "H.265 in MP4": ("libx265", "mp4", {"x265-params": "log-level=none:pools=1:frame-threads=1"}),
    "VP9 in MP4": ("libvpx-vp9", "mp4", {"cpu-used": "8", "crf": "30", "b": "0"}),
    "VP9 in WebM": ("libvpx-vp9", "webm", {"cpu-used": "8", "crf": "30", "b": "0"}),
    "AV1 in MP4": ("libsvtav1", "mp4", {"preset": "8", "svtav1-params": "lp=1"}),
    "MPEG-4 in MP4": ("mpeg4", "mp4", {"qscale": "4", "bf": "2"}),
    "H.264 in Matroska": ("libx264", "mkv", {"preset": "veryfast"}),
    "H.265 with hashes": ("libx265", "mp4", {"x265-params": "log-level=none:pools=1:frame-threads=1:hash=1"}),
}
"""Encoder, suffix, its options."""
REAL = "H.264 in MP4"
OUTCOMES = ("refused", "right frames", "other frames", "stopped: crash", "stopped: hang")
VISIBLE = 1.0
"""Of 255, the mean difference of some frame from which on somebody could see that it is another one."""
RENAMED = "wrong name"
SEED = 1


def originals(folder: Path, videos: Path | None, count: int) -> dict[str, list[Path]]:
    """By codec the undamaged files: `count` real ones, and a tenth as many of each other codec."""
    folder.mkdir(parents=True, exist_ok=True)
    if videos is None:
        real = [path for path in make_originals(folder) if "h264" in path.name]
    else:
        real = sorted(videos.glob("*.mp4"))[:count]
    found = {REAL: real}
    for name, (codec, suffix, options) in CODECS.items():
        found[name] = [
            encoded_again(path, folder / f"{path.stem}-{name.replace(' ', '-')}.{suffix}", codec, options)
            for path in real[: max(count // 10, 1)]
        ]
    return found


def encoded_again(source: Path, path: Path, codec: str, options: dict[str, str]) -> Path:
    """A video's frames by another codec."""
    with av.open(str(source)) as film, av.open(str(path), "w") as container:
        frames = film.decode(video=0)
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        for index, frame in enumerate(frames):
            if index == 0:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base, frame.pict_type = index, Fraction(1, 25), 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def copies(
    paths: list[Path], folder: Path, per_kind: int, rng: np.random.Generator
) -> Iterator[tuple[str, Path, Path]]:
    """Kind of damage, the copy, and its original; the copy is there until the next one."""
    for kind in (*KINDS, RENAMED):
        for number in range(per_kind):
            original = paths[number % len(paths)]
            content = original.read_bytes()
            suffix = ".avi" if kind == RENAMED else original.suffix
            copy = folder / f"copy{suffix}"
            copy.write_bytes(content if kind == RENAMED else damaged(content, kind, rng))
            yield kind, copy, original


def shown(worker: WorkerProcess, path: Path) -> np.ndarray:
    """(T, H, W, 3) uint8: what this library reads."""
    return np.stack([p.pixels for chunk in worker.stream("frame_chunks", path, 64) for p in chunk])


def outcomes(asked: argparse.Namespace, files: dict[str, list[Path]]) -> dict[str, Any]:
    """By codec and kind of damage what became of the copies."""
    found: dict[str, Any] = {}
    rng = np.random.default_rng(SEED)
    with closing(WorkerProcess(VideoFiles("pyav"), 20)) as worker, closing(WorkerProcess(Plain(), 20)) as plain:
        for codec, paths in files.items():
            right = {path: shown(worker, path) for path in paths}
            plainly_right = {path: plain.call("frames", path) for path in paths}
            per_kind = asked.copies if codec == REAL else max(asked.copies * 2 // 5, 1)
            counts: dict[str, Counter[str]] = defaultdict(Counter)
            differences: list[float] = []
            total = per_kind * (len(KINDS) + 1)
            for kind, copy, original in tqdm(
                copies(paths, asked.out, per_kind, rng), total=total, desc=codec, disable=None
            ):
                try:
                    frames = shown(worker, copy)
                    expected = right[original]
                    if np.array_equal(frames, expected):
                        outcome = "right frames"
                    else:
                        outcome = "other frames"
                        same = frames.shape == expected.shape
                        differences.append(worst(frames, expected) if same else 255.0)
                except StoppedError as error:
                    outcome = "stopped: crash" if "crashed" in str(error) else "stopped: hang"
                except UserError as error:
                    outcome = "refused"
                    if not str(error).startswith(f"{copy}: ") or "\n" in str(error):
                        raise RuntimeError(f"not named in one line: {error}") from error
                counts[kind][outcome] += 1
                try:
                    plainly = (
                        "right frames" if plain.call("frames", copy) == plainly_right[original] else "other frames"
                    )
                except UserError:
                    plainly = "refused"
                counts[kind][f"FFmpeg alone: {plainly}"] += 1
            found[codec] = {
                "files": len(paths),
                "copies": total,
                "all": dict(sum(counts.values(), Counter())),
                "visibly other frames": sum(difference > VISIBLE for difference in differences),
                "kinds": {kind: dict(sorted(counted.items())) for kind, counted in counts.items()},
            }
    return found


def worst(frames: np.ndarray, expected: np.ndarray) -> float:
    """The mean difference of the frame that differs most, 0 to 255."""
    return float(np.abs(frames.astype(np.int16) - expected).mean(axis=(1, 2, 3)).max())


def reading(asked: argparse.Namespace, paths: list[Path]) -> dict[str, Any]:
    """Time, memory and open files of reading with and without the process that decodes."""
    broken = asked.out / "broken.mp4"
    broken.write_bytes(paths[0].read_bytes()[:-300])
    readers = {"guarded": Reader(TIMEOUT, "pyav"), "here": Reader(0, "pyav")}
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    memory: list[dict[str, float]] = []
    for turn in tqdm(range(asked.clips // 100), desc="clips", unit_scale=100, disable=None):
        for name, reader in list(readers.items())[:: 1 if turn % 2 else -1]:
            begun = time.perf_counter()
            for number in range(99):
                reader.read_sampled(paths[(99 * turn + number) % len(paths)], sixteen)
            seconds[name].append(time.perf_counter() - begun)
            try:
                reader.read_sampled(broken, sixteen)
            except UserError:
                continue
            raise RuntimeError(f"{broken}: was read")
        if turn % max(asked.clips // 1000, 1) == max(asked.clips // 1000, 1) - 1:
            memory.append({"clips": 100 * (turn + 1), **held()})
    ratios = [ours / theirs for ours, theirs in zip(seconds["guarded"], seconds["here"], strict=True)]
    film = bigger(asked.out / "bigger.mp4")
    big: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(asked.rounds):
        for name, reader in list(readers.items())[:: 1 if turn % 2 else -1]:
            begun = time.perf_counter()
            for _ in range(3):
                reader.read_sampled(film, sixteen)
            big[name].append(time.perf_counter() - begun)
    for reader in readers.values():
        reader.close()
    return {
        "clips read by each": asked.clips,
        "of them broken": asked.clips // 100,
        "memory and open files": memory,
        "time with the process / without": {
            "these clips": quartiles(ratios),
            "340x256, 250 frames": quartiles([a / b for a, b in zip(big["guarded"], big["here"], strict=True)]),
        },
    }


def sixteen(count: int) -> list[int]:
    """Frames of a clip."""
    return [index * count // 16 for index in range(16)]


def bigger(path: Path) -> Path:
    """Ten seconds in the size that Kinetics is often kept in."""
    noise = np.random.default_rng(0).integers(0, 40, (300, 400, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.thread_count = 340, 256, "yuv420p", 1
        for index in range(250):
            pixels = noise[index : index + 256, index : index + 340] + np.uint8(80)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def held() -> dict[str, float]:
    """Resident MiB and open files of this process and of the one that it has started."""
    (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    told: dict[str, float] = {}
    for name, process in (("this process", "self"), ("decoding process", child)):
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        told[f"{name}, MiB"] = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
        told[f"{name}, open files"] = len(os.listdir(f"/proc/{process}/fd"))
    return told


def quartiles(values: list[float]) -> dict[str, Any]:
    """Of ratios."""
    low, high = np.quantile(values, [0.25, 0.75])
    return {"median": round(median(values), 3), "quartiles": [round(float(low), 3), round(float(high), 3)]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for copies; what they were is removed")
    parser.add_argument("--videos", type=Path, help="a folder of MP4 files")
    parser.add_argument("--copies", type=int, default=100, help="per kind of damage; for encoded files 2/5 of them")
    parser.add_argument("--clips", type=int, default=10_000, help="to be read for memory and time")
    parser.add_argument("--rounds", type=int, default=20, help="of reading bigger clips")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    files = originals(asked.out / "originals", asked.videos, asked.copies)
    found = {"damaged copies": outcomes(asked, files), "reading": reading(asked, files[REAL])}
    write_results(__file__, found, OUT=asked.out, VIDEOS=asked.videos)
    shutil.rmtree(asked.out / "originals")
    for codec, told in found["damaged copies"].items():
        print(f"{codec:20}", *(f"{outcome} {told['all'].get(outcome, 0)};" for outcome in OUTCOMES))
    print(found["reading"]["time with the process / without"])
