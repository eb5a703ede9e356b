"""PlainNetwork and STABN: arithmetic against the official code's outputs, structure, and refusal of wrong input."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from uneven import parts, with_uneven_statistics
from uneven import random_clip as clip

from stabn.errors import UserError
from stabn.nn import STABN, Attention, Output, PlainNetwork
from stabn.nn.backbones.resnet3d import ARCHITECTURES


@pytest.fixture
def tiny() -> STABN:
    return with_uneven_statistics(STABN("tiny", 5, 4))


def test_tensors_have_the_official_names_shapes_and_order(reference):
    with torch.device("meta"):
        model = STABN(reference.architecture, reference.num_classes, reference.frames)
    assert [(name, list(value.shape)) for name, value in model.state_dict().items()] == reference.layout


def test_outputs_equal_the_official_code_in_float64(reference):
    model = STABN(reference.architecture, reference.num_classes, reference.frames)
    model.load_state_dict(reference.tensors)
    model.double().eval()
    with torch.no_grad():
        output = model(reference.clip.double())
    for name, value in parts(output).items():
        np.testing.assert_allclose(value.numpy(), reference.answers[name], rtol=0, atol=1e-9, err_msg=name)


def test_a_float32_resnet50_is_finite_and_agrees_with_float64():
    single = with_uneven_statistics(STABN("resnet50", 174, 4))
    x = clip(4, 64, 64)
    with torch.no_grad():
        low = parts(single(x))
        high = parts(single.double()(x.double()))
    for name, exact in high.items():
        assert torch.isfinite(low[name]).all()
        assert torch.allclose(low[name].double(), exact, rtol=0, atol=1e-4), name


def test_the_model_is_the_composition_of_its_three_calls(tiny):
    features = tiny.encode(clip(batch=2))
    attention, attention_logits = tiny.attend(features)
    composed = parts(Output(tiny.perceive(features, attention), attention_logits, attention))
    assert all(torch.equal(value, composed[name]) for name, value in parts(tiny(clip(batch=2))).items())


def test_another_attention_changes_the_answer_and_mutates_nothing(tiny):
    features = tiny.encode(clip())
    before = features.clone()
    attention, _ = tiny.attend(features)
    spatial, temporal = attention.spatial.clone(), attention.temporal.clone()
    answer = tiny.perceive(features, attention)
    edited = replace(attention, temporal=torch.tensor([[0.0, 0.5, 1.0, 0.0]]))
    for other in (edited, attention.inverse_spatial(), attention.inverse_temporal(), attention.uniform_spatial()):
        assert not torch.allclose(tiny.perceive(features, other), answer)
    assert torch.equal(attention.spatial, spatial)
    assert torch.equal(attention.temporal, temporal)
    assert torch.equal(features, before)
    assert torch.equal(tiny.perceive(features, attention), answer)


@pytest.mark.parametrize(
    ("mechanism", "in_space", "in_time"),
    [
        ("paper", lambda m_s, m_t: 1 + m_s, lambda m_s, m_t: m_t),
        ("gated", lambda m_s, m_t: (1 + m_s) * m_t, lambda m_s, m_t: m_t),
        ("gated-both", lambda m_s, m_t: m_s * m_t, lambda m_s, m_t: m_s * m_t),
    ],
)
def test_perception_weighs_features_as_equations_1_to_3_and_our_gates_say(mechanism, in_space, in_time):
    model = with_uneven_statistics(STABN("tiny", 5, 4, mechanism=mechanism))
    features = model.encode(clip())
    spatial, temporal = torch.rand(1, 4, 2, 2), torch.rand(1, 4)
    fuse, norm = model.conv_att_mechanism
    kernel, channels = fuse.weight[:, :, 0, 0, 0], features.shape[1]
    expected = torch.zeros_like(features)
    for t in range(4):
        for half, weight in ((kernel[:, :channels], in_space), (kernel[:, channels:], in_time)):
            weighed = weight(spatial[0, t], temporal[0, t]) * features[0, :, t]
            expected[0, :, t] += torch.einsum("oc,chw->ohw", half, weighed)
    logits = model.perceive(features, Attention(spatial, temporal))
    assert torch.allclose(logits, model.classify(norm(expected)), atol=1e-5)


@pytest.mark.parametrize(("frames", "height", "width"), [(4, 32, 32), (4, 17, 50), (4, 1, 1), (4, 33, 16)])
def test_any_picture_size_gives_maps_of_a_sixteenth_rounded_up(tiny, frames, height, width):
    output = tiny(clip(frames, height, width))
    assert output.attention.spatial.shape == (1, frames, -(-height // 16), -(-width // 16))
    assert output.logits.shape == (1, 5)


def test_clips_of_a_batch_do_not_influence_each_other(tiny):
    both = clip(batch=2, dtype=torch.float64)
    tiny.double()
    assert torch.allclose(tiny(both).logits[1:], tiny(both[1:]).logits, rtol=0, atol=1e-12)


def test_the_baseline_takes_any_number_of_frames_and_has_no_attention():
    model = with_uneven_statistics(PlainNetwork("tiny", 5, 4))
    assert model.frames == 4
    for frames in (1, 4, 7):
        output = model(clip(frames))
        assert output.logits.shape == (1, 5)
        assert output.attention is None
        assert output.attention_logits is None


@pytest.mark.parametrize("name", ["resnet34", "resnet101", "resnet152"])
def test_the_other_official_depths_have_the_block_counts_of_their_2d_namesakes(name):
    import torchvision

    with torch.device("meta"):
        flat, model = getattr(torchvision.models, name)(), PlainNetwork(name, 1000, 8)
    flattened = {
        n: tuple(v.shape[:2] + v.shape[3:]) if v.ndim == 5 else tuple(v.shape) for n, v in model.state_dict().items()
    }
    assert flattened == {n: tuple(v.shape) for n, v in flat.state_dict().items()}


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_architecture_runs_with_its_attention_branch_on_the_meta_device(name):
    with torch.device("meta"):
        model = STABN(name, 7, 3)
        output = model(torch.zeros(2, 3, 3, 40, 64))
    assert model.backbone.space_stride == (8 if name.startswith("fine") else 16)
    assert output.logits.shape == output.attention_logits.shape == (2, 7)
    assert output.attention.spatial.shape == (2, 3, model.backbone.grid(40), model.backbone.grid(64))
    assert output.attention.temporal.shape == (2, 3)


def test_the_perception_loss_reaches_both_attentions():
    torch.manual_seed(0)
    model = STABN("tiny", 5, 8).train()
    model(clip(8, batch=2)).logits.square().sum().backward()
    for name in ("conv_spatial_att.0", "conv_temp_att1.0", "layer_att_common.0.conv1", "backbone.conv1", "backbone.fc"):
        assert model.get_submodule(name).weight.grad.abs().sum() > 0, name
    # The attention branch's own scores are no part of it.
    assert model.fc_att_out.weight.grad is None


def test_freezing_the_extractor_leaves_both_branches_to_train(tiny):
    for part in tiny.extractor:
        part.requires_grad_(False)
    tiny(clip()).logits.sum().backward()
    frozen = {name for name, value in tiny.named_parameters() if value.grad is None}
    extractor = {"conv1", "bn1", "layer1", "layer2", "layer3"}
    assert {name.removeprefix("backbone.").split(".")[0] for name in frozen} - {
        "fc_att_out",
        "conv_att_out",
    } == extractor


def test_the_network_compiles_without_a_graph_break():
    # In a process of its own, because the shape checks that pytest switches on are themselves a graph break.
    program = """
import torch
from stabn.nn import STABN, PlainNetwork
model, clip = STABN("tiny", 5, 4).eval(), torch.randn(1, 3, 4, 32, 32)
compiled = torch.compile(model, fullgraph=True, backend="eager")
with torch.no_grad():
    assert torch.allclose(compiled(clip).logits, model(clip).logits)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(3, 4, 32, 32), r"clip: got shape \(3, 4, 32, 32\), expected \(B, 3, T, H, W\)"),
        (torch.zeros(1, 1, 4, 32, 32), r"clip: got shape \(1, 1, 4, 32, 32\), expected \(B, 3, T, H, W\)"),
        (torch.zeros(1, 3, 4, 0, 32), r"clip: got shape \(1, 3, 4, 0, 32\)"),
        (torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8), r"clip: got torch.uint8, expected torch.float32"),
        (torch.zeros(1, 3, 4, 32, 32, dtype=torch.float64), r"clip: got torch.float64, expected torch.float32"),
        (torch.zeros(1, 3, 5, 32, 32), r"clip: got 5 frames, expected 4"),
    ],
)
def test_a_wrong_clip_is_refused_with_what_it_got_and_expected(tiny, wrong, message):
    for call in (tiny, tiny.encode):
        with pytest.raises(ValueError, match=message):
            call(wrong)


def test_features_and_attention_of_other_shapes_are_refused(tiny):
    features = tiny.encode(clip())
    attention, _ = tiny.attend(features)
    for call in (tiny.attend, lambda short: tiny.perceive(short, attention)):
        with pytest.raises(ValueError, match="features: got 3 frames, expected 4"):
            call(features[:, :, :3])
    with pytest.raises(ValueError, match=r"attention: got spatial shape \(1, 4, 2, 2\), expected \(1, 4, 2, 1\)"):
        tiny.perceive(features[..., :1], attention)


def test_under_autocast_a_float32_clip_is_taken(tiny):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.isfinite(tiny(clip()).logits).all()


@pytest.mark.parametrize("network", [PlainNetwork, STABN])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet19", 5, 4), "--network.backbone: got 'resnet19'.*did you mean resnet"),
        (("tiny", 0, 4), "num_classes: got 0, expected an integer from 1"),
        (("tiny", 5, -1), "frames: got -1, expected an integer from 1"),
        (("tiny", 5, 4, 1.0), "dropout: got 1.0, expected a number from 0 to less than 1"),
        (("tiny", 2, 4, 0.5, ["a"]), "class_names: got 1 names, expected 2"),
        (("tiny", 2, 4, 0.5, "ab"), "class_names: got 'ab', expected a list of strings"),
        (("tiny", 2, 4, 0.5, None, {"mean": float("nan")}), "preprocessing: got what JSON cannot hold"),
        (("tiny", 2, 4, 0.5, None, {"mean": {1, 2}}), "preprocessing: got what JSON cannot hold"),
    ],
)
def test_wrong_arguments_are_refused_with_the_allowed_values(network, arguments, message):
    with pytest.raises(UserError, match=message):
        network(*arguments)


def test_dropout_acts_in_training_only(tiny):
    assert torch.equal(tiny(clip()).logits, tiny(clip()).logits)
    features = tiny.encode(clip())
    tiny.backbone.drop.train()
    torch.manual_seed(0)
    assert not torch.equal(tiny.classify(features), tiny.classify(features))


@pytest.mark.parametrize(
    ("branch", "is_passed"),
    [("temporal", {"paper": True, "gated": False}), ("spatial", {"gated": True, "gated-both": False})],
)
def test_a_gate_lets_nothing_past_an_attention_of_zero(branch, is_passed):
    torch.manual_seed(0)
    for mechanism, passes in is_passed.items():
        model = STABN("tiny", 3, 4, mechanism=mechanism).eval()
        features = model.encode(clip(batch=2))
        attention, _ = model.attend(features)
        turned_down = replace(attention, **{branch: torch.zeros_like(getattr(attention, branch))})
        logits = model.perceive(features, turned_down)
        assert torch.allclose(logits[0], logits[1], atol=1e-6) != passes


@pytest.mark.parametrize("mechanism", ["paper", "gated"])
def test_the_mechanism_survives_the_folder_and_the_paper_is_the_default(tmp_path, mechanism):
    STABN("tiny", 3, 4, mechanism=mechanism).save_pretrained(tmp_path)
    assert ("mechanism" in (tmp_path / "config.json").read_text()) == (mechanism != "paper")
    assert STABN.from_pretrained(tmp_path).mechanism == mechanism


def test_a_mechanism_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="mechanism: got 'open'"):
        STABN("tiny", 3, 4, mechanism="open")
