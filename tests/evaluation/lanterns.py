"""Clips in which one cell of one or two frames lights up, and networks made by hand that look there, or pretend to."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stabn.data.boxes import Box
from stabn.data.clip_batch import ClipBatch
from stabn.data.dataset import Sample, VideoDataset
from stabn.data.ground_truth import ClipTruth
from stabn.data.sampling import Sampling
from stabn.data.transforms import Preprocessing
from stabn.nn import STABN, Attention

FRAMES, SIDE, CELLS = 8, 32, 2
COLOURS = ("red", "green", "blue")


class Lanterns(VideoDataset):
    """Dim noise, and in two frames one of 2 x 2 cells shines in the colour that is the label; no file is read."""

    def __init__(self, count: int = 16, wrong_labels: bool = False) -> None:
        rng = np.random.default_rng(7)
        self.colours = rng.integers(3, size=count)
        self.starts = rng.integers(FRAMES - 1, size=count)
        self.cells = rng.integers(CELLS, size=(count, 2))
        labels = rng.permutation(self.colours) if wrong_labels else self.colours
        samples = [Sample(f"clip {i}", Path("none.mp4"), int(label), "validation") for i, label in enumerate(labels)]
        preprocessing = Preprocessing(
            Sampling("uniform", FRAMES), resize=SIDE, crop=SIDE, mean=(0, 0, 0), std=(1, 1, 1)
        )
        super().__init__(samples, preprocessing, class_names=COLOURS)

    def __getitem__(self, index: int) -> ClipBatch:
        shape = (1, 3, FRAMES, SIDE, SIDE)
        clip = (25.5 * torch.rand(shape, generator=torch.Generator().manual_seed(index))).round().byte()
        start, (row, column), half = self.starts[index], self.cells[index], SIDE // CELLS
        place = (slice(row * half, (row + 1) * half), slice(column * half, (column + 1) * half))
        clip[(0, self.colours[index], slice(start, start + 2), *place)] = 255
        return ClipBatch(
            pixels=clip,
            labels=torch.tensor([self.samples[index].label]),
            clip_ids=(self.samples[index].clip_id,),
            scores=torch.zeros(1, FRAMES),
            has_scores=torch.zeros(1, dtype=torch.bool),
            frame_indices=torch.arange(FRAMES)[None],
            timestamps=torch.arange(FRAMES, dtype=torch.float64)[None],
            preprocessing=self.preprocessing,
        )

    def truth(self) -> dict[str, ClipTruth]:
        """When a cell shines, and the box around it, as in a source of SIDE x SIDE pixels."""
        half, known = SIDE // CELLS, {}
        for sample, start, (row, column) in zip(self.samples, self.starts, self.cells, strict=True):
            shines = [start <= t < start + 2 for t in range(FRAMES)]
            box: Box = tuple(int(edge) * half for edge in (column, row, column + 1, row + 1))
            known[sample.clip_id] = ClipTruth(
                relevance=tuple(map(float, shines)), boxes=tuple(box if shine else None for shine in shines)
            )
        return known


class Honest(STABN):
    """Looks where it is bright and answers with the colour there; nothing it does depends on its weights."""

    def __init__(self) -> None:
        super().__init__("tiny", 3, FRAMES)

    def encode(self, clip_bcthw: Tensor) -> Tensor:
        return F.adaptive_avg_pool3d(clip_bcthw, (FRAMES, CELLS, CELLS))

    def attend(self, features_bcthw: Tensor) -> tuple[Attention, Tensor]:
        brightness_bthw = features_bcthw.amax(dim=1)
        brightness_bt = brightness_bthw.amax(dim=(2, 3))
        brightness_b1hw = brightness_bthw.amax(dim=1, keepdim=True)  # the same map for every frame: it says only where
        attention = Attention(
            (brightness_b1hw / brightness_b1hw.amax(dim=(2, 3), keepdim=True)).expand_as(brightness_bthw),
            brightness_bt / brightness_bt.amax(dim=1, keepdim=True),
        )
        return attention, features_bcthw.new_zeros(len(features_bcthw), 3)

    def perceive(self, features_bcthw: Tensor, attention: Attention) -> Tensor:
        weights_bthw = (attention.temporal[:, :, None, None] * attention.spatial) ** 4
        colour_bc = torch.einsum("bcthw,bthw->bc", features_bcthw, weights_bthw)
        return 8 * colour_bc / weights_bthw.sum(dim=(1, 2, 3))[:, None]


class Inverted(Honest):
    """The same answers, but the maps that it shows are the inverse of those that it uses."""

    def attend(self, features_bcthw: Tensor) -> tuple[Attention, Tensor]:
        attention, logits_bk = super().attend(features_bcthw)
        return attention.inverse_spatial().inverse_temporal(), logits_bk

    def perceive(self, features_bcthw: Tensor, attention: Attention) -> Tensor:
        return super().perceive(features_bcthw, attention.inverse_spatial().inverse_temporal())


class Mixed(Honest):
    """The same answers, but every clip shows the maps of the next one in its batch."""

    def attend(self, features_bcthw: Tensor) -> tuple[Attention, Tensor]:
        attention, logits_bk = super().attend(features_bcthw)
        return attention.rows(torch.arange(len(logits_bk)).roll(-1)), logits_bk

    def perceive(self, features_bcthw: Tensor, attention: Attention) -> Tensor:
        return super().perceive(features_bcthw, attention.rows(torch.arange(len(features_bcthw)).roll(1)))
