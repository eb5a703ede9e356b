"""Weights of other programs in 3D ResNets: the slow pathway of PySlowFast is the oracle."""

import json
import re

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from stabn.errors import UserError
from stabn.nn import STABN, PlainNetwork, build_backbone, load_imagenet
from stabn.nn.backbones.resnet3d import ResNet3D
from tests.nn.conftest import REFERENCE, formula

SLOW_R50 = REFERENCE / "slow_r50.json"


@pytest.fixture(scope="module")
def slow_tensors():
    return {name: torch.from_numpy(value) for name, value in formula.formula_state_dict(SLOW_R50).items()}


def pytorchvideo_name(name: str) -> str:
    """pytorchvideo's name of a tensor of PySlowFast's slow pathway."""
    name = name.replace("s1.pathway0_stem.conv", "blocks.0.conv").replace("s1.pathway0_stem.bn", "blocks.0.norm")
    name = name.replace("head.projection", "blocks.5.proj")
    name = re.sub(r"^s(\d)\.pathway0_res(\d+)", lambda m: f"blocks.{int(m[1]) - 1}.res_blocks.{m[2]}", name)
    name = re.sub(r"branch2\.([abc])_bn", r"branch2.norm_\1", name)
    name = re.sub(r"branch2\.([abc])\.", r"branch2.conv_\1.", name)
    return name.replace("branch1_bn", "branch1_norm").replace("branch1.", "branch1_conv.")


def test_pyslowfasts_slow_r50_answers_as_in_pyslowfast(slow_tensors, tmp_path):
    about = json.loads(SLOW_R50.read_text())
    file = tmp_path / "slow.pyth"
    torch.save({"epoch": 196, "model_state": slow_tensors, "cfg": "MODEL: {}"}, file)
    backbone = build_backbone("resnet50", about["num_classes"], about["frames"]).double().eval()
    assert backbone.load_weights(str(file)) == ("fc.weight", "fc.bias")
    wanted = ResNet3D.format_of("resnet50", str(file))
    assert (wanted.mean, wanted.std, wanted.frames) == ((0.45,) * 3, (0.225,) * 3, 32)
    with torch.no_grad():
        backbone.fc.weight.copy_(slow_tensors["head.projection.weight"])
        backbone.fc.bias.copy_(slow_tensors["head.projection.bias"])
        clip = torch.from_numpy(formula.formula_clip(about["frames"], about["size"], about["clip_seed"])).double()
        features = backbone.extract(clip)
        maps = backbone.deepen(features)
        logits = backbone.classify(maps)
    with np.load(SLOW_R50.with_suffix(".npz")) as expected:
        for got, name in (
            (logits, "logits"),
            (features[:, ::64], "features_layer3"),
            (maps[:, ::16], "features"),
            (maps.mean(dim=1), "features_mean"),
        ):
            np.testing.assert_allclose(got.numpy(), expected[name], rtol=1e-9, atol=1e-9, err_msg=name)
    renamed = {f"model.{pytorchvideo_name(name)}": value for name, value in slow_tensors.items()}
    assert "model.blocks.4.res_blocks.2.branch2.norm_c.weight" in renamed
    del renamed["model.blocks.0.norm.num_batches_tracked"]  # older files have none
    save_file(renamed, tmp_path / "pytorchvideo.safetensors")
    other = build_backbone("resnet50", 3, 8)
    assert other.load_weights(str(tmp_path / "pytorchvideo.safetensors")) == ("fc.weight", "fc.bias")
    for name, value in backbone.state_dict().items():
        if not name.startswith("fc.") and name != "bn1.num_batches_tracked":
            assert torch.equal(other.state_dict()[name].double(), value.double()), name


@pytest.mark.parametrize(
    "name",
    ["s1.pathway1_stem.conv.weight", "module.blocks.0.multipathway_blocks.1.conv.weight", "blocks.0.conv.weight"],
)
def test_networks_that_are_not_the_slow_pathway_are_refused_by_name_and_change_nothing(tmp_path, name):
    file = tmp_path / "other.pyth"
    torch.save({"model_state": {name: torch.ones(8, 3, 5, 7, 7)}}, file)
    backbone = build_backbone("tiny", 3, 4)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(UserError) as error:
        backbone.load_weights(str(file))
    message = str(error.value)
    assert message.startswith(f"{file}: tensor ")
    if name == "blocks.0.conv.weight":
        assert "conv1.weight: got shape [8, 3, 5, 7, 7], expected [8, 3, 1, 7, 7]" in message
    else:
        assert "SlowFast" in message
        assert name.removeprefix("module.") in message
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_files_and_folders_of_ours_and_of_the_official_code_fill_all_but_the_classifier(tmp_path):
    torch.manual_seed(0)
    recorded = {"mean": [0.45, 0.45, 0.45], "std": [0.225, 0.225, 0.225]}
    origin = STABN("tiny", 7, 6, preprocessing=recorded)
    origin.save_pretrained(tmp_path / "run")
    official = {f"module.{name}": value for name, value in origin.state_dict().items()}
    torch.save({"model_state_dict": official, "epoch": 1}, tmp_path / "official.pth")
    for weights in ("run", "run/model.safetensors", "official.pth"):
        backbone = build_backbone("tiny", 3, 4)
        assert backbone.load_weights(str(tmp_path / weights)) == ("fc.weight", "fc.bias"), weights
        for name, value in origin.backbone.state_dict().items():
            assert name.startswith("fc.") or torch.equal(backbone.state_dict()[name], value), (weights, name)
    assert ResNet3D.format_of("tiny", str(tmp_path / "run")).mean == (0.45,) * 3
    assert ResNet3D.format_of("tiny", str(tmp_path / "official.pth")) == ResNet3D.format_for("tiny", {})


def test_a_2d_network_is_inflated(tmp_path):
    torch.manual_seed(0)
    flat = torchvision.models.resnet18()
    torch.save(flat.state_dict(), tmp_path / "flat.pth")
    backbone, expected = build_backbone("resnet18", 1000, 4), PlainNetwork("resnet18", 1000, 4)
    head = backbone.fc.weight.clone()
    assert backbone.load_weights(str(tmp_path / "flat.pth")) == ("fc.weight", "fc.bias")
    load_imagenet(expected, flat.state_dict())
    for name, value in expected.backbone.state_dict().items():
        assert name.startswith("fc.") or torch.equal(backbone.state_dict()[name], value), name
    assert torch.equal(backbone.fc.weight, head)
    with torch.device("meta"):
        deeper = build_backbone("resnet34", 3, 4)
    with pytest.raises(UserError, match=rf"^{tmp_path / 'flat.pth'}: tensor layer1.2.conv1.weight: missing"):
        deeper.load_weights(str(tmp_path / "flat.pth"))


def test_the_attention_branchs_copy_of_layer4_is_filled_too(tmp_path):
    torch.manual_seed(0)
    origin, model = build_backbone("tiny", 7, 4), STABN("tiny", 3, 4)
    torch.save(origin.state_dict(), tmp_path / "weights.pth")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.load_weights(str(tmp_path / "weights.pth")) == ("fc.weight", "fc.bias")
    for name, value in model.state_dict().items():
        origin_name = name.replace("layer_att_common.", "layer4.")
        filled = origin_name in origin.state_dict() and not name.startswith("fc.")
        assert torch.equal(value, origin.state_dict()[origin_name] if filled else before[name]), name


def test_imagenet_weights_have_names_and_lie_in_torch_hubs_folder(tmp_path, no_network, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = ResNet3D.published("resnet18")
    assert [one.name for one in published] == ["IMAGENET1K_V1"]
    assert [one.name for one in ResNet3D.published("resnet50")] == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    assert ResNet3D.published("small") == ()
    published[0].file.parent.mkdir(parents=True)
    flat = torchvision.models.resnet18()
    torch.save(flat.state_dict(), published[0].file)
    for weights in ("IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1"):
        backbone = build_backbone("resnet18", 3, 4)
        assert backbone.load_weights(weights) == ("fc.weight", "fc.bias")
        assert torch.equal(backbone.conv1.weight[:, :, 0], flat.conv1.weight)
        assert ResNet3D.format_of("resnet18", weights) == ResNet3D.format_for("resnet18", {})


def test_weights_that_cannot_be_read_are_one_line(tmp_path, no_network):
    (tmp_path / "empty").mkdir()
    (tmp_path / "SLOW_8x8_R50.pkl").write_bytes(b"\x80\x02}")
    (tmp_path / "damaged.pyth").write_bytes(b"PK\x03\x04")
    STABN("small", 3, 4).save_pretrained(tmp_path / "small")
    cases = {
        str(tmp_path / "SLOW_8x8_R50.pkl"): ("Caffe2", ".pyth"),
        str(tmp_path / "damaged.pyth"): ("damaged.pyth",),
        str(tmp_path / "none.pyth"): ("no such file",),
        str(tmp_path / "empty"): ("config.json",),
        str(tmp_path / "small"): ("architecture: got 'small', expected 'tiny'",),
        "IMAGENET1K_V1": ("'IMAGENET1K_V1'", "none"),
    }
    backbone = build_backbone("tiny", 3, 4)
    for weights, tokens in cases.items():
        with pytest.raises(UserError) as error:
            backbone.load_weights(weights)
        assert "\n" not in str(error.value)
        assert all(token in str(error.value) for token in tokens), error.value
