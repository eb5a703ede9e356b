import numpy as np
import pytest

from stabn.errors import UserError
from stabn.evaluation.predict import Predictions, fused

FRAMES = Predictions(
    ("a", "b", "c"), np.array([0, 1, 1]), np.array([[0.6, 0.4], [0.7, 0.3], [0.5, 0.5]], dtype=np.float32)
)
FLOW = Predictions(
    ("c", "d", "a"), np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], dtype=np.float32)
)
"""Of the same classes in the other order."""


def test_the_mean_of_both_streams_is_taken_by_names_of_clips_and_classes():
    both, left_out = fused(FRAMES, ("up", "down"), FLOW, ("down", "up"))
    assert both.clip_ids == ("a", "c")
    assert both.labels.tolist() == [0, 1]
    np.testing.assert_allclose(both.probabilities, [[0.6, 0.4], [0.3, 0.7]], atol=1e-7)
    assert both.correct.tolist() == [True, True]
    assert left_out == ["b", "d"]


@pytest.mark.parametrize(
    ("second", "names", "token"),
    [
        (FLOW, ("down", "left"), "other classes: left, up"),
        (Predictions(("x",), FLOW.labels[:1], FLOW.probabilities[:1]), ("down", "up"), "no clip of the same name"),
        (FLOW, ("up", "down"), "clip 'a'"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(second, names, token):
    with pytest.raises(UserError, match=token):
        fused(FRAMES, ("up", "down"), second, names)
