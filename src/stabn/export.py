"""Export of a network to one file for other programs, ONNX or torch.export, compared with the network before it stays.

Shape suffixes: b clips, t frames, s pixels.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from copy import deepcopy
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from stabn.data.dataset import VideoDataset
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import Reader
from stabn.errors import UserError
from stabn.files import atomic_write
from stabn.nn import Output, VideoNetwork
from stabn.nn.state_dict import first_line_of
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

    def __init__(self, network: VideoNetwork, preprocessing: Preprocessing, input_kind: InputKind) -> None:
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


def export(
    model: VideoNetwork,
    out: Path,
    *,
    source: str,
    input_kind: InputKind = "float32",
    batch: int | None = None,
    run: Run | None = None,
) -> dict[str, Any]:
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

    Returns:
        {"format", "file", "input": {"name", "type", "shape"}, "outputs": [{"name", "shape", "largest_difference"}],
        "compared_on"}: a shape begins with None where any number of clips is taken; differences from the network's own
        output are absolute; "compared_on" says for a person which clips were compared.

    Raises:
        UserError: the file has another ending, `batch` is below 1, a library for ONNX is not installed, the network
            has no preprocessing, or PyTorch cannot export it in this format; or the file's outputs differ from the
            network's. Then there is no file.
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
    preprocessing = network_preprocessing(model, source)
    if preprocessing.sampling.frames != model.frames:
        raise UserError(
            f"{source}/config.json, preprocessing: has {preprocessing.sampling.frames} frames, but the network reads "
            f"{model.frames}; correct it there"
        )
    exportable = ExportableNetwork(model, preprocessing, input_kind)
    pixels, compared_on = _pixels(run, preprocessing)
    # Two clips, because torch.export takes a dimension of size 1 for a constant.
    example = _to_input(pixels[[0] * (batch or 2)], preprocessing, input_kind)
    metadata = {
        "format": EXPORT_FORMAT,
        "stabn_version": version("stabn"),
        **{name: value for name, value in model.config().items() if name not in ("format", "dropout")},
        "class_names": list(network_class_names(model)),
        "preprocessing": preprocessing.as_json(),
        "input": input_kind,
    }
    with atomic_write(out) as temporary:
        try:
            _write(exportable, example, temporary, metadata, dynamic=batch is None)
        except OSError:
            raise
        except Exception as error:  # the exporters have dozens of classes of errors
            raise UserError(
                f"--out: {model.architecture} cannot be exported as {out.suffix} ({type(error).__name__}: "
                f"{first_line_of(error)}); {_NO_FILE}"
            ) from error
        outputs = _compare(model, _load(temporary), pixels, preprocessing, input_kind, batch)
    shape = [batch, *example.shape[1:]]
    return {
        "format": EXPORT_FORMAT,
        "file": str(out),
        "input": {"name": INPUT_NAMES[input_kind], "type": input_kind, "shape": shape},
        "outputs": outputs,
        "compared_on": compared_on,
    }


def _write(
    exportable: ExportableNetwork, example: Tensor, path: Path, metadata: Mapping[str, Any], *, dynamic: bool
) -> None:
    if path.suffix.lower() == ".pt2":
        shapes = {"clips": {0: torch.export.Dim("batch")}} if dynamic else None
        with torch.no_grad():
            program = torch.export.export(exportable, (example,), dynamic_shapes=shapes)
        torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(metadata, ensure_ascii=False)})
        return
    with torch.no_grad():
        onnx_program = torch.onnx.export(
            exportable,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT_NAMES[exportable.input_kind]],
            output_names=list(exportable(example)),
            dynamic_shapes={"clips": {0: "batch"}} if dynamic else None,
        )
    assert onnx_program is not None
    properties = onnx_program.model.metadata_props
    for name, value in metadata.items():
        properties[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    onnx_program.save(path, external_data=False)


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
    model: VideoNetwork,
    exported: Callable[[Tensor], dict[str, Tensor]],
    pixels: UInt8[Tensor, "n 3 t s s"],
    preprocessing: Preprocessing,
    input_kind: InputKind,
    batch: int | None,
) -> list[dict[str, Any]]:
    """Each output's shape and largest difference; if any batch size is taken, of each clip alone and of all."""
    parameter = next(model.parameters())
    with torch.inference_mode():
        clip_bcthw = preprocessing.network_clips(pixels).to(parameter.device, parameter.dtype)
        expected = {name: value.cpu().double() for name, value in _named_outputs(model(clip_bcthw)).items()}
    differences = dict.fromkeys(expected, 0.0)
    count = len(pixels)
    calls = [*([row] for row in range(count)), list(range(count))]
    if batch is not None:
        calls = [[row % count for row in range(start, start + batch)] for start in range(0, count, batch)]
    for rows in calls:
        outputs = exported(_to_input(pixels[rows], preprocessing, input_kind))
        for name, all_rows in expected.items():
            got, right = outputs[name].double(), all_rows[rows]
            if got.shape != right.shape:
                raise UserError(f"{name}: got shape {tuple(got.shape)}, expected {tuple(right.shape)}; {_NO_FILE}")
            difference = float((got - right).abs().max())
            # The condition is also true for NaN.
            if not difference <= TOLERANCE * max(1.0, float(right.abs().max())):
                raise UserError(f"{name}: got values up to {difference:.2g} from the network's own; {_NO_FILE}")
            differences[name] = max(differences[name], difference)
    return [
        {"name": name, "shape": [batch, *value.shape[1:]], "largest_difference": differences[name]}
        for name, value in expected.items()
    ]


_NO_FILE = "no file was written; try the other format, or another version of onnxruntime or torch"


def _named_outputs(output: Output) -> dict[str, Tensor]:
    """A network's output under the exported names."""
    outputs = {"logits": output.logits}
    if output.attention_logits is not None:
        outputs["attention_logits"] = output.attention_logits
    if output.attention is not None:
        outputs["temporal_attention"] = output.attention.temporal
        outputs["spatial_attention"] = output.attention.spatial
    return outputs


def _to_input(pixels: UInt8[Tensor, "b 3 t s s"], preprocessing: Preprocessing, input_kind: InputKind) -> Tensor:
    """Convert RGB clips to the input of the exported network."""
    if input_kind == "uint8":
        return pixels.permute(0, 2, 3, 4, 1).contiguous()
    return preprocessing.network_clips(pixels)


def _pixels(run: Run | None, preprocessing: Preprocessing) -> tuple[UInt8[Tensor, "n 3 t s s"], str]:
    """The central windows of a few clips before normalisation, and their description."""
    if run is not None:
        try:
            table = run.source.table()
            dataset = VideoDataset(table.samples[:CHECKED_CLIPS], preprocessing, class_names=table.class_names)
            with closing(Reader()) as reader:
                dataset = dataset.with_reader(reader)
                real = [dataset[index].pixels for index in range(len(dataset))]
            return torch.cat(real), f"{len(real)} clips of {run.source.annotations}"
        except UserError:
            pass  # the data may be on another machine
    shape = (CHECKED_CLIPS, 3, preprocessing.sampling.frames, preprocessing.crop, preprocessing.crop)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(pixels), f"{CHECKED_CLIPS} random clips"
