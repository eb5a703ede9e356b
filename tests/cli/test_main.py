import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import FRAMES, lines

from stabn.cli.main import VERBS, function_of, main
from stabn.data.video.clip import write_video
from stabn.data.video.reader import probe
from stabn.edits.project import open_project
from stabn.engine import device
from stabn.explain.explain_video import explain_video
from stabn.nn import STABN

TINY = ["--network.architecture", "tiny", "--preprocessing.sampling.frames", "8", "--preprocessing.resize", "36",
        "--preprocessing.crop", "32", "--optimizer.epochs", "1", "--optimizer.batch_size", "4"]  # fmt: skip


@pytest.fixture
def project(run, tmp_path):
    main(["collect", str(run.folder), "--out", str(tmp_path / "project"), "--bound", "1.0", "--max_clips", "3"])
    return open_project(tmp_path / "project")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches_itself(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    _, positional = VERBS[verb]
    for name in positional:
        assert re.search(rf"^  {name} +\S", text, re.MULTILINE), name


def test_help_lists_every_verb_with_what_its_docstring_says_and_loads_no_torch():
    code = "import sys; from stabn.cli.main import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    told = " ".join(done.stdout.split())
    assert told.endswith("False")
    for verb in VERBS:
        documented = (function_of(verb).__doc__ or "").strip().partition("\n\n")[0]
        assert " ".join(f"{verb} {documented}".split()).removesuffix(".") in told.replace("- ", "-"), verb


def test_the_verb_that_explains_loads_no_library_that_a_single_video_can_do_without():
    code = """
import sys, stabn.cli.explain
from stabn.explain.drawing import font
font(12)
print(sys.modules.keys() & {"lightning", "matplotlib", "pyarrow", "torchvision", "torchmetrics", "pandas"})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_console_command_exists_and_fails_in_one_line():
    done = subprocess.run(
        [Path(sys.executable).with_name("stabn"), "explain", "nowhere", "a.mp4", "--out", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("stabn explain: error: nowhere: no such folder")
    assert done.stderr.count("\n") == 1


def test_explain_writes_pictures_for_people_and_arrays_for_programs(trained, tabletop, tmp_path):
    video, out = tabletop / "videos" / "3.mp4", tmp_path / "out"
    main(["explain", str(trained), str(video), "--out", str(out), "--json", str(tmp_path / "report.json")])
    assert sorted(p.name for p in out.iterdir()) == ["3.json", "3.mp4", "3.npz", "3.png"]
    record = json.loads((out / "3.json").read_text())
    assert len(record["temporal_attention"]) == len(record["frame_indices"]) == len(record["timestamps"]) == FRAMES
    info = probe(video)
    assert record["timestamps"] == pytest.approx([info.timestamps[i] for i in record["frame_indices"]], abs=1e-5)
    probabilities = [p["probability"] for p in record["predictions"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    with np.load(out / "3.npz") as arrays:
        assert np.allclose(arrays["temporal"], record["temporal_attention"], atol=1e-5)
        assert arrays["spatial"].shape[0] == FRAMES
    assert probe(out / "3.mp4").num_frames > 1
    assert json.loads((tmp_path / "report.json").read_text())["records"][0]["clip_id"] == "3"


def test_explaining_says_how_it_computes_and_does_so_in_the_precision_asked_for(
    trained, tabletop, tmp_path, monkeypatch, capsys
):
    asked = []

    def look(model, *rest, **options):
        asked.append(next(model.parameters()).dtype)
        return explain_video(model, *rest, **options)

    monkeypatch.setattr("stabn.explain.recogniser.explain_video", look)
    device._log_once.cache_clear()
    found = {}
    for precision in ("32-true", "64-true"):
        out = tmp_path / precision
        words = ["explain", trained, tabletop / "videos" / "3.mp4", "--out", out, "--engine.precision", precision]
        main([str(word) for word in words])
        assert f"precision {precision}" in capsys.readouterr().err
        found[precision] = json.loads((out / "3.json").read_text())["temporal_attention"]
    assert asked == [torch.float32, torch.float64]
    assert found["64-true"] == pytest.approx(found["32-true"], abs=1e-4)


@pytest.mark.parametrize("frames", [1, 3, 120])
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_very_short_and_long_clips_are_explained(trained, tmp_path, frames, suffix):
    video = tmp_path / f"clip.{suffix}"
    ramp = (np.full((48, 64, 3), 2 * i, np.uint8) for i in range(frames))
    write_video(video, ramp, 12)
    main(["explain", str(trained), str(video), "--out", str(tmp_path / "out")])
    record = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert len(record["frame_indices"]) == FRAMES
    assert max(record["frame_indices"]) < frames
    if frames < FRAMES:
        assert record["frame_indices"] == [min(i, frames - 1) for i in range(FRAMES)]


def test_several_windows_and_videos_of_one_name_do_not_overwrite_each_other(trained, tabletop, tmp_path):
    copy = tmp_path / "3.mp4"
    copy.write_bytes((tabletop / "videos" / "4.mp4").read_bytes())
    video = tabletop / "videos" / "3.mp4"
    main(["explain", str(trained), str(video), str(copy), "--out", str(tmp_path / "out"), "--clips", "2"])
    names = sorted(p.stem for p in (tmp_path / "out").glob("*.json"))
    assert names == ["3-1", "3-2", "3-copy2-1", "3-copy2-2"]


def test_a_run_is_evaluated_and_its_figures_are_written(trained, tmp_path, capsys):
    main(["evaluate", str(trained), "--clips", "2", "--json", str(tmp_path / "e.json")])
    figures = json.loads((tmp_path / "e.json").read_text())
    assert figures["num_clips"] == 14
    assert figures["clips"] == 2
    assert set(figures["perception"]) == set(figures["attention_branch"]) == {"top1", "top5"}
    assert np.array(figures["confusion"]).sum() == 14
    assert f"{figures['perception']['top1']:.1%}" in capsys.readouterr().out


def test_a_recipe_file_gives_options_and_the_command_line_overrides_them(tabletop, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "network: {architecture: tiny}\npreprocessing: {sampling: {mode: uniform, frames: 4}, resize: 36, crop: 32}\n"
        "optimizer: {name: adamw, learning_rate: 0.001, epochs: 1, batch_size: 4}\n"
    )
    where = ["--out", str(tmp_path / "run"), "--data.annotations", str(tabletop)]
    main(["train", "--config", str(recipe), *where, "--preprocessing.sampling.frames", "5"])
    assert STABN.from_pretrained(tmp_path / "run").frames == 5
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert kept["optimizer"]["learning_rate"] == 0.001


def test_training_works_from_a_csv_table_with_workers(tabletop, tmp_path):
    rows = [
        f"{tabletop}/videos/{i}.mp4,{'up' if i % 2 else 'down'},{'train' if i < 9 else 'validation'}"
        for i in range(1, 13)
    ]
    table = tmp_path / "own.csv"
    table.write_text("path,label,split\n" + "\n".join(rows) + "\n")
    where = ["--out", str(tmp_path / "run"), "--data.annotations", str(table), "--loader.workers", "1"]
    main(["train", *where, *TINY])
    assert STABN.from_pretrained(tmp_path / "run").class_names == ("down", "up")
    main(["evaluate", str(tmp_path / "run")])


def test_edits_are_checked_fine_tuned_compared_and_reported(run, project, tabletop, tmp_path, capsys):
    truth = str(tabletop / "truth.jsonl")
    main(["simulate-edits", str(project.folder), "--truth", truth])
    main(["check-edits", str(project.folder)])
    assert "3 of 3 clips have an edit" in capsys.readouterr().out
    common = ["finetune", str(run.folder), "--edits", str(project.folder), "--optimizer.epochs", "1",
              "--optimizer.batch_size", "8"]  # fmt: skip
    main([*common, "--out", str(tmp_path / "after")])
    main([*common, "--out", str(tmp_path / "control"), "--control", "true"])
    main(["compare", str(run.folder), str(tmp_path / "control"), str(tmp_path / "after"), "--control",
          str(tmp_path / "control"), "--truth", truth, "--json", str(tmp_path / "c.json")])  # fmt: skip
    found = json.loads((tmp_path / "c.json").read_text())
    assert [m["name"] for m in found["methods"]] == [
        str(run.folder),
        str(tmp_path / "control"),
        str(tmp_path / "after"),
    ]
    assert found["methods"][0]["frame_average_precision"] > 0
    main(["report", str(run.folder), str(tmp_path / "after"), "--control", str(tmp_path / "control"), "--edits",
          str(project.folder), "--truth", truth, "--out", str(tmp_path / "r.html"), "--examples", "2"])  # fmt: skip
    html = (tmp_path / "r.html").read_text()
    assert html.count("<video") == 4
    assert not re.search(r"""(src|href)=["']?https?:""", html)
    assert found["verdict"] in html.replace("&#39;", "'") or "cannot tell" in html


def test_official_checkpoints_become_folders(tmp_path):
    model = STABN("resnet18", 5, 6)
    tensors = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": tensors}, tmp_path / "best.pth")
    (tmp_path / "labels.json").write_text(json.dumps({n: str(i) for i, n in enumerate("edcba")}))
    main(["import-official", str(tmp_path / "best.pth"), str(tmp_path / "folder"), "--class_names",
          str(tmp_path / "labels.json")])  # fmt: skip
    loaded = STABN.from_pretrained(tmp_path / "folder")
    assert (loaded.architecture, loaded.frames, loaded.class_names) == ("resnet18", 6, tuple("edcba"))
    clip = torch.randn(1, 3, 6, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(clip).logits, model.eval()(clip).logits)
    main(["import-official", str(tmp_path / "best.pth"), str(tmp_path / "rgb"), "--bgr", "true"])
    with torch.inference_mode():
        assert torch.allclose(
            STABN.from_pretrained(tmp_path / "rgb")(clip.flip(1)).logits, loaded(clip).logits, atol=1e-5
        )
    write_video(tmp_path / "v.mp4", np.zeros((9, 32, 48, 3), np.uint8), 12)
    main(["explain", str(tmp_path / "folder"), str(tmp_path / "v.mp4"), "--out", str(tmp_path / "out")])


class TestMistakesEndInOneLineWithStatusTwo:
    @pytest.mark.parametrize("kind", ["missing", "text", "truncated", "folder", "empty"])
    def test_videos(self, kind, one_line, trained, tabletop, tmp_path):
        video = tmp_path / "bad.mp4"
        if kind == "text":
            video.write_text("I am a video, honestly.\n" * 100)
        elif kind == "truncated":
            whole = (tabletop / "videos" / "1.mp4").read_bytes()
            video.write_bytes(whole[: len(whole) * 2 // 3])
        elif kind == "folder":
            video.mkdir()
        elif kind == "empty":
            video.touch()
        good = tabletop / "videos" / "2.mp4"
        told = one_line("explain", trained, good, video, "--out", tmp_path / "out")
        assert told.startswith("stabn explain: error: ")
        assert "bad.mp4" in told
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ([], "verb"),
            (["dance"], "dance"),
            (["train"], "--out|out"),
            (["train", "--out", "x", "--data.annotations", "y", "--optimizer.epochs", "many"], "many"),
            (["train", "--out", "x", "--data.annotations", "y", "--optimizer.epochs", "0"], "epochs: got 0"),
            (["train", "--out", "x", "--data.annotations", "y", "--optimizer.speed", "3"], "speed"),
            (["train", "--out", "x", "--data.annotations", "y", "--optimizer.epoch", "3"], "unrecognized .*epoch 3"),
            (["train", "--out", "x", "--data.annotations", "y", "--network.architecture", "vgg"], "vgg|y"),
            (["train", "--out", "x", "--config", "none.yaml"], "none.yaml"),
            (["train", "--out", "x", "--data.annotations", "y", "--preprocessing.crop", "100"], "crop: got 100"),
            (["evaluate", "nowhere"], "nowhere"),
            (["collect", "nowhere", "--out", "x"], "nowhere"),
            (["finetune", "nowhere", "--edits", "x", "--out", "y"], "nowhere"),
            (["compare", "nowhere"], "got 1 run"),
            (["report", "a", "b", "--out", "c.pdf"], "c.pdf"),
            (["import-official", "none.pth", "x"], "none.pth"),
            (["tabletop", "x", "--train", "3"], "got 3 clips"),
            (["simulate-edits", "nowhere", "--truth", "t"], "nowhere"),
            (["demo", "--out", "."], "is not empty"),
        ],
    )
    def test_options(self, words, told, one_line, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "something").touch()
        assert re.search(told, one_line(*words))
        assert [p.name for p in tmp_path.iterdir()] == ["something"]

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"optimizer:\n  epochs: [3\n", "recipe.yaml: is not YAML .*line 2"),
            (b"optimizer:\n\tepochs: 3\n", "recipe.yaml: is not YAML .*line 2"),
            (b"\xff\xfe\x00", "recipe.yaml: is not YAML"),
            (b"seed: 2026-13-01\n", "recipe.yaml: is not YAML .*month"),
            (b"a: &a {b: *a}\n", "recipe.yaml: is not YAML"),
            (b"- 3\n", "recipe.yaml: got '.3.', expected options"),
            (b"optimizer:\n  epochz: 3\n", r"recipe.yaml: optimizer.epochz is .*; did you mean optimizer.epochs\?"),
            (b"weather: fine\n", "recipe.yaml: weather is no option of this verb; remove it"),
        ],
    )
    def test_recipes(self, content, told, one_line, tmp_path):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_bytes(content)
        assert re.search(
            told, one_line("train", "--config", recipe, "--out", tmp_path / "run", "--data.annotations", "y")
        )

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("optimiser.epochs", "optimizer.epochs"),
            ("correction.start", "correction.init"),
            ("correction.frozen", "correction.freeze"),
            ("engine.recompute", "engine.activation_checkpointing"),
        ],
    )
    def test_options_of_earlier_versions_are_refused_with_their_new_name(self, old, new, one_line, tmp_path):
        words = ("finetune", "run", "--edits", "e", "--out", tmp_path / "out")
        for option in ((f"--{old}", "1"), (f"--{old}=1",)):
            assert f"--{old} is now --{new}" in one_line(*words, *option)
        section, _, field = old.partition(".")
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(f"{section}: {{{field}: 1}}\n")
        assert f"recipe.yaml: {old} is now {new}" in one_line(*words, "--config", recipe)

    def test_labels_that_do_not_match_and_missing_videos(self, one_line, tabletop, tmp_path):
        for name in ("labels", "train", "validation"):
            text = (tabletop / f"something-something-v2-{name}.json").read_text()
            changed = text.replace('"Lifting something"', '"Raising something"') if name == "labels" else text
            (tmp_path / f"something-something-v2-{name}.json").write_text(changed)
        videos = ["--data.videos", tabletop / "videos"]
        told = one_line("train", "--out", tmp_path / "run", "--data.annotations", tmp_path, *videos)
        assert "'Lifting something'" in told
        (tmp_path / "empty").mkdir()
        told = one_line(
            "train", "--out", tmp_path / "run", "--data.annotations", tabletop, "--data.videos", tmp_path / "empty"
        )
        assert "42 of 42 videos are missing" in told
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("kind", ["short", "high", "unknown", "text"])
    def test_edits(self, kind, one_line, run, project, tmp_path):
        clip = project.clips[0]
        edit = clip.edit([0.5] * FRAMES, author="ann", time="2026-01-31T09:30:00+00:00").as_json()
        changes = {"short": {"scores": [0.5] * (FRAMES - 1)}, "high": {"scores": [1.2] * FRAMES},
                   "unknown": {"clip_id": "nobody"}, "text": {}}  # fmt: skip
        line = "not json" if kind == "text" else json.dumps(edit | changes[kind])
        project.edits_file.write_text(line + "\n")
        for words in (["check-edits", project.folder],
                      ["finetune", run.folder, "--edits", project.folder, "--out", tmp_path / "after"]):  # fmt: skip
            told = one_line(*words)
            assert "edits.jsonl, line 1" in told
        assert not (tmp_path / "after").exists()

    def test_edits_of_another_run(self, one_line, plain, project, tmp_path):
        assert "plain network" in one_line("finetune", plain, "--edits", project.folder, "--out", tmp_path / "after")

    def test_checkpoints_of_another_architecture(self, one_line, tmp_path):
        torch.save({"model_state_dict": torch.nn.Linear(3, 2).state_dict()}, tmp_path / "other.pth")
        assert "other.pth" in one_line("import-official", tmp_path / "other.pth", tmp_path / "folder")
        tensors = STABN("resnet18", 5, 6).state_dict() | {"layer2.0.conv1.weight": torch.zeros(3)}
        torch.save(tensors, tmp_path / "other.pth")
        told = one_line("import-official", tmp_path / "other.pth", tmp_path / "folder")
        assert "layer2.0.conv1.weight" in told
        (tmp_path / "other.pth").write_text("no checkpoint")
        assert "other.pth" in one_line("import-official", tmp_path / "other.pth", tmp_path / "folder")
        assert not (tmp_path / "folder").exists()

    def test_a_folder_whose_weights_are_of_another_network(self, one_line, run, tmp_path, tabletop):
        config = json.loads((run.folder / "config.json").read_text())
        (run.folder / "config.json").write_text(json.dumps(config | {"architecture": "small"}))
        video = tabletop / "videos" / "1.mp4"
        told = one_line("explain", run.folder, video, "--out", tmp_path / "out")
        assert "model.safetensors" in told
        assert not (tmp_path / "out").exists()


def test_lines_of_the_project_are_what_docs_formats_describes(project):
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    for key in lines(project.folder / "clips.jsonl")[0]:
        assert f"`{key}`" in text, key
