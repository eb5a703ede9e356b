"""Folders of our own, and checkpoints of the official code."""

import json
import pickle
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file

from stabn.errors import UserError
from stabn.nn import STABN, PlainNetwork, hub, import_official, load_pretrained
from stabn.nn.backbones.resnet3d import ARCHITECTURES

NAMES = ["push", "pull", "lift"]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    STABN("tiny", 3, 4, 0.25, NAMES, {"size": 32, "mean": [0.5, 0.4, 0.3]}).save_pretrained(tmp_path / "net")
    return tmp_path / "net"


@contextmanager
def refused(*tokens: object):
    """Inside the block a UserError of one line is raised; it begins with the first token and has the others."""
    with pytest.raises(UserError) as error:
        yield
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(tokens[0]))
    for token in tokens[1:]:
        assert str(token) in message


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("network", [STABN, PlainNetwork])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_network_comes_back_bit_equal_with_all_it_remembered(tmp_path, no_network, network, dtype):
    model = network("tiny", 3, 4, 0.25, NAMES, {"mean": (0.5, 0.4), "size": 32}).to(dtype)
    model.backbone.bn1.running_mean.normal_()
    model.save_pretrained(tmp_path)
    random_state = torch.get_rng_state()
    for back in (load_pretrained(tmp_path), network.from_pretrained(str(tmp_path))):
        assert type(back) is network
        assert not back.training
        assert back.config() == model.config()
        assert back.class_names == tuple(NAMES)
        assert back.preprocessing == {"mean": [0.5, 0.4], "size": 32}
        assert list(back.state_dict()) == list(model.state_dict())
        for name, value in model.state_dict().items():
            assert back.state_dict()[name].dtype == value.dtype
            assert torch.equal(back.state_dict()[name], value), name
        assert all(value.requires_grad for value in back.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)  # nothing is drawn only to be overwritten


def test_a_folder_holds_a_config_and_the_weights_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text()) == {
        "format": "stabn-model/1", "kind": "stabn", "architecture": "tiny", "num_classes": 3, "frames": 4,
        "dropout": 0.25, "class_names": NAMES, "preprocessing": {"size": 32, "mean": [0.5, 0.4, 0.3]},
    }  # fmt: skip


def test_a_save_that_fails_leaves_the_old_network(folder, monkeypatch):
    old = load_pretrained(folder).state_dict()

    def full(*_args, **_kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(hub, "save_file", full)
    with pytest.raises(OSError, match="no space left on device"):
        STABN("tiny", 5, 4).save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert all(torch.equal(value, old[name]) for name, value in load_pretrained(folder).state_dict().items())


def test_pushing_uploads_config_weights_and_a_card(folder, monkeypatch):
    uploaded = {}

    class Api:
        def __init__(self, token=None): ...

        def create_repo(self, repo_id, **_options):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path, **_options):
            uploaded.update({path.name: path.read_bytes() for path in folder_path.iterdir()})
            return "commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert load_pretrained(folder).push_to_hub("someone/net") == "commit"
    assert sorted(uploaded) == ["README.md", "config.json", "model.safetensors"]
    assert uploaded["config.json"] == (folder / "config.json").read_bytes()
    assert b"library_name: stabn" in uploaded["README.md"]


def test_a_repository_is_loaded_from_what_the_hub_client_downloads(folder, monkeypatch):
    monkeypatch.setattr(hub, "hf_hub_download", lambda repo_id, name, **_: str(folder / name))
    assert STABN.from_pretrained("someone/net").class_names == tuple(NAMES)


def test_a_repository_that_cannot_be_reached_is_one_line(monkeypatch):
    def fail(*_args, **_kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    with refused("someone/net", "config.json", "no route", "path"):
        STABN.from_pretrained("someone/net")


@pytest.mark.parametrize("load", [load_pretrained, STABN.from_folder])
def test_a_folder_that_does_not_exist_is_never_looked_for_on_the_network(tmp_path, no_network, load):
    for folder in ("someone/net", tmp_path / "nothing"):
        with refused(folder):
            load(folder)
    with refused(tmp_path / "nothing"):
        STABN.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"format": "stabn-model/9"}, ("format", "'stabn-model/9'", "'stabn-model/1'")),
        ({"kind": "vit"}, ("kind", "'vit'", "stabn, plain")),
        ({"kind": 3}, ("kind", "3")),
        ({"architecture": "vgg"}, ("architecture", "'vgg'")),
        ({"architecture": ["tiny"]}, ("architecture", "['tiny']")),
        ({"num_classes": "3"}, ("num_classes", "'3'")),
        ({"num_classes": True}, ("num_classes", "True")),
        ({"frames": 0}, ("frames", "got 0")),
        ({"dropout": None}, ("dropout", "None")),
        ({"dropout": 2}, ("dropout", "got 2")),
        ({"class_names": "abc"}, ("class_names", "'abc'")),
        ({"class_names": ["a"]}, ("class_names", "got 1", "expected 3")),
        ({"class_names": [1, 2, 3]}, ("class_names", "[1, 2, 3]")),
        ({"class_names": {"a": 1, "b": 2, "c": 3}}, ("class_names", "{'a': 1")),
        ({"preprocessing": 3}, ("preprocessing", "got 3")),
        ({"mechanism": "open"}, ("mechanism", "'open'", "gated-both")),
        ({"colour": "red"}, ("colour",)),
    ],
)
def test_a_wrong_config_is_refused_by_field_and_value(folder, changes, tokens):
    edit_config(folder, **changes)
    with refused(folder / "config.json", *tokens):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"num_classes": 4, "class_names": None}, ("fc.weight", "[3, 64]", "[4, 64]")),
        ({"frames": 5}, ("fc_att_out.weight", "[3, 12]", "[3, 15]")),
        ({"architecture": "small"}, ("conv1.weight", "[8, 3, 1, 7, 7]", "[16, 3, 1, 7, 7]")),
        ({"kind": "resnet3d"}, ("unexpected tensor conv_att",)),
    ],
)
def test_the_weights_of_another_network_are_refused_by_the_tensor(folder, changes, tokens):
    edit_config(folder, **changes)
    with refused(folder / "model.safetensors", *tokens):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.json", lambda content: b'{"format": "stabn'),
        ("config.json", lambda content: b"[1, 2]"),
        ("config.json", lambda content: b""),
        ("config.json", None),
        ("model.safetensors", lambda content: b""),
        ("model.safetensors", lambda content: content[:5]),
        ("model.safetensors", lambda content: content[:100]),
        ("model.safetensors", lambda content: content[:50_000]),
        ("model.safetensors", None),
    ],
)
def test_a_folder_with_a_missing_or_damaged_file_is_refused_by_its_name(folder, name, damage):
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage is not None:
        (folder / name).write_bytes(damage(content))
    with refused(folder / name):
        load_pretrained(folder)


def test_a_config_without_one_of_its_fields_is_refused_by_the_field(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["frames"]
    (folder / "config.json").write_text(json.dumps(config))
    with refused(folder / "config.json", "frames"):
        load_pretrained(folder)


@pytest.mark.parametrize("value", [None, torch.nan, torch.inf, -torch.inf])
def test_weights_with_a_missing_or_infinite_tensor_are_refused_by_its_name(folder, value):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    if value is None:
        del tensors["layer2.0.bn1.bias"]
    else:
        tensors["layer2.0.bn1.bias"][3] = value
    save_file(tensors, weights)
    with refused(weights, "layer2.0.bn1.bias", "[16]" if value is None else "--optimizer.learning_rate"):
        load_pretrained(folder)


def test_the_other_kind_of_network_is_refused_by_from_pretrained(folder):
    with refused(folder / "config.json", "kind", "'stabn'", "'plain'", "load_pretrained"):
        PlainNetwork.from_pretrained(folder)


# Official checkpoints


def official(architecture: str, num_classes: int, frames: int) -> dict[str, torch.Tensor]:
    """A checkpoint whose tensors hold one number each, stored once: the file is small whatever the layout."""
    with torch.device("meta"):
        layout = STABN(architecture, num_classes, frames).state_dict()
    return {
        name: torch.tensor(number, dtype=value.dtype).expand(value.shape)
        for number, (name, value) in enumerate(layout.items())
    }


def test_an_official_checkpoint_becomes_a_network_with_exactly_its_tensors(reference, tmp_path):
    torch.save({"epoch": 3, "model_state_dict": reference.tensors}, tmp_path / "save.pth")
    model = import_official(tmp_path / "save.pth")
    for name in ("architecture", "num_classes", "frames"):
        assert getattr(model, name) == getattr(reference, name)
    assert not model.training
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert all(torch.equal(value, reference.tensors[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("wrap", "prefix", "counters"),
    [(None, "module.", True), ("model_state_dict", "module.", False), ("state_dict", "", False)],
)
def test_every_way_of_saving_is_read(tmp_path, wrap, prefix, counters):
    tensors = official("resnet18", 5, 3)
    saved = {prefix + k: v for k, v in tensors.items() if counters or not k.endswith("num_batches_tracked")}
    torch.save(saved if wrap is None else {wrap: saved}, tmp_path / "save.pth")
    model = import_official(tmp_path / "save.pth", class_names=list("abcde"), preprocessing={"size": 224})
    assert (model.class_names, model.preprocessing) == (tuple("abcde"), {"size": 224})
    for name, value in model.state_dict().items():
        if counters or not name.endswith("num_batches_tracked"):
            assert torch.equal(value, tensors[name]), name
        else:
            assert (value.item(), value.dtype) == (0, torch.int64)


@pytest.mark.parametrize(("architecture", "classes", "frames"), [("resnet34", 7, 5), ("resnet101", 3, 1)])
def test_the_other_depths_are_recognised_by_their_blocks(tmp_path, architecture, classes, frames):
    torch.save(official(architecture, classes, frames), tmp_path / "save.pth")
    model = import_official(tmp_path / "save.pth")
    assert (model.architecture, model.num_classes, model.frames) == (architecture, classes, frames)
    assert ARCHITECTURES[architecture].depths == tuple(len(getattr(model.backbone, f"layer{n}")) for n in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("damage", "tokens"),
    [
        (lambda t: t.pop("layer3.1.bn2.weight"), ("layer3.1.bn2.weight", "[256]")),
        (lambda t: t.pop("fc.weight"), ("fc.weight",)),
        (lambda t: t.pop("conv_temp_att3.0.weight"), ("conv_temp_att3.0.weight",)),
        (lambda t: t.update({"fc.weight": torch.zeros(3)}), ("fc.weight", "[3]")),
        (lambda t: t.update({"fc.weight": torch.zeros(0, 512)}), ("fc.weight", "[0, 512]")),
        (lambda t: t.update({"extra": torch.zeros(2)}), ("extra", "[2]")),
        (lambda t: t.update({"conv1.weight": torch.zeros(64, 3, 7, 7)}), ("conv1.weight", "[64, 3, 7, 7]")),
        (lambda t: t.update({"bn1.bias": torch.zeros(64, dtype=torch.int64)}), ("bn1.bias", "torch.int64")),
        (lambda t: t.update({"fc.bias": torch.tensor([0, 1, 2, 3, torch.nan])}), ("fc.bias", "NaN")),
        (lambda t: t.update({"module.fc.bias": torch.zeros(5)}), ("'module.'",)),
        (
            lambda t: [t.pop(name) for name in list(t) if name.startswith("layer1.1.")],
            ("basic blocks (1, 2, 2, 2)", "resnet18 basic (2, 2, 2, 2)"),
        ),
    ],
)
def test_the_first_offending_tensor_of_an_official_checkpoint_is_named(tmp_path, damage, tokens):
    tensors = official("resnet18", 5, 3)
    damage(tensors)
    torch.save({"model_state_dict": tensors}, tmp_path / "save.pth")
    with refused(tmp_path / "save.pth", *tokens):
        import_official(tmp_path / "save.pth")


def test_class_names_must_be_as_many_as_the_checkpoints_classes(tmp_path):
    torch.save(official("resnet18", 5, 3), tmp_path / "save.pth")
    with refused("class_names", "got 3", "expected 5"):
        import_official(tmp_path / "save.pth", class_names=NAMES)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code from the file was executed",))


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (b"", ""),
        (b"not a checkpoint at all, but long enough to look like one", ""),
        (pickle.dumps({"a": 1}), ""),
        (pickle.dumps(Harmful()), ""),
        (torch.zeros(3), "Tensor"),
        ({}, "no tensors"),
        ({"epoch": 3}, "'epoch'"),
        ({"model_state_dict": {"fc.weight": [1.0]}}, "'fc.weight'"),
    ],
)
def test_a_file_of_something_else_is_refused_without_running_it(tmp_path, content, token):
    if isinstance(content, bytes):
        (tmp_path / "save.pth").write_bytes(content)
    else:
        torch.save(content, tmp_path / "save.pth")
    with refused(tmp_path / "save.pth", token):
        import_official(tmp_path / "save.pth")


def test_a_missing_a_truncated_and_a_directory_checkpoint_are_refused(tmp_path):
    torch.save(official("resnet18", 5, 3), tmp_path / "save.pth")
    (tmp_path / "save.pth").write_bytes((tmp_path / "save.pth").read_bytes()[:5000])
    for path in (tmp_path / "nothing.pth", tmp_path, tmp_path / "save.pth"):
        with refused(path):
            import_official(path)
