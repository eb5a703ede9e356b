"""What this machine offers, and what could be installed on it."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import av
import torch

from stabn.data.video.backends import torchcodec_fault
from stabn.engine import device

CODECS = {"H.264": "h264", "H.265": "hevc", "VP9": "vp9", "AV1": "libdav1d", "MPEG-4": "mpeg4"}
"""What people call them, and FFmpeg's decoders."""
ENCODERS = {"H.264": "libx264", "VP9": "libvpx-vp9"}
"""What `stabn.data.video.clip.write_video` writes."""
EXTRAS = ("torchcodec", "ray", "pyarrow", "onnxruntime", "tensorboard", "mlflow", "wandb")
"""Libraries that some verbs use where they are installed."""
INSTALL = (
    "pip install torchcodec, in the version that its table of versions names for this torch, and FFmpeg's shared "
    "libraries (apt install ffmpeg, or conda install ffmpeg -c conda-forge)"
)


def inspect_machine() -> dict[str, Any]:
    """The facts.

    Returns:
        {"format": "stabn-doctor/1", "stabn", "python", "system", "cores": that this process may use,
         "torch": {"version", "cuda": version or None, "gpus": [{"name", "gib"}], "bf16": whether they compute in it,
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


def machine_report(found: Mapping[str, Any]) -> Iterator[str]:
    """The facts as lines."""
    cores = found["cores"]
    yield f"stabn {found['stabn']}, Python {found['python']}, {found['system']}, {cores} core{'s' * (cores > 1)}"
    on = found["torch"]
    cuda = f"built for CUDA {on['cuda']}" if on["cuda"] else "built without CUDA"
    yield f"torch {on['version']}, {cuda}, {on['threads']} threads"
    for gpu in on["gpus"]:
        yield f"GPU: {gpu['name']}, {gpu['gib']} GiB, {'with' if on['bf16'] else 'without'} bf16"
    if not on["gpus"]:
        yield "GPU: none that torch can use; training runs on the CPU"
    yield device.describe_settings(found["fast"])
    yield from (f"  {reason}" for reason in device.explain_settings(found["fast"]))
    decoding = found["decoding"]
    yield f"decoder: {decoding['used']}, because {decoding['why']}"
    if decoding["install"]:
        yield f"to add torchcodec, which seeks and is faster: {decoding['install']}"
    yield f"PyAV {decoding['pyav']} with FFmpeg {decoding['ffmpeg']} reads {_listed(decoding['codecs'])}"
    yield f"explanations and reports are written as {_listed(found['encoding'])}"
    extras = (f"{name} {number or 'not installed'}" for name, number in found["extras"].items())
    yield f"optional: {', '.join(extras)}"


def _listed(has: Mapping[str, bool]) -> str:
    return ", ".join(name if there else f"not {name}" for name, there in has.items())


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
