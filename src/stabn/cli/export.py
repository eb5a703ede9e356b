"""The verbs for other programs: export writes a network for them, import-official reads one of the official code."""

from pathlib import Path
from typing import Any, Literal

from stabn.cli.printing import print_export
from stabn.data.annotations.class_names import read_class_names
from stabn.data.sampling import Sampling
from stabn.data.transforms import Preprocessing
from stabn.errors import UserError
from stabn.export import InputKind, export
from stabn.nn import VideoNetwork, import_official, import_recogniser, load_pretrained
from stabn.runs import open_run


def export_command(
    run: Path, out: Path, input: InputKind = "float32", batch: Literal["dynamic"] | int = "dynamic"
) -> dict[str, Any]:
    """Write a run's network as one file for other programs, and compare its outputs with the network's own.

    FILE.onnx is for ONNX Runtime and others, FILE.pt2 for PyTorch (torch.export). Both give logits, and for a network
    with attention also attention_logits, temporal_attention and spatial_attention; class names and preprocessing are
    stored in the file. docs/export.md has a program that uses one.

    Args:
        run: a run, or any folder with config.json and model.safetensors.
        out: the file to write; ends in .onnx or .pt2.
        input: float32 for normalised clips (B, 3, T, H, W), or uint8 for RGB frames (B, T, H, W, 3), which the file
            normalises itself.
        batch: clips per call; dynamic for any number.
    """
    opened = open_run(run) if (run / "run.json").exists() else None
    clips = None if batch == "dynamic" else batch
    report = export(load_pretrained(run), out, source=str(run), input_kind=input, batch=clips, run=opened)
    print_export(report)
    return report


def import_official_command(
    checkpoint: Path,
    folder: Path,
    class_names: Path | None = None,
    sampling: Sampling | None = None,
    resize: int = 256,
    crop: int = 224,
    bgr: bool = False,
    frames: int | None = None,
) -> dict[str, Any]:
    """Convert a checkpoint of the official code of ST-ABN or of a recogniser that it is compared with into a folder.

    Network and classes, and where the shapes tell them frames, are read from the tensors. The checkpoint does not say
    how videos were prepared: the options do, with the published values as defaults.

    Args:
        checkpoint: a file that the official code's training wrote; nothing in it is executed.
        folder: the new folder, for `stabn explain` and `STABN.from_pretrained`.
        class_names: something-something-v2-labels.json, or a JSON list of names in the order of the outputs.
        sampling: which frames of a video, as many as the checkpoint reads; by default consecutive ones for ST-ABN, and
            those of segments for other recognisers.
        resize: shorter side in pixels.
        crop: side of the square view in pixels.
        bgr: the checkpoint was trained on frames in BGR order, as the official code reads them; swaps the input
            channels of the first layer, so that RGB frames give the same answer. Other recognisers know their order.
        frames: per clip, for recognisers whose tensors do not tell; by default as published.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty; choose another folder")
    names = None if class_names is None else read_class_names(class_names)
    model: VideoNetwork | None = import_recogniser(checkpoint, frames=frames, class_names=names)
    if model is None:
        model = import_official(checkpoint, class_names=names, bgr=bgr)
        default = Sampling("dense", model.frames)
    elif bgr:
        raise UserError(f"--bgr: got true, but {model.architecture} knows the order of its colours; leave it out")
    else:
        default = Sampling("segments", model.frames, snippet=model.backbone.format.snippet)
    if (sampling or default).frames != model.frames or frames not in (None, model.frames):
        got = frames if sampling is None else sampling.frames
        raise UserError(f"--sampling.frames: got {got}, but {checkpoint} reads {model.frames} frames")
    wanted = model.backbone.format
    model.preprocessing = Preprocessing(
        sampling or default, resize=resize, crop=crop, mean=wanted.mean, std=wanted.std
    ).as_json()
    model.save_pretrained(folder)
    print(f"{folder}: {model.architecture}, {model.num_classes} classes, {model.frames} frames")
    return {
        "folder": str(folder),
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "frames": model.frames,
    }
