import pytest
import torch

from stabn.data.boxes import box_map
from stabn.data.sampling import Sampling
from stabn.data.transforms import Preprocessing

WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_each_cell_holds_the_share_of_its_area_that_the_box_covers():
    # 8 x 8 pixels, 2 x 4 cells of 4 x 2 pixels; the box is 3 rows high and 4 columns wide.
    found = box_map((1, 3, 5, 6), WHOLE, (8, 8), 2, 4)
    assert torch.allclose(found, torch.tensor([[1 / 8, 2 / 8, 1 / 8, 0], [2 / 8, 4 / 8, 2 / 8, 0]]))
    assert found.dtype == torch.float32


def test_it_is_the_mean_of_the_boxs_pixels_wherever_cells_are_whole_pixels():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        (top, bottom), (left, right) = ((torch.randperm(65, generator=generator)[:2]).sort().values for _ in range(2))
        picture = torch.zeros(64, 64)
        picture[top:bottom, left:right] = 1
        box = tuple(int(side) for side in (left, top, right, bottom))
        cut = picture[8:40, 16:64].unflatten(0, (4, 8)).unflatten(2, (6, 8)).mean((1, 3))
        assert torch.allclose(box_map(box, (16 / 64, 8 / 64, 1.0, 40 / 64), (64, 64), 4, 6), cut, atol=1e-6)


def test_it_follows_the_networks_view_of_a_wide_frame():
    # The object, white on black, as the network sees it: the centre square of a resized 90 x 160 frame.
    preprocessing = Preprocessing(Sampling("uniform", 1), resize=63, crop=56, mean=(0, 0, 0), std=(1, 1, 1))
    frame = torch.zeros(1, 3, 90, 160, dtype=torch.uint8)
    box = (61, 20, 101, 74)
    frame[..., box[1] : box[3], box[0] : box[2]] = 255
    seen = preprocessing.test_view(frame)[0, 0].unflatten(0, (4, 14)).unflatten(2, (4, 14)).mean((1, 3))
    assert torch.allclose(box_map(box, preprocessing.crop_box(90, 160), (90, 160), 4, 4), seen, atol=0.02)


def test_no_box_and_a_box_outside_the_view_are_nothing_and_a_box_around_it_is_all():
    crop = (0.25, 0.25, 0.75, 0.75)
    assert torch.equal(box_map(None, crop, (8, 8), 3, 3), torch.zeros(3, 3))
    assert torch.equal(box_map((0, 0, 2, 8), crop, (8, 8), 3, 3), torch.zeros(3, 3))
    assert torch.allclose(box_map((0, 0, 8, 8), crop, (8, 8), 3, 3), torch.ones(3, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((3, 0, 3, 2), WHOLE, (8, 8), 2, 2), "box"),
        (((0, 4, 3, 2), WHOLE, (8, 8), 2, 2), "box"),
        ((None, (0.5, 0.0, 0.5, 1.0), (8, 8), 2, 2), "crop"),
        ((None, (0.0, 0.0, 1.0, 1.1), (8, 8), 2, 2), "crop"),
        ((None, (0.0, 0.0, float("nan"), 1.0), (8, 8), 2, 2), "crop"),
        ((None, WHOLE, (8, 0), 2, 2), "size"),
        ((None, WHOLE, (8, 8), 0, 2), "size"),
    ],
)
def test_boxes_crops_and_grids_without_area_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        box_map(*arguments)
