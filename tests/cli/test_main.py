import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import FRAMES, TINY, lines

from stabn.cli.main import main
from stabn.cli.verbs import VERBS, function_of, run_verb
from stabn.data.video.clip import write_video
from stabn.data.video.reader import probe
from stabn.edits.project import open_project
from stabn.engine import device
from stabn.explain.explain_video import explain_video
from stabn.nn import STABN

READ_CLIPS = {"train", "profile", "check-data", "evaluate", "explain", "collect", "studio", "simulate-edits"}
READ_CLIPS |= {"check-edits", "finetune", "compare", "report"}
"""Verbs that are told which clips to read, all by the same options."""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches_itself_and_those_that_read_clips_take_their_table_by_one_name(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert text.startswith(f"usage: stabn {verb} [options]")
    for name in VERBS[verb][1]:
        assert re.search(rf"^  {name} +\S", text, re.MULTILINE), name
    if verb in READ_CLIPS:
        assert {"--data.annotations", "--data.videos", "--data.columns.path"} <= set(text.split())


def output_of(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_lists_every_verb_with_what_its_docstring_says_and_loads_no_torch():
    listing = "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    code = f"import sys; from stabn.cli.main import main\n{listing}"
    text = " ".join(output_of(code).split())
    assert text.endswith("False")
    for verb in VERBS:
        documented = (function_of(verb).__doc__ or "").strip().partition("\n\n")[0]
        assert " ".join(f"{verb} {documented}".split()).removesuffix(".") in text.replace("- ", "-"), verb


def test_the_verb_that_explains_loads_no_library_that_a_single_video_can_do_without():
    heavy = '{"lightning", "matplotlib", "pyarrow", "torchvision", "torchmetrics", "pandas"}'
    draw = "from stabn.explain.drawing import font; font(12)"
    assert output_of(f"import sys, stabn.cli.explain; {draw}; print(sys.modules.keys() & {heavy})") == "set()\n"


def test_the_console_command_exists_and_fails_in_one_line():
    words = [Path(sys.executable).with_name("stabn"), "explain", "nowhere", "a.mp4", "--out", "x"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("stabn explain: error: nowhere: .*\n", done.stderr)


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
    dtypes = []

    def look(model, *rest, **options):
        dtypes.append(next(model.parameters()).dtype)
        return explain_video(model, *rest, **options)

    monkeypatch.setattr("stabn.explain.recogniser.explain_video", look)
    device._log_once.cache_clear()
    attention = {}
    for precision in ("32-true", "64-true"):
        out = tmp_path / precision
        words = ["explain", trained, tabletop / "videos" / "3.mp4", "--out", out, "--engine.precision", precision]
        main([str(word) for word in words])
        assert f"precision {precision}" in capsys.readouterr().err
        attention[precision] = json.loads((out / "3.json").read_text())["temporal_attention"]
    assert dtypes == [torch.float32, torch.float64]
    assert attention["64-true"] == pytest.approx(attention["32-true"], abs=1e-4)


@pytest.mark.parametrize(("frames", "suffix"), [(1, "mp4"), (3, "webm"), (120, "mp4")])
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


def test_no_name_and_no_reader_of_the_output_stops_the_work(trained, tabletop, tmp_path):
    """A long name with letters that the output cannot show, and an output that is closed at once."""
    video = tmp_path / f"{'漢' * 83}.mp4"
    video.write_bytes((tabletop / "videos" / "3.mp4").read_bytes())
    words = ["explain", trained, video, tabletop / "videos" / "4.mp4", "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "stabn.cli", *words, "--json", tmp_path / "report.json"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert rb"\u6f22" in process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 0
    assert len(json.loads((tmp_path / "report.json").read_text())["records"]) == 2
    names = sorted(path.name for path in (tmp_path / "out").glob("*.json"))
    assert names[0] == "4.json"
    assert names[1].startswith("漢" * 20)


def test_a_run_is_evaluated_and_its_figures_are_written(trained, tmp_path, capsys):
    main(["evaluate", str(trained), "--clips", "2", "--json", str(tmp_path / "e.json")])
    figures = json.loads((tmp_path / "e.json").read_text())
    assert (figures["num_clips"], figures["clips"], np.sum(figures["confusion"])) == (14, 2, 14)
    assert set(figures["perception"]) == set(figures["attention_branch"]) == {"top1", "top5", "mean_class_accuracy"}
    assert f"{figures['perception']['top1']:.1%}" in capsys.readouterr().out


def test_a_recipe_file_gives_options_and_the_command_line_overrides_them(tabletop, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "network: {backbone: tiny}\npreprocessing: {sampling: {mode: uniform, frames: 4}, resize: 36, crop: 32}\n"
        "optimizer: {name: adamw, learning_rate: 0.001, epochs: 1, batch_size: 4}\n"
    )
    where = ["--out", str(tmp_path / "run"), "--data.annotations", str(tabletop)]
    main(["train", "--config", str(recipe), *where, "--preprocessing.sampling.frames", "5"])
    assert STABN.from_pretrained(tmp_path / "run").frames == 5
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert kept["optimizer"]["learning_rate"] == 0.001


def test_training_works_from_a_csv_table_with_workers(tabletop, tmp_path):
    table, run = tmp_path / "own.csv", str(tmp_path / "run")
    rows = (f"{tabletop}/videos/{i}.mp4,{'du'[i % 2]},{'train' if i < 9 else 'validation'}\n" for i in range(1, 13))
    table.write_text("path,label,split\n" + "".join(rows))
    main(["train", "--out", run, "--data.annotations", str(table), "--loader.workers", "1", *TINY])
    assert STABN.from_pretrained(run).class_names == ("d", "u")
    main(["evaluate", run])


def test_edits_are_checked_fine_tuned_compared_and_reported(run, project, tabletop, tmp_path, capsys):
    truth, before, edits = str(tabletop / "truth.jsonl"), str(run.folder), str(project.folder)
    control, after = str(tmp_path / "control"), str(tmp_path / "after")
    main(["simulate-edits", edits, "--truth", truth])
    main(["check-edits", edits])
    assert "3 of 3 clips" in capsys.readouterr().out
    common = ["finetune", before, "--edits", edits, "--optimizer.epochs", "1", "--optimizer.batch_size", "8"]
    main([*common, "--out", after])
    main([*common, "--out", control, "--control", "true"])
    comparison = run_verb(["compare", before, control, after, "--control", control, "--truth", truth])
    assert [method["name"] for method in comparison["methods"]] == [before, control, after]
    assert comparison["methods"][0]["frame_average_precision"] > 0
    main(["report", before, after, "--control", control, "--edits", edits, "--truth", truth, "--examples", "2",
          "--out", str(tmp_path / "r.html")])  # fmt: skip
    html = (tmp_path / "r.html").read_text()
    assert html.count("<video") == 4
    assert not re.search(r"""(src|href)=["']?https?:""", html)
    assert comparison["verdict"] in html.replace("&#39;", "'") or "cannot tell" in html


def test_official_checkpoints_become_folders(tmp_path):
    checkpoint, folder, rgb = (str(tmp_path / name) for name in ("best.pth", "folder", "rgb"))
    model = STABN("resnet18", 5, 6)
    tensors = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": tensors}, checkpoint)
    (tmp_path / "labels.json").write_text(json.dumps({n: str(i) for i, n in enumerate("edcba")}))
    main(["import-official", checkpoint, folder, "--class_names", str(tmp_path / "labels.json")])
    main(["import-official", checkpoint, rgb, "--bgr", "true"])
    loaded, clip = STABN.from_pretrained(folder), torch.randn(1, 3, 6, 32, 32)
    assert (loaded.architecture, loaded.frames, loaded.class_names) == ("resnet18", 6, tuple("edcba"))
    with torch.inference_mode():
        logits = loaded(clip).logits
        assert torch.equal(logits, model.eval()(clip).logits)
        assert torch.allclose(STABN.from_pretrained(rgb)(clip.flip(1)).logits, logits, atol=1e-5)
    write_video(tmp_path / "v.mp4", np.zeros((9, 32, 48, 3), np.uint8), 12)
    main(["explain", folder, str(tmp_path / "v.mp4"), "--out", str(tmp_path / "out")])


def test_every_verb_works_on_a_folder_without_a_run_if_told_the_data(own, own_run, tmp_path):
    bare, data = tmp_path / "bare", ["--data.annotations", str(own / "clips.csv")]
    STABN.from_pretrained(own_run).save_pretrained(bare)
    main(["evaluate", str(bare), *data])
    main(["collect", str(bare), "--out", str(tmp_path / "p"), "--bound", "1.0", *data])
    project = open_project(tmp_path / "p")
    project.add(c.edit([0.5] * FRAMES, author="a", time="2026-01-31T09:30:00+00:00") for c in project.clips)
    main(["finetune", str(bare), "--edits", str(tmp_path / "p"), "--out", str(tmp_path / "after"), *data, *TINY[-4:]])
    main(["compare", str(bare), str(tmp_path / "after"), *data])


def test_a_switch_needs_no_value_and_words_may_be_joined_by_hyphens(own_run, own_project, tmp_path):
    runs = {True: tmp_path / "control", False: tmp_path / "after"}
    for control, out in runs.items():
        words = ["finetune", str(own_run), "--edits", str(own_project.folder), *TINY[-4:], "--out", str(out)]
        main([*words, *["--control"] * control])
        assert json.loads((out / "run.json").read_text())["recipe"]["control"] is control
    main(["evaluate", str(own_run), "--batch-size", "3"])
    main(["report", str(own_run), str(runs[False]), "--control", str(runs[True]), "--out", str(tmp_path / "r.html"),
          "--examples", "1"])  # fmt: skip


def test_a_table_with_only_some_of_the_classes_is_matched_by_name(own, own_run):
    (own / "b.csv").write_text("path,label,split\n1.mp4,b,validation\n3.mp4,b,validation\n")
    figures = run_verb(["evaluate", str(own_run), "--data.annotations", str(own / "b.csv")])
    assert [c["count"] for c in figures["classes"]] == [0, 2]


def test_a_linked_table_keeps_its_own_videos(own, own_run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.move(own / "clips.csv", tmp_path / "elsewhere" / "clips.csv")
    (own / "clips.csv").symlink_to(tmp_path / "elsewhere" / "clips.csv")
    main(["evaluate", str(own_run)])


def test_a_collection_that_was_killed_can_be_repeated(own_run, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "clips.jsonl").write_text("{}\n")
    main(["collect", str(own_run), "--out", str(tmp_path / "p"), "--bound", "1.0"])
    assert open_project(tmp_path / "p").clips


def test_lines_of_the_project_are_what_docs_formats_describes(project):
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    for key in lines(project.folder / "clips.jsonl")[0]:
        assert f"`{key}`" in text, key
