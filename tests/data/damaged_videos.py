"""Tiny real MP4 files, and damage as disks, networks and people do it; the same seed does the same damage."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data_videos import encode

FRAMES = 24
ORIGINALS = {
    "h264": ("libx264", (96, 128), {"bf": "2", "g": "12", "crf": "23"}),
    "h264-tiny": ("libx264", (48, 64), {"bf": "2", "g": "12", "crf": "18"}),
    "h264-baseline": ("libx264", (96, 128), {"bf": "0", "g": "12", "crf": "23", "x264-params": "cabac=0"}),
    "mpeg4": ("mpeg4", (96, 128), {"bf": "2", "g": "12", "qscale": "4"}),
    "hevc": ("libx265", (96, 128), {"x265-params": "log-level=none:keyint=12:bframes=2:pools=1:frame-threads=1"}),
}
"""Name -> encoder, height and width, its options. H.264 with B-frames, CABAC and CAVLC."""
KINDS = ("cut short", "one bit", "eight bits", "zeros", "noise", "bytes lost", "another container")
HEADS = (b"RIFF\x00\x10\x00\x00AVI LIST", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n")
"""How files of other containers begin."""


def make_originals(folder: Path) -> list[Path]:
    """Each of them twice: with the header at the end, and at the beginning (-front)."""
    made = []
    for name, (codec, size, options) in ORIGINALS.items():
        for front in (False, True):
            path = folder / f"{name}{'-front' if front else ''}.mp4"
            header = {"movflags": "+faststart"} if front else {}
            frames, options = (_scene(index, *size) for index in range(FRAMES)), {**options, "threads": "1"}
            made.append(encode(path, frames, codec=codec, options=options, container_options=header))
    return made


def damaged_copies(originals: list[Path], folder: Path, count: int, seed: int) -> Iterator[tuple[Path, Path, str]]:
    """Copies in which something is broken.

    Yields:
        The copy, its original, and the kind of damage.
    """
    rng = np.random.default_rng(seed)
    for number in range(count):
        original = originals[number % len(originals)]
        kind = KINDS[(number // len(originals)) % len(KINDS)]
        copy = folder / f"{number:05d}-{original.stem}{'.webm' if kind == 'another container' else '.mp4'}"
        copy.write_bytes(damaged(original.read_bytes(), kind, rng))
        yield copy, original, kind


def damaged(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """The content with one kind of damage; "another container" is the beginning of one."""
    size = len(content)
    changed = bytearray(content)
    start, length = int(rng.integers(size)), int(rng.choice([1, 4, 16, 64, 512, 4096]))
    if kind == "cut short":
        return content[: int(rng.integers(1, size))]
    if kind == "bytes lost":
        return content[:start] + content[start + int(rng.choice([1, 188, 512])) :]
    if kind == "another container":
        head = HEADS[int(rng.integers(len(HEADS)))]
        return head + content[len(head) :]
    if kind in ("one bit", "eight bits"):
        for position in rng.integers(size, size=1 if kind == "one bit" else 8):
            changed[position] ^= 1 << int(rng.integers(8))
    elif kind == "zeros":
        changed[start : start + length] = bytes(len(changed[start : start + length]))
    elif kind == "noise":
        changed[start : start + length] = rng.bytes(len(changed[start : start + length]))
    else:
        raise ValueError(f"kind: got {kind!r}, expected one of {KINDS}")
    return bytes(changed)


def _scene(index: int, height: int, width: int) -> np.ndarray:
    """Coloured blocks that move, a red square that moves faster, and noise, so that every macroblock costs bits."""
    blocks = np.random.default_rng(0).integers(0, 255, (height // 8 + 2, width // 8 + 2, 3)).repeat(8, 0).repeat(8, 1)
    picture = np.roll(blocks, (index, 2 * index), (0, 1))[:height, :width].copy()
    left = 3 * index % (width - 20)
    picture[height // 4 : height // 2, left : left + 20] = (200, 40, 40)
    noise = np.random.default_rng(1000 + index).integers(-6, 6, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)
