"""TSN, TRN, TSM, STM, GST, CPNet, ABM and PEM at small width; tests/benchmarks/test_reference.py has their numbers."""

import json
import re
from pathlib import Path

import pytest
import torch
from family_checks import SIDE, check_learns_and_comes_back, check_two_clips_are_answered_as_each_alone, clip_of, close
from uneven import random_clip, with_uneven_statistics

from stabn.errors import UserError
from stabn.nn import STABN, PlainNetwork, build_backbone, import_recogniser
from stabn.nn.backbones import backbone_class
from stabn.nn.backbones.abm import ABM_ARCHITECTURES
from stabn.nn.backbones.cpnet import nearest_in_other_frames, old_bilinear, place_coordinates, same_padding
from stabn.nn.backbones.frame_resnet import FrameResNet
from stabn.nn.backbones.pem import ProgressiveEnhancement
from stabn.nn.backbones.stm import ChannelwiseTime
from stabn.nn.backbones.trn import MultiscaleRelation
from stabn.nn.backbones.tsm import shifted
from stabn.nn.cam import cam, grad_cam

REFERENCE = Path(__file__).parents[2] / "reference"
CLIPS = {
    "tsn_tiny": (4, 4),
    "tsn_flow_tiny": (10, 2),
    "trn_tiny": (4, 4),
    "trn_single_tiny": (3, 3),
    "trn_flow_tiny": (10, 2),
    "cpnet_tiny": (3, 3),
    "tsm_tiny": (4, 4),
    "stm_tiny": (4, 4),
    "gst_tiny": (3, 3),
    "gst_large_tiny": (3, 3),
    "abm_c_in_tiny": (9, 3),
    "abm_a_in_tiny": (18, 2),
    "abm_top_tiny": (12, 4),
    "pem_our_reading_tiny": (3, 3),
}
"""Network -> frames of a clip, steps of its features."""
BLIND = ("tsn_tiny", "tsn_flow_tiny")
WITHOUT_CAM = ("trn_tiny", "trn_single_tiny", "trn_flow_tiny")
FLOW = ("tsn_flow_tiny", "trn_flow_tiny")


@pytest.fixture(scope="module", params=CLIPS)
def network(request) -> PlainNetwork:
    return with_uneven_statistics(PlainNetwork(request.param, 3, CLIPS[request.param][0]).double())


def test_two_clips_are_answered_as_each_alone(network):
    check_two_clips_are_answered_as_each_alone(network)


def test_only_tsn_is_blind_to_the_order_of_steps(network):
    snippet = network.backbone.shape.snippet
    clip = clip_of(network)
    backwards = clip.unflatten(2, (-1, snippet)).flip(2).flatten(2, 3)
    with torch.no_grad():
        assert close(network(backwards).logits, network(clip).logits) == (network.architecture in BLIND)


def test_features_have_the_announced_shape_and_every_weight_a_stage(network):
    backbone = network.backbone
    with torch.no_grad():
        features = backbone.extract(clip_of(network))
    assert features.shape[1:] == backbone.features_shape(network.frames, SIDE)
    assert features.shape[2] == CLIPS[network.architecture][1]
    staged = [id(value) for parts in backbone.stages().values() for part in parts for value in part.parameters()]
    assert sorted(staged) == sorted(id(value) for value in backbone.parameters())


def test_the_extractor_is_what_extract_uses(network):
    backbone = build_backbone(network.architecture, 3, network.frames).double().train()
    backbone.extract(clip_of(network)).sum().backward()
    stages = list(backbone.stages().values())
    used = [any(value.grad is not None for part in parts for value in part.parameters()) for parts in stages]
    assert used == [True] * backbone.extracting + [False] * (len(stages) - backbone.extracting)


def test_cam_is_the_whole_answer_where_it_is_defined(network):
    clip = clip_of(network)
    if network.architecture in WITHOUT_CAM:
        with pytest.raises(UserError, match=f"not defined for {network.architecture}"):
            cam(network, clip)
        evidence = grad_cam(network, clip)
        assert evidence.shape[1] == network.frames
        assert float(evidence.max()) > 0
        return
    stride, steps = network.backbone.maps_time_stride, network.backbone.steps(network.frames)
    steps = 1 if network.architecture == "abm_top_tiny" else steps
    evidence = cam(network, clip, torch.tensor([1]))[:, ::stride][:, :steps]
    logit = network(clip).logits.detach()[0, 1]
    assert close(evidence.mean() + network.backbone.linear.bias.detach()[1], logit)


def test_another_number_of_frames_is_refused(network):
    frames, snippet = network.frames, network.backbone.shape.snippet
    if network.architecture not in BLIND:
        with pytest.raises(ValueError, match=f"expected .B, 3, {frames}, H, W"):
            network.encode(torch.zeros(1, 3, frames + snippet, SIDE, SIDE, dtype=torch.float64))
    if snippet > 1:
        with pytest.raises(UserError, match=f"frames: got {frames + 1}.*{snippet}"):
            build_backbone(network.architecture, 3, frames + 1)


def test_bn_inception_refuses_sides_that_its_branches_halve_differently():
    with torch.device("meta"):
        network = PlainNetwork("tsn_bninception", 3, 1).eval()
        for side in (31, 40, 48, 64):
            clip = torch.empty(1, 3, 1, side, side)
            try:
                features = network.backbone.extract(clip)
                network.backbone.deepen(features)
            except RuntimeError:  # PyTorch's own bound
                with pytest.raises(ValueError, match=f"got {side} x {side} pixels, expected .* multiples of 32"):
                    network.encode(clip)
            else:
                assert network.encode(clip).shape[1:] == network.backbone.features_shape(1, side)


def test_networks_with_the_branch_learn_and_come_back_from_their_folder(network, tmp_path):
    check_learns_and_comes_back(network.architecture, network.frames, SIDE, tmp_path, kinds=(STABN,))


def test_an_edit_of_all_frames_to_one_is_no_edit_of_a_constant_attention(network):
    model = with_uneven_statistics(STABN(network.architecture, 3, network.frames).double())
    with torch.no_grad():
        features = model.encode(clip_of(network))
        attention, _ = model.attend(features)
        steps = model._attention_of_steps(features, attention)
        again = model._attention_of_steps(features, attention.uniform_temporal())
    assert steps[1].shape == (1, CLIPS[network.architecture][1])
    assert close(again[1], again[1].mean().expand_as(again[1]))


# Weights.


def official_of(stem: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """A layout and a checkpoint that holds one number per tensor, stored once, with classes and frames of its own."""
    about = json.loads((REFERENCE / f"{stem}.json").read_text())
    return about, {
        name: torch.full((), float(number + 1), dtype=torch.int64 if name.endswith("tracked") else None).expand(shape)
        for number, (name, shape) in enumerate(about["state_dict"])
    }


LAYOUTS = {
    "tsn_resnet18": "tsn_resnet18",
    "tsn_bninception": "tsn_bninception",
    "trn_multiscale_rgb_8": "trn_bninception",
    "tsm_resnet18_8": "tsm_resnet18",
    "stm_r50": "stm_resnet50",
    "gst_resnet50_8": "gst_resnet50",
    "cpnet_resnet34_8": "cpnet_resnet34",
    "abm_c_in_resnet34_8x3": "abm_c_in_resnet34",
    "abm_top_resnet34_8x3": "abm_top_resnet34",
}


@pytest.mark.parametrize("stem", LAYOUTS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_checkpoints_become_networks_with_their_classes_and_frames(stem, prefix, tmp_path):
    about, tensors = official_of(stem)
    torch.save({"state_dict": {prefix + name: value for name, value in tensors.items()}}, tmp_path / "a.pth")
    model = import_recogniser(tmp_path / "a.pth", frames=about["frames"])
    assert (model.architecture, model.num_classes, model.frames) == (LAYOUTS[stem], 12, about["frames"])
    numbers = sorted(float(value.flatten()[0]) for name, value in model.state_dict().items() if "tracked" not in name)
    assert numbers == sorted(float(value.flatten()[0]) for name, value in tensors.items() if "tracked" not in name)


@pytest.mark.parametrize(
    ("stem", "damaged", "token"),
    [
        ("tsm_resnet18_8", "base_model.layer2.0.conv1.net.weight", "layer2.0.conv1.net.weight: missing"),
        ("trn_multiscale_rgb_8", "consensus.fc_fusion_scales.2.1.bias", "fc_fusion_scales.2.1.bias: missing"),
        ("gst_resnet50_8", "new_fc.weight", "tensor new_fc.weight: missing"),
        ("stm_r50", "layer3.1.mb.stage_bn.bias", "layer3.1.mb.stage_bn.bias: missing"),
        ("cpnet_resnet34_8", "group2.block4.pointnet.bn_final.bias", "block4.pointnet.bn_final.bias: missing"),
        ("abm_c_in_resnet34_8x3", "layer3.2.conv1_abp.bias", "layer3.2.conv1_abp.bias: missing"),
    ],
)
def test_the_first_offending_tensor_is_named(stem, damaged, token, tmp_path):
    _, tensors = official_of(stem)
    del tensors[damaged]
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(UserError, match=token) as error:
        import_recogniser(tmp_path / "a.pth")
    assert str(tmp_path / "a.pth") in str(error.value)


def test_frames_that_the_shapes_tell_are_the_default_and_others_are_refused(tmp_path):
    for stem, frames in (("trn_multiscale_rgb_8", 8), ("abm_top_resnet34_8x3", 24)):
        torch.save(official_of(stem)[1], tmp_path / "a.pth")
        family = backbone_class(LAYOUTS[stem])
        assert family.format_of(LAYOUTS[stem], str(tmp_path / "a.pth")).frames == frames
        with pytest.raises(UserError, match=f"frames: got 4, .*{frames} frames"):
            import_recogniser(tmp_path / "a.pth", frames=4)


def test_snippets_of_another_length_are_read_off_the_first_convolution(tmp_path):
    _, tensors = official_of("abm_c_in_resnet34_8x3")
    tensors["conv1.weight"] = torch.zeros(()).expand(64, 3, 7, 7)
    torch.save(tensors, tmp_path / "a.pth")
    model = import_recogniser(tmp_path / "a.pth")
    assert (model.frames, model.backbone.time_stride, model.backbone_options) == (16, 1, {"snippet": 1})


def test_tsn_and_tsm_read_each_others_checkpoints_and_mmactions(tmp_path):
    torch.manual_seed(0)
    tsn, tsm = build_backbone("tsn_tiny", 3, 4), build_backbone("tsm_tiny", 3, 4)
    torch.save(tsn.state_dict(), tmp_path / "tsn.pth")
    torch.save(tsm.state_dict(), tmp_path / "tsm.pth")
    assert tsm.load_weights(str(tmp_path / "tsn.pth")) == ("new_fc.weight", "new_fc.bias")
    for own, theirs in zip(list(tsm.state_dict().values())[:-2], list(tsn.state_dict().values())[:-2], strict=True):
        assert torch.equal(own, theirs)
    assert build_backbone("tsn_tiny", 3, 4).load_weights(str(tmp_path / "tsm.pth")) == ("new_fc.weight", "new_fc.bias")
    other = {}
    for name, value in tsm.state_dict().items():
        name = name.replace("base_model.", "backbone.").replace("new_fc.", "cls_head.fc_cls.")
        name = name.replace("downsample.0", "downsample.conv").replace("downsample.1", "downsample.bn")
        name = re.sub(r"\bbn(\d)", r"conv\1.bn", re.sub(r"\bconv(\d)", r"conv\1.conv", name))
        other[name] = value
    torch.save({"state_dict": other}, tmp_path / "mm.pth")
    again = build_backbone("tsm_tiny", 3, 4)
    again.load_weights(str(tmp_path / "mm.pth"))
    assert all(
        torch.equal(value, tsm.state_dict()[name])
        for name, value in again.state_dict().items()
        if not name.startswith("new_fc")
    )


@pytest.mark.parametrize(
    "name", [name for name in CLIPS if name not in ("cpnet_tiny", "abm_a_in_tiny", "abm_top_tiny")]
)
def test_a_2d_network_fills_all_that_it_has_and_its_answers_come_out_where_nothing_is_between_frames(name, tmp_path):
    frames = CLIPS[name][0]
    shape = backbone_class(name).architectures[name]
    torch.manual_seed(1)
    image = with_uneven_statistics(FrameResNet(shape.body).double())
    torch.save({**image.state_dict(), "fc.weight": torch.zeros(5, 5), "fc.bias": torch.zeros(5)}, tmp_path / "i.pth")
    backbone = build_backbone(name, 3, frames).double().eval()
    left = backbone.load_weights(str(tmp_path / "i.pth"))
    assert "base_model.bn1.weight" not in left
    clip = random_clip(frames, SIDE, SIDE, dtype=torch.float64)
    if name in ("tsn_tiny", "abm_c_in_tiny"):
        clip = clip[:, :, ::3].repeat_interleave(3, dim=2) if shape.snippet == 3 else clip
        with torch.no_grad():
            got = backbone.extract(clip)
            stem = image.conv1(clip[:, :, 0]) * shape.snippet  # the official repetition is not divided
            maps = image.maxpool(image.relu(image.bn1(stem)))
            expected = image.layer3(image.layer2(image.layer1(maps)))
        assert close(got[:, :, 0], expected)
    bad = dict(image.state_dict())
    del bad["layer2.1.bn1.bias"]
    torch.save(bad, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"tensor layer2\.1\.bn1\.bias: missing"):
        backbone.load_weights(str(tmp_path / "bad.pth"))


# Parts against answers by hand.


def test_an_impulse_is_shifted_by_one_frame_or_off_the_end():
    for channel, frame, expected in ((0, 2, 1), (0, 0, None), (1, 2, 3), (1, 3, None), (2, 2, 2), (7, 0, 0)):
        x = torch.zeros(4, 8, 1, 1)
        x[frame, channel] = 1
        hits = [tuple(place) for place in shifted(x, 4)[:, :, 0, 0].nonzero().tolist()]
        assert hits == ([] if expected is None else [(expected, channel)])


def test_temporal_taps_start_as_copies_of_the_previous_the_own_and_the_next_frame():
    x = torch.arange(1.0, 4.0)[:, None, None, None].expand(3, 4, 1, 1)
    got = ChannelwiseTime(4, 3)(x)[:, :, 0, 0].T
    assert got.tolist() == [[0, 1, 2], [1, 2, 3], [1, 2, 3], [2, 3, 0]]


def test_relations_of_constant_scores_are_three_per_scale():
    relation = MultiscaleRelation(4, 2, 3).eval()
    with torch.no_grad():
        for network in relation.fc_fusion_scales:
            network[3].weight.zero_()
            network[3].bias.copy_(torch.tensor([1.0, 2.0, -1.0]))
    features = torch.randn(2, 4, 2)
    # One tuple of four frames, three of four of three frames, three of six of two.
    expected = torch.tensor([7.0, 14.0, -7.0]).expand(2, 3)
    assert torch.allclose(relation(features), expected)
    assert torch.allclose(relation.train()(features), expected)


@pytest.mark.parametrize("frames", [1, 17])
def test_numbers_of_frames_without_or_with_too_many_tuples_are_refused(frames):
    with pytest.raises(UserError, match=f"frames: got {frames}.*2 to 16"):
        build_backbone("trn_tiny", 3, frames)


def test_a_place_meets_the_nearest_of_other_frames_alone():
    v = torch.tensor([[[5.0, 1.0], [1.1, 5.2], [9.0, 5.1]]]).reshape(1, 1, 3, 1, 2)
    nearest = nearest_in_other_frames(v)
    assert nearest.shape == (1, 6, 4)
    frame = torch.arange(6) // 2
    assert not (frame[nearest[0]] == frame[:, None]).any()
    assert nearest[0, :, 0].tolist() == [5, 2, 1, 5, 3, 0]
    two = torch.zeros(1, 3, 2, 1, 1)
    assert nearest_in_other_frames(two).tolist() == [[[1], [0]]]
    coordinates = place_coordinates(two)
    assert (coordinates[[1, 0]] - coordinates).tolist() == [[0.5, 0, 0], [-0.5, 0, 0]]
    with pytest.raises(UserError, match="frames: got 1"):
        build_backbone("cpnet_tiny", 3, 1)


def test_tensorflow_pads_behind_and_resizes_without_half_pixels():
    ones = torch.ones(1, 1, 1, 4, 6)
    assert same_padding(ones, 3, 2)[0, 0, 0].sum(0).tolist() == [4, 4, 4, 4, 4, 4, 0]
    assert same_padding(ones, 7, 2)[0, 0, 0].sum(1).tolist() == [0, 0, 6, 6, 6, 6, 0, 0, 0]
    row = torch.tensor([0.0, 4.0, 8.0]).reshape(1, 1, 1, 1, 3)
    assert old_bilinear(row, 1, 6).flatten().tolist() == [0, 2, 4, 6, 8, 8]


def test_enhancement_sees_earlier_frames_alone_and_halves_without_weights():
    torch.manual_seed(0)
    module = ProgressiveEnhancement(4, 2).double()
    x = torch.rand(1, 3, 4, 2, 2, dtype=torch.float64)
    changed = x.clone()
    changed[:, 2] += 1
    first, second = module(x).frames, module(changed).frames
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.equal(first[:, 2] / x[:, 2], second[:, 2] / changed[:, 2])
    with torch.no_grad():
        module.restore.weight.zero_()
        module.restore.bias.zero_()
    assert torch.allclose(module(x).frames, x / 2)


# Published sizes.


@pytest.mark.parametrize(
    ("name", "frames", "parameters", "gmac"),
    [
        ("tsn_resnet50", 8, 23.86, 32.7),
        ("tsn_bninception", 8, 10.45, 16.2),
        ("trn_bninception", 8, 13.14, 16.3),
        ("trn_flow_bninception", 40, 13.16, 18.5),
        ("cpnet_resnet34", 24, 21.65, 116.5),
        ("tsm_resnet50", 16, 23.86, 65.4),
        ("stm_resnet50", 8, 24.04, 33.0),
        ("gst_resnet50", 16, 21.04, 58.0),
        ("gst_large_resnet50", 8, 29.52, 40.1),
        ("abm_c_in_resnet50", 48, 64.44, 161.7),
        ("abm_c_in_resnet34", 48, 61.95, 154.9),
        ("abm_a_in_resnet34", 48, 44.43, 76.1),
        ("abm_top_resnet34", 48, 25.59, 63.0),
    ],
)
def test_sizes_are_the_published_ones(name, frames, parameters, gmac):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        backbone = build_backbone(name, 174, frames).eval()
        clip = torch.empty(1, 3, frames, 224, 224)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone.classify(backbone.deepen(backbone.extract(clip)))
    assert sum(value.numel() for value in backbone.parameters()) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.06)


def test_every_kind_of_abm_has_a_small_network():
    kinds = {shape.variant for shape in ABM_ARCHITECTURES.values()}
    assert kinds == {ABM_ARCHITECTURES[name].variant for name in CLIPS if name.startswith("abm")}
