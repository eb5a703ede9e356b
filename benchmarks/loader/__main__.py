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

from benchmarks.settings import command_of, machine
from benchmarks.tables import write_rows
from stabn.data.dataset import Sample, VideoDataset
from stabn.data.sampling import Sampling
from stabn.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Preprocessing
from stabn.data.video.clip import write_video
from stabn.data.video.reader import Reader, init_reader_process

WIDTH, HEIGHT, LONG, READ, SIDE = 426, 240, 40, 32, 224
JITTER = 0.2
CRF = {"mp4": 23, "webm": 33}


def drawn(seed: int) -> list[np.ndarray]:
    """The frames of one clip, (240, 426, 3) uint8."""
    chance = torch.Generator().manual_seed(seed)

    def soft(height: int, width: int, waves: tuple[int, ...]) -> torch.Tensor:
        layers = (torch.randn(1, 3, n, 2 * n, generator=chance) / n for n in waves)
        noise = torch.stack([F.interpolate(layer, (height, width), mode="bicubic")[0] for layer in layers]).sum(0)
        return (noise / noise.std() * 45 + 120).clamp(0, 255)

    background, thing = soft(HEIGHT + 80, WIDTH + 160, (4, 12, 40, 120)), soft(60, 60, (3, 12, 30))
    down, right = (2 * torch.rand(2, generator=chance)).tolist()
    frames = []
    for t in range(LONG):
        frame = background[:, int(down * t) :, int(right * t) :][:, :HEIGHT, :WIDTH].clone()
        top, left = int(90 + 60 * np.sin(t / 7 + seed)), int(170 + 120 * np.cos(t / 9 + seed))
        frame[:, top : top + 60, left : left + 60] = thing
        frame += 2 * torch.randn(frame.shape, generator=chance)
        frames.append(frame.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy())
    return frames


def made(out: Path, clips: int) -> None:
    """The clips as videos and as folders of pictures, if they are not there."""
    for number in range(clips):
        folder = out / "jpeg" / str(number)
        if (folder / f"{LONG - 1:05}.jpg").exists():
            continue
        frames = drawn(number)
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
    found: dict[str, Callable[[], Any]] = {
        "JPEG files": lambda: [from_pictures(out / "jpeg" / str(number), resize) for number in range(clips)]
    }
    for kind in CRF:
        samples = [Sample(str(n), out / kind / f"{n}.{kind}", 0, "train") for n in range(clips)]
        here = VideoDataset(samples, preprocessing, class_names=["a"], augmentation=Augmentation(JITTER, flip=True))
        apart = here.read_by(Reader())
        for name, dataset in ((kind, apart), (f"{kind}, decoded in the same process", here)):
            found[name] = lambda dataset=dataset: [dataset[row] for row in range(clips)]
        found[f"{kind}, ready"] = lambda dataset=apart: [dataset[row].clips for row in range(clips)]
    return found


def measured(out: Path, clips: int, resize: int, repetitions: int) -> dict[str, Any]:
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
            "all": [round(one, 2) for one in spent],
        }
        for name, spent in rounds.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=7)
    asked = parser.parse_args()
    made(asked.out, asked.clips)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # of this process and of those it starts
    torch.set_num_threads(1)
    init_reader_process()
    random.seed(0)
    found = {
        f"shorter side {resize}": measured(asked.out, asked.clips, resize, asked.repetitions) for resize in (240, 256)
    }
    command = command_of(__file__, OUT=asked.out)
    write_rows(Path(__file__).with_name("results.json"), {"command": command, "machine": machine(), **found})
    for resize, by_arm in found.items():
        for name, told in by_arm.items():
            print(f"{resize}  {name:36}  {told['ms per clip']:7.1f} ms  {told['times as fast']:5.2f} times")
