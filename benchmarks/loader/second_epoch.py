"""Reading files again in later epochs, against an earlier version whose source tree lies elsewhere.

    python -m benchmarks.loader.second_epoch --out OUT --earlier SRC stabn.data.reading      some minutes

The drawn clips of `benchmarks.loader`, repeated to 10 and 60 seconds at 25 frames per second, as H.264 in MP4 and, the
same packets, in Matroska, with a key frame at least every 250 frames, x264's default. Of each file come 16 frames
spread over all of it, or 16 neighbouring ones from three quarters of its length on. Each version decodes by PyAV with
one thread, and they take turns read by read. Times are of the processor, which other programs hardly change. "first" is
the first read of a file (of a segment, with timing its frames), "later" the median of the next ones.
"""

import argparse
import importlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

FPS, READ = 25, 16
SECONDS, KINDS = (10, 60), ("mp4", "mkv")
RESULTS = Path(__file__).with_name("results.json")


def make_files(out: Path, count: int) -> None:
    """The files of all lengths and kinds, if they are not there."""
    if all((out / f"{SECONDS[-1]}-{number}.mkv").exists() for number in range(count)):
        return
    import av

    from benchmarks.loader.__main__ import draw_clip_frames
    from stabn.data.video.clip import write_video

    out.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        frames = draw_clip_frames(number)
        frames += frames[-2:0:-1]  # there and back
        for seconds in SECONDS:
            path = out / f"{seconds}-{number}.mp4"
            if path.with_suffix(".mkv").exists():
                continue
            write_video(path, (frames[t % len(frames)] for t in range(seconds * FPS)), FPS, crf=23, preset="fast")
            with av.open(str(path)) as source, av.open(str(path.with_suffix(".mkv")), "w") as target:
                stream = target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        target.mux(packet)


class Version:
    """A process that reads files with the package of one source tree."""

    def __init__(self, source: Path, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", module],
            env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self, path: Path, indices: list[int], task: str) -> float:
        """Processor milliseconds of one read."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), indices, task]) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(module: str) -> None:
    """Reply to [path, indices, task] on stdin with the processor's milliseconds for the read."""
    reader = importlib.import_module(module).Reader(timeout=0, decoder="pyav")
    timed = set()
    for line in sys.stdin:
        path, indices, task = json.loads(line)
        begun = time.process_time()
        if task == "spread":
            reader.read_sampled(path, lambda num_frames: indices)  # noqa: B023
        else:
            if path not in timed:
                reader.probe(path)  # data sets time a segment once
                timed.add(path)
            reader.read_clip(path, indices)
        print(1000 * (time.process_time() - begun), flush=True)


def measure(out: Path, count: int, reads: int, sources: dict[str, tuple[Path, str]]) -> dict[str, Any]:
    """By task, length and kind: clips per second of processor time in first and later reads, and ratios."""
    results: dict[str, Any] = {}
    for task in ("spread", "segment"):
        for seconds in SECONDS:
            length = seconds * FPS
            start = 3 * length // 4 if task == "segment" else 0
            indices = [start + i if start else (2 * i + 1) * length // (2 * READ) for i in range(READ)]
            for kind in KINDS:
                versions = {name: Version(*source) for name, source in sources.items()}
                for version in versions.values():
                    version.read(out / f"10-{count}.mp4", [0], "spread")  # loads its libraries
                spent: dict[str, list[list[float]]] = {name: [] for name in versions}
                for number in range(count):
                    for name in versions:
                        spent[name].append([])
                    for turn in range(reads):
                        for name in list(versions)[:: 1 if turn % 2 else -1]:
                            path = out / f"{seconds}-{number}.{kind}"
                            spent[name][-1].append(versions[name].read(path, indices, task))
                for version in versions.values():
                    version.close()
                first = {name: [times[0] for times in files] for name, files in spent.items()}
                later = {name: [median(times[1:]) for times in files] for name, files in spent.items()}
                results[f"{task}, {seconds} s, {kind}"] = {
                    part: {
                        **{f"{name}, clips/s": round(1000 / median(times), 1) for name, times in values.items()},
                        "times as fast": round(median(a / b for a, b in zip(*values.values(), strict=True)), 2),
                    }
                    for part, values in (("first", first), ("later", later))
                }
                print(f"{task}, {seconds} s, {kind}", results[f"{task}, {seconds} s, {kind}"], flush=True)
    return results


def main() -> None:
    """Measure and write."""
    from benchmarks.settings import describe_machine
    from benchmarks.tables import write_rows

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--earlier", nargs=2, required=True, metavar=("SRC", "MODULE"), help="of the Reader")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--reads", type=int, default=4)
    options = parser.parse_args()
    make_files(options.out, options.files + 1)
    source, module = options.earlier
    sources = {
        "earlier": (Path(source), module),
        "this": (Path(__file__).parents[2] / "src", "stabn.data.video.reader"),
    }
    results = measure(options.out, options.files, options.reads, sources)
    words = ["--out", "OUT", "--earlier", "SRC", module, "--files", str(options.files), "--reads", str(options.reads)]
    command = shlex.join(["python", "-m", "benchmarks.loader.second_epoch", *words])
    content = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    write_rows(RESULTS, content | {"later epochs": {"command": command, "machine": describe_machine(), **results}})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main()
