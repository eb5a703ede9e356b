import json

import pytest
import torch
from small_run import FRAMES, SETTINGS, finetuning

from stabn.nn import temporal_loss
from stabn.runs import open_run
from stabn.training.finetune import finetune
from stabn.training.spread import SPREAD, ClipFrames, spread_edits

MARKED = (0.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0)


def clips(**starts: int) -> dict[str, ClipFrames]:
    """Clips of one class whose two telling frames begin at a place, before a background of their own."""
    random = torch.Generator().manual_seed(0)
    telling = torch.randn(2, 32, generator=random)
    found = {}
    for name, start in starts.items():
        features = 0.3 * torch.randn(8, 32, generator=random)
        features[start : start + 2] += telling
        found[name] = ClipFrames(0, features + 5 * torch.randn(32, generator=random))
    return found


def test_what_was_marked_is_found_where_other_clips_of_the_class_are_alike():
    spread = spread_edits(clips(a=2, b=5, c=0), {"a": MARKED})
    assert spread.keys() == {"b", "c"}
    for name, start in (("b", 5), ("c", 0)):
        scores = torch.tensor(spread[name].scores)
        expected = torch.zeros(8)
        expected[start : start + 2] = torch.tensor([1.0, 0.5])
        assert torch.allclose(scores, expected, atol=0.05), name
        assert 0.9 < spread[name].confidence <= 1
        assert spread[name].edited == ("a",)


def test_a_clip_in_which_nothing_is_alike_gets_little_confidence():
    alike = clips(a=2, b=5)
    alike["b"] = ClipFrames(0, torch.randn(8, 32, generator=torch.Generator().manual_seed(1)))
    assert spread_edits(alike, {"a": MARKED})["b"].confidence < 0.8


def test_edited_clips_other_classes_and_edits_that_single_nothing_out_are_left_alone():
    alike = clips(a=2, b=5, c=0)
    alike["c"] = ClipFrames(1, alike["c"].features_td)
    assert spread_edits(alike, {"a": MARKED, "b": MARKED}) == {}
    assert spread_edits(alike, {"a": (1.0,) * 8}) == {}
    assert spread_edits(alike, {"a": (0.0,) * 8}) == {}


def test_the_edited_clip_that_is_most_alike_counts_most():
    alike = clips(a=2, b=5)
    alike["far"] = ClipFrames(0, torch.randn(8, 32, generator=torch.Generator().manual_seed(1)))
    assert spread_edits(alike, {"far": MARKED, "a": MARKED})["b"].edited == ("a", "far")


def test_scores_that_do_not_fit_their_clip_are_refused():
    with pytest.raises(ValueError, match="a: got 3 scores, expected 8"):
        spread_edits(clips(a=2), {"a": (0.0, 1.0, 0.0)})


def test_half_the_weight_is_half_the_loss():
    temporal, edited = torch.full((2, 2), 0.5), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    both = torch.tensor([True, True])
    whole = temporal_loss(temporal, edited, both, 4.0)
    assert whole == 1
    assert temporal_loss(temporal, edited, both, 4.0, weights_b=torch.tensor([1.0, 0.5])) == 0.75


def test_fine_tuning_spreads_to_clips_of_the_edited_classes_alone(run, project, tmp_path):
    how = finetuning(spread=True, views="any")
    engine = {name: SETTINGS[name] for name in ("loader", "engine")}
    metrics = finetune(run, project, tmp_path / "after", how, control=False, **engine)
    entries = [json.loads(line) for line in (tmp_path / "after" / SPREAD).read_text().splitlines()]
    edited = set(project.edits())
    table = run.source.table()
    label_of = {sample.clip_id: sample.label for sample in table.of_split("train")}
    labels = {label_of[clip_id] for clip_id in edited}
    assert metrics["spread"] == len(entries)
    assert {entry["id"] for entry in entries} <= {i for i, label in label_of.items() if label in labels} - edited
    for entry in entries:
        assert len(entry["scores"]) == len(entry["frame_indices"]) == FRAMES
        assert max(entry["scores"]) == pytest.approx(1)
        assert 0 < entry["confidence"] <= 1
        assert {label_of[clip_id] for clip_id in entry["edited"]} == {label_of[entry["id"]]}
    assert set(open_run(tmp_path / "after").edited) == edited
