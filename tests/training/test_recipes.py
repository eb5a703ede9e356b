import math
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_run import SETTINGS

from stabn.cli import verbs as cli
from stabn.data.annotations.source import DataSource
from stabn.data.dataset import VideoDataset
from stabn.data.sampling import Sampling
from stabn.data.transforms import Preprocessing
from stabn.data.video.clip import write_video
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.predict import predict_split
from stabn.nn import STABN, Output, load_pretrained, recognition_loss
from stabn.nn.backbones import backbone_class
from stabn.runs import network_preprocessing, open_run
from stabn.training.module import TrainingModule, cosine_schedule
from stabn.training.recipes import OptimizerRecipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.relative_to(ROOT / "recipes").as_posix() for path in (ROOT / "recipes").rglob("*.yaml"))
GIVEN = {
    "train": ["--data.annotations", "a", "--out", "o"],
    "finetune": ["run", "--edits", "e", "--out", "o"],
    "evaluate": ["run"],
}


def verb_of(recipe: str) -> str:
    """The verb of the command in a recipe's first comment that reads it."""
    text = (ROOT / "recipes" / recipe).read_text()
    (words, *_) = [shlex.split(line[1:]) for line in text.splitlines() if f"--config recipes/{recipe}" in line]
    assert words[0] == "stabn"
    return words[1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_understood_by_the_verb_that_its_comment_names(recipe):
    verb = verb_of(recipe)
    path = ROOT / "recipes" / recipe
    parser = cli._parser({verb: cli._verb_parser(verb)})
    chosen = parser.parse_args([verb, *GIVEN[verb], "--config", str(path)])
    options = parser.instantiate(chosen)[verb]
    value = yaml.safe_load(path.read_text())
    flat = {f"{key}.{name}" for key, part in value.items() if isinstance(part, dict) for name in part}
    for name in flat:
        key, _, field = name.partition(".")
        got, wanted = getattr(options[key], field), value[key][field]
        if not isinstance(wanted, dict):
            assert (list(got) if isinstance(got, tuple) else got) == wanted, name
    if verb == "train":
        assert backbone_class(options["network"].backbone)
        assert options["preprocessing"].sampling.frames == value["preprocessing"]["sampling"]["frames"]


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.startswith(("paper-resnet", "modern-resnet"))])
def test_the_weights_that_a_recipe_begins_with_exist(recipe):
    from torchvision.models import get_weight

    value = yaml.safe_load((ROOT / "recipes" / recipe).read_text())["network"]
    assert value["backbone"] in get_weight(value["weights"]).url


def test_the_papers_recipes_have_the_papers_numbers():
    for depth in (50, 101):
        value = yaml.safe_load((ROOT / "recipes" / f"paper-resnet{depth}.yaml").read_text())
        assert value["network"]["backbone"] == f"resnet{depth}"
        assert value["preprocessing"]["sampling"] == {"mode": "dense", "frames": 32, "stride": 1}
        assert value["preprocessing"]["crop"] == 224
        assert value["optimizer"] == {
            "name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.0005, "schedule": "step",
            "milestones": [75, 125], "epochs": 150, "batch_size": 64,
        }  # fmt: skip
        assert value["network"]["dropout"] == 0.5


def test_the_cosine_schedule_is_the_hand_computed_one():
    # Two of ten steps of warming up, then eight from 1 towards 0.
    shares = [cosine_schedule(step, total=10, warmup=2) for step in range(11)]
    assert shares[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert shares[4] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert shares[6] == pytest.approx(0.5)
    assert shares[10] == pytest.approx(0)
    assert cosine_schedule(0, total=1, warmup=0) == 1


def test_training_follows_the_cosine_schedule_also_when_it_goes_on():
    recipe = OptimizerRecipe(learning_rate=0.1, schedule="cosine", warmup=0.2, epochs=1)
    expected = [0.1 * cosine_schedule(step, total=10, warmup=2) for step in range(10)]
    rates, state = [], None
    for half in (range(5), range(5, 10)):
        configured = TrainingModule(STABN("tiny", 3, 4), recipe, total_steps=10, seed=0).configure_optimizers()
        assert configured["lr_scheduler"]["interval"] == "step"
        schedule = configured["lr_scheduler"]["scheduler"]
        if state is not None:
            schedule.load_state_dict(state["schedule"])
            configured["optimizer"].load_state_dict(state["optimizer"])
        for _ in half:
            rates.append(configured["optimizer"].param_groups[0]["lr"])
            configured["optimizer"].step()
            schedule.step()
        state = {"schedule": schedule.state_dict(), "optimizer": configured["optimizer"].state_dict()}
    assert rates == pytest.approx(expected)


def test_smoothed_labels_cost_the_hand_computed_cross_entropies_of_both_branches():
    # Softmax of (ln 3, 0) is (3/4, 1/4), of (0, 0) (1/2, 1/2); 0.2 of the label spread over two classes: 0.9 and 0.1.
    logits, labels = torch.tensor([[math.log(3), 0.0]]), torch.tensor([0])
    perception = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    both = recognition_loss(Output(logits, torch.zeros(1, 2)), labels, 0.2)
    assert both.item() == pytest.approx(perception + math.log(2), abs=1e-6)
    assert recognition_loss(Output(logits), labels, 0.2).item() == pytest.approx(perception, abs=1e-6)
    assert recognition_loss(Output(logits), labels, 0).item() == pytest.approx(math.log(4 / 3), abs=1e-6)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="label_smoothing"):
            recognition_loss(Output(logits), labels, wrong)


def test_training_learns_from_smoothed_labels_and_tells_the_loss_without(tabletop):
    table = DataSource(str(tabletop)).table()
    dataset = VideoDataset(table.of_split("train")[:1], SETTINGS["preprocessing"], class_names=table.class_names)
    batch = dataset[0]
    outputs = {}
    for smoothing in (0.0, 0.1):
        torch.manual_seed(0)
        module = TrainingModule(
            STABN("tiny", 14, 8, 0), OptimizerRecipe(label_smoothing=smoothing), total_steps=1, seed=0
        )
        outputs[smoothing] = module.training_step(batch, 0)
    assert outputs[0.1]["recognition"] == outputs[0.0]["recognition"] == outputs[0.0]["loss"]
    assert outputs[0.1]["loss"] != outputs[0.0]["loss"]


@pytest.mark.parametrize("name", ["warmup", "label_smoothing"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_shares_of_a_recipe_are_from_0_to_less_than_1(name, value):
    with pytest.raises(UserError, match=rf"optimizer.{name}: got {value}"):
        OptimizerRecipe(**{name: value})


def test_three_crops_are_the_ends_and_the_middle_of_the_longer_side():
    preprocessing = Preprocessing(Sampling("uniform", 2), resize=4, crop=3)
    columns = torch.arange(9, dtype=torch.uint8).expand(2, 3, 4, 9)
    for frames in (columns, columns.transpose(2, 3)):
        views = preprocessing.test_squares(frames, 3)
        assert [tuple(view.shape) for view in views] == [(2, 3, 4, 4)] * 3
        seen = [view.unique().tolist() for view in views]
        assert seen == [[0, 1, 2, 3], [2, 3, 4, 5], [5, 6, 7, 8]]
    (centre,) = preprocessing.test_squares(columns, 1)
    assert torch.equal(centre, preprocessing.centre_square(columns))


def test_the_scores_of_all_clips_and_crops_of_a_video_are_averaged(trained, tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", rng.integers(0, 256, (20, 40, 64, 3), dtype=np.uint8), 12)
    run = open_run(trained)
    model = load_pretrained(trained)
    rows = [f"{name}.mp4,{model.class_names[0]},validation" for name in "ab"]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    run = open_run(trained, DataSource(str(tmp_path / "clips.csv")))
    options = {"engine": EngineRecipe(accelerator="cpu", devices="1"), "batch_size": 1}
    answers, _ = predict_split(run, "validation", clips=2, crops=3, **options)
    dataset = VideoDataset(
        run.table(model).of_split("validation"),
        network_preprocessing(model, "run"),
        class_names=model.class_names,
        clips=2,
        crops=3,
    )
    with torch.inference_mode():
        expected = [model(dataset[i].clips).logits.softmax(1).mean(0) for i in range(2)]
    assert dataset[0].clips.shape == (6, 3, 8, 36, 36)
    indices = dataset[0].frame_indices.tolist()
    assert indices == [indices[0]] * 3 + [indices[3]] * 3
    assert indices[0] != indices[3]
    assert np.allclose(answers.probabilities, torch.stack(expected), atol=1e-6)
    assert answers.clip_ids == ("a.mp4", "b.mp4")


def test_crops_are_for_testing_alone(tabletop, one_line):
    table = DataSource(str(tabletop)).table()
    with pytest.raises(ValueError, match="crops: got 3"):
        VideoDataset(
            table.of_split("train"),
            SETTINGS["preprocessing"],
            class_names=table.class_names,
            crops=3,
            augmentation=SETTINGS["augmentation"],
        )
    assert "--faithfulness" in one_line("evaluate", "run", "--faithfulness", "--crops", "3")
    assert "crops" in one_line("evaluate", "run", "--crops", "2")
