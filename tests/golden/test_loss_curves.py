import json

import pytest
from make_loss_curves import CASES, FILE, loss_curve

CURVES = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", CASES)
def test_the_first_steps_of_training_have_the_losses_of_the_file(name):
    assert loss_curve(**CASES[name]) == pytest.approx(CURVES[name], rel=1e-9)


def test_every_curve_differs_from_the_others():
    assert CURVES.keys() == CASES.keys()
    assert len({tuple(curve) for curve in CURVES.values()}) == len(CASES)
