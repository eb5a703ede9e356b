"""A network as one file for other programs: ONNX, or torch.export, checked against the original before it is kept.

Shape suffixes: b clips, t frames, s pixels, k classes, h and w cells of the features.
"""

import json
from collections.abc import Callable, Iterator, Mapping
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
from stabn.data.segments import frames_of
from stabn.data.transforms import Preprocessing
from stabn.data.video.reader import Reader
from stabn.errors import UserError
from stabn.files import replacing
from stabn.nn import STABN, Output, ResNet3D
from stabn.runs import Run, class_names_of, preprocessing_of

EXPORT_FORMAT = "stabn-export/1"
EXTRA_FILE = "stabn.json"
"""The extra file of a .pt2 that holds what an .onnx has as metadata."""
TOLERANCE = 1e-3
"""How far an output may be off, as a share of its largest absolute value, or absolutely where that is below 1."""
CHECKED_CLIPS = 3

Input = Literal["float32", "uint8"]
NAMES: dict[Input, str] = {"float32": "clips", "uint8": "frames"}
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class Deployed(nn.Module):
    """A network that answers with named tensors: logits and, with attention, attention_logits and both attentions.

    Args:
        network: in evaluation mode; made float32 in a copy where it is not.
        preprocessing: gives the normalisation.
        wanted: float32 takes (B, 3, T, S, S), normalised; uint8 takes (B, T, S, S, 3), RGB, and normalises by itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: STABN | ResNet3D, preprocessing: Preprocessing, wanted: Input) -> None:
        super().__init__()
        plain = all(p.dtype == torch.float32 for p in network.parameters())
        self.network = network if plain else deepcopy(network).float()
        self.wanted = wanted
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1, 1), persistent=False)
        self.eval()

    def forward(self, given: Tensor) -> dict[str, Tensor]:
        """The answers for B clips."""
        clip_bcthw = given
        if self.wanted == "uint8":
            clip_bcthw = (given.permute(0, 4, 1, 2, 3).float() / 255 - self.mean) / self.std
        features_bcthw = self.network.encode(clip_bcthw)
        if not isinstance(self.network, STABN):
            return {"logits": self.network.classify(features_bcthw)}
        attention, attention_logits_bk = self.network.attend(features_bcthw)
        return {
            "logits": self.network.perceive(features_bcthw, attention),
            "attention_logits": attention_logits_bk,
            "temporal_attention": attention.temporal,
            "spatial_attention": attention.spatial,
        }


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        file: where.
        name: of the input.
        shape: of the input; the first is None where any number of clips is taken.
        outputs: by name the shape of one clip's row.
        differences: by name the largest absolute difference from the original's output.
        checked_on: the clips that the two were compared on.
    """

    file: Path
    name: str
    shape: tuple[int | None, ...]
    outputs: Mapping[str, tuple[int, ...]]
    differences: Mapping[str, float]
    checked_on: str


def check_export(out: Path, batch: int | None) -> None:
    """Find out before the work whether it can be done.

    Raises:
        UserError: the file's name says no known format, the batch is none, or a library for ONNX is not installed.
    """
    if out.suffix.lower() not in (".onnx", ".pt2"):
        raise UserError(f"--out: got {out}, expected a file that ends in .onnx or .pt2")
    if batch is not None and batch < 1:
        raise UserError(f"--batch: got {batch}, expected dynamic or a number of clips from 1")
    missing = [name for name in NEEDED if find_spec(name) is None]
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
    wanted: Input = "float32",
    batch: int | None = None,
    run: Run | None = None,
) -> Exported:
    """Write a network for programs that do not know this one, and compare what they get with what it answers itself.

    Names of classes and how clips are prepared travel in the file: in the metadata of an ONNX model, or in the extra
    file stabn.json of a torch.export archive.

    Args:
        model: in evaluation mode.
        out: ends in .onnx or .pt2.
        source: where the network is from, for messages.
        wanted: what the exported network takes, see `Deployed`.
        batch: clips per call; None for any number.
        run: gives real clips to compare on; where there is none, or its videos cannot be read, they are random.

    Raises:
        UserError: as `check_export`; the network does not say how clips are prepared; or the file's answers are not
            the network's, and then there is no file.
    """
    check_export(out, batch)
    preprocessing = preprocessing_of(model, source)
    if preprocessing.sampling.frames != model.frames:
        raise UserError(
            f"{source}/config.json, preprocessing: has {preprocessing.sampling.frames} frames, but the network reads "
            f"{model.frames}; correct it there"
        )
    deployed = Deployed(model, preprocessing, wanted)
    pictures, checked_on = _pictures(run, preprocessing)
    # Of two clips: what torch.export sees of one, it takes for a number that never changes.
    example = _given(pictures[[0] * (batch or 2)], preprocessing, wanted)
    with replacing(out) as temporary:
        write = _write_onnx if out.suffix.lower() == ".onnx" else _write_pt2
        write(deployed, example, temporary, _about(model, preprocessing, wanted), dynamic=batch is None)
        answer = _opened(temporary)
        rows, differences = _compared(model, answer, pictures, preprocessing, wanted, batch)
    return Exported(out, NAMES[wanted], (batch, *example.shape[1:]), rows, differences, checked_on)


def _about(model: STABN | ResNet3D, preprocessing: Preprocessing, wanted: Input) -> dict[str, Any]:
    """What whoever uses the file has to know."""
    config = {name: value for name, value in model.config().items() if name not in ("format", "dropout")}
    return {
        "format": EXPORT_FORMAT,
        "stabn_version": version("stabn"),
        **config,
        "class_names": list(class_names_of(model)),
        "preprocessing": preprocessing.as_json(),
        "input": wanted,
    }


def _write_pt2(deployed: Deployed, example: Tensor, path: Path, about: Mapping[str, Any], *, dynamic: bool) -> None:
    shapes = {"given": {0: torch.export.Dim("batch")}} if dynamic else None
    with torch.no_grad():
        program = torch.export.export(deployed, (example,), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(about, ensure_ascii=False)})


def _write_onnx(deployed: Deployed, example: Tensor, path: Path, about: Mapping[str, Any], *, dynamic: bool) -> None:
    with torch.no_grad():
        outputs = list(deployed(example))
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[NAMES[deployed.wanted]],
            output_names=outputs,
            dynamic_shapes={"given": {0: "batch"}} if dynamic else None,
        )
    assert program is not None
    for name, value in about.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        program.model.metadata_props[name] = text
    program.save(path, external_data=False)


Answer = Callable[[Tensor], dict[str, Tensor]]


def _opened(path: Path) -> Answer:
    """The file as another program sees it."""
    if path.suffix.lower() == ".onnx":
        import onnxruntime  # an extra that exporting to ONNX alone needs

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        given, names = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]

        def run(batch: Tensor) -> dict[str, Tensor]:
            values = session.run(names, {given: batch.numpy()})
            return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

        return run
    network = torch.export.load(path).module()

    def call(batch: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            answers: dict[str, Tensor] = network(batch)
        return answers

    return call


def _compared(
    model: STABN | ResNet3D,
    answer: Answer,
    pictures: UInt8[Tensor, "n t s s 3"],
    preprocessing: Preprocessing,
    wanted: Input,
    batch: int | None,
) -> tuple[dict[str, tuple[int, ...]], dict[str, float]]:
    """By output, the shape of a row and the largest difference; for any batch, alone and together.

    Raises:
        UserError: one is too large.
    """
    original = _outputs(model, _given(pictures, preprocessing, "float32"))
    differences = dict.fromkeys(original, 0.0)
    for rows in _batches(len(pictures), batch):
        answered = answer(_given(pictures[rows], preprocessing, wanted))
        for name, expected in original.items():
            got, right = answered[name].double(), expected[rows].double()
            if got.shape != right.shape:
                raise UserError(f"{name}: has shape {tuple(got.shape)}, expected {tuple(right.shape)}; {_UNFIT}")
            difference = float((got - right).abs().max())
            # Written so that NaN is refused, too.
            if not difference <= TOLERANCE * max(1.0, float(right.abs().max())):
                raise UserError(f"{name}: differs by {difference:.2g} from the network's own; {_UNFIT}")
            differences[name] = max(differences[name], difference)
    return {name: tuple(value.shape[1:]) for name, value in original.items()}, differences


_UNFIT = "no file was written; try the other format, or another version of onnxruntime or torch"


def _batches(count: int, batch: int | None) -> Iterator[list[int]]:
    """Rows that are asked together: all of them in batches of the one size, or alone and all at once."""
    if batch is not None:
        yield from ([row % count for row in range(start, start + batch)] for start in range(0, count, batch))
        return
    yield from ([row] for row in range(count))
    yield list(range(count))


def _outputs(model: STABN | ResNet3D, clip_bcthw: Tensor) -> dict[str, Tensor]:
    """What the network itself answers, under the exported names."""
    parameter = next(model.parameters())
    with torch.inference_mode():
        output: Output = model(clip_bcthw.to(parameter.device, parameter.dtype))
    named = {"logits": output.logits, "attention_logits": output.attention_logits}
    if output.attention is not None:
        named |= {"temporal_attention": output.attention.temporal, "spatial_attention": output.attention.spatial}
    return {name: value.cpu() for name, value in named.items() if value is not None}


def _given(pictures: UInt8[Tensor, "b t s s 3"], preprocessing: Preprocessing, wanted: Input) -> Tensor:
    """Pictures as the exported network takes them."""
    if wanted == "uint8":
        return pictures.contiguous()
    return torch.stack([preprocessing.normalised(clip.permute(0, 3, 1, 2)) for clip in pictures])


def _pictures(run: Run | None, preprocessing: Preprocessing) -> tuple[UInt8[Tensor, "n t s s 3"], str]:
    """A few clips before normalisation, and what they are."""
    if run is not None:
        try:
            samples = run.source.table().samples[:CHECKED_CLIPS]
            with closing(Reader()) as reader:
                real = [_picture(sample, preprocessing, reader) for sample in samples]
            return torch.stack(real), f"{len(real)} clips of {run.source.annotations}"
        except UserError:
            pass  # the data may lie on another machine
    shape = (CHECKED_CLIPS, preprocessing.sampling.frames, preprocessing.crop, preprocessing.crop, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(pixels), f"{CHECKED_CLIPS} random clips"


def _picture(sample: Sample, preprocessing: Preprocessing, reader: Reader) -> UInt8[Tensor, "t s s 3"]:
    """What the network sees of a clip when it is tested, before normalisation."""
    within = frames_of(sample.path, sample.segment, sample.clip_id, reader.probe)
    indices = preprocessing.sampling.for_testing(len(within))[0]
    resized = preprocessing.resized(reader.read_clip(sample.path, [within[index] for index in indices]).frames)
    return preprocessing.centre_square(resized).permute(0, 2, 3, 1).contiguous()
