"""2D ImageNet networks in 3D: on a clip that repeats one picture the answers must be the 2D network's."""

import re
import shutil

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from uneven import with_uneven_statistics

from stabn.errors import UserError
from stabn.nn import STABN, PlainNetwork, hub, imagenet_state_dict, load_imagenet


def flat_network(depth: int, source: str = "torchvision") -> torch.nn.Module:
    name = f"resnet{depth}"
    model = getattr(torchvision.models, name)() if source == "torchvision" else timm.create_model(name)
    return with_uneven_statistics(model).double()


def picture() -> torch.Tensor:
    return torch.randn(1, 3, 49, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def flat_features(model: torch.nn.Module, picture_bchw: torch.Tensor) -> torch.Tensor:
    x_bchw = model.maxpool(torch.relu(model.bn1(model.conv1(picture_bchw))))
    return model.layer3(model.layer2(model.layer1(x_bchw)))


@pytest.mark.parametrize(("depth", "source"), [(18, "timm"), (50, "torchvision")])
def test_a_static_clip_gets_the_2d_networks_features_and_logits(depth, source):
    flat, frames = flat_network(depth, source), 4
    model = PlainNetwork(f"resnet{depth}", 1000, frames).double().eval()
    summary = load_imagenet(model, flat.state_dict())
    assert summary.left_random == ()
    assert set(summary.loaded) == set(model.state_dict())
    with torch.no_grad():
        clip = picture()[:, :, None].expand(-1, -1, frames, -1, -1)
        features, expected = model.encode(clip), flat_features(flat, picture())
        for t in range(frames):
            assert torch.allclose(features[:, :, t], expected, rtol=0, atol=1e-9), t
        assert torch.allclose(model(clip).logits, flat(picture()), rtol=0, atol=1e-9)


def test_averaging_changes_the_response_at_the_ends_and_less_in_the_middle():
    flat = flat_network(18)
    model = PlainNetwork("resnet18", 1000, 9).double().eval()
    load_imagenet(model, flat.state_dict(), inflation="average")
    with torch.no_grad():
        features = model.encode(picture()[:, :, None].expand(-1, -1, 9, -1, -1))
        error = (features - flat_features(flat, picture())[:, :, None]).abs().mean(dim=(0, 1, 3, 4))
    assert error[0] > 10 * error[4]
    assert error[0] > 0.01
    assert torch.allclose(error, error.flip(0))


def test_averaging_repeats_the_kernel_over_its_taps():
    flat = flat_network(50)
    model = PlainNetwork("resnet50", 10, 4)
    load_imagenet(model, flat.state_dict(), inflation="average")
    kernel = flat.layer3[0].conv1.weight.float()
    for tap in range(3):
        assert torch.allclose(model.backbone.layer3[0].conv1.weight[:, :, tap], kernel / 3)
    assert torch.equal(model.backbone.layer1[0].conv2.weight[:, :, 0], flat.layer1[0].conv2.weight.float())


def test_the_attention_branch_starts_from_layer4_and_the_rest_stays_random():
    model = STABN("resnet18", 10, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    summary = load_imagenet(model, flat_network(18).state_dict())
    after = model.state_dict()
    for name in after:
        if name.startswith("layer_att_common."):
            assert torch.equal(after[name], after[name.replace("layer_att_common", "layer4")]), name
            assert name in summary.loaded
    rest = {"fc", "conv_att_common", "conv_att_out", "fc_att_out", "conv_spatial_att", "conv_att_mechanism"}
    rest |= {f"conv_temp_att{number}" for number in (1, 2, 3)}
    assert {name.split(".")[0] for name in summary.left_random} == rest
    assert all(torch.equal(after[name], before[name]) for name in summary.left_random)


@pytest.mark.parametrize(
    ("flat", "token"),
    [
        (lambda: torchvision.models.resnet34(), "layer1.2.conv1.weight"),
        (lambda: torchvision.models.resnet50(), "layer1.0.conv1.weight: got shape [64, 64, 1, 1]"),
        (lambda: timm.create_model("resnet18d"), "conv1.weight: missing"),
        (lambda: torchvision.models.squeezenet1_1(), "conv1.weight: missing"),
    ],
)
def test_a_2d_network_of_another_depth_or_kind_is_refused_and_changes_nothing(flat, token):
    model = PlainNetwork("resnet18", 10, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.device("meta"):
        state = flat().state_dict()
    with pytest.raises(UserError, match=re.escape(token)) as error:
        load_imagenet(model, state)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_come_from_a_file_a_hub_repository_or_torchvision(tmp_path, monkeypatch, capfd):
    tensors = {"conv1.weight": torch.ones(2, 2)}
    torch.save(tensors, tmp_path / "bare.pth")
    torch.save({"state_dict": tensors}, tmp_path / "wrapped.pt")
    torch.save({"model": tensors, "epoch": 1}, tmp_path / "model.pt")
    save_file(tensors, tmp_path / "model.safetensors")
    monkeypatch.setattr(hub, "hf_hub_download", lambda repo, name: str(tmp_path / name))
    files = [str(tmp_path / name) for name in ("bare.pth", "wrapped.pt", "model.pt", "model.safetensors")]
    for source in (*files, "timm/resnet50.a1_in1k"):
        assert torch.equal(imagenet_state_dict(source)["conv1.weight"], torch.ones(2, 2)), source
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    calls = []

    def download(url, path, beginning_of_hash, progress):
        calls.append((url, beginning_of_hash))
        shutil.copy(tmp_path / "bare.pth", path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):  # the second time it is there
        assert list(imagenet_state_dict("ResNet50_Weights.IMAGENET1K_V2")) == ["conv1.weight"]
    assert calls == [("https://download.pytorch.org/models/resnet50-11ad3fa6.pth", "11ad3fa6")]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "token"),
    [
        ("nothing.pth", ".safetensors file"),
        ("ResNet50_Weights.NONE", "ResNet50_Weights.IMAGENET1K_V2"),
        ("Foo_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet50_Weights.IMAGENET1K_V2", "no route"),
        ("timm/resnet50.a1_in1k", "no route"),
        ("resnet50", "timm/resnet50.a1_in1k"),
    ],
)
def test_weights_that_are_not_there_are_refused_by_name_and_a_file_is_the_remedy(monkeypatch, tmp_path, source, token):
    def fail(*_args, **_kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError, match=f"^{re.escape(source)}: ") as error:
        imagenet_state_dict(source)
    assert token in str(error.value)
    assert "\n" not in str(error.value)
    assert "file" in str(error.value) or "local copy" in str(error.value)
