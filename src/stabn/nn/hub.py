"""Networks as folders, on the disk and on the Hugging Face hub.

config.json         what to build: {"format": "stabn-model/1", "kind": ..., the constructor's arguments}
model.safetensors   every tensor, by name

`huggingface_hub.PyTorchModelHubMixin` is not enough: it overwrites a folder file by file, so that an interrupted save
leaves a damaged one, and its errors do not name the file and the field.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors.torch import save_file
from torch import Tensor, nn

from stabn.errors import UserError
from stabn.files import atomic_write, read_json, write_json
from stabn.nn.state_dict import CONTAINERS, check_tensors, first_line_of, read_tensors, unwrap

# Not typing.Self, which beartype refuses on the methods that the tests check one by one.
Network = TypeVar("Network", bound="PretrainedNetwork")
Triple = tuple[float, float, float]

FORMAT = "stabn-model/1"
CONFIG, WEIGHTS = "config.json", "model.safetensors"

_ARGUMENTS: dict[str, Any] = {
    "architecture": str,
    "num_classes": int,
    "frames": int,
    "dropout": float | int,
    "class_names": list | None,
    "preprocessing": dict | None,
}
_OPTIONAL: dict[str, Any] = {"backbone_options": dict}
_SAVE_AGAIN = "save the network again with save_pretrained"
_ATTENTION = (
    "layer_att_common.",
    "conv_att_common.",
    "conv_att_out.",
    "fc_att_out.",
    "conv_spatial_att.",
    "conv_temp_att",
    "conv_att_mechanism.",
)
"""How the names of ST-ABN's own tensors begin, in our files and in those of the official code."""
_CARD = """---
{{ card_data }}
---

A video recognition network of [ST-ABN]({{ paper_url }}): it says when and where it looked.

    from stabn.nn import load_pretrained

    model = load_pretrained("this-folder")
"""


def read_config(folder: Path | str) -> tuple[str, dict[str, Any]]:
    """The kind of network in a folder and the arguments that build it, of the right types.

    Raises:
        UserError: config.json is missing or damaged, or a field is missing, of another type, or unknown.
    """
    path = Path(folder) / CONFIG
    remedy = f"expected the folder of a network that save_pretrained wrote completely, with {CONFIG} and {WEIGHTS}"
    fields = read_json(path, remedy=remedy)
    file_format = fields.get("format") if isinstance(fields, dict) else fields
    if file_format != FORMAT:
        raise UserError(f"{path}: format: got {file_format!r}, expected {FORMAT!r}; {_SAVE_AGAIN}")
    kind = fields.get("kind")
    if not isinstance(kind, str):
        raise UserError(f"{path}: kind: got {kind!r}, expected a string; {_SAVE_AGAIN}")
    arguments = {name: value for name, value in fields.items() if name not in ("format", "kind")}
    types = _ARGUMENTS | _OPTIONAL | ({"mechanism": str} if kind == "stabn" else {})
    kind = "plain" if kind == "resnet3d" else kind  # its name while there was one family of base networks
    for name in [*_ARGUMENTS, *arguments]:
        if name not in arguments or name not in types:
            raise UserError(f"{path}: {name}: {'unknown' if name in arguments else 'missing'} field; {_SAVE_AGAIN}")
        value, expected = arguments[name], types[name]
        if not isinstance(value, expected) or isinstance(value, bool):
            expected = getattr(expected, "__name__", expected)
            raise UserError(f"{path}: {name}: got {value!r}, expected {expected}; {_SAVE_AGAIN}")
    if not all(isinstance(name, str) for name in arguments["class_names"] or ()):
        raise UserError(f"{path}: class_names: got {arguments['class_names']}, expected strings; {_SAVE_AGAIN}")
    return kind, arguments


def is_saved_network(folder: Path | str) -> bool:
    """Whether a folder is one that `save_pretrained` wrote; other programs have a config.json too.

    Raises:
        UserError: there is a config.json, but it is damaged.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        return False
    fields = read_json(path, remedy=_SAVE_AGAIN)
    return isinstance(fields, dict) and str(fields.get("format")).startswith(FORMAT.partition("/")[0])


def read_weights(source: Path | str, architecture: str) -> dict[str, Tensor]:
    """Read the base network's tensors from a folder of `save_pretrained` or of a run, or from a file of any program.

    Args:
        source: the folder or the file; nothing in it is executed.
        architecture: the base network's name, which a folder must have.

    Returns:
        Tensors on the CPU, without those of ST-ABN's attention branch and without prefixes of wrapping modules.

    Raises:
        UserError: it cannot be read, holds anything but tensors, or is the folder of another base network.
    """
    path = Path(source)
    if path.is_dir():
        saved = read_config(path)[1]["architecture"]
        if saved != architecture:
            raise UserError(f"{path / CONFIG}: architecture: got {saved!r}, expected {architecture!r}")
        path = path / WEIGHTS
    tensors = unwrap(read_tensors(path, inside=CONTAINERS))
    return {name: value for name, value in tensors.items() if not name.startswith(_ATTENTION)}


def recorded_normalisation(source: Path | str) -> tuple[Triple, Triple] | None:
    """Mean and std of the clips that a saved network was trained on; None for anything else, or where it lacks them.

    Raises:
        UserError: its config.json is damaged.
    """
    if not is_saved_network(source):
        return None
    recorded = read_config(source)[1]["preprocessing"] or {}
    mean, std = recorded.get("mean"), recorded.get("std")
    if not (isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3):
        return None
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def download(repo_id: str, filename: str, **options: Any) -> Path:
    """A file of a repository on the hub, from the local cache where it is there.

    Raises:
        UserError: it cannot be downloaded; the message says what was tried.
    """
    try:
        return Path(hf_hub_download(repo_id, filename, **options))
    except Exception as error:  # noqa: BLE001 - each version of the client lets errors of its own HTTP library through
        raise UserError(
            f"{repo_id}: cannot get {filename} of this repository from the Hugging Face hub "
            f"({type(error).__name__}: {first_line_of(error)}); check the name and the network, "
            "or give a path to a local copy, which works without network"
        ) from None


class PretrainedNetwork(
    ModelHubMixin,
    library_name="stabn",
    pipeline_tag="video-classification",
    paper_url="https://arxiv.org/abs/2110.15574",
    model_card_template=_CARD,
):
    """`save_pretrained`, `from_pretrained` and `push_to_hub` for the networks of this package."""

    kind: ClassVar[str]

    def config(self) -> dict[str, Any]:
        """The content of config.json: the format, the kind of network and the arguments that build it."""
        optional = {name: value for name in _OPTIONAL if (value := getattr(self, name))}
        return {"format": FORMAT, "kind": self.kind, **{name: getattr(self, name) for name in _ARGUMENTS}, **optional}

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: object = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write config.json and model.safetensors into a folder.

        Both are written completely before either takes its place, and between the two moments there is no
        config.json, so whatever happens the folder loads as the old network, as the new one, or not at all.

        Args:
            save_directory: the folder, made when missing.
            config: ignored; the network knows its own.
            repo_id: where to push; the folder's name when None.
            push_to_hub: whether to push as well.
            model_card_kwargs: values for the model card; a card is written when given.
            push_to_hub_kwargs: handed to `push_to_hub`.

        Returns:
            The address of the commit on the hub, or None.
        """
        assert isinstance(self, nn.Module)
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with atomic_write(folder / CONFIG) as new_config:
            write_json(new_config, self.config())
            with atomic_write(folder / WEIGHTS) as new_weights:
                save_file(tensors, new_weights, metadata={"format": "pt"})
                (folder / CONFIG).unlink(missing_ok=True)
        if model_card_kwargs is not None:
            self.generate_model_card(**model_card_kwargs).save(folder / "README.md")
        return self.push_to_hub(repo_id or folder.name, **push_to_hub_kwargs) if push_to_hub else None

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the folder of `save_pretrained` with a model card; the options are huggingface_hub's own.

        Returns:
            The address of the commit.
        """
        return super().push_to_hub(repo_id, **{"model_card_kwargs": {}, **options})

    @classmethod
    def from_pretrained(
        cls: type[Network], pretrained_model_name_or_path: str | Path, **download_options: Any
    ) -> Network:
        """The network in a folder that `save_pretrained` wrote, or in a repository on the hub; in evaluation mode.

        Args:
            pretrained_model_name_or_path: an existing folder, or a repository like "name/network".
            download_options: revision, token, cache_dir, local_files_only, force_download, as in huggingface_hub.

        Raises:
            UserError: a file is missing, damaged or of another network, or the repository cannot be reached.
        """
        source = str(pretrained_model_name_or_path)
        if Path(source).is_dir():
            return cls.from_folder(source)
        try:
            validate_repo_id(source)
        except ValueError:
            raise UserError(f"{source}: no such folder; give one that save_pretrained wrote, or owner/name") from None
        config = download(source, CONFIG, **download_options)
        weights = download(source, WEIGHTS, **download_options)
        if config.parent != weights.parent:
            raise UserError(f"{source}: {CONFIG} and {WEIGHTS} are of different revisions; give a revision")
        return cls.from_folder(config.parent)

    @classmethod
    def from_folder(cls: type[Network], folder: Path | str) -> Network:
        """The network in a local folder, in evaluation mode, in the dtype it was saved in; never asks the network.

        Raises:
            UserError: the folder or a file in it is missing, damaged or of another network.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give one that save_pretrained wrote")
        kind, arguments = read_config(folder)
        if kind != cls.kind:
            raise UserError(f"{folder / CONFIG}: kind: got {kind!r}, expected {cls.kind!r}; use load_pretrained")
        try:
            model = cls.without_weights(**arguments)
        except UserError as error:
            reason = str(error).replace("--network.backbone", "architecture")
            raise UserError(f"{folder / CONFIG}: {reason}; {_SAVE_AGAIN}") from None
        return model.assign_tensors(
            read_tensors(folder / WEIGHTS, inside=()),
            source=str(folder / WEIGHTS),
            remedy=f"this is not the network of {CONFIG}, so copy the whole folder again",
        )

    @classmethod
    def without_weights(cls: type[Network], **arguments: Any) -> Network:
        """A network whose values are yet to be assigned; random numbers go on as if none had been drawn."""
        raise NotImplementedError

    def assign_tensors(self: Network, tensors: Mapping[str, Tensor], *, source: str, remedy: str) -> Network:
        """This network with exactly these tensors, copied in their own dtypes, in evaluation mode.

        Raises:
            UserError: a tensor is missing, unexpected or of another shape; it names `source` and ends with `remedy`.
        """
        assert isinstance(self, nn.Module)
        check_tensors(tensors, self.state_dict(), source=source, remedy=remedy)
        # Copies, because tensors of a file may share its memory, and change with it or with each other.
        copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        self.load_state_dict(copies, assign=True)
        return self.eval()
