"""The official code's outputs for weights made by formula, which are the oracle of the network's arithmetic."""

import importlib.util
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stabn.nn import hub

REFERENCE = Path(__file__).parents[1] / "reference"
_spec = importlib.util.spec_from_file_location("formula_weights", REFERENCE / "formula_weights.py")
formula = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(formula)


@dataclass(frozen=True)
class Reference:
    """One official layout: what to build, its tensors in order, its weights, its clip, and the answers."""

    architecture: str
    num_classes: int
    frames: int
    layout: list[tuple[str, list[int]]]
    tensors: dict[str, Tensor]
    clip: Tensor
    answers: dict[str, np.ndarray]


@pytest.fixture(scope="session", params=[18, 50])
def reference(request: pytest.FixtureRequest) -> Reference:
    path = REFERENCE / f"abn_resnet{request.param}.json"
    about: dict[str, Any] = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as arrays:
        answers = dict(arrays)
    return Reference(
        architecture=f"resnet{request.param}",
        num_classes=about["num_classes"],
        frames=about["frames"],
        layout=[(name, shape) for name, shape in about["state_dict"]],
        tensors={name: torch.from_numpy(value) for name, value in formula.formula_state_dict(path).items()},
        clip=torch.from_numpy(formula.formula_clip(about["frames"], about["size"], about["clip_seed"])),
        answers=answers,
    )


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
