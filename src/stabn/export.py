"""Export of a network to one file for other programs, ONNX or torch.export, compared with the network before it stays.

Shape suffixes: b clips, t frames, s pixels.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from stabn.data.dataset import Sample
from stabn.data.segments import segment_frames
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import Reader
from stabn.errors import UserError
from stabn.files import atomic_write
from stabn.nn import STABN, Output, ResNet3D
from stabn.runs import Run, network_class_names, network_preprocessing

EXPORT_FORMAT = "stabn-export/1"
EXTRA_FILE = "stabn.json"
"""The extra file of a .pt2 that holds what an .onnx has as metadata."""
TOLERANCE = 1e-3
"""Largest allowed difference of an output, relative to its largest absolute value; absolute where that is below 1."""
CHECKED_CLIPS = 3

InputKind = Literal["float32", "uint8"]
INPUT_NAMES: dict[InputKind, str] = {"float32": "clips", "uint8": "frames"}
ONNX_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


class ExportableNetwork(nn.Module):
    """A network with named tensors as output: logits and, with attention, attention_logits and both attentions.

    Args:
        network: in evaluation mode; a copy is made if it is not float32.
        preprocessing: gives the normalisation.
        input_kind: float32 takes (B, 3, T, S, S), normalised; uint8 takes (B, T, S, S, 3), RGB, and normalises itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: STABN | ResNet3D, preprocessing: Preprocessing, input_kind: InputKind) -> None:
        super().__init__()
        is_float32 = all(p.dtype == torch.float32 for p in network.parameters())
        self.network = network if is_float32 else deepcopy(network).float()
        self.input_kind = input_kind
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1, 1), persistent=False)
        self.eval()

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """The outputs for B clips."""
        if self.input_kind == "uint8":
            clips = (clips.permute(0, 4, 1, 2, 3).float() / 255 - self.mean) / self.std
        return _named_outputs(self.network(clips))


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        file: the file.
        name: of the input.
        shape: of the input; the first is None where any number of clips is taken.
        outputs: by name the shape of one clip's row.
        differences: by name the largest absolute difference from the network's own output.
        checked_on: the clips of this comparison, for a person.
    """

    file: Path
    name: str
    shape: tuple[int | None, ...]
    outputs: Mapping[str, tuple[int, ...]]
    differences: Mapping[str, float]
    checked_on: str


def check_export(out: Path, batch: int | None) -> None:
    """Check the options of an export before any work.

    Raises:
        UserError: the file has another ending than .onnx or .pt2, `batch` is below 1, or a library for ONNX is not
            installed.
    """
    if out.suffix.lower() not in (".onnx", ".pt2"):
        raise UserError(f"--out: got {out}, expected a file that ends in .onnx or .pt2")
    if batch is not None and batch < 1:
        raise UserError(f"--batch: got {batch}, expected dynamic or a number of clips from 1")
    missing = [name for name in ONNX_LIBRARIES if find_spec(name) is None]
    if out.suffix.lower() == ".onnx" and missing:
        raise UserError(
            f"--out: got {out}, but {missing[0]} is not installed; pip install 'stabn[export]', or give a file that "
            "ends in .pt2"
        )


def export(
    model: STABN | ResNet3D,
    out: Path,
    *,
    source: str,
    input_kind: InputKind = "float32",
    batch: int | None = None,
    run: Run | None = None,
) -> ExportResult:
    """Write a network as ONNX or torch.export file, and compare the file's outputs with the network's own.

    Class names and preprocessing are in the file: in the metadata of an ONNX model, or in the extra file stabn.json of
    a torch.export archive.

    Args:
        model: in evaluation mode.
        out: ends in .onnx or .pt2.
        source: the network's folder, for messages.
        input_kind: of the exported network, see `ExportableNetwork`.
        batch: clips per call; None for any number.
        run: whose clips are compared; without one, or if its videos cannot be read, they are random.

    Raises:
        UserError: as `check_export`; the network has no preprocessing; or the file's outputs differ from the network's,
            and then there is no file.
    """
    check_export(out, batch)
    preprocessing = network_preprocessing(model, source)
    if preprocessing.sampling.frames != model.frames:
        raise UserError(
            f"{source}/config.json, preprocessing: has {preprocessing.sampling.frames} frames, but the network reads "
            f"{model.frames}; correct it there"
        )
    exportable = ExportableNetwork(model, preprocessing, input_kind)
    pictures, checked_on = _pictures(run, preprocessing)
    # Two clips, because torch.export takes a dimension of size 1 for a constant.
    example = _to_input(pictures[[0] * (batch or 2)], preprocessing, input_kind)
    metadata = _metadata(model, preprocessing, input_kind)
    with atomic_write(out) as temporary:
        write = _write_onnx if out.suffix.lower() == ".onnx" else _write_pt2
        write(exportable, example, temporary, metadata, dynamic=batch is None)
        outputs, differences = _compare(model, _load(temporary), pictures, preprocessing, input_kind, batch)
    return ExportResult(out, INPUT_NAMES[input_kind], (batch, *example.shape[1:]), outputs, differences, checked_on)


def _metadata(model: STABN | ResNet3D, preprocessing: Preprocessing, input_kind: InputKind) -> dict[str, Any]:
    config = {name: value for name, value in model.config().items() if name not in ("format", "dropout")}
    return {
        "format": EXPORT_FORMAT,
        "stabn_version": version("stabn"),
        **config,
        "class_names": list(network_class_names(model)),
        "preprocessing": preprocessing.as_json(),
        "input": input_kind,
    }


def _write_pt2(
    exportable: ExportableNetwork, example: Tensor, path: Path, metadata: Mapping[str, Any], *, dynamic: bool
) -> None:
    shapes = {"clips": {0: torch.export.Dim("batch")}} if dynamic else None
    with torch.no_grad():
        program = torch.export.export(exportable, (example,), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(metadata, ensure_ascii=False)})


def _write_onnx(
    exportable: ExportableNetwork, example: Tensor, path: Path, metadata: Mapping[str, Any], *, dynamic: bool
) -> None:
    with torch.no_grad():
        program = torch.onnx.export(
            exportable,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT_NAMES[exportable.input_kind]],
            output_names=list(exportable(example)),
            dynamic_shapes={"clips": {0: "batch"}} if dynamic else None,
        )
    assert program is not None
    for name, value in metadata.items():
        program.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    program.save(path, external_data=False)


def _load(path: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """The network of a file, as another program runs it."""
    if path.suffix.lower() == ".onnx":
        import onnxruntime  # an optional dependency, for ONNX alone

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        input_name, names = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]

        def run_session(clips: Tensor) -> dict[str, Tensor]:
            values = session.run(names, {input_name: clips.numpy()})
            return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

        return run_session
    return torch.inference_mode()(torch.export.load(path).module())


def _compare(
    model: STABN | ResNet3D,
    exported: Callable[[Tensor], dict[str, Tensor]],
    pictures: UInt8[Tensor, "n t s s 3"],
    preprocessing: Preprocessing,
    input_kind: InputKind,
    batch: int | None,
) -> tuple[dict[str, tuple[int, ...]], dict[str, float]]:
    """By output, the shape of a row and the largest difference; if any batch size is taken, of several sizes.

    Raises:
        UserError: a difference is too large.
    """
    parameter = next(model.parameters())
    with torch.inference_mode():
        clip_bcthw = _to_input(pictures, preprocessing, "float32").to(parameter.device, parameter.dtype)
        expected = {name: value.cpu().double() for name, value in _named_outputs(model(clip_bcthw)).items()}
    differences = dict.fromkeys(expected, 0.0)
    for rows in _batches(len(pictures), batch):
        outputs = exported(_to_input(pictures[rows], preprocessing, input_kind))
        for name, all_rows in expected.items():
            got, right = outputs[name].double(), all_rows[rows]
            if got.shape != right.shape:
                raise UserError(f"{name}: got shape {tuple(got.shape)}, expected {tuple(right.shape)}; {_NO_FILE}")
            difference = float((got - right).abs().max())
            # The condition is also true for NaN.
            if not difference <= TOLERANCE * max(1.0, float(right.abs().max())):
                raise UserError(f"{name}: got values up to {difference:.2g} from the network's own; {_NO_FILE}")
            differences[name] = max(differences[name], difference)
    return {name: tuple(value.shape[1:]) for name, value in expected.items()}, differences


_NO_FILE = "no file was written; try the other format, or another version of onnxruntime or torch"


def _batches(count: int, batch: int | None) -> list[list[int]]:
    """The rows of each call: batches of the fixed size, or each clip alone and all of them."""
    if batch is not None:
        return [[row % count for row in range(start, start + batch)] for start in range(0, count, batch)]
    return [*([row] for row in range(count)), list(range(count))]


def _named_outputs(output: Output) -> dict[str, Tensor]:
    """A network's output under the exported names."""
    outputs = {"logits": output.logits}
    if output.attention_logits is not None:
        outputs["attention_logits"] = output.attention_logits
    if output.attention is not None:
        outputs["temporal_attention"] = output.attention.temporal
        outputs["spatial_attention"] = output.attention.spatial
    return outputs


def _to_input(pictures: UInt8[Tensor, "b t s s 3"], preprocessing: Preprocessing, input_kind: InputKind) -> Tensor:
    """Convert frames to the input of the exported network."""
    if input_kind == "uint8":
        return pictures.contiguous()
    return torch.stack([preprocessing.normalised(clip.permute(0, 3, 1, 2)) for clip in pictures])


def _pictures(run: Run | None, preprocessing: Preprocessing) -> tuple[UInt8[Tensor, "n t s s 3"], str]:
    """A few clips before normalisation, and their description."""
    if run is not None:
        try:
            samples = run.source.table().samples[:CHECKED_CLIPS]
            with closing(Reader()) as reader:
                real = [_picture(sample, preprocessing, reader) for sample in samples]
            return torch.stack(real), f"{len(real)} clips of {run.source.annotations}"
        except UserError:
            pass  # the data may be on another machine
    shape = (CHECKED_CLIPS, preprocessing.sampling.frames, preprocessing.crop, preprocessing.crop, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(pixels), f"{CHECKED_CLIPS} random clips"


def _picture(sample: Sample, preprocessing: Preprocessing, reader: Reader) -> UInt8[Tensor, "t s s 3"]:
    """The central window of a clip, before normalisation."""
    within = segment_frames(sample.path, sample.segment, sample.clip_id, reader.probe)
    indices = preprocessing.sampling.for_testing(len(within))[0]
    resized = preprocessing.resized(reader.read_clip(sample.path, [within[index] for index in indices]).frames)
    return preprocessing.centre_square(resized).permute(0, 2, 3, 1).contiguous()
