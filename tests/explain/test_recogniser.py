import csv
import json
import re
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import FRAMES

import stabn
from stabn.cli.main import main
from stabn.data.video.reader import probe, read_clip
from stabn.engine.config import EngineRecipe
from stabn.explain import recogniser
from stabn.nn import STABN, has_attention

ARRAYS = ("probabilities", "attention_probabilities", "temporal", "spatial", "frame_indices", "timestamps")


@pytest.fixture
def video(tabletop):
    return tabletop / "videos" / "3.mp4"


def all_frames(path):
    """(T, H, W, 3) uint8: every frame of a video."""
    return read_clip(path, range(probe(path).num_frames)).frames.permute(0, 2, 3, 1).numpy()


def test_importing_the_package_loads_no_torch_and_offers_all_its_names():
    code = "import sys, stabn; assert set(dir(stabn)) >= {'load', 'STABN'}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    assert all(getattr(stabn, name) for name in stabn.__all__)
    with pytest.raises(AttributeError, match="'nothing'"):
        stabn.nothing  # noqa: B018


def test_two_lines_of_python_give_what_the_command_writes(trained, video, tmp_path):
    main(["explain", str(trained), str(video), "--out", str(tmp_path / "out")])
    net = stabn.load(trained)
    answer = net.explain(str(video))
    with np.load(tmp_path / "out" / "3.npz") as arrays:
        for name in ARRAYS:
            assert np.array_equal(arrays[name], getattr(answer.record, name)), name
        assert tuple(arrays["class_names"]) == net.class_names == answer.record.class_names
    for suffix in (".json", ".png", ".mp4"):
        answer.save(tmp_path / f"mine{suffix}")
        assert (tmp_path / f"mine{suffix}").read_bytes() == (tmp_path / "out" / f"3{suffix}").read_bytes()


def test_an_explanation_has_arrays_of_the_sampled_frames_and_shows_itself(trained, video, tmp_path):
    net = stabn.load(str(trained))
    answer = net.explain(video)
    assert (answer.temporal.shape, answer.temporal.dtype, len(answer.spatial)) == ((FRAMES,), np.float32, FRAMES)
    for values in (answer.temporal, answer.spatial):
        assert 0 <= values.min() <= values.max() <= 1
    assert np.array_equal(answer.frames, all_frames(video)[answer.record.frame_indices])
    assert answer.frames.dtype == np.uint8
    top = answer.top(3)
    assert len(top) == 3
    assert answer.label == top[0][0] == net.predict([video])[0].label
    assert re.search(rf"'3'.*{re.escape(answer.label)}.*{FRAMES} frames", repr(answer))
    page = answer._repr_html_()
    assert page.startswith('<img src="data:image/png;base64,')
    assert f'alt="Explanation(&#x27;3&#x27;: {escape(answer.label)} ' in page
    for name, probability in top:
        assert f"<li>{escape(name)}: {probability:.1%}</li>" in page
    answer.save(tmp_path / "sheet.PNG")
    with Image.open(tmp_path / "sheet.PNG") as sheet:
        assert sheet.width > 300
    for name in ("sheet.gif", "sheet"):
        with pytest.raises(stabn.UserError, match=rf"{name}: .*\.png, \.mp4 or \.json"):
            answer.save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.PNG"]


@pytest.mark.parametrize("count", [1, 5, FRAMES, 40])
def test_an_array_of_frames_is_sampled_like_a_video(trained, count):
    frames = np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)
    net = stabn.load(trained)
    answer = net.explain(frames)
    # as OpenCV's users turn BGR into RGB: a view with negative strides
    assert np.array_equal(net.explain(frames[..., ::-1].copy()[..., ::-1]).temporal, answer.temporal)
    chosen = net.preprocessing.sampling.for_testing(count)[0]
    assert tuple(answer.record.frame_indices) == chosen
    assert np.array_equal(answer.frames, frames[list(chosen)])
    assert np.array_equal(answer.record.timestamps, np.array(chosen) / 25)


@pytest.mark.parametrize(
    ("frames", "got"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), "float32 (4, 8, 8, 3)"),
        (np.zeros((4, 8, 8), np.uint8), "uint8 (4, 8, 8)"),
        (np.zeros((4, 3, 8, 8), np.uint8), "uint8 (4, 3, 8, 8)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "uint8 (0, 8, 8, 3)"),
    ],
)
def test_arrays_of_another_kind_are_refused_with_what_was_got_and_expected(trained, frames, got):
    net = stabn.load(trained)
    for call in (net.explain, lambda value: net.predict([value])):
        with pytest.raises(ValueError, match=rf"{re.escape(got)}, expected uint8 \(T, H, W, 3\)"):
            call(frames)


def test_predictions_are_a_table_in_which_unreadable_videos_have_an_error(trained, video, tmp_path, monkeypatch):
    (tmp_path / "bad,<b>.mp4").write_text("no video")
    bad, missing = str(tmp_path / "bad,<b>.mp4"), str(tmp_path / "missing.mp4")
    net = stabn.load(trained)
    table = net.predict([video, bad, str(video), missing, all_frames(video)])
    assert len(table) == 5
    assert [row.video for row in table] == [str(video), bad, str(video), missing, "frames"]
    answer = net.explain(video)
    of_array = net.explain(all_frames(video)).record
    assert np.array_equal(answer.temporal, of_array.temporal)
    assert np.array_equal(answer.spatial, of_array.spatial)
    top = answer.top(1)[0]
    for index in (0, 2, 4):
        assert (table[index].label, table[index].probability) == (top[0], pytest.approx(top[1]))
        assert table[index].error is None
    for index, path in ((1, bad), (3, missing)):
        assert (table[index].label, table[index].probability) == (None, None)
        assert path in table[index].error
    table.to_csv(tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["video"] for row in rows] == [row.video for row in table]
    assert float(rows[0]["probability"]) == table[0].probability
    assert (rows[1]["label"], rows[1]["error"]) == ("", table[1].error)
    assert len(repr(table).splitlines()) == 6
    assert str(missing) in repr(table)
    page = table._repr_html_()
    assert page.count("<tr>") == 6
    assert "bad,&lt;b&gt;.mp4" in page
    assert len(net.predict([])) == 0
    with pytest.raises(ValueError, match=r"3\.mp4.*list"):
        net.predict(str(video))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(stabn.UserError, match="pandas"):
        table.to_pandas()


def test_predictions_become_a_data_frame(trained, video):
    pytest.importorskip("pandas")
    frame = stabn.load(trained).predict([video, "missing.mp4"]).to_pandas()
    assert list(frame.columns) == ["video", "label", "probability", "error"]
    assert frame["label"].isna().tolist() == [False, True]


def test_predicting_shows_a_bar_only_after_a_while(trained, video, capsys, monkeypatch):
    net, tqdm = stabn.load(trained), recogniser.tqdm
    net.predict([video])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(
        recogniser, "tqdm", lambda *args, **options: tqdm(*args, **options | {"delay": 0, "mininterval": 0})
    )
    net.predict([video])
    assert "1/1" in capsys.readouterr().err


def test_the_plain_network_predicts_but_has_nothing_to_explain(plain, video, one_line, tmp_path):
    net = stabn.load(plain)
    assert net.predict([video])[0].label in net.class_names
    assert "plain" in repr(net)
    with pytest.raises(stabn.UserError, match=r"network\.attention") as error:
        net.explain(video)
    assert "\n" not in str(error.value)
    assert "network.attention" in one_line("explain", plain, video, "--out", tmp_path / "out")


def test_a_saved_folder_is_loaded_and_mistakes_in_it_are_told_in_one_line(trained, video, tmp_path):
    STABN.from_pretrained(trained).save_pretrained(tmp_path / "saved")
    net = stabn.load(tmp_path / "saved")
    assert np.array_equal(net.explain(video).temporal, stabn.load(trained).explain(video).temporal)
    assert has_attention(net.network)
    assert repr(net).startswith(f"Recogniser('{tmp_path / 'saved'}': STABN tiny")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    for changed in (config | {"preprocessing": None}, config | {"frames": FRAMES + 1}):
        shutil.copytree(tmp_path / "saved", tmp_path / "changed", dirs_exist_ok=True)
        (tmp_path / "changed" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(stabn.UserError, match=re.escape(str(tmp_path / "changed"))):
            stabn.load(tmp_path / "changed")
    with pytest.raises(stabn.UserError, match="nowhere"):
        stabn.load(tmp_path / "nowhere")
    with pytest.raises(stabn.UserError, match="absent"):
        net.explain("absent.mp4")
    with pytest.raises(ValueError, match="window: got 2 of 2"):
        net.explain(video, window=2, windows=2)


def test_windows_and_precision_are_those_asked_for(trained, video):
    net = stabn.load(trained, EngineRecipe(precision="64-true"))
    first, second = (net.explain(video, window=window, windows=2).record for window in (0, 1))
    assert first.frame_indices[0] < second.frame_indices[0]
    assert net.explain(video).temporal == pytest.approx(stabn.load(trained).explain(video).temporal, abs=1e-4)


def test_the_notebook_in_the_documentation_runs(tmp_path, monkeypatch, capsys):
    notebook = json.loads((Path(__file__).parents[2] / "docs" / "explain.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert sorted(path.name for path in Path("notebook").iterdir()) == [
        "edits.jsonl", "film.mp4", "numbers.json", "predictions.csv", "run", "sheet.png", "tabletop",
    ]  # fmt: skip
    assert [row.error is None for row in names["table"]] == [True, True, True, False]
    assert set(names["edit"].scores) == {0.0, 1.0}
    assert names["what_if"].sum().item() == pytest.approx(1, abs=1e-5)
    assert len(capsys.readouterr().out.splitlines()[-1].split("->")) == 2
