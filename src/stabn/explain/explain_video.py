"""From a video file to a record of prediction and attention, and to the files of an explanation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stabn.data.segments import Segment, segment_frames
from stabn.data.transforms import Preprocessing
from stabn.data.video.clip import Clip
from stabn.data.video.reader import read_clip
from stabn.errors import UserError
from stabn.explain.render import contact_sheet, write_explanation
from stabn.files import atomic_write, short_name, write_json
from stabn.nn import Output, VideoNetwork
from stabn.records import Record


def explain_video(
    model: VideoNetwork,
    preprocessing: Preprocessing,
    path: Path,
    class_names: Sequence[str],
    *,
    window: int = 0,
    windows: int = 1,
    label: int | None = None,
    segment: Segment | None = None,
) -> tuple[Record, Clip]:
    """Run a network on one window of a video and record its prediction and attention.

    Args:
        model: a network that shows attention, in evaluation mode.
        preprocessing: of the network's input.
        path: the video, or the folder of its frames.
        class_names: K names.
        window, windows: which of how many evenly placed windows.
        label: the true class, if known.
        segment: the part of the video that the window is taken from; None for all of it.

    Returns:
        The record, and the sampled frames at source resolution.

    Raises:
        UserError: the video cannot be read, or the network's frames are not the preprocessing's.
    """
    check_frames(model, preprocessing)
    within = segment_frames(path, segment, path.stem)
    indices = preprocessing.sampling.for_testing(len(within), windows)[window]
    clip = read_clip(path, [within[index] for index in indices])
    return explain_clip(model, preprocessing, clip, class_names, clip_id=path.stem, label=label), clip


def check_frames(model: VideoNetwork, preprocessing: Preprocessing) -> None:
    """Make sure that a network reads as many frames as its preprocessing takes from a video.

    Raises:
        UserError: the numbers differ.
    """
    if preprocessing.sampling.frames != model.frames:
        raise UserError(
            f"preprocessing.sampling.frames: got {preprocessing.sampling.frames}, but the network reads {model.frames}"
            "; correct it in config.json"
        )


def explain_clip(
    model: VideoNetwork,
    preprocessing: Preprocessing,
    clip: Clip,
    class_names: Sequence[str],
    *,
    clip_id: str,
    label: int | None = None,
) -> Record:
    """The network's answer for sampled frames, with where and when it looked.

    Args:
        model: a network that shows attention, in evaluation mode.
        preprocessing: how frames are prepared for it.
        clip: T frames at the size of the source.
        class_names: K names.
        clip_id: what the record calls the clip.
        label: the true class, if known.
    """
    parameter = next(model.parameters())
    view = preprocessing.test_view(clip.frames)[None].to(parameter.device, parameter.dtype)
    with torch.inference_mode():
        output: Output = model(view)
    assert output.attention is not None
    assert output.attention_logits is not None
    return Record(
        clip_id=clip_id,
        path=clip.path,
        class_names=tuple(class_names),
        probabilities=_numbers(output.logits[0].softmax(0)),
        attention_probabilities=_numbers(output.attention_logits[0].softmax(0)),
        temporal=_numbers(output.attention.temporal[0]),
        spatial=_numbers(output.attention.spatial[0]),
        frame_indices=clip.frame_indices.numpy(),
        timestamps=clip.timestamps.numpy(),
        crop=preprocessing.crop_box(clip.frames.shape[2], clip.frames.shape[3]),
        label=label,
    )


def _numbers(value: torch.Tensor) -> np.ndarray:
    return value.float().cpu().numpy()


def distinct_file_names(videos: list[Path]) -> dict[str, Path]:
    """File names without suffix for the videos, numbered where two have the same name, and shortened where too long."""
    names: dict[str, Path] = {}
    for video in videos:
        stem = short_name(video.stem or video.resolve().stem)
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-copy{number}", number + 1
        names[name] = video
    return names


def write_record_files(stem: Path, record: Record, clip: Clip) -> None:
    """Write STEM.npz, .mp4, .png and last .json, each atomically."""
    record.save_arrays(stem.with_name(f"{stem.name}.npz"))
    write_explanation(stem.with_name(f"{stem.name}.mp4"), record, clip)
    with atomic_write(stem.with_name(f"{stem.name}.png")) as temporary:
        contact_sheet(record, clip).save(temporary)
    write_json(stem.with_name(f"{stem.name}.json"), record.as_json())
