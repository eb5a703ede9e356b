"""bLVNet, SmallBig, Zhou's DenseNet, SlowFast, C3D, DFB-Net and 2D ABN at small width.

`tests/benchmarks/test_reference.py` compares them with their official implementations.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from family_checks import SIDE, check_learns_and_comes_back, check_two_clips_are_answered_as_each_alone, clip_of, close
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from uneven import random_clip, with_uneven_statistics

from stabn.errors import UserError
from stabn.nn import PlainNetwork, build_backbone
from stabn.nn.attention import Attention
from stabn.nn.backbone import map_of
from stabn.nn.backbones import RECOGNISERS, backbone_class
from stabn.nn.backbones.abn2d import ABN_SHAPES
from stabn.nn.backbones.blvnet import BLV_SHAPES, BLVNet
from stabn.nn.backbones.c3d import C3D, C3D_SHAPES
from stabn.nn.backbones.dfb import FilterBankHead
from stabn.nn.backbones.fusion_strategies import ZHOU_SHAPES
from stabn.nn.backbones.slowfast import SLOWFAST_SHAPES, SlowFast
from stabn.nn.backbones.smallbig import SMALLBIG_SHAPES
from stabn.nn.backbones.zhou import ZhouDenseNet
from stabn.nn.cam import cam, grad_cam

CLIPS = {
    "blvnet_tam_small": (4, 2),
    "smallbig_small": (3, 3),
    "smallbig_small_temporal": (3, 3),
    "zhou_small": (3, 3),
    "zhou_small_t8": (16, 2),
    "slowfast_small": (8, 2),
    "c3d_small": (8, 2),
    "dfb_our_reading_small": (3, 3),
    "abn2d_small": (3, 3),
}
"""Network -> frames of a clip, steps of its features."""
WITHOUT_CAM = ("c3d_small", "dfb_our_reading_small")
BLIND = ("dfb_our_reading_small", "abn2d_small")
"""Networks that see every frame alone."""


@pytest.fixture(scope="module", params=CLIPS)
def network(request) -> PlainNetwork:
    return with_uneven_statistics(PlainNetwork(request.param, 3, CLIPS[request.param][0]).double())


def test_two_clips_are_answered_as_each_alone(network):
    check_two_clips_are_answered_as_each_alone(network)


def test_frames_are_told_apart_by_their_order_where_a_network_can_see_it(network):
    clip = clip_of(network)
    order = torch.randperm(network.frames, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer = network(clip).logits
        assert close(network(clip[:, :, order]).logits, answer) == (network.architecture in BLIND)
        # As released, SmallBig looks through symmetric poolings alone: it cannot tell forwards from backwards.
        backwards = close(network(clip.flip(2)).logits, answer)
    assert backwards == (network.architecture in (*BLIND, "smallbig_small"))


def test_features_have_the_announced_shape_and_every_weight_a_stage(network):
    backbone = network.backbone.train()
    map_of(backbone.extract(clip_of(network))).sum().backward()
    stages = list(backbone.stages().values())
    used = [any(value.grad is not None for part in modules for value in part.parameters()) for modules in stages]
    assert used == [True] * backbone.extracting + [False] * (len(stages) - backbone.extracting)
    backbone.zero_grad(set_to_none=True)
    backbone.eval()
    with torch.no_grad():
        features = backbone.extract(clip_of(network))
    assert map_of(features).shape[1:] == backbone.features_shape(network.frames, SIDE)
    assert map_of(features).shape[2] == CLIPS[network.architecture][1]
    staged = {id(value) for modules in stages for part in modules for value in part.parameters()}
    assert staged == {id(value) for value in backbone.parameters()}


def test_clips_that_a_network_does_not_take_are_refused(network):
    wanted, name = network.backbone.format, network.architecture
    for frames in range(1, 18):
        clip = torch.empty(1, 3, frames, SIDE, SIDE, dtype=torch.float64, device="meta")
        fits = frames == wanted.frames if wanted.fixed_frames else frames % wanted.multiple_of == 0
        if not fits:
            with pytest.raises(ValueError, match=rf"got (shape \(1, 3, )?{frames}\b"):
                network.encode(clip)
    if wanted.multiple_of > 1:
        with pytest.raises(
            UserError, match=f"frames: got {wanted.multiple_of + 1}, .* multiples of {wanted.multiple_of}"
        ):
            build_backbone(name, 3, wanted.multiple_of + 1)


def test_evidence_sums_up_to_the_logit_and_grad_cam_has_every_frame(network):
    clip, classes = clip_of(network), torch.tensor([1])
    grad = grad_cam(network, clip, classes)
    assert grad.shape[:2] == (1, network.frames)
    assert (network.backbone.linear is None) == (network.architecture in WITHOUT_CAM)
    if network.backbone.linear is None:
        with pytest.raises(UserError, match=f"cam: .*{network.architecture}"):
            cam(network, clip, classes)
        return
    evidence = cam(network, clip, classes)
    with torch.no_grad():
        logit = network(clip).logits[0, 1]
    assert close(evidence.mean() + network.backbone.linear.bias[1], logit)


def test_networks_around_it_learn_and_come_back_from_their_folder(network, tmp_path):
    # The own branch of a 2D ABN within ST-ABN gives no class scores that a loss could read.
    check_learns_and_comes_back(network.architecture, network.frames, SIDE, tmp_path, unread="att_conv2")


# Weights.


def saved(tensors, path: Path, prefix="") -> str:
    torch.save({"state_dict": {prefix + name: value for name, value in tensors.items()}}, path)
    return str(path)


PER_CLASS = {
    "blvnet_tam_small": {"new_fc"},
    "zhou_small": {"classifier"},
    "zhou_small_t8": {"classifier"},
    "c3d_small": {"fc8"},
    "dfb_our_reading_small": {"head"},
    "abn2d_small": {"fc", "att_conv", "bn_att2", "att_conv2", "att_conv3"},
}
"""Network -> modules with a row per class, where that is not fc alone."""


def test_files_fill_all_but_the_classifier_with_and_without_the_wrappers_prefix(network, tmp_path):
    name, origin = network.architecture, network.backbone.state_dict()
    for prefix in ("", "module."):
        other = build_backbone(name, 5, network.frames)
        left = other.load_weights(saved(origin, tmp_path / "weights.pth", prefix))
        assert {key.split(".")[0] for key in left} == PER_CLASS.get(name, {"fc"})
        for key, value in other.state_dict().items():
            if key not in left and not key.endswith("num_batches_tracked"):
                assert torch.equal(value, origin[key].to(value)), key


def test_the_first_tensor_that_does_not_fit_is_named_and_nothing_changes(network, tmp_path):
    name, frames = network.architecture, network.frames
    tensors = dict(network.backbone.state_dict())
    first = next(key for key in tensors if key.endswith("weight") and tensors[key].ndim > 3)
    other = build_backbone(name, 3, frames)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    for damaged, words in (
        ({key: value for key, value in tensors.items() if key != first}, "missing"),
        (tensors | {first: tensors[first][:1]}, "got shape"),
        (tensors | {"extra.weight": torch.ones(2)}, "unexpected tensor extra.weight"),
    ):
        file = saved(damaged, tmp_path / "damaged.pth")
        with pytest.raises(UserError, match=words) as error:
            other.load_weights(file)
        assert file in str(error.value)
        assert words.startswith("unexpected") or first in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_a_network_that_looks_at_a_still_picture_through_imagenets_kernels_sees_what_the_2d_network_sees(
    tmp_path, monkeypatch
):
    flat = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    flat = with_uneven_statistics(flat.double())
    monkeypatch.setitem(ABN_SHAPES, "abn2d_resnet18", replace(ABN_SHAPES["abn2d_resnet18"], depths=(1, 1, 1, 1)))
    file = saved(flat.state_dict(), tmp_path / "flat.pth")
    picture = random_clip(1, SIDE, SIDE, dtype=torch.float64)
    with torch.no_grad():
        x = flat.layer1(flat.maxpool(flat.relu(flat.bn1(flat.conv1(picture[:, :, 0])))))
        expected = flat.layer3(flat.layer2(x))
        abn = build_backbone("abn2d_resnet18", 3, 1).double().eval()
        left = abn.load_weights(file)
        assert close(abn.extract(picture)[:, :, 0], expected)
        assert close(abn.deepen_weighed(expected[:, :, None])[:, :, 0], flat.layer4(expected))
    assert {name.split(".")[0] for name in left} == {"fc", "att_conv", "bn_att2", "att_conv2", "att_conv3"}
    assert torch.equal(abn.att_layer4[0].conv1.weight, abn.layer4[0].conv1.weight)


def test_smallbig_starts_as_its_2d_network(tmp_path, monkeypatch):
    small = replace(SMALLBIG_SHAPES["smallbig50"], depths=(1, 1, 1, 1))
    monkeypatch.setitem(SMALLBIG_SHAPES, "smallbig50_temporal", replace(small, temporal_kernel=3))
    flat = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1])
    flat = with_uneven_statistics(flat.double())
    backbone = build_backbone("smallbig50_temporal", 3, 3).double().eval()
    assert backbone.load_weights(saved(flat.state_dict(), tmp_path / "flat.pth")) == ("fc.weight", "fc.bias")
    picture = random_clip(1, SIDE, SIDE, dtype=torch.float64)
    with torch.no_grad():
        x = flat.layer1(flat.maxpool(flat.relu(flat.bn1(flat.conv1(picture[:, :, 0])))))
        expected = flat.layer4(flat.layer3(flat.layer2(x)))
        got = backbone.deepen(backbone.extract(picture.expand(-1, -1, 3, -1, -1)))
    assert close(got[:, :, 1], expected)


def test_zhous_network_in_space_alone_is_torchvisions_on_a_still_clip(tmp_path, monkeypatch):
    flat = with_uneven_statistics(torchvision.models.DenseNet(8, (2, 2, 2, 2), 16, bn_size=2).double())
    shape = replace(ZHOU_SHAPES["zhou_densenet121_s"], depths=(2, 2, 2, 2), growth=8, bottleneck=16, stem=16)
    monkeypatch.setitem(ZHOU_SHAPES, "zhou_densenet121_s", shape)
    backbone = build_backbone("zhou_densenet121_s", 3, 8).double().eval()
    left = backbone.load_weights(saved(flat.state_dict(), tmp_path / "flat.pth"))
    assert left == ("classifier.weight", "classifier.bias")
    picture = random_clip(1, SIDE, SIDE, dtype=torch.float64)
    with torch.no_grad():
        expected = flat.features(picture[:, :, 0]).relu()
        got = backbone.deepen(backbone.extract(picture.expand(-1, -1, 8, -1, -1)))
    assert close(got[:, :, 3], expected)  # the stem's zeros reach the frames at both ends
    assert not close(got[:, :, 0], expected)


def test_a_strategy_takes_its_paths_from_a_network_with_both_and_from_no_other():
    full = build_backbone("zhou_small", 3, 2)
    units = full.strategies
    strategy = ["ST" if number % 2 else "S" for number in range(len(units))]
    with pytest.raises(UserError, match=f"expected S, ST or S\\+ST for {len(units)} units"):
        ZhouDenseNet("zhou_small", 3, 2, strategy=strategy[:-1])
    kept = ZhouDenseNet("zhou_small", 3, 2, strategy=strategy)
    assert kept.options == {"strategy": strategy}
    assert set(kept.state_dict()) < set(full.state_dict())
    named = ZHOU_SHAPES["zhou_densenet121_ssv2"].strategies()
    assert [list(named.values()).count(one) for one in ("S", "ST", "S+ST")] == [0, 18, 43]
    assert ZHOU_SHAPES["zhou_densenet121_ssv1"].strategies()["transition1"] == "S"


def test_options_of_blvnet_are_read_from_its_weights(tmp_path):
    for options in ({}, {"blending_frames": 5}, {"alpha": 4}, {"alpha": 4, "blending_frames": 1}):
        origin = BLVNet("blvnet_tam_small", 3, 2, **options)
        tensors = {f"baseline_model.{name}": value for name, value in origin.state_dict().items()}
        tensors = {name.replace("baseline_model.new_fc", "new_fc"): value for name, value in tensors.items()}
        file = saved(tensors, tmp_path / "weights.pth", "module.")
        assert BLVNet.options_for("blvnet_tam_small", file) == options
        found = BLVNet.official(tensors)
        assert (found.name, found.num_classes, dict(found.options)) == ("blvnet_tam_small", 3, options)
        again = BLVNet("blvnet_tam_small", 4, 2, **options)
        assert again.load_weights(file) == ("new_fc.weight", "new_fc.bias")
    with torch.device("meta"):
        deeper = BLVNet("blvnet_tam_50", 3, 2, beta=2)
    assert dict(BLVNet.official(deeper.state_dict()).options) == {"beta": 2}
    with pytest.raises(UserError, match="blending_frames: got 4"):
        BLVNet("blvnet_tam_small", 3, 2, blending_frames=4)


def test_slowfast_reads_pytorchvideos_names_and_says_its_mean(tmp_path):
    origin = SlowFast("slowfast_small", 3, 8)
    theirs = {}
    for name, value in origin.state_dict().items():
        pathway, _, rest = name.partition(".")
        number = "1" if pathway == "fast" else "0"
        for own, other in (("conv1.", "conv."), ("bn1.", "norm.")):
            rest = f"multipathway_blocks.{number}.{other}{rest[len(own) :]}" if rest.startswith(own) else rest
        if rest.startswith("layer"):
            layer, block, module, rest = rest.split(".", 3)
            kind = {"conv": "branch2.conv_", "bn": "branch2.norm_"}.get(module[:-1])
            if kind:
                module = kind + "abc"[int(module[-1]) - 1]
            else:
                part, _, rest = rest.partition(".")
                module = f"branch1_{'conv' if part == '0' else 'norm'}"
            theirs[f"model.blocks.{layer[-1]}.multipathway_blocks.{number}.res_blocks.{block}.{module}.{rest}"] = value
        elif pathway == "fuse":
            stage, module, rest = rest.split(".", 2)
            module = {"conv": "conv_fast_to_slow", "bn": "norm"}[module]
            theirs[f"model.blocks.{stage}.multipathway_fusion.{module}.{rest}"] = value
        elif pathway == "fc":
            theirs[f"model.blocks.6.proj.{rest}"] = value
        else:
            theirs[f"model.blocks.0.{rest}"] = value
    other = SlowFast("slowfast_small", 5, 8)
    assert other.load_weights(saved(theirs, tmp_path / "weights.pyth")) == ("fc.weight", "fc.bias")
    assert torch.equal(other.fuse[3].conv.weight, origin.fuse[3].conv.weight)
    assert torch.equal(other.fast.layer2[0].downsample[0].weight, origin.fast.layer2[0].downsample[0].weight)
    assert SlowFast.format_for("slowfast_r50", {}).mean == (0.45, 0.45, 0.45)
    with pytest.raises(UserError, match="Caffe2"):
        other.load_weights(str(tmp_path / "weights.pkl"))


def test_c3d_reads_mmactions_names_and_their_mean(tmp_path, caplog):
    origin = C3D("c3d_small", 3, 8)
    renamed = {"conv1": "conv1a", "conv2": "conv2a"}
    theirs = {}
    for name, value in origin.state_dict().items():
        layer, _, rest = name.partition(".")
        part = f"{renamed.get(layer, layer)}.conv" if layer.startswith("conv") else layer
        theirs[f"backbone.{part}.{rest}" if layer != "fc8" else f"cls_head.fc_cls.{rest}"] = value
    other = C3D("c3d_small", 5, 8)
    file = saved(theirs, tmp_path / "mmaction.pth")
    assert other.load_weights(file) == ("fc8.weight", "fc8.bias")
    assert torch.equal(other.conv3b.weight, origin.conv3b.weight)
    assert not caplog.messages
    wanted = C3D.format_of("c3d_small", file)
    assert wanted.mean == (104 / 255, 117 / 255, 128 / 255)
    port = saved(origin.state_dict(), tmp_path / "port.pth")
    other.load_weights(port)
    assert any(port in message and "mean" in message for message in caplog.messages)


# What is peculiar.


def test_slow_frames_are_spread_from_the_first_to_the_last_and_rounded_down():
    assert build_backbone("slowfast_small", 3, 16).slow_frames == [0, 5, 10, 15]
    assert build_backbone("slowfast_small", 3, 32).slow_frames == [0, 4, 8, 13, 17, 22, 26, 31]


def test_a_2d_abn_answers_with_any_map_in_place_of_its_own():
    model = with_uneven_statistics(PlainNetwork("abn2d_small", 3, 2))
    clip = random_clip(2, SIDE, SIDE, batch=2)
    with torch.no_grad():
        features = model.encode(clip)
        output, (own, _) = model(clip), model.attend(features)
        answers = {edit: model.perceive(features, Attention(edit(own.spatial), own.temporal))
                   for edit in (torch.clone, torch.zeros_like, torch.ones_like)}  # fmt: skip
        plain = model.backbone.classify(model.backbone.deepen_weighed(features))
    assert torch.equal(output.attention.spatial, own.spatial)
    assert torch.equal(own.temporal, torch.ones(2, 2))
    assert torch.allclose(answers[torch.clone], output.logits)
    assert torch.allclose(answers[torch.zeros_like], plain)
    assert not torch.allclose(answers[torch.ones_like], plain)
    with pytest.raises(ValueError, match="attention: got spatial shape"):
        model.perceive(features, Attention(own.spatial[:, :1], own.temporal[:, :1]))


def test_the_filter_bank_with_one_filter_and_no_bias_is_linear_on_constant_maps():
    head = FilterBankHead(4, 3, 1).double()
    nn.init.zeros_(head.bank.bias)
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = x[:, :, None, None, None].expand(-1, -1, 2, 3, 3)
    with torch.no_grad():
        scores = head(maps, maps, nn.Identity())
        shuffled = maps.flatten(2)[:, :, torch.randperm(18)].unflatten(2, (2, 3, 3))
        again = head(shuffled, shuffled, nn.Identity())
        expected = x @ head.bank.weight[:, :, 0, 0, 0].T
    assert close(scores.cross_channel, expected)
    assert close(again.logits, scores.logits)


@pytest.mark.parametrize(
    ("name", "frames", "size", "millions", "macs"),
    [
        ("slowfast_r50", 32, 224, 34.05, 50.3),
        ("zhou_densenet121_sst_t8", 16, 256, 21.40, 31.3),
        ("zhou_densenet121_ssv2", 16, 224, 19.77, None),
        ("c3d", 16, 112, 78.7, 38.5),
        ("smallbig50", 8, 224, 23.91, None),
        ("smallbig101", 8, 224, 42.95, None),
        ("blvnet_tam_101", 64, 224, 40.18, None),
    ],
)
def test_parameters_and_cost_for_174_classes_are_the_published_ones(name, frames, size, millions, macs):
    with torch.device("meta"):
        backbone = build_backbone(name, 174, frames).eval()
        clip = torch.empty(1, 3, frames, size, size)
    digits = len(str(millions).partition(".")[2])
    assert round(sum(value.numel() for value in backbone.parameters()) / 1e6, digits) == millions
    if macs is not None:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone.classify(backbone.deepen(backbone.extract(clip)))
        assert round(counter.get_total_flops() / 2e9, 1) == macs


def test_every_name_of_the_tables_leads_to_its_family():
    for table in (BLV_SHAPES, SMALLBIG_SHAPES, ZHOU_SHAPES, SLOWFAST_SHAPES, C3D_SHAPES, ABN_SHAPES):
        for name in table:
            assert backbone_class(name) is RECOGNISERS[name]
            assert name in backbone_class(name).architectures
