import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from stabn import export as exporting
from stabn.cli.main import main
from stabn.data.sampling import Sampling
from stabn.data.segments import Segment, segment_frames
from stabn.data.transforms import Preprocessing
from stabn.data.video.clip import write_video
from stabn.data.video.reader import read_clip
from stabn.errors import UserError
from stabn.explain.explain_video import explain_video
from stabn.export import ExportableNetwork, export
from stabn.nn import STABN, load_pretrained
from stabn.runs import network_class_names, network_preprocessing, open_run

DOCS = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
OUTPUTS = ["logits", "attention_logits", "temporal_attention", "spatial_attention"]
PROGRAMS = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)


def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def assert_answers(answers, model, clips: torch.Tensor) -> None:
    """The answers, in the order of the exported outputs, are those of the network for these clips."""
    with torch.inference_mode():
        output = model(clips)
    expected = [output.logits]
    if output.attention is not None:
        expected += [output.attention_logits, output.attention.temporal, output.attention.spatial]
    for got, right in zip(answers, expected, strict=True):
        assert np.asarray(got).dtype == np.float32
        assert np.allclose(got, right.numpy(), atol=1e-4)


@pytest.fixture(scope="module")
def frames_onnx(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    words = ["export", str(trained), "--out", str(folder / "network.onnx"), "--input", "uint8"]
    main([*words, "--json", str(folder / "report.json")])
    return folder / "network.onnx"


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """A folder with the documented clips.py, from which the other programs are executed."""
    (tmp_path / "clips.py").write_text(PROGRAMS[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "clips", raising=False)

    def execute(number: int) -> dict:
        names: dict = {}
        exec(compile(PROGRAMS[number], "export.md", "exec"), names)
        return names

    yield execute
    sys.modules.pop("clips", None)


@pytest.fixture
def videos(tabletop, tmp_path):
    """A wide film, and the same as a phone stores it upright, mirrored, or with pixels that are not square."""
    film = tmp_path / "plain.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (14, 3, 5, 3)).astype(np.uint8)  # no two corners are alike
    write_video(film, frames.repeat(24, 1).repeat(20, 2), 10)
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs the ffmpeg command").get_ffmpeg_exe()
    quiet = [ffmpeg, "-v", "error", "-y"]

    def made(name: str, before=(), after=("-c", "copy")) -> Path:
        subprocess.run([*quiet, *before, "-i", film, *after, tmp_path / f"{name}.mp4"], check=True)
        return tmp_path / f"{name}.mp4"

    turned = [
        made(f"turned-{degrees}-{flip}", ("-display_rotation", str(degrees), *((f"-display_{flip}",) * bool(flip))))
        for degrees in (0, 90, 180, 270)
        for flip in ("", "hflip")
    ]
    stretched = made("stretched", after=("-vf", "setsar=2", "-bf", "2"))
    return [*turned, stretched]


def test_the_documented_program_prepares_every_film_as_stabn_does(videos, documented):
    read_clips = documented(0)["read_clips"]
    region = (0.1, 0.2, 0.85, 0.9)
    ways = [
        (Preprocessing(Sampling("uniform", 4), resize=40, crop=32), 1, None),
        (Preprocessing(Sampling("dense", 4, 2), resize=40, crop=32, region=region), 3, Segment(0.15, 1.25)),
        (Preprocessing(Sampling("uniform", 4), resize=32, crop=32), 2, Segment(0.25, None)),
        (Preprocessing(Sampling("dense", 8), resize=32, crop=24), 1, Segment(1.0, 1.25)),  # three frames, of eight
    ]
    seen = set()
    for number, video in enumerate(videos):
        for preprocessing, views, segment in ways if number in (2, len(videos) - 1) else ways[:1]:
            within = segment_frames(video, segment, "it")
            windows = preprocessing.sampling.for_testing(len(within), views)
            right = [preprocessing.centre_square(preprocessing.resized(read_clip(video, [within[i] for i in w]).frames))
                     for w in windows]  # fmt: skip
            ends = (0.0, math.inf) if segment is None else (segment.start, segment.end or math.inf)
            clips = read_clips(str(video), preprocessing.as_json(), views, *ends)
            expected = torch.stack(right).permute(0, 1, 3, 4, 2).numpy()
            assert clips.shape == expected.shape
            difference = np.abs(clips.astype(int) - expected)
            assert difference.max() <= 1, (video.name, segment)
        seen.add(read_clips(str(video), ways[0][0].as_json()).tobytes())
    assert len(seen) == len(videos)


def test_the_documented_program_recognises_an_upright_video_as_stabn_does(
    frames_onnx, trained, videos, documented, tmp_path, capsys
):
    model = load_pretrained(trained)
    shutil.copy(frames_onnx, tmp_path)
    shutil.copy(videos[2], tmp_path / "video.mp4")
    record, _ = explain_video(
        model, network_preprocessing(model, "run"), tmp_path / "video.mp4", network_class_names(model)
    )
    names = documented(1)
    assert capsys.readouterr().out.startswith(record.top(1)[0][0])
    assert np.allclose(names["probabilities"], record.probabilities, atol=0.005)
    assert np.allclose(names["temporal"][0], record.temporal, atol=0.005)
    assert names["spatial"].shape == (1, *record.spatial.shape)


def test_an_onnx_file_is_valid_and_says_what_whoever_uses_it_must_know(frames_onnx, trained):
    onnx.checker.check_model(onnx.load(frames_onnx), full_check=True)
    session = session_of(frames_onnx)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("frames", "tensor(uint8)", ["batch", 8, 32, 32, 3])
    assert [output.name for output in session.get_outputs()] == OUTPUTS
    assert [output.shape for output in session.get_outputs()] == [
        ["batch", 14], ["batch", 14], ["batch", 8], ["batch", 8, 2, 2],
    ]  # fmt: skip
    known = session.get_modelmeta().custom_metadata_map
    config = json.loads((trained / "config.json").read_text())
    assert json.loads(known["class_names"]) == config["class_names"]
    assert json.loads(known["preprocessing"]) == config["preprocessing"]
    assert (known["format"], known["kind"], known["input"]) == ("stabn-export/1", "stabn", "uint8")
    assert known["stabn_version"]
    assert list(frames_onnx.parent.glob("*.data")) == []


def test_the_report_says_how_far_the_file_is_from_the_network(frames_onnx, tabletop):
    report = json.loads((frames_onnx.parent / "report.json").read_text())
    assert [output["name"] for output in report["outputs"]] == OUTPUTS
    assert all(0 <= output["largest_difference"] < 1e-3 for output in report["outputs"])
    assert report["compared_on"] == f"3 clips of {tabletop}"
    assert report["input"] == {"name": "frames", "type": "uint8", "shape": [None, 8, 32, 32, 3]}


def test_onnx_runtime_answers_any_number_of_clips_as_the_network_does(frames_onnx, trained):
    model, session = load_pretrained(trained), session_of(frames_onnx)
    preprocessing = network_preprocessing(model, "run")
    frames = np.random.default_rng(1).integers(0, 256, (5, 8, 32, 32, 3), dtype=np.uint8)
    clips = torch.stack([preprocessing.normalised(torch.from_numpy(one).permute(0, 3, 1, 2)) for one in frames])
    for rows in (slice(0, 1), slice(0, 5)):
        assert_answers(session.run(None, {"frames": frames[rows]}), model, clips[rows])


def test_the_documented_pytorch_program_answers_as_the_network_does(trained, videos, documented, tmp_path, capsys):
    main(["export", str(trained), "--out", str(tmp_path / "network.pt2")])
    assert "3 clips of" in capsys.readouterr().out
    video = shutil.copy(videos[3], tmp_path / "video.mp4")
    model = load_pretrained(trained)
    record, _ = explain_video(model, network_preprocessing(model, "run"), video, network_class_names(model))
    names = documented(2)
    assert capsys.readouterr().out.startswith(record.top(1)[0][0])
    assert np.allclose(names["probabilities"].detach(), record.probabilities, atol=0.005)
    clips = torch.randn(4, 3, 8, 32, 32)
    with torch.inference_mode():
        answers = names["network"](clips)
    assert list(answers) == OUTPUTS
    assert_answers(answers.values(), model, clips)


def test_a_gated_network_of_another_shape_is_exported_for_a_fixed_number_of_clips(tmp_path):
    torch.manual_seed(0)
    preprocessing = Preprocessing(Sampling("dense", 4, 2), resize=24, crop=24)
    model = STABN("fine", 3, 4, preprocessing=preprocessing.as_json(), mechanism="gated").eval()
    exported = export(model, tmp_path / "gated.onnx", source="it", batch=2)
    assert exported["compared_on"] == "3 random clips"
    assert exported["input"]["shape"] == [2, 3, 4, 24, 24]
    session = session_of(tmp_path / "gated.onnx")
    assert session.get_inputs()[0].shape == [2, 3, 4, 24, 24]
    assert session.get_modelmeta().custom_metadata_map["mechanism"] == "gated"
    clips = torch.randn(2, 3, 4, 24, 24)
    assert_answers(session.run(None, {"clips": clips.numpy()}), model, clips)


def test_the_plain_network_has_logits_alone(plain, tmp_path):
    main(["export", str(plain), "--out", str(tmp_path / "plain.onnx")])
    session = session_of(tmp_path / "plain.onnx")
    assert [output.name for output in session.get_outputs()] == ["logits"]
    clips = torch.randn(3, 3, 8, 32, 32)
    assert_answers(session.run(None, {"clips": clips.numpy()}), load_pretrained(plain), clips)


@pytest.fixture
def small():
    torch.manual_seed(0)
    preprocessing = Preprocessing(Sampling("uniform", 4), resize=20, crop=16)
    return STABN("tiny", 3, 4, class_names=["a", "b", "c"], preprocessing=preprocessing.as_json()).eval()


@pytest.mark.parametrize("change", [1.0, float("nan")])
def test_a_file_that_answers_otherwise_is_not_kept(small, tmp_path, monkeypatch, change):
    exportable = ExportableNetwork(small, network_preprocessing(small, "it"), "float32")
    (tmp_path / "of-before.pt2").write_text("of before")

    def answer(batch):
        with torch.inference_mode():
            answers = exportable(batch)
        return answers | {"temporal_attention": answers["temporal_attention"] + change}

    monkeypatch.setattr(exporting, "_write", lambda model, example, path, metadata, dynamic: path.write_text("x"))
    monkeypatch.setattr(exporting, "_load", lambda path: answer)
    for out in (tmp_path / "new.pt2", tmp_path / "of-before.pt2"):
        with pytest.raises(UserError, match="temporal_attention: "):
            export(small, out, source="it")
        assert [path.name for path in tmp_path.iterdir()] == ["of-before.pt2"]
    assert out.read_text() == "of before"


def test_a_network_in_double_precision_is_exported_in_single(small):
    exportable = ExportableNetwork(small.double(), network_preprocessing(small, "it"), "float32")
    clips = torch.randn(2, 3, 4, 16, 16)
    with torch.inference_mode():
        answers = exportable(clips)
    assert_answers(answers.values(), small, clips.double())


def test_clips_are_random_where_the_runs_videos_are_gone(run, tmp_path):
    value = json.loads((run.folder / "run.json").read_text())
    value["data"]["annotations"] = str(tmp_path / "gone")
    value["relative"] = {}
    (run.folder / "run.json").write_text(json.dumps(value))
    pixels, description = exporting._pixels(open_run(run.folder), network_preprocessing(run.model(), "run"))
    assert description == "3 random clips"
    assert pixels.shape == (3, 3, 8, 32, 32)


def test_mistakes_are_said_in_one_line_before_any_work(trained, tmp_path, one_line, monkeypatch):
    assert "--out: got" in one_line("export", trained, "--out", tmp_path / "x.pt")
    assert "--batch: got 0" in one_line("export", trained, "--out", tmp_path / "x.pt2", "--batch", "0")
    assert str(tmp_path / "nowhere") in one_line("export", tmp_path / "nowhere", "--out", tmp_path / "x.pt2")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxruntime" else "there")
    message = one_line("export", trained, "--out", tmp_path / "x.onnx")
    assert "pip install 'stabn[export]'" in message
    assert list(tmp_path.iterdir()) == []


def test_a_network_must_say_how_clips_are_prepared(small, tmp_path):
    other = small.preprocessing | {"sampling": {"mode": "uniform", "frames": 8, "stride": 1}}
    for preprocessing, message in ((other, "has 8 frames.* 4"), (None, r"config\.json: .*preprocessing")):
        small.preprocessing = preprocessing
        with pytest.raises(UserError, match=message):
            export(small, tmp_path / "x.pt2", source="it")
