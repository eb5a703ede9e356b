"""Every verb on the smallest network of every family, and what a frozen extractor means to a training."""

import errno
import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as parquet
import pytest
import torch
from small_run import QUICK, SETTINGS, assert_same_training, power_fails_at
from tiny_networks import TRANSFORMERS, save_tiny_transformer, use_tiny_networks

from stabn.cli.verbs import run_verb
from stabn.data.annotations.source import DataSource
from stabn.data.dataset import VideoDataset
from stabn.data.feature_store import FeatureStore
from stabn.data.sampling import Sampling
from stabn.data.transforms import Preprocessing
from stabn.data.video import reader
from stabn.data.video.clip import write_video
from stabn.data.video.reader import read_clip
from stabn.edits.project import open_project
from stabn.errors import UserError
from stabn.evaluation.attribution import check_methods
from stabn.evaluation.collect import collect_project
from stabn.nn import STABN, load_pretrained
from stabn.nn.attention import pool_frames, repeat_steps
from stabn.runs import network_preprocessing, open_run
from stabn.studio.catalogue import CatalogueClip
from stabn.studio.viewer import Viewer
from stabn.training.correction import choose_finetuning
from stabn.training.cross_validation import predict_out_of_fold
from stabn.training.finetune import finetune
from stabn.training.kept_features import kept_views_of
from stabn.training.module import TrainingModule
from stabn.training.recipes import CorrectionRecipe, LoaderRecipe, NetworkRecipe
from stabn.training.train import build_network, frozen_modules, train

FRAMES = 4
TIME = "2026-01-31T09:30:00+00:00"
SMALL_CLIPS = Preprocessing(Sampling("uniform", FRAMES), resize=36, crop=32)
CPU = ["--engine.accelerator", "cpu"]
QUICKLY = ["--loader.views", "1", "--loader.workers", "0", "--loader.timeout", "0",
           "--optimizer.epochs", "1", "--optimizer.batch_size", "4", *CPU]  # fmt: skip
CLIPS = ["--preprocessing.sampling.frames", str(FRAMES), "--preprocessing.resize", "36", "--preprocessing.crop", "32"]


@dataclass(frozen=True)
class Family:
    """A network of one family, the clips that it takes, its run, and where the test puts what it makes of it.

    Attributes:
        name: of the base network.
        stride: frames per step of its features.
        size: side of its clips in pixels.
        frames: of its clips.
        cam: whether CAM is defined.
        run: the folder of its run.
    """

    name: str
    stride: int
    size: int = 32
    frames: int = FRAMES
    cam: bool = False
    run: Path = Path()

    @property
    def folder(self) -> Path:
        return self.run.parent


FAMILIES = [
    Family("tiny", 1, cam=True),
    Family("timm/test_efficientnet", 1, size=64, cam=True),
    Family("r3d_18", 4, frames=8, cam=True),
    Family("s3d", 4, size=49, frames=7),
    Family("mvit_v2_s", 2, size=64),
    Family("swin3d_t", 2, cam=True),
    Family("videomae", 2),
    Family("timesformer", 1),
    Family("vivit", 2),
    Family("vjepa2", 2),
]


def verb(*words: object) -> dict:
    return run_verb([str(word) for word in words])


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """A table of four classes: eight training clips and four of validation, of noise."""
    folder = tmp_path_factory.mktemp("few")
    random = np.random.default_rng(0)
    rows = ["path,label,split"]
    for number in range(12):
        frames = random.integers(0, 256, (8, 48, 64, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, 10)
        rows.append(f"{number}.mp4,{'abcd'[number % 4]},{'train' if number < 8 else 'validation'}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder / "clips.csv"


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def family(request, few, tmp_path_factory):
    """A run of one family, with a frozen extractor."""
    family: Family = request.param
    folder = tmp_path_factory.mktemp(family.name.replace("/", "-"))
    options = ["--network.backbone", family.name]
    if family.name in TRANSFORMERS:
        saved = save_tiny_transformer(family.name, folder / "saved", family.frames, family.size)
        options += ["--network.weights", saved]
    clips = ["--preprocessing.sampling.frames", family.frames, "--preprocessing.resize", family.size + 4,
             "--preprocessing.crop", family.size]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        # Every verb would start a process that decodes.
        patch.setattr(reader, "WorkerProcess", lambda files, _timeout: reader.SameProcess(files))
        verb("train", few, "--out", folder / "run", *options, "--network.freeze", "extractor", *clips, *QUICKLY)
        yield replace(family, run=folder / "run")


@pytest.fixture(scope="module")
def corrected(family) -> Family:
    """The run beside a project with edits, and the runs "after" and "control" of fine-tuning on them."""
    folder = family.folder
    assert verb("collect", family.run, "--out", folder / "edits", "--bound", "1.0", "--max_clips", "2", *CPU)
    project = open_project(folder / "edits")
    wanted = [1.0] + [0.0] * (family.frames - 1)
    project.add(clip.edit(wanted, author="ann", time=TIME) for clip in project.clips)
    # "keep" does not compare the files with those that were edited, which starts a process for each.
    fine_tune = ["finetune", family.run, "--edits", folder / "edits", "--changed", "keep",
                 "--correction.init", "checkpoint", "--correction.views", "edited", *QUICKLY]  # fmt: skip
    verb(*fine_tune, "--out", folder / "after")
    verb(*fine_tune, "--out", folder / "control", "--control")
    return family


def extractor_of(model) -> dict[str, torch.Tensor]:
    """Weights and statistics of what comes before the attention branch."""
    return {
        f"{number}.{name}": value.clone()
        for number, module in enumerate(model.extractor)
        for name, value in module.state_dict().items()
    }


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[bool]:
    """Tensor by tensor, whether two extractors are equal bit by bit."""
    assert first.keys() == second.keys()
    return [torch.equal(value, second[name]) for name, value in first.items()]


def constant_in_steps(values: np.ndarray, stride: int) -> bool:
    """Whether the frames of a step have one value."""
    return bool(np.array_equal(values, values[np.arange(len(values)) // stride * stride]))


# Family x verb.


def test_train_and_finetune_leave_weights_and_statistics_of_a_frozen_extractor_as_they_were(corrected):
    runs = {name: load_pretrained(corrected.folder / name) for name in ("run", "after", "control")}
    run = open_run(corrected.run)
    torch.manual_seed(run.recipe["seed"])
    preprocessing = network_preprocessing(runs["run"], "run")
    before = build_network(NetworkRecipe(**run.recipe["network"]), preprocessing, runs["run"].class_names)
    for model in runs.values():
        assert all(same(extractor_of(before), extractor_of(model)))
        assert model.backbone.time_stride == corrected.stride
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (before, *runs.values())]
    assert all(not torch.equal(one, other) for i, one in enumerate(weights) for other in weights[:i])
    (store,) = (corrected.folder / "features").iterdir()
    # Eight training and four validation clips, and two that fine-tuning shows at exactly the edited frames.
    assert len((store / "rows.jsonl").read_text().splitlines()) == 14


def test_evaluate_measures_the_explanations(family):
    few_steps = ["--max_clips", "1", "--steps", "1", "--baselines", "mean"]
    measured = verb("evaluate", family.run, "--faithfulness", *few_steps, *CPU)["faithfulness"]
    expected = {"attention", "attention-branch", "grad-cam", "random", "centre", "uniform"}
    assert set(measured["methods"]) == expected | ({"cam"} if family.cam else set())
    drops = measured["attention_replaced"]
    assert {"inverse-temporal", "shuffled-temporal"} <= set(drops)
    model = load_pretrained(family.run)
    parts = [entry["part"] for entry in measured["methods"]["grad-cam"]["randomisation"]["temporal"]]
    assert parts == list(reversed(model.stages()))
    if not family.cam:
        with pytest.raises(UserError, match="--methods: got 'cam'"):
            check_methods(model, ["cam"])


def test_explain_and_a_batch_of_the_archive_have_the_same_scores_one_per_frame(family, few):
    video = few.parent / "0.mp4"
    verb("explain", family.run, video, "--out", family.folder / "seen")
    record = json.loads((family.folder / "seen" / f"{video.stem}.json").read_text())
    with np.load(family.folder / "seen" / f"{video.stem}.npz") as arrays:
        temporal, spatial = arrays["temporal"], arrays["spatial"]
    assert len(record["temporal_attention"]) == len(temporal) == len(spatial) == family.frames
    for values in (temporal, spatial):
        assert constant_in_steps(values, family.stride)
    folder = family.folder / "one"
    folder.mkdir()
    shutil.copy(video, folder)
    archive = ["--batch", folder, "--out", family.folder / "archive", "--workers", "1", "--timeout", "0"]
    verb("explain", family.run, *archive, *CPU)
    (part,) = (family.folder / "archive").rglob("*.parquet")
    (row,) = parquet.read_table(part).to_pylist()
    assert row["error"] is None
    np.testing.assert_allclose(row["temporal_attention"], temporal, atol=1e-4)
    assert row["predicted"] == record["predictions"][0]["class"]


def test_the_studio_answers_an_edit_as_a_whole_forward_does_and_runs_the_extractor_once_per_clip(
    family, few, monkeypatch
):
    run = open_run(family.run)
    model = load_pretrained(family.run).eval()
    preprocessing, table = network_preprocessing(model, "run"), run.table(model)
    dataset = VideoDataset(table.samples, preprocessing, class_names=table.class_names)
    kind, runs, counts = type(model.backbone), [], []
    extract = kind.extract
    monkeypatch.setattr(kind, "extract", lambda self, clip: runs.append(1) or extract(self, clip))
    scores = [1.0, 0.0, 0.5, 1.0, 0.25, 0.75, 0.0, 1.0][: family.frames]
    for split in ("validation", "train", "train"):  # training has kept the first, the studio keeps the second
        sample = table.of_split(split)[0]
        kept = kept_views_of(run, model, dataset)
        viewer = Viewer(model, preprocessing, kept=kept)
        runs.clear()
        try:
            clip = viewer.open(CatalogueClip(sample.clip_id, "one", sample.path, None, split, "data"))
            assert clip.prediction.temporal.shape == (family.frames,)
            answer = viewer.what_if(clip, scores, "original")
            unchanged = viewer.what_if(clip, "original", "original")
            assert clip.picture(0)
            until = time.monotonic() + 60
            while kept.get(sample.clip_id, torch.zeros(())) is None:  # it is kept after the answer
                assert time.monotonic() < until
                time.sleep(0.01)
        finally:
            viewer.close()
        counts.append(len(runs))
        pixels = read_clip(sample.path, clip.prediction.frame_indices.tolist()).frames
        with torch.inference_mode():
            features = model.encode(preprocessing.test_view(pixels)[None])
            attention, _ = model.attend(features)
            edited = model.perceive(features, replace(attention, temporal=torch.tensor([scores])))
        np.testing.assert_allclose(answer, edited[0].softmax(0), atol=2e-3)  # features are kept in float16
        np.testing.assert_allclose(unchanged, clip.prediction.probabilities, atol=2e-5)
    assert counts == [0, 1, 0]


def test_edits_have_one_score_per_frame_and_compare_and_report_read_all_runs(corrected):
    edits = open_project(corrected.folder / "edits").edits()
    assert {len(edit.scores) for edit in edits.values()} == {corrected.frames}
    runs = [corrected.folder / name for name in ("run", "control", "after")]
    compared = verb("compare", *runs, *CPU)
    assert len(compared["methods"]) == len(runs)
    assert not compared["skipped"]
    page = corrected.folder / "report.html"
    verb("report", runs[0], runs[2], "--control", runs[1], "--edits", corrected.folder / "edits", "--out", page,
         "--examples", "1")  # fmt: skip
    assert page.read_text().startswith("<!doctype html>")


def test_exported_files_answer_as_the_network_does(family):
    model = load_pretrained(family.run).eval()
    clips = torch.randn(2, 3, family.frames, family.size, family.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        output = model(clips)
    verb("export", family.run, "--out", family.folder / "network.onnx")
    session = onnxruntime.InferenceSession(family.folder / "network.onnx", providers=["CPUExecutionProvider"])
    named = dict(
        zip([one.name for one in session.get_outputs()], session.run(None, {"clips": clips.numpy()}), strict=True)
    )
    answers = [named]
    if family.name in ("tiny", "timm/test_efficientnet", "r3d_18", "vivit"):  # once per library; ONNX begins with it
        verb("export", family.run, "--out", family.folder / "network.pt2")
        with torch.no_grad():
            answers.append(torch.export.load(family.folder / "network.pt2").module()(clips))
    for got in answers:
        np.testing.assert_allclose(got["logits"], output.logits, atol=1e-4)
        np.testing.assert_allclose(got["temporal_attention"], output.attention.temporal, atol=1e-4)


def test_a_network_that_pytorch_cannot_export_is_one_line_and_no_file(family, monkeypatch):
    def fail(*_arguments, **_options):
        raise RuntimeError("no such operator\nand a page of more")

    monkeypatch.setattr(torch.export, "export", fail)
    out = family.folder / "none.pt2"
    with pytest.raises(UserError, match=rf"{family.name} cannot be exported as \.pt2 \(RuntimeError: no such") as error:
        verb("export", family.run, "--out", out)
    assert "\n" not in str(error.value)
    assert not out.exists()


# A frozen extractor, and what a training starts from.


FROZEN = NetworkRecipe("tiny", freeze="extractor")
TRAINING = SETTINGS | {"preprocessing": SMALL_CLIPS, "loader": LoaderRecipe(views=1, workers=0, timeout=0)}
ONE_EPOCH = replace(QUICK, epochs=1, schedule="constant")


def start(network: NetworkRecipe, seed: int = SETTINGS["seed"], names=("a", "b", "c", "d")) -> STABN:
    """The network before a training of `TRAINING`."""
    torch.manual_seed(seed)
    return build_network(network, SMALL_CLIPS, names)


@pytest.fixture(scope="module")
def source(few) -> DataSource:
    return DataSource(str(few))


@pytest.fixture(scope="module")
def frozen(source, tmp_path_factory) -> Path:
    """A tiny network that was trained for two epochs on kept features."""
    folder = tmp_path_factory.mktemp("frozen") / "run"
    train(folder, source, network=FROZEN, optimizer=QUICK, **TRAINING)
    return folder


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The clips that are decoded, in order."""
    read_view, clips = VideoDataset.read_view, []

    def reading(self, index):
        clips.append(self.samples[index].clip_id)
        return read_view(self, index)

    monkeypatch.setattr(VideoDataset, "read_view", reading)
    return clips


def test_filling_features_that_was_killed_goes_on_where_it_was_and_ends_with_the_same_weights(
    frozen, source, tmp_path, monkeypatch, decoded
):
    add, batches = FeatureStore.add, []

    def failing(self, rows):
        if len(batches) == 2:
            raise ConnectionAbortedError("the power fails")
        batches.append([key for key, _, _ in rows])
        add(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "add", failing)
        with pytest.raises(ConnectionAbortedError):
            train(tmp_path / "run", source, network=FROZEN, optimizer=QUICK, **TRAINING)
    kept = sum(map(len, batches))
    before = len(decoded)
    train(tmp_path / "run", source, network=FROZEN, optimizer=QUICK, **TRAINING)
    assert 0 < kept < 12
    assert len(decoded) - before == 12 - kept
    assert_same_training(frozen, tmp_path / "run")


def test_training_on_kept_features_that_was_killed_ends_with_the_same_weights(frozen, source, tmp_path, decoded):
    with power_fails_at(3):
        train(tmp_path / "run", source, network=FROZEN, optimizer=QUICK, **TRAINING)
    before = len(decoded)
    train(tmp_path / "run", source, network=FROZEN, optimizer=QUICK, **TRAINING)
    assert len(decoded) == before
    assert_same_training(frozen, tmp_path / "run")


def test_runs_and_fine_tunings_on_one_store_decode_nothing_that_is_there(frozen, source, tmp_path, decoded):
    shutil.copytree(frozen.parent, tmp_path / "runs")
    runs = tmp_path / "runs"
    train(runs / "other", source, network=replace(FROZEN, dropout=0.2), optimizer=ONE_EPOCH, **TRAINING)
    assert decoded == []
    run = open_run(runs / "run")
    collect_project(run, tmp_path / "edits", bound=1.0, max_clips=1, engine=SETTINGS["engine"])
    project = open_project(tmp_path / "edits")
    project.add(clip.edit([1.0] + [0.0] * (FRAMES - 1), author="ann", time=TIME) for clip in project.clips)
    predict_out_of_fold(run, tmp_path / "folds", folds=2)  # keeps the views of evaluation, too
    decoded.clear()
    options = {name: TRAINING[name] for name in ("loader", "engine")} | {"control": False, "changed": "keep"}
    choices = {"checkpoint": CorrectionRecipe("checkpoint", views="any"), "scratch": CorrectionRecipe()}
    for init, correction in choices.items():
        how = replace(choose_finetuning(run, correction), optimizer=ONE_EPOCH)
        assert how.correction.init == init
        finetune(run, project, runs / init, how, **options)
    predict_out_of_fold(run, tmp_path / "other folds", folds=2)
    assert decoded == []
    how = replace(choose_finetuning(run, CorrectionRecipe("checkpoint")), optimizer=ONE_EPOCH)
    finetune(run, project, runs / "edited", how, **options)
    assert sorted(decoded) == sorted(clip.clip_id for clip in project.clips)


def test_features_that_other_weights_gave_are_not_taken(frozen, source, tmp_path, decoded):
    shutil.copytree(frozen.parent, tmp_path / "runs")
    options = TRAINING | {"seed": SETTINGS["seed"] + 1}
    train(tmp_path / "runs" / "other", source, network=FROZEN, optimizer=ONE_EPOCH, **options)
    assert len(decoded) == 12
    assert len(list((tmp_path / "runs" / "features").iterdir())) == 2


def test_a_full_disk_while_features_are_kept_ends_in_one_line(few, tmp_path, monkeypatch, one_line):
    add = FeatureStore.add

    def full(self, rows):
        with monkeypatch.context() as patch:
            patch.setattr(
                os, "fsync", lambda _descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left"))
            )
            add(self, rows)

    monkeypatch.setattr(FeatureStore, "add", full)
    words = ["train", few, "--out", tmp_path / "run", "--network.backbone", "tiny", "--network.freeze", "extractor"]
    line = one_line(*words, *CLIPS, *QUICKLY)
    assert "No space left" in line
    assert "--loader.features" in line


def test_what_is_frozen_thaws_after_its_epochs_and_not_before(source, tmp_path):
    network = NetworkRecipe("tiny", freeze="extractor", thaw=1)
    before = extractor_of(start(network))
    for epochs in (1, 2):
        folder = tmp_path / f"{epochs}"
        train(folder, source, network=network, optimizer=replace(ONE_EPOCH, epochs=epochs), **TRAINING)
        equal = same(before, extractor_of(load_pretrained(folder)))
        assert all(equal) if epochs == 1 else not any(equal)


def test_the_first_stages_stay_and_the_others_learn(source, tmp_path):
    network = NetworkRecipe("tiny", freeze=2)
    train(tmp_path / "run", source, network=network, optimizer=ONE_EPOCH, **TRAINING)
    before, after = start(network).stages(), load_pretrained(tmp_path / "run").stages()
    moved = {
        name: not all(
            torch.equal(value, other.state_dict()[key])
            for module, other in zip(before[name], after[name], strict=True)
            for key, value in module.state_dict().items()
        )
        for name in before
    }
    assert list(moved.values()) == [number >= 2 for number in range(len(moved))]
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("name", ["tiny", "timm/test_efficientnet", "mc3_18"])
def test_the_first_stages_of_other_families_are_those_of_the_base_network(name):
    model = start(NetworkRecipe(name))
    for count in (1, 2):
        stages = list(model.backbone.stages().values())[:count]
        expected = [module for modules in stages for module in modules]
        assert list(frozen_modules(model, NetworkRecipe(name, freeze=count))) == expected
    with pytest.raises(UserError, match=r"network\.freeze: got 99"):
        frozen_modules(model, NetworkRecipe(name, freeze=99))


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step"])
def test_the_extractor_learns_at_its_share_of_the_rate(schedule):
    model = start(NetworkRecipe("tiny"))
    recipe = replace(QUICK, learning_rate=0.1, schedule=schedule, extractor_rate=0.25)
    configured = TrainingModule(model, recipe, total_steps=8, seed=0).configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    extracting = {id(p) for module in model.extractor for p in module.parameters()}
    for _ in range(3):
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert rates.keys() == {id(p) for p in model.parameters()}
        (slow,), (fast,) = (
            {rate for key, rate in rates.items() if (key in extracting) == own} for own in (True, False)
        )
        assert slow == pytest.approx(0.25 * fast)
        optimizer.step()
        schedule.step()


def test_a_run_as_weights_gives_all_but_the_classifiers_to_other_classes_and_everything_to_the_same(frozen, capfd):
    theirs = load_pretrained(frozen)
    names = theirs.class_names
    weights = NetworkRecipe("tiny", weights=str(frozen))
    for classes in (names, ("x", "y"), tuple(reversed(names))):
        own, fresh = start(weights, 9, classes).state_dict(), start(NetworkRecipe("tiny"), 9, classes).state_dict()
        expected = theirs.state_dict()
        left = {key for key in own if own[key].shape != expected[key].shape or not torch.equal(own[key], expected[key])}
        if classes == names:
            assert left == set()
        else:
            assert {"fc.weight", "fc.bias", "fc_att_out.weight", "conv_att_out.0.weight"} <= left
            assert not {key for key in left if key.startswith(("conv1", "layer", "conv_temp_att2", "conv_temp_att3"))}
            assert all(torch.equal(own[key], fresh[key]) for key in left)


def test_a_run_as_weights_says_one_line_and_another_base_network_is_refused(frozen, caplog):
    start(NetworkRecipe("tiny", weights=str(frozen)), names=("x", "y"))
    (line,) = [message for message in caplog.messages if str(frozen) in message]
    assert "\n" not in line
    with pytest.raises(UserError, match=r"--network\.weights: .* has the base network tiny"):
        start(NetworkRecipe("fine", weights=str(frozen)))


def test_options_of_earlier_versions_are_answered_with_their_new_names(one_line):
    assert "--network.backbone" in one_line("train", "table", "--out", "run", "--network.architecture", "tiny")
    assert "--network.weights" in one_line("train", "table", "--out", "run", "--network.imagenet", "x.pth")


# Networks with fewer steps than frames.


@pytest.mark.parametrize("frames", range(1, 10))
@pytest.mark.parametrize("stride", range(1, 5))
def test_pooling_frames_and_repeating_steps_are_transposes_up_to_the_frames_of_a_step(frames, stride):
    steps = -(-frames // stride)
    repeat = torch.stack([repeat_steps(row[None], stride, frames)[0] for row in torch.eye(steps)], dim=1)
    pool = torch.stack([pool_frames(row[None], stride)[0] for row in torch.eye(frames)], dim=1)
    frames_of_step = repeat.sum(0)
    assert frames_of_step.sum() == frames
    torch.testing.assert_close(frames_of_step[:, None] * pool, repeat.T)
    torch.testing.assert_close(pool @ repeat, torch.eye(steps))
