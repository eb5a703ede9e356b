"""How many clips one core prepares for training: from compressed videos, and from folders of JPEG files.

    python -m benchmarks.loader --out OUT      some minutes; OUT keeps the clips that it makes

The clips are drawn: soft shapes that move over a moving background, with a little noise, 40 frames of 426 x 240, as MP4
(H.264, CRF 23), as WebM (VP9, CRF 33), and as the JPEG files (quality 90) that other code wants to have instead. From
each come 32 frames, a random square of 224, mirrored every second time, with brightness, contrast and saturation
varied, once without resizing and once with a shorter side of 256.

"JPEG files" is the usual way in the same file: Pillow reads, resizes and crops frame by frame, torchvision varies the
colours of each picture and makes numbers of it. All arms run on one core, the process that decodes for them included,
and take turns, so that whatever else the machine does meets all of them. "ready" adds what is done where the network
is: colours varied, numbers made of bytes.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from benchmarks.settings import describe_machine, reproducing_command
from benchmarks.tables import write_rows
from stabn.data.dataset import Sample, VideoDataset
from stabn.data.sampling import Sampling
from stabn.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Preprocessing
from stabn.data.video.clip import write_video
from stabn.data.video.reader import Reader, init_reader_process

WIDTH, HEIGHT, LONG, READ, SIDE = 426, 240, 40, 32, 224
JITTER = 0.2
CRF = {"mp4": 23, "webm": 33}


def draw_clip_frames(seed: int) -> list[np.ndarray]:
    """The frames of one clip, (240, 426, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)

    def soft(height: int, width: int, waves: tuple[int, ...]) -> torch.Tensor:
        layers = (torch.randn(1, 3, n, 2 * n, generator=generator) / n for n in waves)
        noise = torch.stack([F.interpolate(layer, (height, width), mode="bicubic")[0] for layer in layers]).sum(0)
        return (noise / noise.std() * 45 + 120).clamp(0, 255)

    background, thing = soft(HEIGHT + 80, WIDTH + 160, (4, 12, 40, 120)), soft(60, 60, (3, 12, 30))
    down, right = (2 * torch.rand(2, generator=generator)).tolist()
    frames = []
    for t in range(LONG):
        frame = background[:, int(down * t) :, int(right * t) :][:, :HEIGHT, :WIDTH].clone()
        top, left = int(90 + 60 * np.sin(t / 7 + seed)), int(170 + 120 * np.cos(t / 9 + seed))
        frame[:, top : top + 60, left : left + 60] = thing
        frame += 2 * torch.randn(frame.shape, generator=generator)
        frames.append(frame.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy())
    return frames


def make_clips(out: Path, clips: int) -> None:
    """The clips as videos and as folders of pictures, if they are not there."""
    for number in range(clips):
        folder = out / "jpeg" / str(number)
        if (folder / f"{LONG - 1:05}.jpg").exists():
            continue
        frames = draw_clip_frames(number)
        for kind, crf in CRF.items():
            (out / kind).mkdir(parents=True, exist_ok=True)
            write_video(out / kind / f"{number}.{kind}", frames, 12, crf=crf)
        folder.mkdir(parents=True, exist_ok=True)
        for t, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"{t:05}.jpg", quality=90)


def from_pictures(folder: Path, resize: int) -> torch.Tensor:
    """(3, 32, 224, 224) float32, the usual way."""
    chosen = np.linspace(0, LONG - 1, READ).round().astype(int)
    pictures = [Image.open(folder / f"{t:05}.jpg").convert("RGB") for t in chosen]
    if resize != HEIGHT:
        pictures = [tv.resize(picture, [resize]) for picture in pictures]
    top, left = (random.randint(0, side - SIDE) for side in reversed(pictures[0].size))
    pictures = [tv.crop(picture, top, left, SIDE, SIDE) for picture in pictures]
    if random.random() < 0.5:
        pictures = [tv.horizontal_flip(picture) for picture in pictures]
    brightness, contrast, saturation = (random.uniform(1 - JITTER, 1 + JITTER) for _ in range(3))
    frames = []
    for picture in pictures:
        picture = tv.adjust_saturation(
            tv.adjust_contrast(tv.adjust_brightness(picture, brightness), contrast), saturation
        )
        frame = tv.to_dtype(tv.pil_to_tensor(picture), torch.float32, scale=True)
        frames.append(tv.normalize(frame, list(IMAGENET_MEAN), list(IMAGENET_STD)))
    return torch.stack(frames, 1)


def arms(out: Path, clips: int, resize: int) -> dict[str, Callable[[], Any]]:
    """By name, what prepares all clips once."""
    preprocessing = Preprocessing(Sampling("uniform", READ), resize=resize, crop=SIDE)
    works: dict[str, Callable[[], Any]] = {
        "JPEG files": lambda: [from_pictures(out / "jpeg" / str(number), resize) for number in range(clips)]
    }
    for kind in CRF:
        samples = [Sample(str(n), out / kind / f"{n}.{kind}", 0, "train") for n in range(clips)]
        in_process = VideoDataset(
            samples, preprocessing, class_names=["a"], augmentation=Augmentation(JITTER, flip=True)
        )
        own_process = in_process.with_reader(Reader())
        for name, dataset in ((kind, own_process), (f"{kind}, decoded in the same process", in_process)):
            works[name] = lambda dataset=dataset: [dataset[row] for row in range(clips)]
        works[f"{kind}, ready"] = lambda dataset=own_process: [dataset[row].clips for row in range(clips)]
    return works


def measure(out: Path, clips: int, resize: int, repetitions: int) -> dict[str, Any]:
    """Milliseconds per clip by arm, medians, and ratios to the first."""
    works = arms(out, clips, resize)
    rounds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repetitions + 1):  # the first is for warming up
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            if turn:
                rounds[name].append(1000 * (time.perf_counter() - begun) / clips)
    plain = median(rounds["JPEG files"])
    return {
        name: {
            "ms per clip": round(median(spent), 2),
            "clips/s": round(1000 / median(spent), 1),
            "times as fast": round(plain / median(spent), 2),
            "ms, least and most": [round(min(spent), 2), round(max(spent), 2)],
        }
        for name, spent in rounds.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    make_clips(options.out, options.clips)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # of this process and of those it starts
    torch.set_num_threads(1)
    init_reader_process()
    random.seed(0)
    results_by_size = {
        f"shorter side {resize}": measure(options.out, options.clips, resize, options.repetitions)
        for resize in (240, 256)
    }
    command = reproducing_command(__file__, OUT=options.out)
    results = Path(__file__).with_name("results.json")
    earlier = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    write_rows(results, earlier | {"command": command, "machine": describe_machine(), **results_by_size})
    for resize, by_arm in results_by_size.items():
        for name, result in by_arm.items():
            print(f"{resize}  {name:36}  {result['ms per clip']:7.1f} ms  {result['times as fast']:5.2f} times")
