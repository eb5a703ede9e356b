"""What `stabn doctor` says: devices, libraries and codecs of this machine, and what could be installed."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import av
import torch

from stabn.data.video.backends import torchcodec_fault
from stabn.engine import device

CODECS = {"H.264": "h264", "H.265": "hevc", "VP9": "vp9", "AV1": "libdav1d", "MPEG-4": "mpeg4"}
"""Common name -> FFmpeg's decoder."""
ENCODERS = {"H.264": "libx264", "VP9": "libvpx-vp9"}
"""Common name -> FFmpeg's encoder, as far as `stabn.data.video.clip.write_video` needs them."""
EXTRAS = ("torchcodec", "ray", "pyarrow", "onnxruntime", "tensorboard", "mlflow", "wandb")
"""Optional dependencies."""
INSTALL = (
    "pip install torchcodec, in the version that its table of versions names for this torch, and FFmpeg's shared "
    "libraries (apt install ffmpeg, or conda install ffmpeg -c conda-forge)"
)


def inspect_machine() -> dict[str, Any]:
    """Versions, devices, decoders and encoders of this machine.

    Returns:
        {"format": "stabn-doctor/1", "stabn", "python", "system", "cores": number that this process may use,
         "torch": {"version", "cuda": version or None, "gpus": [{"name", "gib"}], "bf16": whether they are native in it,
         "threads"},
         "fast": as `stabn.engine.device.compute_settings`,
         "decoding": {"used": pyav or torchcodec, "why", "install": what would add torchcodec or None, "pyav", "ffmpeg",
         "codecs": {name: bool}},
         "encoding": {name: bool}, "extras": {name: version or None}}.
    """
    fault = torchcodec_fault()
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "format": "stabn-doctor/1",
        "stabn": _version("stabn"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": device.core_count(),
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "gpus": [
                {"name": torch.cuda.get_device_name(i), "gib": _gib(torch.cuda.get_device_properties(i).total_memory)}
                for i in gpus
            ],
            "bf16": len(gpus) > 0 and device.bf16_is_faster(torch.device("cuda")),
            "threads": torch.get_num_threads(),
        },
        "fast": device.compute_settings(),
        "decoding": {
            "used": "pyav" if fault else "torchcodec",
            "why": fault or "torchcodec loads; files that PyAV has read once without a complaint are read by it",
            "install": INSTALL if fault else None,
            "pyav": _version("av"),
            "ffmpeg": av.ffmpeg_version_info,
            "codecs": {name: _has(codec, "r") for name, codec in CODECS.items()},
        },
        "encoding": {name: _has(codec, "w") for name, codec in ENCODERS.items()},
        "extras": {name: _version(name) for name in EXTRAS},
    }


def machine_report(machine: Mapping[str, Any]) -> Iterator[str]:
    """The lines of `stabn doctor` for what `inspect_machine` returned."""
    cores, torch_build, decoding = machine["cores"], machine["torch"], machine["decoding"]
    yield f"stabn {machine['stabn']}, Python {machine['python']}, {machine['system']}, {cores} core{'s' * (cores > 1)}"
    cuda = f"built for CUDA {torch_build['cuda']}" if torch_build["cuda"] else "built without CUDA"
    yield f"torch {torch_build['version']}, {cuda}, {torch_build['threads']} threads"
    for gpu in torch_build["gpus"]:
        yield f"GPU: {gpu['name']}, {gpu['gib']} GiB, {'with' if torch_build['bf16'] else 'without'} bf16"
    if not torch_build["gpus"]:
        yield "GPU: none that torch can use; training runs on the CPU"
    yield device.describe_settings(machine["fast"])
    yield from (f"  {line}" for line in device.explain_settings(machine["fast"]))
    yield f"decoder: {decoding['used']}, because {decoding['why']}"
    if decoding["install"]:
        yield f"to add torchcodec, which seeks and is faster: {decoding['install']}"
    yield f"PyAV {decoding['pyav']} with FFmpeg {decoding['ffmpeg']} reads {_listed(decoding['codecs'])}"
    yield f"explanations and reports are written as {_listed(machine['encoding'])}"
    yield "optional: " + ", ".join(f"{name} {number or 'not installed'}" for name, number in machine["extras"].items())


def _listed(availability: Mapping[str, bool]) -> str:
    return ", ".join(name if available else f"not {name}" for name, available in availability.items())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _has(codec: str, mode: Any) -> bool:
    try:
        av.Codec(codec, mode)
    except ValueError:  # PyAV's error for unknown codecs
        return False
    return True


def _gib(size: int) -> float:
    return round(size / 2**30, 1)
