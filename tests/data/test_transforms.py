import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from stabn.data.sampling import Sampling
from stabn.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Preprocessing,
    TrainingView,
    mirrored_classes,
)
from stabn.errors import UserError

PREPROCESSING = Preprocessing(Sampling("uniform", 4), resize=36, crop=32)
SIZES = [(48, 64), (64, 48), (36, 36), (41, 97), (97, 41), (20, 30), (37, 36)]


def random_frames(height: int, width: int, count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def seen(view: TrainingView, preprocessing: Preprocessing = PREPROCESSING) -> torch.Tensor:
    """What the network reads of a training view."""
    colours = () if view.colours is None else (view.colours,)
    return preprocessing.network_clips(view.pixels.transpose(0, 1)[None], colours)[0]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", SIZES)
def test_the_test_view_is_what_torchvision_gives(size):
    frames = random_frames(*size)
    oracle = v2.Compose(
        [
            v2.Resize(36, antialias=True),
            v2.CenterCrop(32),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )(frames)
    view = PREPROCESSING.test_view(frames)
    torch.testing.assert_close(view, oracle.transpose(0, 1))
    assert view.shape == (3, 4, 32, 32)
    assert view.is_contiguous()


@pytest.mark.parametrize("size", SIZES)
def test_resizing_twice_is_the_same_as_once(size):
    once = PREPROCESSING.resized(random_frames(*size))
    assert tuple(once.shape[-2:]) == PREPROCESSING.resized_size(*size)
    assert torch.equal(PREPROCESSING.resized(once), once)
    assert torch.equal(PREPROCESSING.centre_view(once), PREPROCESSING.test_view(random_frames(*size)))


def test_resizing_does_not_change_its_input():
    frames = random_frames(36, 40)
    before = frames.clone()
    PREPROCESSING.test_view(frames)
    seen(Augmentation(jitter=0.5, hue=0.1, flip=True).training_view(frames, PREPROCESSING, generator()))
    assert torch.equal(frames, before)


def test_the_crop_box_computed_by_hand():
    box = Preprocessing(Sampling("dense", 4), resize=100, crop=50).crop_box
    assert box(100, 200) == (0.375, 0.25, 0.625, 0.75)
    assert box(400, 200) == (0.25, 0.375, 0.75, 0.625)
    assert Preprocessing(Sampling("dense", 4), resize=32, crop=32).crop_box(32, 32) == (0, 0, 1, 1)


MOUTH = replace(PREPROCESSING, region=(0.25, 0.5, 0.75, 0.9))


@pytest.mark.parametrize("preprocessing", [PREPROCESSING, MOUTH])
@pytest.mark.parametrize("size", [(60, 90), (90, 60), (45, 45)])
def test_the_crop_box_frames_what_the_test_view_shows(size, preprocessing):
    height, width = size
    left, top, right, bottom = preprocessing.crop_box(height, width)
    coordinates = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frames = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    frames[0, 0], frames[0, 1] = (c * 2 for c in coordinates)  # red grows downwards and green to the right
    view = preprocessing.test_view(frames)[:, 0]
    pixels = view * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    rows, columns = pixels[0, :, 16] * 255 / 2, pixels[1, 16] * 255 / 2
    half = 0.5 * max(size) / 36  # half an output pixel in source pixels, where its centre lies
    assert rows[0] == pytest.approx(top * height + half, abs=2)
    assert rows[-1] == pytest.approx(bottom * height - half, abs=2)
    assert columns[0] == pytest.approx(left * width + half, abs=2)
    assert columns[-1] == pytest.approx(right * width - half, abs=2)


def test_a_region_is_cut_out_before_resizing():
    frames = random_frames(100, 80)
    cut = replace(PREPROCESSING, region=(0.25, 0.2, 0.75, 0.6))
    assert torch.equal(cut.resized(frames), PREPROCESSING.resized(frames[..., 20:60, 20:60]))
    assert cut.resized_size(100, 80) == (36, 36)
    assert cut.crop_box(100, 80) == pytest.approx((0.25 + 0.5 / 18, 0.2 + 0.4 / 18, 0.75 - 0.5 / 18, 0.6 - 0.4 / 18))


@pytest.mark.parametrize(
    "original", [MOUTH, Preprocessing(Sampling("dense", 8, 2), 128, 112, (0.1, 0.2, 0.3), (0.5, 0.5, 0.25))]
)
def test_preprocessing_survives_json_and_the_absence_of_a_region_is_not_written(original):
    assert Preprocessing.from_json(json.loads(json.dumps(original.as_json()))) == original
    assert ("region" in original.as_json()) == (original.region is not None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": None}, "crop: missing"),
        ({"zoom": 2}, "zoom: unknown"),
        ({"crop": 200}, "crop: got 200"),
        ({"crop": 3.5}, "crop: got 3.5"),
        ({"std": [1, 1, 0]}, "std: got"),
        ({"mean": 0.5}, "mean: got 0.5"),
        ({"mean": [0.5, 0.5]}, "mean: got"),
        ({"sampling": 3}, "sampling: got 3"),
        ({"sampling": {"mode": "dense", "frames": 4}}, "sampling.stride: missing"),
        ({"sampling": {"mode": "dense", "frames": 0, "stride": 1}}, "frames: got 0"),
        *(({"region": value}, "region") for value in ((0.5, 0, 0.5, 1), (0, 0, 1), (0, 0.2, 1, 1.5))),
        *(({"region": value}, "region") for value in ("left", 3, (0, "a", 1, 1))),
    ],
)
def test_wrong_preprocessing_in_a_file_is_refused_in_one_line(change, message):
    value = {k: v for k, v in (PREPROCESSING.as_json() | change).items() if v is not None}
    with pytest.raises(UserError, match=message) as caught:
        Preprocessing.from_json(value, source="model/config.json")
    assert str(caught.value).startswith("model/config.json: ")
    assert "\n" not in str(caught.value)


def test_a_crop_larger_than_the_frame_is_refused():
    with pytest.raises(ValueError, match="crop: got 33"):
        Preprocessing(Sampling("dense", 4), resize=32, crop=33)
    with pytest.raises(ValueError, match=r"30x40.*32x32"):
        Augmentation().training_view(random_frames(30, 40), PREPROCESSING, generator())


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(0.4, flip=True), Augmentation(0.4, 0.1, True)])
def test_a_training_view_depends_on_the_seed_alone(augmentation):
    frames = random_frames(36, 60)
    views = [augmentation.training_view(frames, PREPROCESSING, generator(7)) for _ in range(2)]
    assert torch.equal(seen(views[0]), seen(views[1]))
    other = augmentation.training_view(frames, PREPROCESSING, generator(8))
    assert not torch.equal(seen(views[0]), seen(other))
    assert views[0].pixels.shape == (4, 3, 32, 32)
    assert views[0].pixels.dtype == torch.uint8


def test_random_crops_are_squares_of_the_frame_and_reach_its_corners():
    frames = random_frames(36, 38)
    squares = {(top, left): frames[..., top : top + 32, left : left + 32] for top in range(5) for left in range(7)}
    found = set()
    for seed in range(300):
        view = Augmentation().training_view(frames, PREPROCESSING, generator(seed))
        assert not view.flipped
        found.add(next(place for place, square in squares.items() if torch.equal(square, view.pixels)))
    assert found == set(squares)


def test_a_flip_mirrors_the_width_axis_and_is_reported():
    frames = random_frames(36, 50)
    found = set()
    for seed in range(20):
        plain = Augmentation().training_view(frames, PREPROCESSING, generator(seed))
        view = Augmentation(flip=True).training_view(frames, PREPROCESSING, generator(seed))
        assert torch.equal(view.pixels, plain.pixels.flip(-1) if view.flipped else plain.pixels)
        found.add(view.flipped)
        refused = Augmentation(flip=True).training_view(frames, PREPROCESSING, generator(seed), may_flip=False)
        assert not refused.flipped
        assert torch.equal(refused.pixels, plain.pixels)
    assert found == {False, True}


@pytest.mark.parametrize("hue", [0.0, 0.2])
def test_colour_jitter_is_torchvisions_with_the_same_factors_for_every_frame(hue):
    frames = random_frames(32, 32)  # one place only for the crop
    preprocessing = Preprocessing(Sampling("dense", 4), resize=32, crop=32)
    view = Augmentation(jitter=0.6, hue=hue).training_view(frames, preprocessing, generator(3))

    rng = generator(3)  # the draws, in the order that the docstring's purity promises to keep
    rng.integers(1), rng.integers(1), rng.random()
    brightness, contrast, saturation = 1 + 0.6 * rng.uniform(-1, 1, 3)
    turn = hue * rng.uniform(-1, 1)
    expected = frames.float() / 255
    expected = v2.functional.adjust_brightness(expected, brightness)
    expected = v2.functional.adjust_contrast(expected, contrast)
    expected = v2.functional.adjust_saturation(expected, saturation)
    expected = v2.functional.adjust_hue(expected, turn)
    expected = v2.functional.normalize(expected, IMAGENET_MEAN, IMAGENET_STD).transpose(0, 1)
    torch.testing.assert_close(seen(view, preprocessing), expected, atol=1e-5, rtol=0)


def test_a_still_clip_stays_still_under_colour_jitter():
    frames = random_frames(36, 36, count=1).expand(4, -1, -1, -1)
    clip = seen(Augmentation(0.8, 0.2, True).training_view(frames, PREPROCESSING, generator(1)))
    assert torch.equal(clip, clip[:, :1].expand_as(clip))


def test_jitter_without_strength_changes_nothing():
    frames = random_frames(32, 32)
    preprocessing = Preprocessing(Sampling("dense", 4), resize=32, crop=32)
    clip = seen(Augmentation().training_view(frames, preprocessing, generator()), preprocessing)
    assert torch.equal(clip, preprocessing.centre_view(frames))


@pytest.mark.parametrize("options", [{"jitter": -0.1}, {"jitter": float("nan")}, {"hue": 0.6}])
def test_impossible_augmentations_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: got"):
        Augmentation(**options)


@pytest.mark.parametrize(
    ("names", "mirrored"),
    [
        (["Moving up", "Opening"], (0, 1)),
        (["Pushing from left to right", "Pushing from right to left"], (1, 0)),
        (["Pushing from left to right", "Opening"], (None, 1)),
        (["move_left", "stop", "Move_Right"], (2, 1, 0)),
        (["turn-left", "turn_right"], (None, None)),
        (["LEFT", "right"], (1, 0)),
        (["leftward drift", "rightward drift", "leftwards", "rightwards"], (1, 0, 3, 2)),
        (["left-hand wave", "right-hand wave", "lefthand up", "righthand up"], (1, 0, 3, 2)),
        (["turning clockwise", "turning counterclockwise"], (1, 0)),
        (["turning clockwise", "turning anti-clockwise"], (1, 0)),
        (["turn_counter_clockwise", "turn_clockwise"], (1, 0)),
        (["clockwise", "counterclockwise", "anticlockwise"], (None, None, None)),
        (["left turn clockwise", "right turn counterclockwise", "right turn clockwise"], (1, 0, None)),
        (["upright", "bright light", "leftover", "righteous", "putting it upright on the table"], (0, 1, 2, 3, 4)),
        (["between left and right"], (None,)),
        (["pull left", "pull right", "up", "turn left", "clockwise", "anticlockwise"], (1, 0, 2, None, 5, 4)),
        ([], ()),
    ],
)
def test_mirrored_classes(names, mirrored):
    assert mirrored_classes(names) == mirrored
