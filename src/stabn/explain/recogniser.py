"""A trained network in two lines of Python: `stabn.load` opens it, `Recogniser.explain` shows a video to it."""

import base64
import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from functools import cached_property
from html import escape
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from stabn.data.transforms import Preprocessing
from stabn.data.video.clip import Clip
from stabn.data.video.frame_folder import FPS
from stabn.data.video.reader import read_sampled
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.explain.explain_video import check_frames, explain_clip, explain_video
from stabn.explain.render import contact_sheet, write_explanation
from stabn.files import atomic_write, write_json
from stabn.memory import keep_freed_memory
from stabn.nn import Output, VideoNetwork, has_attention, load_pretrained, shows_attention
from stabn.nn.fast_inference import for_inference, supports_fast_inference
from stabn.records import Record
from stabn.runs import network_class_names, network_preprocessing

Video = str | Path | np.ndarray
"""A video file, a folder of frames, or a (T, H, W, 3) uint8 array of RGB frames."""

_ARRAY = "frames"
"""The clip id of an array, which has no name of its own."""


def load(source: str | Path, engine: EngineRecipe = EngineRecipe()) -> "Recogniser":  # noqa: B008
    """Open a trained network to recognise and explain videos with.

    Args:
        source: a run, a folder that `save_pretrained` wrote, or a repository on the Hugging Face hub ("name/network").
        engine: precision and speed; videos are always explained on the CPU.

    Raises:
        UserError: a file is missing or damaged, or config.json does not say how videos are prepared.
    """
    return Recogniser(load_pretrained(source), str(source), engine)


class Recogniser:
    """A network with what it needs to answer for a video.

    Args:
        network: with or without attention; put into evaluation mode. Its weights are read at the first answer, so make
            a new recogniser after changing them.
        source: what messages call it: its folder or repository.
        engine: precision and speed; its device is not used.

    Attributes:
        network: the torch module, for its `encode`, `attend` and `perceive`.
        preprocessing: which frames it reads, and how they are prepared.
        class_names: K names, in the order of the network's outputs.

    Raises:
        UserError: the network's config.json does not say how videos are prepared, or for another number of frames.
    """

    def __init__(
        self,
        network: VideoNetwork,
        source: str = "network",
        engine: EngineRecipe = EngineRecipe(),  # noqa: B008
    ) -> None:
        self.network = network.eval()
        self.source = source
        self.preprocessing: Preprocessing = network_preprocessing(network, source)
        self.class_names = network_class_names(network)
        self._engine = replace(engine, accelerator="cpu")
        if shows_attention(network):
            check_frames(network, self.preprocessing)

    def __repr__(self) -> str:
        kind = "STABN" if has_attention(self.network) else "plain network"
        return (
            f"Recogniser({self.source!r}: {kind} {self.network.architecture}, {len(self.class_names)} classes, "
            f"{self.preprocessing.sampling.frames} frames of {self.preprocessing.crop} x {self.preprocessing.crop} "
            "pixels)"
        )

    def check_attention(self) -> None:
        """Make sure that the network has attention to show.

        Raises:
            UserError: it is the plain network.
        """
        if not shows_attention(self.network):
            raise UserError(
                f"{self.source}: is the plain network, which has no attention to show; train with network.attention "
                "true"
            )

    def explain(self, video: Video, *, window: int = 0, windows: int = 1) -> "Explanation":
        """Recognise a video and show when and where the network looked.

        Args:
            video: a video file, a folder of frames, or RGB frames as a (T, H, W, 3) uint8 array of any T >= 1, from
                which frames are sampled as from a video of 25 frames per second.
            window, windows: which of how many evenly placed windows, counted from 0.

        Raises:
            UserError: the network has no attention, or the video cannot be read.
            ValueError: the array has another dtype or shape, or there is no such window.
        """
        self.check_attention()
        if not 0 <= window < windows:
            raise ValueError(f"window: got {window} of {windows} windows, expected 0..windows - 1")
        model = self._predictor
        if isinstance(video, np.ndarray):
            clip = _sampled_array(video, self.preprocessing, window, windows)
            record = explain_clip(model, self.preprocessing, clip, self.class_names, clip_id=_ARRAY)
        else:
            record, clip = explain_video(
                model, self.preprocessing, Path(video), self.class_names, window=window, windows=windows
            )
        return Explanation(record, clip)

    def predict(self, videos: Iterable[Video]) -> "PredictionTable":
        """Recognise videos one after the other; a progress bar appears on stderr after two seconds.

        Args:
            videos: as for `explain`; the same one may come twice.

        Returns:
            A row per video, in their order. A video that cannot be read has the error in its row.

        Raises:
            ValueError: an array has another dtype or shape.
        """
        if isinstance(videos, str | Path):
            raise ValueError(f"videos: got {str(videos)!r}, expected a list of videos; put it into [ ]")
        bar = tqdm(videos, desc="recognising", unit=" videos", delay=2, leave=False)
        return PredictionTable(self._predicted(video) for video in bar)

    @cached_property
    def _predictor(self) -> VideoNetwork:
        """The network as it answers fastest; in double precision the network itself."""
        self._engine.log_settings(can_fold=supports_fast_inference(self.network))
        if self._engine.keeps_memory():
            keep_freed_memory()
        precision = self._engine.resolved_precision()
        if precision == "64-true":
            self.network.double()
        return for_inference(self.network, precision, torch.device("cpu"), fast=self._engine.fast)

    def _predicted(self, video: Video) -> "PredictionRow":
        name = _ARRAY if isinstance(video, np.ndarray) else str(video)
        sampling = self.preprocessing.sampling
        try:
            if isinstance(video, np.ndarray):
                clip = _sampled_array(video, self.preprocessing)
            else:
                clip = read_sampled(video, lambda count: sampling.for_testing(count)[0])
        except UserError as error:
            return PredictionRow(name, error=str(error))
        model = self._predictor
        view = self.preprocessing.test_view(clip.frames)[None].to(next(model.parameters()).dtype)
        with torch.inference_mode():
            output: Output = model(view)
        probabilities = output.logits[0].float().softmax(0)
        best = int(probabilities.argmax())
        if not bool(probabilities.isfinite().all()):
            remedy = "load it with EngineRecipe(precision='32-true')"
            return PredictionRow(name, error=f"{name}: the network's answer is not finite; {remedy}")
        return PredictionRow(name, self.class_names[best], float(probabilities[best]))


def _sampled_array(frames: np.ndarray, preprocessing: Preprocessing, window: int = 0, windows: int = 1) -> Clip:
    """The frames of an array that the network reads, with times as in a folder of frames."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(
            f"frames: got {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3) of at least one frame"
        )
    indices = torch.tensor(preprocessing.sampling.for_testing(len(frames), windows)[window])
    return Clip(
        frames=torch.from_numpy(np.ascontiguousarray(frames[indices.numpy()])).permute(0, 3, 1, 2),
        frame_indices=indices,
        timestamps=indices.to(torch.float64) / FPS,
        path="",
    )


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What a network recognised in one window of a video, and when and where it looked.

    Attributes:
        record: all numbers, as `stabn explain` writes them.
        clip: the sampled frames at the size of the source, as the pictures show them.
    """

    record: Record
    clip: Clip

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top(1)[0][0]

    @property
    def temporal(self) -> np.ndarray:
        """(T,) float32 in 0..1: how much each sampled frame mattered."""
        return self.record.temporal

    @property
    def spatial(self) -> np.ndarray:
        """(T, h, w) float32 in 0..1: where the network looked in each sampled frame, over its crop."""
        return self.record.spatial

    @property
    def frames(self) -> np.ndarray:
        """(T, H, W, 3) uint8 RGB: the sampled frames at the size of the source."""
        return self.clip.frames.permute(0, 2, 3, 1).numpy()

    def top(self, count: int = 5) -> tuple[tuple[str, float], ...]:
        """The `count` most probable classes as (name, probability), the most probable first."""
        return self.record.top(count)

    def save(self, path: str | Path) -> None:
        """Write a contact sheet (.png), a film at true speed (.mp4) or the numbers (.json), atomically.

        Raises:
            UserError: the name ends in none of them.
        """
        path = Path(path)
        match path.suffix.lower():
            case ".png":
                with atomic_write(path) as temporary:
                    contact_sheet(self.record, self.clip).save(temporary)
            case ".mp4":
                write_explanation(path, self.record, self.clip)
            case ".json":
                write_json(path, self.record.as_json())
            case suffix:
                raise UserError(f"{path}: got the ending {suffix!r}, expected .png, .mp4 or .json; give another name")

    def __repr__(self) -> str:
        (label, probability), best = self.top(1)[0], int(self.temporal.argmax())
        return (
            f"Explanation({self.record.clip_id!r}: {label} {probability:.0%}; {len(self.temporal)} frames, temporal "
            f"{self.temporal.min():.2f} to {self.temporal.max():.2f}, highest at {self.record.timestamps[best]:.2f} s)"
        )

    def _repr_html_(self) -> str:
        """The contact sheet and the most probable classes, for a notebook."""
        picture = BytesIO()
        contact_sheet(self.record, self.clip).save(picture, format="PNG")
        data = base64.b64encode(picture.getvalue()).decode()
        classes = "".join(f"<li>{escape(name)}: {share:.1%}</li>" for name, share in self.top(3))
        return (
            f'<img src="data:image/png;base64,{data}" alt="{escape(repr(self))}" style="max-width: 100%">'
            f"<ol>{classes}</ol>"
        )


@dataclass(frozen=True)
class PredictionRow:
    """What a network recognised in one video, or why it could not be read.

    Attributes:
        video: the path as it was given; "frames" for an array.
        label: the most probable class; None where there is an error.
        probability: of this class, in 0..1; None where there is an error.
        error: why the video was not recognised, or None.
    """

    video: str
    label: str | None = None
    probability: float | None = None
    error: str | None = None


_COLUMNS = tuple(field.name for field in fields(PredictionRow))


class PredictionTable(tuple[PredictionRow, ...]):
    """What a network recognised in several videos: a row per video, in the order in which they were given."""

    def to_csv(self, path: str | Path) -> None:
        """Write the columns video, label, probability and error as UTF-8 CSV, atomically; a None is empty."""
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows(astuple(row) for row in self)

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError:
            raise UserError("to_pandas: pandas is not installed; pip install pandas, or use to_csv") from None
        return pandas.DataFrame([astuple(row) for row in self], columns=list(_COLUMNS))

    def __repr__(self) -> str:
        width = max((len(row.video) for row in self), default=0)
        lines = (f"{row.video:{width}}  {' '.join(filter(None, _cells(row)[1:]))}" for row in self)
        return "\n".join((f"PredictionTable of {len(self)} videos", *lines))

    def _repr_html_(self) -> str:
        """The rows as a table, for a notebook."""
        heading = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        rows = ("".join(f"<td>{escape(cell)}</td>" for cell in _cells(row)) for row in self)
        return f"<table><tr>{heading}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _cells(row: PredictionRow) -> tuple[str, str, str, str]:
    probability = "" if row.probability is None else f"{row.probability:.1%}"
    return row.video, row.label or "", probability, row.error or ""
