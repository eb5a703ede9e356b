"""What explaining an archive costs: clips per second, reading against the network, hours and money for a million clips.

    python -m benchmarks.archive --out OUT

Tabletop's videos, each under several names, and a network of the demo's size, whose weights do not matter here. The
files are in the system's cache after the first reading, as they are not in a real archive. What `stabn explain --batch`
writes into summary.json is the result, per number of processes that decode. Numbers take turns; where the machine is
shared, the fastest run is the least disturbed one.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from benchmarks.settings import write_results
from stabn.batch.clips import list_clips
from stabn.batch.explain_batch import explain_archive
from stabn.batch.worker import BatchOptions
from stabn.data.sampling import Sampling
from stabn.data.tabletop.generate import CLASS_NAMES, generate_tabletop
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import probe
from stabn.engine.config import EngineRecipe
from stabn.nn import STABN

PREPROCESSING = Preprocessing(Sampling("uniform", 16), resize=63, crop=56)


def write_table(folder: Path, clips: int) -> Path:
    """The same videos under as many names as there are clips to be."""
    videos = [clip.path for clip in list_clips(folder).clips]
    table = folder / f"{clips}.csv"
    with table.open("w", newline="", encoding="utf-8") as content:
        writer = csv.writer(content)
        writer.writerow(("path", "id"))
        writer.writerows((videos[n % len(videos)], n) for n in range(clips))
    return table


def measured(args: argparse.Namespace, table: Path, run: Path, workers: int, out: Path) -> dict[str, Any]:
    options = BatchOptions(args.batch_size, workers, engine=EngineRecipe(args.accelerator))
    summary = explain_archive(run, table, out, options=options, price_per_hour=args.price_per_hour)
    return {"workers": workers, "errors": summary["errors"], **summary["speed"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=70)
    parser.add_argument("--clips", type=int, default=768)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 1, 2])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--price-per-hour", type=float, default=0.1)
    parser.add_argument("--note", default="", help="about the machine")
    args = parser.parse_args()
    videos, run = args.out / "videos", args.out / "network"
    generate_tabletop(videos, train=args.videos - len(CLASS_NAMES), validation=len(CLASS_NAMES))
    model = STABN("small", len(CLASS_NAMES), PREPROCESSING.sampling.frames, class_names=CLASS_NAMES)
    model.preprocessing = PREPROCESSING.as_json()
    if not run.exists():
        model.save_pretrained(run)
    table = write_table(videos, args.clips)
    runs = [
        measured(args, table, run, workers, args.out / f"answers-{args.clips}-{number}")
        for number, workers in enumerate(args.workers)
    ]
    info = probe(videos / "videos" / "1.mp4")
    found = {
        **({"note": args.note} if args.note else {}),
        "videos": f"{info.width} x {info.height} pixels, {info.num_frames} frames",
        "network": "small, 16 frames, 56 x 56 pixels",
        "runs": runs,
    }
    write_results(__file__, found, OUT=args.out)
