"""Every system of the paper's comparison against outputs of its official implementation, as `benchmarks.reference`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.reference.__main__ import main
from benchmarks.reference.compare import LIMIT, compare
from stabn.errors import UserError

REFERENCE = Path(__file__).parents[1] / "reference"
LAYOUTS = sorted(REFERENCE.glob("*.json"))
OTHER_CLIPS = ("logits_seed3", "logits_reversed", "logits_224", "logits_all_seed3", "logits_all_reversed")
"""Arrays that need a pass of their own, which `python -m benchmarks.reference` compares."""


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda path: path.stem)
def test_networks_from_official_checkpoints_answer_as_their_official_code(layout):
    with np.load(layout.with_suffix(".npz")) as stored:
        names = [name for name in stored if name not in OTHER_CLIPS]
    differences = compare(layout, names)
    assert differences
    assert max(differences.values()) < LIMIT, differences


@pytest.fixture
def layout(tmp_path) -> Path:
    """A layout of a small module, to be changed."""
    for suffix in (".json", ".npz"):
        (tmp_path / f"a{suffix}").write_bytes((REFERENCE / f"pem_tiny{suffix}").read_bytes())
    return tmp_path / "a.json"


def test_the_status_tells_whether_every_array_agrees(layout, capsys):
    assert main([layout]) == 0
    with np.load(layout.with_suffix(".npz")) as stored:
        arrays = dict(stored)
    for wrong in (arrays["gate"] * (1 + 2e-9), arrays["gate"][:1], np.full_like(arrays["gate"], np.nan)):
        np.savez(layout.with_suffix(".npz"), **{**arrays, "gate": wrong})
        assert main([layout]) == 1
    assert "gate" in capsys.readouterr().out


def test_an_array_that_no_network_answers_is_an_error(layout):
    with np.load(layout.with_suffix(".npz")) as stored:
        np.savez(layout.with_suffix(".npz"), **stored, new_array=np.zeros(3))
    with pytest.raises(UserError, match=r"a\.json: array new_array: not known"):
        compare(layout)


def test_changed_weights_show(tmp_path):
    about = json.loads((REFERENCE / "tsm_resnet18_8.json").read_text())
    about["conv_gain"] = 1.01
    (tmp_path / "a.json").write_text(json.dumps(about))
    (tmp_path / "a.npz").write_bytes((REFERENCE / "tsm_resnet18_8.npz").read_bytes())
    assert compare(tmp_path / "a.json", ["logits"])["logits"] > 1e-3
    assert torch.is_grad_enabled()
