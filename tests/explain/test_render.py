from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from stabn.data.video.clip import Clip
from stabn.data.video.reader import probe, read_clip
from stabn.explain.drawing import attention_colour, fit_text, font, wrap_text
from stabn.explain.heatmap import overlay, readable_size, shown_range
from stabn.explain.render import contact_sheet, write_comparison, write_explanation
from stabn.records import Record

LONG = "Pretending to pick something up and then putting it back down behind something that nobody can see"
WHOLE = (0.0, 0.0, 1.0, 1.0)


def explained(
    indices: Sequence[int],
    size: tuple[int, int] = (32, 24),
    *,
    temporal: float = 0.5,
    label: int | None = 1,
    crop: tuple[float, float, float, float] = WHOLE,
    fps: float = 10.0,
) -> tuple[Record, Clip]:
    """A record and its clip of the given source frames; `size` is (width, height)."""
    rng = np.random.default_rng(0)
    frames, times = np.asarray(indices, np.int64), np.asarray(indices) / fps
    pixels = torch.from_numpy(rng.integers(0, 256, (len(frames), 3, size[1], size[0]), dtype=np.uint8))
    record = Record(
        clip_id="clip-7",
        path="clip-7.mp4",
        class_names=(LONG, "Moving something up", "Covering <something>"),
        probabilities=np.array([0.7, 0.2, 0.1], np.float32),
        attention_probabilities=np.array([0.5, 0.3, 0.2], np.float32),
        temporal=np.full(len(frames), temporal, np.float32),
        spatial=rng.uniform(0.45, 0.55, (len(frames), 7, 7)).astype(np.float32),
        frame_indices=frames,
        timestamps=times,
        crop=crop,
        label=label,
    )
    return record, Clip(pixels, torch.from_numpy(frames), torch.from_numpy(times), "clip-7.mp4")


def test_colours_run_from_blue_at_0_to_red_at_1_and_stay_so_outside():
    blue, red = attention_colour(np.array([0.0, 1.0])).astype(int)
    assert blue[2] > max(150, 2 * blue[0])
    assert red[0] > max(150, 2 * red[2])
    assert attention_colour(np.zeros((2, 5))).shape == (2, 5, 3)
    assert attention_colour(np.array([-3.0, 9.0])).tolist() == attention_colour(np.array([0.0, 1.0])).tolist()


def test_the_heat_map_covers_exactly_the_crop():
    frames = torch.full((2, 3, 40, 80), 200, dtype=torch.uint8)
    drawn = overlay(frames, np.ones((2, 4, 4), np.float32), (0.25, 0.1, 0.75, 0.9), 1.0)
    heated = (drawn == attention_colour(1.0)).all(-1)
    expected = np.zeros((2, 40, 80), bool)
    expected[:, 4:36, 20:60] = True
    assert (heated == expected).all()


def test_what_the_network_did_not_see_is_grey_and_dim():
    frames = torch.zeros((1, 3, 20, 20), dtype=torch.uint8)
    frames[:, 0] = 250
    outside = overlay(frames, np.full((1, 2, 2), 0.5), (0.0, 0.0, 0.5, 1.0))[0, :, 10:].astype(int)
    assert (outside == outside[..., :1]).all()
    assert outside.max() < 100


def test_an_invisible_heat_map_leaves_the_frame_as_it_is():
    _, clip = explained([0, 1])
    drawn = overlay(clip.frames, np.full((2, 3, 3), 0.2), WHOLE, 0.0)
    assert (drawn == clip.frames.permute(0, 2, 3, 1).numpy()).all()


def test_the_map_lies_the_right_way_round():
    spatial = np.zeros((1, 2, 2), np.float32)
    spatial[0, 0, 1] = 1  # above, at the right
    drawn = overlay(torch.zeros((1, 3, 32, 32), dtype=torch.uint8), spatial, WHOLE, 1.0)[0]
    assert drawn[0, -1].tolist() == attention_colour(1.0).tolist()
    assert all(drawn[y, x].tolist() == attention_colour(0.0).tolist() for y, x in ((0, 0), (-1, 0), (-1, -1)))


def test_stretching_spends_all_colours_on_the_clips_own_range():
    spatial = np.array([[[0.45, 0.55]], [[0.5, 0.5]]], np.float32)
    frames = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    stretched = overlay(frames, spatial, WHOLE, 1.0)
    assert stretched[0, 0, 0].tolist() == attention_colour(0.0).tolist()
    assert stretched[0, 0, -1].tolist() == attention_colour(1.0).tolist()
    middle = stretched[1, 0, 0].astype(int)  # by the clip's range, not the frame's
    assert np.abs(middle - attention_colour(0.5)).max() <= 2


def test_a_constant_map_is_not_stretched():
    assert shown_range(np.full((2, 3, 3), 0.5)) == (0, 1)
    drawn = overlay(torch.zeros((1, 3, 4, 4), dtype=torch.uint8), np.full((1, 2, 2), 0.25), WHOLE, 1.0)
    assert (drawn == attention_colour(0.25)).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((128, 128), (384, 384)), ((1920, 1080), (640, 360)), ((1080, 1920), (360, 640)), ((320, 240), (640, 480))],
)
def test_small_videos_are_enlarged_by_whole_factors_and_big_ones_reduced(size, expected):
    assert readable_size(*size) == expected


@pytest.mark.parametrize("count", [1, 8, 16, 32, 64])
@pytest.mark.parametrize("size", [(32, 24), (36, 64)])
def test_a_sheet_has_a_readable_size_for_any_number_of_frames(count, size):
    sheet = contact_sheet(*explained(range(count), size))
    assert 900 <= sheet.width <= 1720
    rows = -(-count // 8)
    assert rows * 150 < sheet.height < 200 + rows * 640


def test_a_sheet_draws_each_score_as_a_bar_of_its_height_and_colour():
    for score, share in ((1.0, 1.0), (0.25, 0.25)):
        record, clip = explained([0, 1, 2], temporal=score)
        pixels = np.asarray(contact_sheet(record, clip))
        filled = (pixels == attention_colour(score)).all(-1).sum(0)
        assert filled[30] == pytest.approx(44 * share, abs=2)


def test_a_sheet_tells_right_from_wrong_without_colour():
    sheets = [contact_sheet(*explained([0], label=label)).convert("L") for label in (0, 1)]
    dark = [np.asarray(sheet)[50:75, 20:500] < 150 for sheet in sheets]
    assert (dark[0] != dark[1]).any()
    assert contact_sheet(*explained([0], label=None)).height < sheets[0].height


def test_a_sheet_of_other_frames_is_refused():
    record, _ = explained([0, 1, 2])
    _, clip = explained([0, 1, 3])
    with pytest.raises(ValueError, match=r"\[0, 1, 3\].*\[0, 1, 2\]"):
        contact_sheet(record, clip)


@pytest.mark.parametrize(
    ("indices", "fps", "times"),
    [
        ([4, 6, 9, 10], 10.0, [0, 0.2, 0.5, 0.6, 0.6 + 1 / 3]),
        ([0, 1, 2, 2, 2, 2], 10.0, [0, 0.1, 0.2, 0.2 + 1 / 3]),  # a short clip repeats its last frame
        ([3], 10.0, [0, 1 / 3]),
        ([0, 1, 2], np.inf, [0, 0.001, 0.002, 0.002 + 1 / 3]),  # all have one time
    ],
)
def test_a_film_shows_each_frame_once_at_its_own_time_and_holds_the_last(tmp_path: Path, indices, fps, times):
    write_explanation(tmp_path / "film.mp4", *explained(indices, fps=fps))
    assert probe(tmp_path / "film.mp4").timestamps == pytest.approx(times, abs=1e-4)


def test_the_mark_in_a_film_moves_on_with_time(tmp_path: Path):
    write_explanation(tmp_path / "film.mp4", *explained([0, 1, 2, 3], temporal=0.0))
    shown = read_clip(tmp_path / "film.mp4", [0, 1, 2, 3]).frames.float().mean(1)
    height = shown.shape[1]
    pointers = shown[:, height - 56 : height - 52] < 80  # the triangles below the bars
    centres = [float(torch.nonzero(pointer)[:, 1].float().mean()) for pointer in pointers]
    assert np.diff(centres) == pytest.approx([120, 120, 120], abs=12)


def test_a_comparison_sets_networks_side_by_side(tmp_path: Path):
    record, clip = explained([0, 2, 4])
    write_explanation(tmp_path / "one.mp4", record, clip)
    write_comparison(tmp_path / "two.mp4", [("before", record), ("after", record)], clip)
    write_comparison(tmp_path / "marked.mp4", [("before", record), ("after", record)], clip, [0.0, 0.5, 1.0])
    one, two, marked = (probe(tmp_path / f"{name}.mp4") for name in ("one", "two", "marked"))
    assert one.timestamps == two.timestamps == marked.timestamps
    assert two.width > 1.5 * one.width
    assert (marked.width, marked.height > two.height) == (two.width, True)


def test_text_that_does_not_fit_ends_in_an_ellipsis():
    face = font(14)
    assert fit_text("short", face, 200) == "short"
    assert fit_text(LONG, face, 200).endswith("…")
    assert face.getlength(fit_text(LONG, face, 200)) <= 200
    lines = wrap_text(LONG, face, 200, 2)
    assert len(lines) == 2
    assert lines[1].endswith("…")
    assert " ".join(wrap_text(LONG, face, 200, 9)) == LONG
