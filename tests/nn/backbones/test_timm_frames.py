"""2D networks of timm, frame by frame."""

import pytest
import timm
import torch

from stabn.errors import UserError
from stabn.nn import STABN, PlainNetwork, build_backbone, load_pretrained, recognition_loss
from stabn.nn.backbones.timm_frames import LITE0, TimmFrames, temporal_head


def clip(frames=3, size=64, dtype=torch.float64, batch=1):
    return torch.randn(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)


def averaged(maps):
    """The mean of two by two cells."""
    return torch.stack([maps[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).mean(0)


@pytest.mark.parametrize(
    ("name", "size", "level"),
    [
        ("resnet10t", 64, 3),
        ("tf_efficientnet_lite0", 64, 3),
        ("convnext_atto", 64, 2),
        ("mobilenetv3_small_050", 64, 3),
    ],
)
def test_the_features_of_every_frame_are_the_librarys_own(name, size, level):
    torch.manual_seed(0)
    backbone = build_backbone(f"timm/{name}", 3, 3).double().eval()
    library = timm.create_model(name, features_only=True).double().eval()
    own = {key.removeprefix("net.").removeprefix("model."): value for key, value in backbone.state_dict().items()}
    names = {key: key.replace("stages_", "stages.").replace("stem_", "stem.") for key in library.state_dict()}
    library.load_state_dict({key: own.get(names[key], value) for key, value in library.state_dict().items()})
    x = clip(size=size)
    with torch.no_grad():
        features = backbone.extract(x)
        for t in range(3):
            maps = library(x[:, :, t])[level]
            assert torch.allclose(features[:, :, t], averaged(maps), rtol=0, atol=1e-12 * float(maps.abs().max()))
    assert features.shape[1:] == backbone.features_shape(3, size)
    assert backbone.space_stride == 32


def test_an_odd_number_of_cells_is_averaged_over_those_that_there_are():
    torch.manual_seed(0)
    backbone = build_backbone("timm/resnet10t", 3, 2).double().eval()
    x = clip(2, 80)
    with torch.no_grad():
        features, maps = backbone.extract(x), backbone.net(x[:, :, 0])[-1]
    assert features.shape[1:] == backbone.features_shape(2, 80) == (backbone.channels, 2, 3, 3)
    assert torch.allclose(features[0, :, 0, 2, 2], maps[0, :, 4, 4], rtol=0, atol=1e-12)
    assert torch.allclose(features[0, :, 0, 0, 2], maps[0, :, :2, 4].mean(1), rtol=0, atol=1e-12)


def test_the_head_computes_what_its_three_dimensional_convolutions_would():
    torch.manual_seed(0)
    head = temporal_head(6, 4).double().eval()
    plain = torch.nn.Sequential(
        torch.nn.Conv3d(6, 4, 1, bias=False), *head[1:3],
        torch.nn.Conv3d(4, 4, (5, 1, 1), padding=(2, 0, 0), bias=False), *head[4:],
    ).double().eval()  # fmt: skip
    plain.load_state_dict(head.state_dict())
    x = torch.randn(2, 6, 7, 3, 2, dtype=torch.float64)
    assert torch.allclose(head(x), plain(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["timm/resnet10t", "timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224"])
def test_both_networks_around_it_learn_and_come_back_from_their_folder(tmp_path, no_network, name):
    for kind in (STABN, PlainNetwork):
        torch.manual_seed(0)
        model = kind(name, 3, 4).train()
        size = model.backbone.format.size if model.backbone.format.fixed_size else 64
        x = clip(4, size, torch.float32, batch=2)
        recognition_loss(model(x), torch.tensor([0, 2])).backward()
        assert all(value.grad is not None for value in model.backbone.mix.parameters())
        model.eval().save_pretrained(tmp_path / kind.__name__)
        again = load_pretrained(tmp_path / kind.__name__)
        with torch.no_grad():
            output = again(x)
            assert torch.equal(output.logits, model(x).logits)
        if kind is STABN:
            grid = model.backbone.grid(size)
            assert output.attention.spatial.shape == (2, 4, grid, grid)


def test_a_network_of_one_size_refuses_others_and_is_built_for_another_on_request():
    backbone = build_backbone("timm/vit_tiny_patch16_224", 3, 4)
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 64, 64\), expected \(B, 3, T, 224, 224\)"):
        backbone.check_clip(clip(4, 64, torch.float32))
    smaller = build_backbone("timm/vit_tiny_patch16_224", 3, 4, options={"size": 32})
    assert smaller.extract(clip(4, 32, torch.float32)).shape[1:] == smaller.features_shape(4, 32) == (192, 4, 1, 1)
    assert smaller.options["size"] == 32


def test_a_vision_transformer_gives_the_maps_of_its_last_block_and_every_parameter_is_in_a_stage():
    torch.manual_seed(0)
    backbone = build_backbone("timm/vit_tiny_patch16_224", 3, 2, options={"size": 32}).double().eval()
    library = timm.create_model("vit_tiny_patch16_224", img_size=32).double().eval()
    own = {key.removeprefix("net.model."): value for key, value in backbone.state_dict().items()}
    library.load_state_dict({key: own.get(key, value) for key, value in library.state_dict().items()})
    x = clip(2, 32)
    with torch.no_grad():
        (expected,) = library.forward_intermediates(x[:, :, 1], indices=[11], intermediates_only=True)
        features, highest = backbone.extract(x)[:, :, 1], float(expected.abs().max())
        assert torch.allclose(features, averaged(expected), rtol=0, atol=1e-12 * highest)
    stages = backbone.stages()
    in_stages = [id(value) for modules in stages.values() for module in modules for value in module.parameters()]
    assert sorted(in_stages) == sorted(id(value) for value in backbone.parameters())
    assert [name for name in stages if name.startswith("blocks.")] == [f"blocks.{n}" for n in range(12)]


def test_the_weights_of_the_registrys_package_are_those_of_timms_network():
    backbone = TimmFrames(LITE0, 3, 4)
    random = backbone.load_weights("lite0")
    assert {name.split(".")[0] for name in random} == {"mix", "fc"}
    (weights, *_) = backbone.published(LITE0)
    file = list(torch.load(weights.file, weights_only=True).values())
    library = timm.create_model("tf_efficientnet_lite0").eval()
    library.load_state_dict(dict(zip(library.state_dict(), file, strict=True)))
    x = clip(1, 64, torch.float32)
    with torch.no_grad():
        expected = library.forward_intermediates(x[:, :, 0], indices=[3], intermediates_only=True)[0]
        assert torch.allclose(backbone.eval().extract(x)[:, :, 0], averaged(expected), atol=1e-5)


@pytest.mark.parametrize("wrapper", ["", "module.", "model."])
def test_a_file_in_timms_names_is_read_under_the_prefix_of_a_wrapper(tmp_path, wrapper):
    library = timm.create_model("resnet10t")
    torch.save({"state_dict": {wrapper + k: v for k, v in library.state_dict().items()}}, tmp_path / "net.pth")
    backbone = build_backbone("timm/resnet10t", 3, 4)
    backbone.load_weights(str(tmp_path / "net.pth"))
    assert torch.equal(backbone.net.model.layer3[0].conv1.weight, library.layer3[0].conv1.weight)


def test_weights_of_another_network_and_names_that_do_not_exist_are_refused(tmp_path):
    backbone = build_backbone("timm/resnet10t", 3, 4)
    torch.save(timm.create_model("convnext_atto").state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth: tensor conv1"):
        backbone.load_weights(str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match=r"--network.weights: got 'imagenet22'"):
        backbone.load_weights("imagenet22")
    with pytest.raises(UserError, match="resnet10tt"):
        build_backbone("timm/resnet10tt", 3, 4)
