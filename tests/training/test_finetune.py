"""Fine-tuning with other options than those of the paper."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import FINETUNING, FRAMES, QUICK, SETTINGS, finetuning

from stabn.cli.verbs import run_verb
from stabn.data.clip_batch import collate
from stabn.data.dataset import FrameScores, VideoDataset
from stabn.data.ground_truth import ClipTruth
from stabn.data.sampling import Sampling
from stabn.errors import UserError
from stabn.nn import Attention, Output, has_attention, load_pretrained, temporal_loss
from stabn.runs import network_preprocessing, open_run
from stabn.training.distributed import BatchShard
from stabn.training.finetune import finetune
from stabn.training.module import TrainingModule
from stabn.training.recipes import PAPER_CORRECTION, CorrectionRecipe

ENGINE = {name: SETTINGS[name] for name in ("loader", "engine")}


def dataset_of(run, count=1, **options) -> VideoDataset:
    """The first training clips of a run; `options` hold scores and boxes of the first one."""
    table = run.source.table()
    samples = table.of_split("train")[:count]
    per_clip = {name: {samples[0].clip_id: options.pop(name)} for name in ("scores", "boxes") if name in options}
    return VideoDataset(samples, SETTINGS["preprocessing"], class_names=table.class_names, **per_clip, **options)


def test_the_cross_entropy_form_and_its_gradient_computed_by_hand():
    temporal = torch.tensor([[0.5, 0.25], [0.9, math.nan]])
    edited = torch.tensor([[1.0, 0.0], [math.nan, 0.0]])
    has_edit = torch.tensor([True, False])
    expected = 3 * (-math.log(0.5) - math.log(0.75)) / 4
    assert temporal_loss(temporal, edited, has_edit, 3.0, "cross-entropy").item() == pytest.approx(expected)
    nobody = torch.tensor([False, False])
    assert temporal_loss(temporal, edited, nobody, 3.0, "cross-entropy").item() == 0
    # and sends no gradient to clips without an edit
    temporal = torch.tensor([[0.5, 0.25], [0.9, 0.1]], requires_grad=True)
    loss = temporal_loss(temporal, torch.ones(2, 2), torch.tensor([True, False]), 1.0, "cross-entropy")
    loss.backward()
    assert temporal.grad[1].tolist() == [0, 0]
    assert temporal.grad[0].tolist() == pytest.approx([-1 / 0.5 / 4, -1 / 0.25 / 4])


def test_the_balanced_form_computed_by_hand():
    temporal = torch.tensor([[0.5, 0.25, 0.0], [0.5, 0.5, 0.5], [0.9, math.nan, 0.0], [0.5, 0.5, 0.5]])
    edited = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0], [math.nan, 0.0, 0.0], [0.0, 0.0, 0.0]])
    has_edit = torch.tensor([True, True, False, True])
    first = 0.5 * 0.25 + 0.5 * (0.0625 + 0.0) / 2
    second = 0.5 * (2 / 3) * 0.25 + 0.5 * (2 / 3) * 0.25
    only_zeros = 0.5 * 0.25
    expected = 3 * (first + second + only_zeros) / 4
    assert temporal_loss(temporal, edited, has_edit, 3.0, "balanced").item() == pytest.approx(expected)


def test_in_the_balanced_form_equal_scores_of_all_frames_are_pulled_apart_and_not_down():
    temporal = torch.full((1, 10), 0.5, requires_grad=True)
    edited = torch.zeros(1, 10)
    edited[0, 3] = 1
    temporal_loss(temporal, edited, torch.tensor([True]), 1.0, "balanced").backward()
    assert temporal.grad.sum().item() == pytest.approx(0, abs=1e-6)
    assert temporal.grad[0, 3] < 0 < temporal.grad[0, 4]


def test_scores_of_other_frames_lie_on_the_line_between_edited_ones():
    scores = FrameScores((2, 4, 8), (0.0, 1.0, 0.5))
    assert scores.at(torch.tensor([0, 2, 3, 4, 6, 8, 11])).tolist() == [0.0, 0.0, 0.5, 1.0, 0.75, 0.5, 0.5]


def test_a_repeated_last_frame_keeps_a_score_of_its_own_for_each_repetition(run):
    scored = FrameScores((0, 1, 2, 3, 4, 5, 5, 5), (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.0))
    assert dataset_of(run, scores=scored)[0].scores[0].tolist() == list(scored.scores)


def test_edited_clips_may_be_seen_at_varied_frames(run):
    scored = FrameScores(tuple(range(0, 24, 3)), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    varied = dataset_of(run, scores=scored, augmentation=SETTINGS["augmentation"], vary_scored=True)
    items = [varied.with_epoch(epoch)[0] for epoch in range(3)]
    assert len({tuple(item.frame_indices[0].tolist()) for item in items}) == 3
    for item in items:
        assert item.has_scores.all()
        expected = np.interp(item.frame_indices[0], scored.frame_indices, scored.scores)
        np.testing.assert_allclose(item.scores[0], expected, atol=1e-6)
    with pytest.raises(ValueError, match="vary_scored"):
        dataset_of(run, scores=scored, vary_scored=True)


def test_a_guided_clip_is_perceived_through_its_edit_and_the_attention_stays_the_networks_own(run):
    model = run.model()
    scores = FrameScores(tuple(range(FRAMES)), (1.0,) + (0.0,) * (FRAMES - 1))
    batch = collate(list(map(dataset_of(run, 2, scores=scores).__getitem__, range(2))))
    module = TrainingModule(
        model, QUICK, total_steps=1, seed=0, gamma=1.0, correction=replace(PAPER_CORRECTION, guided=1.0)
    )
    model.eval()
    with torch.no_grad():
        output, own = module._guided(batch, BatchShard(0, len(batch.labels), len(batch.labels))), model(batch.clips)
        torch.testing.assert_close(output.attention.temporal, own.attention.temporal)
        edited = replace(own.attention, temporal=torch.stack([batch.scores[0], own.attention.temporal[1]]))
        torch.testing.assert_close(output.logits, model.perceive(model.encode(batch.clips), edited))
        torch.testing.assert_close(output.logits[1], own.logits[1])
        assert not torch.allclose(output.logits[0], own.logits[0])


def test_the_control_is_never_guided(run, project, tmp_path, monkeypatch):
    def never(self, batch, shard):
        raise AssertionError("the edits' scores reached the control")

    monkeypatch.setattr(TrainingModule, "_guided", never)
    how = finetuning(guided=0.5)
    finetune(run, project, tmp_path / "control", how, control=True, **ENGINE)
    with pytest.raises(AssertionError):
        finetune(run, project, tmp_path / "after", how, control=False, **ENGINE)


def test_without_frozen_modules_all_weights_learn(run, project, tmp_path):
    how = finetuning(freeze="none", loss="cross-entropy", views="any", guided=0.5)
    finetune(run, project, tmp_path / "after", how, control=False, **ENGINE)
    before, after = load_pretrained(run.folder), load_pretrained(tmp_path / "after")
    assert has_attention(after)
    assert not torch.equal(before.backbone.conv1.weight, after.backbone.conv1.weight)
    assert not torch.equal(before.backbone.bn1.running_mean, after.backbone.bn1.running_mean)


def test_a_retraining_without_l_temp_by_the_runs_own_recipe_is_that_run_again(run, project, tmp_path):
    """So the run itself is the control."""
    out = tmp_path / "control"
    report = run_verb(["finetune", *map(str, (run.folder, "--edits", project.folder, "--out", out)), "--control"])
    assert report["unlike"] == []
    assert (tmp_path / "control" / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()


def test_a_retraining_with_edits_names_how_it_differs_from_its_run(run, project, tmp_path, capsys):
    words = ["finetune", *map(str, (run.folder, "--edits", project.folder, "--out", tmp_path / "after"))]
    other = ["--optimizer.epochs", "1", "--seed", "4", "--correction.mechanism", "gated-both"]
    run_verb([*words, *other])
    _, second, *_ = capsys.readouterr().out.splitlines()
    assert "optimizer, seed, mechanism" in second
    after = load_pretrained(tmp_path / "after")
    assert after.mechanism == "gated-both"
    assert (tmp_path / "after" / "curves.json").read_text().count("train_temporal_loss") == 1


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [({"gamma_where": 0.0}, r"correction\.gamma_where: got 0"), ({"guided": 1.5}, r"correction\.guided: got 1\.5")],
)
def test_impossible_corrections_are_refused(fields, pattern):
    with pytest.raises(UserError, match=pattern):
        CorrectionRecipe(**fields)


def test_what_does_not_fit_the_run_is_refused_before_anything_is_written(run, project, tmp_path):
    def refused(source, option, how=finetuning(), **options):  # noqa: B008
        with pytest.raises(UserError, match=option):
            finetune(source, project, tmp_path / "more", how, control=False, **options, **ENGINE)

    refused(run, "--where", where={"nobody": ClipTruth(boxes=((0, 0, 64, 128),))})
    finetune(run, project, tmp_path / "after", finetuning(), control=False, **ENGINE)
    refused(run, r"correction\.freeze", finetuning(init="scratch"))
    refused(open_run(tmp_path / "after"), "--correction.init", finetuning(init="scratch", freeze="none"))
    file = run.folder / "config.json"
    file.write_text(file.read_text().replace('"uniform"', '"dense"'))
    assert network_preprocessing(run.model(), "run").sampling == Sampling("dense", FRAMES)
    refused(run, "--correction.views", finetuning(views="any"))
    assert not (tmp_path / "more").exists()


def test_boxes_become_maps_of_what_the_view_shows_of_them(run):
    options = {"boxes": [None] * 3 + [(64, 0, 128, 128)] * 60, "grid": 2}
    item = dataset_of(run, **options)[0]
    assert item.has_maps[0].tolist() == [index >= 3 for index in item.frame_indices[0].tolist()]
    assert item.maps[0, -1].tolist() == [[0, 1], [0, 1]]
    assert not item.maps[0, ~item.has_maps[0]].any()
    augmentation = replace(SETTINGS["augmentation"], flip=True)
    varied = dataset_of(run, augmentation=augmentation, **options)
    sides = set()
    for epoch in range(12):
        left, right = varied.with_epoch(epoch)[0].maps[0, -1].mean(0).tolist()
        # A crop of 32 of 36 pixels begins at 0..4, so the middle is at 14..18 of the view.
        assert abs(left - right) >= 0.75
        sides.add(left > right)
    assert sides == {True, False}, "mirrored views have mirrored maps"


def test_fine_tuning_on_boxes_moves_the_maps_towards_them(run, project, tmp_path):
    where = {clip.clip_id: ClipTruth(boxes=((0, 0, 64, 128),) * 60) for clip in project.clips}
    how = finetuning(replace(FINETUNING, learning_rate=0.01, epochs=4), gamma_where=50.0)
    finetune(run, project, tmp_path / "after", how, control=False, where=where, **ENGINE)
    finetune(run, project, tmp_path / "control", how, control=True, where=where, **ENGINE)

    def left_over_right(folder):
        model = load_pretrained(folder)
        samples = [s for s in run.source.table().of_split("train") if s.clip_id in where]
        dataset = VideoDataset(samples, network_preprocessing(model, "run"), class_names=model.class_names)
        with torch.inference_mode():
            maps = torch.cat([model(dataset[i].clips).attention.spatial for i in range(len(dataset))])
        return float(maps[..., 0].mean() - maps[..., -1].mean())

    assert left_over_right(tmp_path / "after") > left_over_right(tmp_path / "control") + 0.1


@pytest.mark.parametrize("form", ["squared", "balanced", "cross-entropy"])
def test_the_spatial_loss_has_the_form_of_the_recipe(run, form):
    model = run.model()
    batch = dataset_of(run, boxes=[(64, 0, 128, 64)] * 60, grid=4)[0]
    recipe = replace(PAPER_CORRECTION, loss=form, gamma_where=7.0)
    module = TrainingModule(model, QUICK, total_steps=1, seed=0, gamma=1.0, correction=recipe)
    seen = torch.full_like(batch.maps, 0.25)
    output = Output(torch.zeros(1, 14), torch.zeros(1, 14), Attention(seen, torch.zeros(1, FRAMES)))
    wanted = batch.maps[0, 0]
    error = (0.25 - wanted).square()
    expected = {
        "squared": error.mean(),
        "balanced": ((wanted * error).sum() / wanted.sum() + ((1 - wanted) * error).sum() / (1 - wanted).sum()) / 2,
        "cross-entropy": -(wanted * math.log(0.25) + (1 - wanted) * math.log(0.75)).mean(),
    }[form]
    assert 0 < wanted.mean() < 0.5
    assert module._losses(batch, output)["spatial_loss"].item() == pytest.approx(7 * expected.item(), rel=1e-5)
