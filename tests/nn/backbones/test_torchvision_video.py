"""torchvision's video networks; where the library's classes allow it they are tiny."""

import math
from copy import deepcopy
from urllib.error import URLError

import pytest
import torch
from family_checks import check_learns_and_comes_back
from safetensors.torch import save_file
from tiny_networks import tiny, use_tiny_networks
from torch import nn
from torchvision.models import video
from uneven import random_clip, with_uneven_statistics

from stabn.errors import UserError
from stabn.nn import STABN, PlainNetwork, build_backbone
from stabn.nn.backbone import TokenMap, map_of
from stabn.nn.backbones.torchvision_video import VIDEO_ARCHITECTURES, TorchvisionVideo
from stabn.nn.cam import cam, grad_cam
from stabn.nn.weights import start_from

NAMES = list(VIDEO_ARCHITECTURES)
CLIPS = {"s3d": (7, 49), "mvit_v1_b": (4, 64), "mvit_v2_s": (4, 64)}
"""Frames and side; (5, 24) for the others."""


@pytest.fixture
def tiny_networks(monkeypatch):
    use_tiny_networks(monkeypatch)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_are_the_librarys_whole_network(tiny_networks, name):
    frames, side = CLIPS.get(name, (5, 24))
    backbone = with_uneven_statistics(build_backbone(name, 3, frames).double())
    clip = random_clip(frames, side, side, batch=2, dtype=torch.float64)
    with torch.no_grad():
        expected = backbone.network(clip)
        features = backbone.extract(clip)
        maps = backbone.deepen(features)
        logits = backbone.classify(maps)
    assert map_of(features).shape[1:] == backbone.features_shape(frames, side)
    assert isinstance(features, TokenMap) == name.startswith("mvit")
    assert torch.allclose(logits, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
    assert float((expected[0] - expected[1]).abs().max()) > 1e-6  # the answer depends on the clip
    assert map_of(maps).shape[2] == math.ceil(frames / backbone.maps_time_stride)
    if backbone.linear is not None:
        assert torch.allclose(backbone.linear(map_of(maps).mean(dim=(2, 3, 4))), expected, rtol=0, atol=1e-12)
    assert (backbone.linear is None) == (name == "s3d" or name.startswith("mvit"))


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_librarys_full_networks_and_of_its_weights(name):
    with torch.device("meta"):
        backbone = build_backbone(name, 400, 16).eval()
        clip = torch.empty(1, 3, 16, 224, 224)
    features = backbone.extract(clip)
    assert map_of(features).shape[1:] == backbone.features_shape(16, 224)
    maps = map_of(backbone.deepen(features))
    if backbone.linear is not None:
        assert maps.shape[1] == backbone.linear.in_features
    assert backbone.fresh_head()(torch.empty_like(map_of(features), device="cpu")[..., :1, :2, :2]).shape[1] == 128
    parameters = {
        id(value) for modules in backbone.stages().values() for part in modules for value in part.parameters()
    }
    assert parameters == {id(value) for value in backbone.parameters()}
    published = backbone.published(name)
    assert published[0].name == "KINETICS400_V1"
    weights = getattr(video, VIDEO_ARCHITECTURES[name].weights).KINETICS400_V1
    assert sum(value.numel() for value in backbone.parameters()) == weights.meta["num_params"]
    transform, wanted = weights.transforms(), backbone.format_for(name, {})
    assert (tuple(transform.mean), tuple(transform.std)) == (wanted.mean, wanted.std)
    assert transform.crop_size == [wanted.size] * 2
    assert f"`frame_rate={wanted.fps:g}`" in weights.meta["_docs"]


@pytest.mark.parametrize("name", NAMES)
def test_the_extractor_is_what_extract_uses(tiny_networks, name):
    frames, side = CLIPS.get(name, (5, 24))
    backbone = build_backbone(name, 3, frames).train()
    map_of(backbone.extract(random_clip(frames, side, side))).sum().backward()
    stages = list(backbone.stages().values())
    used = [any(value.grad is not None for part in modules for value in part.parameters()) for modules in stages]
    assert used == [True] * backbone.extracting + [False] * (len(stages) - backbone.extracting)


class _Same(nn.Module):
    def forward(self, tokens, grid):
        return tokens, grid


@pytest.mark.parametrize("name", ["swin3d_t", "mvit_v1_b"])
def test_a_patch_of_pixels_is_seen_in_its_cell(tiny_networks, name):
    backbone = build_backbone(name, 3, 4).double().eval()
    if name == "swin3d_t":
        backbone.network.features = nn.Sequential(*[nn.Identity() for _ in range(7)])
    else:
        backbone.network.blocks = nn.ModuleList([_Same() for _ in range(4)])
    clip = random_clip(4, 64, 64, dtype=torch.float64)
    changed = clip.clone()
    changed[:, :, 2, 20:24, 36:40] += 1  # frame 2 is in step 1; rows 20..23 are row 5 of cells of 4, columns column 9
    with torch.no_grad():
        difference = (map_of(backbone.extract(changed)) - map_of(backbone.extract(clip))).abs().sum(dim=(0, 1))
    cells = [tuple(cell) for cell in difference.nonzero().tolist()]
    if name == "swin3d_t":
        assert cells == [(1, 5, 9)]
    else:  # its patches overlap
        assert (1, 5, 9) in cells
        assert {(t, h, w) for t in (0, 1) for h in (4, 5, 6) for w in (8, 9, 10)} >= set(cells)


@pytest.mark.parametrize("name", ["mc3_18", "s3d", "mvit_v1_b", "swin3d_b"])
def test_networks_around_it_learn_and_come_back_from_their_folder(
    tiny_networks, tmp_path, no_network, monkeypatch, name
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    frames, side = CLIPS.get(name, (5, 24))
    check_learns_and_comes_back(name, frames, side, tmp_path)


@pytest.mark.parametrize("name", ["r3d_18", "s3d", "mvit_v2_s", "swin3d_t"])
def test_recomputing_activations_changes_no_gradient_and_no_statistic_and_keeps_less(tiny_networks, name):
    frames, side = CLIPS.get(name, (5, 24))
    torch.manual_seed(0)
    model = PlainNetwork(name, 3, frames).train()
    clip, results = random_clip(frames, side, side, batch=2), []
    for enabled in (False, True):
        again, kept = deepcopy(model), []
        assert again.checkpoint_activations(enabled)
        torch.manual_seed(0)  # of dropout and stochastic depth
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            loss = again(clip).logits.square().sum()
        loss.backward()
        results.append((sum(kept), [value.grad for value in again.parameters()], list(again.buffers())))
    (all_kept, *expected), (kept, *got) = results
    for one, other in zip(expected, got, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert kept < 0.5 * all_kept


def test_the_maps_of_a_network_with_a_class_token_have_a_gradient(tiny_networks):
    backbone = with_uneven_statistics(build_backbone("mvit_v2_s", 3, 4))
    maps = backbone.deepen(backbone.extract(random_clip(4, 64, 64)))
    map_bcthw = maps.map.detach().requires_grad_()
    backbone.classify(TokenMap(map_bcthw, maps.tokens))[0, 1].backward()
    assert map_bcthw.grad.abs().amax(dim=(0, 1)).min() > 0


def test_evidence_of_a_step_is_shown_at_its_own_frames(tiny_networks):
    model = with_uneven_statistics(PlainNetwork("r3d_18", 3, 9).double())
    clip = random_clip(9, 24, 24, dtype=torch.float64)
    evidence = cam(model, clip, torch.tensor([1]))
    steps = evidence[:, [0, 8]]  # eight frames a step
    assert torch.equal(evidence[:, :8], steps[:, :1].expand(-1, 8, -1, -1))
    logits = model(clip).logits.detach()
    assert torch.allclose(steps.mean() + model.backbone.network.fc.bias[1], logits[0, 1], rtol=0, atol=1e-12)
    s3d = with_uneven_statistics(PlainNetwork("s3d", 3, 20))
    evidence = grad_cam(s3d, random_clip(20, 49, 49))
    assert torch.equal(evidence[:, :16], evidence[:, [0, 8]].repeat_interleave(8, dim=1))
    assert not torch.equal(evidence[:, 0], evidence[:, 8])
    assert float(evidence[:, 16:].abs().max()) == 0  # S3D leaves out the fifth step


def test_clips_that_a_network_cannot_take_are_refused():
    with torch.device("meta"):
        mvit, s3d = PlainNetwork("mvit_v1_b", 3, 16), PlainNetwork("s3d", 3, 16)
    for frames, side in ((8, 224), (16, 256)):
        with pytest.raises(
            ValueError, match=rf"got shape \(1, 3, {frames}, {side}, {side}\), expected \(B, 3, 16, 224"
        ):
            mvit.encode(torch.empty(1, 3, frames, side, side, device="meta"))
    assert s3d.encode(torch.empty(1, 3, 13, 209, 209, device="meta")).shape == (1, 832, 4, 14, 14)
    assert s3d.backbone.network(torch.empty(1, 3, 13, 209, 209, device="meta")).shape == (1, 3)
    for frames, side in ((12, 209), (13, 208)):
        with pytest.raises(RuntimeError):  # the library's own bound
            s3d.backbone.network(torch.empty(1, 3, frames, side, side, device="meta"))
        with pytest.raises(ValueError, match=rf"got shape \(1, 3, {frames}, {side}, {side}\).*13.*209"):
            s3d.encode(torch.empty(1, 3, frames, side, side, device="meta"))
    for name, frames, wanted in (("mvit_v2_s", 8, "16"), ("s3d", 12, "13")):
        with pytest.raises(UserError, match=f"frames: got {frames}.*{wanted}"), torch.device("meta"):
            build_backbone(name, 3, frames)


def loaded(name, weights, num_classes=3):
    """A network after `load_weights`, and what that left."""
    backbone = build_backbone(name, num_classes, 4)
    return backbone, backbone.load_weights(str(weights))


def assert_filled(backbone, library, left):
    head = f"{backbone.classifier}."
    for key, value in library.state_dict().items():
        if not key.startswith(head):
            assert torch.equal(backbone.network.state_dict()[key], value), key
    assert left == tuple(key for key in backbone.state_dict() if key.startswith(f"network.{head}"))


@pytest.mark.parametrize("name", ["mvit_v1_b", "swin3d_t"])
def test_cached_weights_are_loaded_by_name_without_network(tiny_networks, tmp_path, no_network, monkeypatch, name):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    library = tiny(name, 400)
    file = TorchvisionVideo.published(name)[0].file
    assert file.is_relative_to(tmp_path)
    file.parent.mkdir(parents=True)
    torch.save(library.state_dict(), file)
    for weights in ("KINETICS400_V1", f"{VIDEO_ARCHITECTURES[name].weights}.KINETICS400_V1", "DEFAULT", file):
        backbone, left = loaded(name, weights)
        assert_filled(backbone, library, left)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "module.model."])
def test_a_file_is_loaded_whatever_its_program_wraps_around_the_names(tiny_networks, tmp_path, prefix):
    library = tiny("swin3d_t", 7)
    tensors = {prefix + key: value for key, value in library.state_dict().items()}
    torch.save({"model": tensors, "epoch": 3}, tmp_path / "weights.pth")
    save_file(tensors, tmp_path / "weights.safetensors")
    for file in ("weights.pth", "weights.safetensors"):
        backbone, left = loaded("swin3d_t", tmp_path / file)
        assert_filled(backbone, library, left)
    line = start_from(STABN("swin3d_t", 3, 4), str(tmp_path / "weights.pth"))
    assert line.endswith(f"{len(tensors) - 2} tensors taken; random: head, attention branch")


def test_networks_of_ours_are_loaded_and_say_their_normalisation(tiny_networks, tmp_path):
    recorded = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}
    for kind in (STABN, PlainNetwork):
        model = kind("swin3d_t", 5, 4, preprocessing=recorded)
        model.save_pretrained(tmp_path / kind.__name__)
        backbone, left = loaded("swin3d_t", tmp_path / kind.__name__)
        assert_filled(backbone, model.backbone.network, left)
        wanted = backbone.format_of("swin3d_t", str(tmp_path / kind.__name__))
        assert (wanted.mean, wanted.std, wanted.size) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3), 224)
    assert backbone.format_of("swin3d_t", "KINETICS400_V1") == backbone.format_of("swin3d_t", None) == backbone.format
    with pytest.raises(UserError, match="architecture: got 'swin3d_t', expected 'swin3d_b'"):
        loaded("swin3d_b", tmp_path / "STABN")


def test_weights_that_are_not_there_or_of_another_network_are_one_line(tiny_networks, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fail(*_args, **_kwargs):
        raise URLError("no route\nto host")

    monkeypatch.setattr("torch.hub.urlopen", fail)
    torch.save(tiny("mc3_18", 3).state_dict(), tmp_path / "mc3.pth")
    (tmp_path / "damaged.pth").write_bytes((tmp_path / "mc3.pth").read_bytes()[:5000])
    cached = TorchvisionVideo.published("swin3d_t")[0].file
    cases = {
        "KINETICS400_V1": (str(cached), "swin3d_t-7615ae03.pth"),
        "KINETICS400_V9": ("'KINETICS400_V9'", "KINETICS400_V1"),
        "Swin3D_B_Weights.KINETICS400_V1": ("KINETICS400_V1", "swin3d_t"),
        tmp_path / "none.pth": (str(tmp_path / "none.pth"), "no such file"),
        tmp_path / "mc3.pth": (str(tmp_path / "mc3.pth"), "tensor patch_embed.proj.weight: missing", "swin3d_t"),
        tmp_path / "damaged.pth": (str(tmp_path / "damaged.pth"),),
        tmp_path: (str(tmp_path / "config.json"),),
    }
    for weights, tokens in cases.items():
        with pytest.raises(UserError) as error:
            loaded("swin3d_t", weights)
        assert "\n" not in str(error.value)
        assert all(token in str(error.value) for token in tokens), error.value
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(b"half a file")
    with pytest.raises(UserError, match=f"{cached}.*delete it"):
        loaded("swin3d_t", "KINETICS400_V1")
