"""VideoMAE, TimeSformer, ViViT and V-JEPA 2, at tiny sizes."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from stabn.errors import UserError
from stabn.evaluation.randomisation import randomise_weights
from stabn.nn import STABN, PlainNetwork, build_backbone, load_pretrained, recognition_loss
from stabn.nn.backbone import TokenMap, map_of
from stabn.nn.backbones import backbone_class, transformers_config
from stabn.nn.backbones.transformers_config import fast_sine_table
from stabn.nn.backbones.transformers_video import TRANSFORMERS
from stabn.nn.cam import grad_cam

SHAPE = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
MLP = {"image_size": 48, "intermediate_size": 32}
CONFIGS = {
    "videomae": SHAPE | MLP,
    "timesformer": SHAPE | MLP,
    "vivit": SHAPE | MLP,
    "vjepa2": SHAPE | {"crop_size": 48, "mlp_ratio": 2.0, "num_pooler_layers": 1},
}
CLASSES = {
    "videomae": (transformers.VideoMAEConfig, transformers.VideoMAEForVideoClassification),
    "timesformer": (transformers.TimesformerConfig, transformers.TimesformerForVideoClassification),
    "vivit": (transformers.VivitConfig, transformers.VivitForVideoClassification),
    "vjepa2": (transformers.VJEPA2Config, transformers.VJEPA2ForVideoClassification),
}
ONE_TOKEN = {"use_mean_pooling": False}
NETWORKS = [*((name, {}) for name in CONFIGS), ("videomae", ONE_TOKEN)]
families = pytest.mark.parametrize("name", CONFIGS)


@pytest.fixture(autouse=True)
def empty_caches(no_network, monkeypatch, tmp_path_factory):
    for variable in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path_factory.mktemp("empty")))


def tiny(name, frames=4, num_classes=3, **config):
    torch.manual_seed(0)
    return build_backbone(name, num_classes, frames, options={"config": CONFIGS[name] | config})


def clip(frames=4, size=48, dtype=torch.float64, batch=2):
    return torch.randn(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def library(name, num_classes=5, frames=4, **config):
    """The library's own network, with values that no two tensors share."""
    torch.manual_seed(3)
    kind, network = CLASSES[name]
    if name == "vjepa2":
        config |= {"frames_per_clip": frames, "pred_hidden_size": 8, "pred_num_attention_heads": 1}
    else:
        config["num_frames"] = frames
    model = network(kind(**CONFIGS[name], **config, num_labels=num_classes))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))
    return model.eval()


def logits_of(model, x_bcthw):
    with torch.no_grad():
        return model(x_bcthw.transpose(1, 2)).logits


@pytest.fixture
def folder(tmp_path):
    """Gives the folder that the library's save_pretrained writes."""

    def save(name, preprocessor=None, **options):
        model = library(name, **options)
        model.save_pretrained(tmp_path / name)
        if preprocessor is not None:
            (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return tmp_path / name, model

    return save


def refused(*tokens):
    return pytest.raises((UserError, ValueError), match="(?s)" + ".*".join(str(token) for token in tokens))


@pytest.mark.parametrize(("name", "config"), NETWORKS)
def test_split_equals_whole(name, config):
    backbone = tiny(name, **config).double().eval()
    with torch.no_grad():
        for value in backbone.parameters():
            value.add_(0.05 * torch.randn_like(value))
        features = backbone.extract(clip())
        got = backbone.classify(backbone.deepen(features))
    expected = logits_of(backbone.model, clip())
    assert torch.allclose(got, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
    assert map_of(features).shape[1:] == backbone.features_shape(4, 48) == (24, backbone.steps(4), 3, 3)
    assert isinstance(features, TokenMap) == (name in ("timesformer", "vivit"))
    assert {*map(id, backbone.parameters())} == {
        id(value) for stage in backbone.stages().values() for module in stage for value in module.parameters()
    }


@families
def test_one_patch_of_one_frame_changes_one_cell_of_the_embedded_grid(name):
    backbone = tiny(name).double().eval()
    backbone.split = 0
    x = clip(batch=1)
    other = x.clone()
    other[:, :, 3, 16:32, 32:48] += 1
    with torch.no_grad():
        changed = (map_of(backbone.extract(x)) != map_of(backbone.extract(other))).any(dim=(0, 1))
    assert changed.nonzero().tolist() == [[3 // backbone.time_stride, 1, 2]]


def test_the_sine_table_is_the_librarys_to_the_bit():
    from transformers.models.videomae import modeling_videomae

    expected = modeling_videomae.get_sinusoid_encoding_table(60, 50)
    with fast_sine_table():
        assert torch.equal(modeling_videomae.get_sinusoid_encoding_table(60, 50), expected)


@pytest.mark.parametrize(("name", "config"), NETWORKS)
def test_both_networks_around_it_learn_and_come_back_from_their_folder(tmp_path, name, config):
    for kind in (STABN, PlainNetwork):
        torch.manual_seed(0)
        model = kind(name, 3, 4, backbone_options={"config": CONFIGS[name] | config}).train()
        x = clip(dtype=torch.float32)
        recognition_loss(model(x), torch.tensor([0, 2])).backward()
        assert all(value.grad is not None for value in model.parameters())
        model.eval().save_pretrained(tmp_path / kind.__name__)
        again = load_pretrained(tmp_path / kind.__name__)
        with torch.no_grad():
            output = again(x)
            assert torch.equal(output.logits, model(x).logits)
        assert again.backbone.format == model.backbone.format
        if kind is STABN:
            assert output.attention.temporal.shape == (2, 4)
            assert output.attention.spatial.shape == (2, 4, 3, 3)
        assert grad_cam(model, x).abs().sum() > 0


@families
def test_recomputing_activations_changes_no_gradient(name):
    model = PlainNetwork(name, 3, 4, backbone_options={"config": CONFIGS[name]}).double().train()
    gradients = []
    for enabled in (False, True):
        assert model.checkpoint_activations(enabled)
        model.zero_grad()
        torch.manual_seed(0)  # of the dropout
        model(clip()).logits.square().sum().backward()
        gradients.append([value.grad.clone() for value in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@families
def test_it_is_built_on_the_meta_device_without_files(name):
    with torch.device("meta"):
        backbone = backbone_class(name)(name, 10, TRANSFORMERS[name].family.frames)
    wanted = backbone_class(name).format_for(name, {})
    assert (backbone.format.frames, backbone.format.size) == (wanted.frames, wanted.size)
    assert sum(value.numel() for value in backbone.parameters()) > 80e6
    published = backbone_class(name).published(name)
    assert published
    assert not any(one.file.exists() for one in published)


@families
def test_frames_and_sizes_that_the_library_would_take_silently_are_refused(name):
    backbone = tiny(name)
    wrong_frames = 3 if name == "vjepa2" else 8
    with refused(wrong_frames, "expected", 2 if name == "vjepa2" else 4):
        backbone.check_clip(clip(wrong_frames, dtype=torch.float32))
    with refused(32, "expected", 48):
        backbone.check_clip(clip(size=32, dtype=torch.float32))
    with refused("frames: got 3"):
        tiny(name, 3, **({} if name != "timesformer" else {"num_frames": 4}))
    backbone.check_clip(clip(dtype=torch.float32))


def test_v_jepa_2_takes_any_even_number_of_frames():
    backbone = tiny("vjepa2", 4).double().eval()
    with torch.no_grad():
        got = backbone.classify(backbone.deepen(backbone.extract(clip(6))))
    assert torch.allclose(got, logits_of(backbone.model, clip(6)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"hidden": 3}, "hidden"),
        ({"hidden_size": "x"}, "hidden_size"),
        ({"num_attention_heads": 5}, "heads"),
        ({"image_size": [32, 48]}, "image_size"),
        ({"image_size": 40}, "40.*16"),
        ({"num_channels": 1}, "num_channels"),
    ],
)
def test_a_configuration_that_cannot_be_right_is_refused_by_its_field(config, tokens):
    with refused(tokens):
        tiny("videomae", **config)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        *((name, "folder") for name in CONFIGS),
        ("videomae", "file"),
        ("vivit", "prefixed"),
        ("vivit", "ours"),
        ("timesformer", "shards"),
    ],
)
def test_weights_are_the_librarys_network_whatever_they_lie_in(folder, tmp_path, name, source):
    path, original = folder(
        name, {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 1 / 255, "offset": False}
    )
    weights = path
    if source == "file":
        weights = path / "model.safetensors"
    elif source == "prefixed":
        tensors = {f"module.model.{key}": value for key, value in load_file(path / "model.safetensors").items()}
        (path / "model.safetensors").unlink()
        torch.save({"state_dict": tensors, "epoch": 3}, path / "pytorch_model.bin")
        weights = path / "pytorch_model.bin"
    elif source == "shards":
        (path / "model.safetensors").unlink()
        original.save_pretrained(path, max_shard_size="20KB")
        assert (path / "model.safetensors.index.json").exists()
    kind = backbone_class(name)
    options = json.loads(json.dumps(kind.options_for(name, str(weights))))
    backbone = build_backbone(name, 3, 4, options=options)
    left = backbone.load_weights(str(weights))
    if source == "ours":
        plain = PlainNetwork(name, 3, 4, backbone_options=options)
        plain.backbone.load_weights(str(path))
        plain.save_pretrained(tmp_path / "ours")
        assert kind.options_for(name, str(tmp_path / "ours")) == options
        backbone = build_backbone(name, 3, 4, options=options)
        left = backbone.load_weights(str(tmp_path / "ours"))
    assert left == ("model.classifier.weight", "model.classifier.bias")
    assert (backbone.format.mean, backbone.format.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    backbone.model.classifier = original.classifier
    x = clip(dtype=torch.float32)
    with torch.no_grad():
        got = backbone.eval().classify(backbone.deepen(backbone.extract(x)))
    assert torch.allclose(got, logits_of(original, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("videomae", {}),
        ("videomae", {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.1]}),
        ("videomae", {"do_normalize": False}),
        ("vivit", {}),
        ("vivit", {"do_normalize": False}),
        ("vivit", {"offset": False, "rescale_factor": 1 / 255}),
    ],
)
def test_clips_are_normalised_as_the_librarys_own_preprocessing_does(folder, name, settings):
    processor = {"videomae": transformers.VideoMAEImageProcessor, "vivit": transformers.VivitImageProcessor}[name]
    processor = processor(**settings, do_resize=False, do_center_crop=False)
    path, _ = folder(name)
    processor.save_pretrained(path)
    frames = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    expected = processor(list(frames), return_tensors="np")["pixel_values"]
    options = backbone_class(name).options_for(name, str(path))
    got = (frames / 255 - options["mean"]) / options["std"]
    assert np.allclose(got.transpose(0, 3, 1, 2)[None], expected, atol=1e-5)


def test_weights_without_labels_leave_the_head_random(folder):
    path, original = folder("vjepa2")
    original.vjepa2.save_pretrained(path)
    backbone = tiny("vjepa2")
    left = backbone.load_weights(str(path))
    assert {key.split(".")[1] for key in left} == {"pooler", "classifier"}
    assert torch.equal(backbone.model.vjepa2.encoder.layernorm.bias, original.vjepa2.encoder.layernorm.bias)


def test_wrong_weights_are_refused_by_file_and_tensor_and_change_nothing(folder, tmp_path):
    path, _ = folder("videomae")
    backbone = tiny("videomae")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    tensors = load_file(path / "model.safetensors")
    key = "videomae.encoder.layer.2.output.dense.bias"
    with refused("model_type", "'videomae'", "'vivit'"):
        backbone_class("vivit").options_for("vivit", str(path))
    with refused("num_attention_heads", 2, 4):
        tiny("videomae", num_attention_heads=4).load_weights(str(path))
    with refused("num_hidden_layers"):
        tiny("videomae", num_hidden_layers=2).load_weights(str(path))
    for changed, tokens in (
        ({key: torch.ones(5)}, (key, r"\[5\]", r"\[24\]")),
        ({key: None}, (key, "missing")),
        ({key: torch.full((24,), float("nan"))}, (key, "NaN")),
        ({"videomae.encoder.layer.4.output.dense.bias": torch.ones(24)}, ("unexpected", "layer.4")),
    ):
        content = {name: value for name, value in (tensors | changed).items() if value is not None}
        save_file(content, path / "model.safetensors")
        with refused(path, *tokens):
            backbone.load_weights(str(path))
    (path / "model.safetensors").write_bytes(b"\x10")
    with refused(path / "model.safetensors"):
        backbone.load_weights(str(path))
    (path / "model.safetensors").unlink()
    with refused(path, "model.safetensors"):
        backbone.load_weights(str(path))
    (path / "config.json").write_text("{")
    with refused(path / "config.json"):
        backbone.load_weights(str(path))
    for nothing in (tmp_path / "nothing", tmp_path / "nothing.safetensors"):
        with refused(nothing, "no such file"):
            backbone.load_weights(str(nothing))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_repository_that_is_not_here_is_told_in_one_line_with_the_place_for_a_copy(monkeypatch):
    import huggingface_hub

    def unreachable(*_args, **_options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nnone at all")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with refused("owner/name", "config.json", "models--owner--name") as error:
        backbone_class("videomae").options_for("videomae", "owner/name")
    assert "\n" not in str(error.value)


def test_without_the_library_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(transformers_config, "find_spec", lambda _name: None)
    with refused("vivit", r"pip install 'stabn\[transformers\]'"):
        build_backbone("vivit", 3, 4)


@families
def test_randomising_every_stage_leaves_no_trained_value(name):
    backbone = deepcopy(tiny(name))
    for stage in backbone.stages().values():
        for module in stage:
            with torch.no_grad():
                for value in module.parameters():
                    value.fill_(7)
            randomise_weights(module)
    assert not [key for key, value in backbone.named_parameters() if (value == 7).any()]
