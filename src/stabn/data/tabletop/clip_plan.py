"""What is decided about a clip of Tabletop before anything is drawn."""

from dataclasses import dataclass

import numpy as np

from stabn.data.tabletop.acts import ACTS, Act, Setting
from stabn.data.tabletop.scene import random_appearance

SPLITS = ("train", "validation")
_DECISIVE = (0.25, 0.75)
_STREAMS = ("labels", "stage", "clutter", "camera", "mark")


def random_stream(seed: int, split: str, number: int, name: str) -> np.random.Generator:
    """An independent random stream per clip and purpose; none of them depends on a label."""
    return np.random.default_rng([seed, SPLITS.index(split), number, _STREAMS.index(name)])


@dataclass(frozen=True)
class ClipPlan:
    """All that is decided about one clip before a pixel is drawn.

    Attributes:
        seed, split, number: which clip.
        label: position in `ACTS`.
        num_frames: length of the clip.
        start, stop: the frames (from, to exclusive) of the act.
        setting: where the act takes place.
    """

    seed: int
    split: str
    number: int
    label: int
    num_frames: int
    start: int
    stop: int
    setting: Setting

    @property
    def act(self) -> Act:
        """What happens in the clip."""
        return list(ACTS.values())[self.label]

    @property
    def relevance(self) -> tuple[float, ...]:
        """Per frame: 1.0 while the decisive thing happens, 0.5 while hand or object come and go, 0.0 elsewhere."""
        moments = [self.moment(frame) for frame in range(self.num_frames)]
        return tuple(0.0 if u is None else 1.0 if _DECISIVE[0] <= u <= _DECISIVE[1] else 0.5 for u in moments)

    def moment(self, frame: int) -> float | None:
        """The act's moment 0..1 at a frame, None outside the act."""
        if not self.start <= frame < self.stop:
            return None
        return (frame - self.start) / (self.stop - self.start - 1)

    def random_stream(self, name: str) -> np.random.Generator:
        """The clip's random stream for a purpose: clutter, camera or mark."""
        return random_stream(self.seed, self.split, self.number, name)

    def camera_shake(self, rng: np.random.Generator) -> np.ndarray:
        """How far the camera is moved to the right and down in each frame.

        Args:
            rng: the clip's "camera" stream, of which this is the first draw.

        Returns:
            (num_frames, 2) fractions of the side, within 0.05 of 0.
        """
        shake = np.cumsum(rng.normal(0, 0.004, (self.num_frames, 2)), axis=0)
        return np.clip(shake - shake.mean(0), -0.05, 0.05)


def draw_labels(seed: int, split: str, count: int) -> tuple[int, ...]:
    """The labels of a split: equally many of each class, in random order."""
    order = random_stream(seed, split, 0, "labels").permutation(count)
    return tuple(int(i) % len(ACTS) for i in order)


def plan_clip(seed: int, split: str, number: int, label: int) -> ClipPlan:
    """Decide one clip; two plans that differ in `label` alone differ in nothing but `label`."""
    rng = random_stream(seed, split, number, "stage")
    num_frames = int(rng.integers(24, 49))
    length = int(rng.integers(12, 19))
    start = int(rng.integers(0, num_frames - length + 1))
    setting = Setting(
        x=rng.uniform(0.34, 0.66),
        reach=rng.uniform(0.3, 0.42),
        direction=int(rng.choice((-1, 1))),
        appearances=(random_appearance(rng), random_appearance(rng)),
        tilt=rng.uniform(-14, 14),
    )
    return ClipPlan(seed, split, number, label, num_frames, start, start + length, setting)
