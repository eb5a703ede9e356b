import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lanterns import FRAMES, SIDE, Honest, Inverted, Lanterns, Mixed

from stabn.cli.main import main
from stabn.cli.printing import print_faithfulness
from stabn.data.dataset import VideoDataset
from stabn.data.ground_truth import ClipTruth
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation import localisation
from stabn.evaluation.attribution import METHODS
from stabn.evaluation.faithfulness import explanation_differences, faithfulness
from stabn.evaluation.perturbation import BASELINES, DIRECTIONS, SCOPES
from stabn.evaluation.predict import predict, predict_each, split_dataset
from stabn.evaluation.replaced_attention import random_derangement
from stabn.nn import STABN, Attention, PlainNetwork
from stabn.runs import open_run

REAL = localisation.frame_size


@pytest.fixture(autouse=True)
def square_videos(monkeypatch):
    """The generated clips have no file to ask about the size of their pictures."""
    monkeypatch.setattr(localisation, "frame_size", lambda path: REAL(path) if path.exists() else (SIDE, SIDE))


def validation(run: Path, count: int, **options) -> tuple[STABN, VideoDataset]:
    model, _, dataset = split_dataset(open_run(run), "validation", **options)
    return model, dataset.subset(dataset.samples[:count])


def looked(model, data, **options):
    """The measures that planted bugs have to show in, as fast as they can be had."""
    defaults = {"methods": ["attention", "random"], "baselines": ["mean"], "steps": 4, "truth": data.truth()}
    return faithfulness(model, data, **defaults | options)


@torch.inference_mode()
def with_attention_of(model, data, row, partner, replace):
    """(windows, K) probabilities of a clip when `replace` puts the partner's attention in place of its own."""
    features = model.encode(data[row].clips)
    other, _ = model.attend(model.encode(data[int(partner[row])].clips))
    return model.perceive(features, replace(model.attend(features)[0], other)).softmax(1)


def test_every_clip_gets_another_one_each_once():
    for count in (2, 3, 10, 101):
        given = random_derangement(count, seed=count)
        assert sorted(given) == list(range(count))
        assert (given != np.arange(count)).all()
        assert np.array_equal(given, random_derangement(count, seed=count))
    assert not np.array_equal(random_derangement(10, 0), random_derangement(10, 1))
    with pytest.raises(UserError, match="got 1 clip"):
        random_derangement(1)


@pytest.mark.parametrize("batch_size", [3, 16])
def test_shuffled_attention_is_that_of_another_clip_of_the_whole_split(trained, batch_size):
    model, data = validation(trained, 7)
    asked = ("as-is", "inverse-spatial", "shuffled-spatial", "shuffled-temporal")
    found = predict_each(model, data, asked, batch_size=batch_size, keep_maps=True, seed=4)
    partner = random_derangement(7, 4)
    own, spatial, temporal = (found[name] for name in ("as-is", "shuffled-spatial", "shuffled-temporal"))
    assert np.allclose(spatial.spatial, own.spatial[partner], atol=1e-6)
    assert np.array_equal(spatial.temporal, own.temporal)
    assert np.allclose(temporal.temporal, own.temporal[partner], atol=1e-6)
    assert np.array_equal(temporal.spatial, own.spatial)
    for row in (0, 6):
        expected = with_attention_of(model, data, row, partner, Attention.with_temporal_of)
        assert np.allclose(temporal.probabilities[row], expected[0], atol=1e-5)
    for name in asked:
        alone = predict(model, data, attention=name, seed=4)
        assert np.allclose(alone.probabilities, found[name].probabilities, atol=1e-5)


def test_shuffled_windows_are_those_of_the_same_place_in_the_other_clip(trained):
    model, data = validation(trained, 3, clips=2)
    found = predict(model, data, attention="shuffled-spatial", batch_size=2)
    partner = random_derangement(3)
    for row in range(3):
        expected = with_attention_of(model, data, row, partner, Attention.with_spatial_of)
        assert np.allclose(found.probabilities[row], expected.mean(0), atol=1e-5)


def test_a_single_clip_that_can_be_read_has_nobody_to_exchange_attention_with(trained):
    model, data = validation(trained, 2)
    first, second = data.samples
    data = data.subset((first, replace(second, path=Path("gone.mp4"))))
    found = predict_each(model, data, ("as-is", "shuffled-temporal", "inverse-spatial"))
    assert list(found) == ["as-is", "inverse-spatial"]
    assert all(answers.clip_ids == (first.clip_id,) for answers in found.values())
    with pytest.raises(UserError, match="got 1 clip"):
        predict(model, data, attention="shuffled-temporal")
    whole = faithfulness(model, data, methods=["attention"], baselines=["mean"], steps=1)
    assert whole["attention_replaced"] is None
    assert [one["clip_id"] for one in whole["skipped"]] == [second.clip_id]


def test_an_honest_network_passes_every_measure():
    found = looked(Honest(), Lanterns())
    assert found["top1"]["mean"] == 1
    replaced = found["attention_replaced"]
    assert replaced["as-is"]["drop"] == {"mean": 0, "low": 0, "high": 0}
    for name in ("inverse-temporal", "shuffled-temporal", "inverse-spatial", "shuffled-spatial"):
        assert replaced[name]["drop"]["low"] > 20, name
        assert replaced[name]["drop"]["mean"] == pytest.approx(100 * (1 - replaced[name]["top1"]["mean"]))
    assert found["methods"]["attention"]["truth"]["temporal"]["average_precision"]["mean"] == 1
    against = found["differences"]["attention"]["random"]
    for scope in SCOPES:
        of = found["methods"]["attention"][scope]["mean"]
        assert of["insertion"]["auc"] > of["deletion"]["auc"] + 0.2
        assert [against[scope]["mean"][d]["verdict"] for d in DIRECTIONS] == ["better"] * 2
    assert against["frames"]["mean"]["comprehensiveness"]["verdict"] == "better"
    assert against["truth"]["temporal"]["average_precision"]["verdict"] == "better"
    assert against["truth"]["spatial"]["energy"]["verdict"] == "better"


def test_truth_by_which_nothing_can_be_measured_is_logged(caplog):
    data = Lanterns()
    nowhere = {sample.clip_id: ClipTruth(interval=(5000, 7000)) for sample in data.samples}
    found = faithfulness(Honest(), data, truth=nowhere, methods=["attention", "random"], baselines=["mean"], steps=2)
    assert all(of["truth"] is None for of in found["methods"].values())
    (record,) = caplog.records
    assert f"{len(data.samples)} clips" in record.getMessage()


@pytest.mark.parametrize(("clips", "verdict"), [(1, "undecided"), (5, "undecided"), (6, "better")])
def test_nothing_is_decided_by_a_handful_of_clips(clips, verdict):
    ours, theirs = ({"truth": {"pointing": {"per_clip": [value] * clips}}} for value in (1.0, 0.0))
    assert explanation_differences(ours, theirs)["truth"]["pointing"]["verdict"] == verdict


def test_a_network_whose_maps_are_inverted_is_found_out():
    found = looked(Inverted(), Lanterns())
    assert found["top1"]["mean"] == 1  # accuracy cannot tell
    against = found["differences"]["attention"]["random"]
    for scope in SCOPES:
        assert [against[scope]["mean"][d]["verdict"] for d in DIRECTIONS] == ["worse"] * 2
    assert against["truth"]["temporal"]["average_precision"]["verdict"] == "worse"
    assert against["truth"]["spatial"]["pointing"]["verdict"] == "worse"


def test_a_network_that_shows_the_maps_of_another_clip_is_found_out():
    own, other = (looked(network, Lanterns()) for network in (Honest(), Mixed()))
    assert own["top1"] == other["top1"]
    for scope in SCOPES:
        ours, theirs = (found["methods"]["attention"][scope]["mean"] for found in (own, other))
        assert ours["deletion"]["high"] < theirs["deletion"]["low"]
        assert ours["insertion"]["low"] > theirs["insertion"]["high"]
    ours, theirs = (found["methods"]["attention"]["truth"]["temporal"] for found in (own, other))
    assert ours["average_precision"]["low"] > theirs["average_precision"]["high"]


def test_shuffled_labels_show_in_the_accuracy_and_nowhere_else():
    common = {"truth": None, "max_clips": 3, "steps": 1}
    true, wrong = (looked(Honest(), Lanterns(wrong_labels=shuffled), **common) for shuffled in (False, True))
    assert true["top1"]["low"] == 1
    assert wrong["top1"]["high"] < 0.7
    assert wrong["methods"]["attention"]["frames"] == true["methods"]["attention"]["frames"]


def is_part(documented, real) -> bool:
    """Whether all that an example in the documentation shows is really there."""
    if isinstance(documented, dict):
        return all(name in real and is_part(value, real[name]) for name, value in documented.items())
    if isinstance(documented, list):
        return isinstance(real, list) and all(is_part(value, real[0]) for value in documented)
    return isinstance(real, type(documented))


@pytest.mark.parametrize("kind", [STABN, PlainNetwork])
def test_every_measure_is_taken_of_every_method_and_the_network_stays_as_it_was(kind, capsys):
    torch.manual_seed(0)
    model = kind("tiny", 3, FRAMES).train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    data = Lanterns(3)
    found = faithfulness(model, data, truth=data.truth(), steps=2, max_clips=2)
    assert model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["format"] == "stabn-faithfulness/1"
    assert found["fractions"] == [0, 0.5, 1]
    assert set(found["methods"]) == set(METHODS if kind is STABN else METHODS[2:])
    assert len(found["clips"]) == 3
    assert len(found["perturbed"]) == found["randomised"] == 2
    for of in found["methods"].values():
        for scope in SCOPES:
            assert list(of[scope]) == list(BASELINES)
            for measures in of[scope].values():
                for direction in DIRECTIONS:
                    curve = measures[direction]["curve"]
                    assert len(curve) == 3
                    assert len(measures[direction]["per_clip"]) == 2
                    assert measures[direction]["auc"] == pytest.approx(sum(curve) / 4 + curve[1] / 4, abs=1e-5)
                    assert measures[direction]["low"] <= measures[direction]["auc"] <= measures[direction]["high"]
        assert len(of["truth"]["temporal"]["iou"]["per_clip"]) == 3
    if kind is STABN:
        text = (Path(__file__).parents[2] / "docs" / "faithfulness.md").read_text()
        assert is_part(json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1]), found)
        assert len(found["attention_replaced"]) == 7
        difference = found["differences"]["attention"]["grad-cam"]["frames"]["freeze"]["insertion"]
        ours, theirs = (found["methods"][m]["frames"]["freeze"]["insertion"] for m in ("attention", "grad-cam"))
        assert difference["mean"] == pytest.approx(ours["auc"] - theirs["auc"], abs=2e-6)
    else:
        assert found["attention_replaced"] is None
        assert found["differences"] == {}
    print_faithfulness(found)
    told = capsys.readouterr().out
    assert "frames del." in told
    assert "frame AP" in told
    assert "does not change" in told
    assert ("attention replaced" in told) == ("attention minus" in told) == (kind is STABN)


@pytest.mark.parametrize("kind", [STABN, PlainNetwork])
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_find_much_the_same(kind, precision):
    torch.manual_seed(0)
    model, data = kind("tiny", 3, FRAMES), Lanterns(2)
    methods = ["attention", "grad-cam"] if kind is STABN else ["cam", "grad-cam"]
    few = {"methods": methods, "baselines": ["blur"], "steps": 1, "max_clips": 1}
    engines = (EngineRecipe(accelerator="cpu", devices="1", precision=p) for p in ("32-true", precision))
    plain, other = (faithfulness(model, data, engine=engine, **few)["methods"] for engine in engines)
    assert plain.keys() == other.keys()
    for method, measures in plain.items():
        for direction in DIRECTIONS:
            found = other[method]["frames"]["blur"][direction]["auc"]
            assert found == pytest.approx(measures["frames"]["blur"][direction]["auc"], abs=0.05)


def test_the_same_seed_gives_the_same_and_the_choice_of_clips_is_that_of_the_seed():
    data = Lanterns(6)
    options = {"methods": ["random"], "max_clips": 2, "batch_size": 4, "steps": 1, "truth": None}
    one, same = (looked(Honest(), data, **options) for _ in range(2))
    assert one == same
    other = looked(Honest(), data, **options, seed=1)
    assert one["perturbed"] != other["perturbed"]
    everything = looked(Honest(), data, **options | {"max_clips": None})
    assert everything["perturbed"] == everything["clips"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"methods": ["lime"]}, "--methods: got 'lime', .*attention, attention-branch, cam"),
        ({"methods": []}, "--methods: got none"),
        ({"baselines": ["black"]}, "--baselines: got 'black', .*blur, freeze, mean"),
        ({"baselines": ["blur", "blur"]}, "--baselines: got 'blur'"),
        ({"steps": 0}, "--steps, .*0, 0 and 100"),
        ({"max_clips": 0}, "--max_clips: got 8, 0 and 0"),
        ({"seed": -1}, "--seed, .*8, -1 and 100"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_work(options, told):
    with pytest.raises(UserError, match=told):
        faithfulness(Honest(), Lanterns(2), **options)


def test_several_windows_per_clip_are_refused(trained):
    model, data = validation(trained, 2, clips=2)
    with pytest.raises(UserError, match="--clips"):
        faithfulness(model, data)


def test_the_command_prints_and_writes_all_of_it(trained, tabletop, tmp_path, capsys, one_line):
    words = ["evaluate", trained, "--faithfulness", "--max-clips", 1, "--steps", 1, "--baselines", "freeze,mean"]
    words += ["--methods", "attention,cam,random", "--json", tmp_path / "e.json", "--truth", tabletop / "truth.jsonl"]
    main([str(word) for word in words])
    found = json.loads((tmp_path / "e.json").read_text())["faithfulness"]
    assert list(found["methods"]) == ["attention", "cam", "random"]
    assert found["baselines"] == ["freeze", "mean"]
    assert found["methods"]["attention"]["truth"]["spatial"] is not None
    told = capsys.readouterr().out
    for heading in ("attention replaced", "area, 1 clips", "against the truth", "rank correlation", "attention minus"):
        assert heading in told
    main(["evaluate", str(trained), "--attention", "shuffled-temporal", "--json", str(tmp_path / "s.json")])
    assert json.loads((tmp_path / "s.json").read_text())["attention"] == "shuffled-temporal"
    assert "--methods: got cam" in one_line("evaluate", trained, "--methods", "cam")
    assert "--faithfulness: " in one_line("evaluate", trained, "--faithfulness", "--clips", "2")
