import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from stabn.data.ground_truth import ClipTruth, read_truth
from stabn.errors import UserError


def test_relevance_gives_each_sampled_frame_its_own_value():
    known = ClipTruth(relevance=(0.0, 0.5, 1.0))
    assert known.scores([0, 2, 2]).tolist() == [0.0, 1.0, 1.0]
    assert known.scores(np.array([1])).tolist() == [0.5]
    assert known.scores([]).shape == (0,)


@pytest.mark.parametrize(
    ("interval", "scores"),
    [
        ((2, 4), [0, 0, 1, 1, 0, 0]),
        ((1.5, 3.5), [0, 1, 1, 1, 0, 0]),  # half of frames 1 and 3 lies inside
        ((1.51, 3.49), [0, 0.5, 1, 0.5, 0, 0]),
        ((2.25, 2.75), [0, 0, 1, 0, 0, 0]),
        ((2.9, 3.1), [0, 0, 0.5, 0.5, 0, 0]),
        ((5, 9), [0, 0, 0, 0, 0, 1]),
        ((0, 0.25), [0.5, 0, 0, 0, 0, 0]),
    ],
)
def test_an_interval_is_certain_of_a_frame_of_which_it_covers_half(interval, scores):
    got = ClipTruth(interval=interval).scores(range(6))
    assert got.tolist() == scores
    assert got.dtype == np.float64


def test_an_interval_beyond_the_end_of_a_short_clip_is_taken_as_far_as_the_clip_goes():
    known = ClipTruth(interval=(71.5, 76.25))
    assert known.scores([70, 71, 72, 73, 73, 73]).tolist() == [0, 1, 1, 1, 1, 1]  # 74 frames, the last one repeated
    assert ClipTruth(interval=(74.5, 76)).scores(range(74)).max() == 0


def test_what_is_not_known_cannot_be_asked_for():
    with pytest.raises(ValueError, match="3 frames"):
        ClipTruth(relevance=(0, 0, 1)).scores([3])
    only_where = ClipTruth(boxes=((1, 2, 3, 4), None))
    assert not only_where.has_timing
    with pytest.raises(ValueError, match="truth"):
        only_where.scores([0])
    with pytest.raises(ValueError, match="got -1"):
        ClipTruth(interval=(0, 1)).scores([-1])


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ({}, "truth"),
        ({"relevance": (0.0, 1.5)}, "got 1.5"),
        ({"relevance": (math.nan,)}, "got nan"),
        ({"interval": (3.0, 3.0)}, "3.0 to 3.0"),
        ({"interval": (-1.0, 3.0)}, "-1.0 to 3.0"),
        ({"interval": (0.0, math.inf)}, "got 0.0 to inf"),
        ({"interval": (math.nan, 2.0)}, "got nan"),
        ({"boxes": (None, (5, 0, 5, 9))}, "boxes"),
        ({"boxes": ((0, 9, 5, 3),)}, "boxes"),
    ],
)
def test_impossible_truth_is_refused(fields, token):
    with pytest.raises(ValueError, match=token):
        ClipTruth(**fields)


def test_a_truth_file_holds_relevance_intervals_and_boxes(tmp_path):
    lines = [
        {"id": 7, "split": "train", "relevance": [0, 0.5, 1], "boxes": [None, [1.9, 2, 3.2, 4], None]},
        {"id": "b", "interval": [2, 3.5]},
        {"id": "c", "boxes": [[0, 0, 9, 9]], "relevance": None},
    ]
    text = "\ufeff" + "\r\n\r\n".join(map(json.dumps, lines)) + "\r\n"
    (tmp_path / "t.jsonl").write_bytes(text.encode())
    assert read_truth(tmp_path / "t.jsonl") == {
        "7": ClipTruth(relevance=(0.0, 0.5, 1.0), boxes=(None, (1.9, 2, 3.2, 4), None)),
        "b": ClipTruth(interval=(2.0, 3.5)),
        "c": ClipTruth(boxes=((0, 0, 9, 9),)),
    }


@pytest.mark.parametrize(("text", "clip_id"), [('{"id": "nobody", "interval": [1, 4]}\n', "'nobody'"), ("", "")])
def test_truth_of_other_clips_is_refused_by_every_verb_that_takes_it(trained, plain, tmp_path, one_line, text, clip_id):
    other = tmp_path / "other.jsonl"
    other.write_text(text)
    verbs = (
        ("evaluate", trained, "--faithfulness"),
        ("compare", plain, trained),
        ("compare", plain, trained, "--faithfulness"),
    )
    for verb in verbs:
        message = one_line(*verb, "--truth", other)
        assert message.startswith(f"stabn {verb[0]}: error: --truth: {other} ")
        assert clip_id in message


def test_the_truth_of_tabletop_is_read(tabletop):
    truth = read_truth(tabletop / "truth.jsonl")
    assert len(truth) == 42
    for known in truth.values():
        assert known.relevance is not None
        assert known.boxes is not None
        assert len(known.boxes) == len(known.relevance)
        assert set(known.relevance) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ('{"id": 1}', "truth"),
        ('{"relevance": [1]}', "id"),
        ('{"id": true, "relevance": [1]}', "id"),
        ("nonsense", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ('{"id": 1, "relevance": ["x"]}', "relevance"),
        ('{"id": 1, "relevance": [NaN]}', "relevance"),
        ('{"id": 1, "relevance": [true]}', "relevance"),
        ('{"id": 1, "relevance": {"0": 1}}', "relevance"),
        ('{"id": 1, "interval": [1]}', "interval"),
        ('{"id": 1, "interval": [4, 2]}', "interval"),
        ('{"id": 1, "boxes": 4}', "boxes"),
        ('{"id": 1, "boxes": [[1, 2, 3]]}', "boxes"),
        ('{"id": 0, "relevance": [1]}', "'0'"),
        ("[]", "id"),
    ],
)
def test_a_wrong_truth_file_is_refused_by_line(tmp_path, text, token):
    (tmp_path / "t.jsonl").write_text('{"id": 0, "relevance": [0, 1]}\n' + text)
    with pytest.raises(UserError, match=rf"t\.jsonl, line 2: .*{token}"):
        read_truth(tmp_path / "t.jsonl")


def test_a_truth_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl"):
        read_truth(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"id": "Zoë"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.jsonl"):
        read_truth(tmp_path / "latin.jsonl")


def test_the_truth_in_the_documentation_is_valid(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    (tmp_path / "t.jsonl").write_text(re.search(r"```jsonl\n(.*?)```", text, re.DOTALL)[1])
    truth = read_truth(tmp_path / "t.jsonl")
    assert truth["17"].relevance == (0.0, 0.5, 1.0, 0.0)
    assert truth["17"].boxes == (None, (30, 41, 62, 80), (31, 40, 63, 79), None)
    assert truth["18"].interval == (21.25, 27.25)
