import json
import shlex
from functools import wraps

import pytest
from small_run import COMMAND_SETTINGS

from stabn.cli import train as train_verbs
from stabn.cli.main import main
from stabn.cli.verbs import VERBS
from stabn.edits.project import open_project
from stabn.training.recipes import NetworkRecipe


def test_the_demo_runs_the_commands_that_it_prints_and_repeats_none_that_is_done(
    tmp_path, capsys, monkeypatch, one_line
):
    out = tmp_path / "demo"
    words = ["demo", "--out", str(out), "--train", "14", "--validation", "14", "--epochs", "1"]
    train = train_verbs.train_command

    @wraps(train)
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    @wraps(train)
    def train_briefly(*args, **kwargs):
        small = {"network": NetworkRecipe("tiny"), "preprocessing": COMMAND_SETTINGS["preprocessing"]}
        return train(*args, **kwargs | small)

    monkeypatch.setattr(train_verbs, "train_command", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 130
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "interrupted" in line)
    assert line.startswith("stabn demo: interrupted by SIGINT; ")
    assert "give the same command again to go on" in line
    monkeypatch.setattr(train_verbs, "train_command", train_briefly)

    main([*words, "--json", str(tmp_path / "report.json")])
    output = capsys.readouterr()
    commands = [line for line in output.err.splitlines() if line.startswith("[")]
    assert [line.partition("]")[0] for line in commands] == [f"[{n}/12" for n in range(1, 13)]
    assert ["done before" in line for line in commands] == [True] + [False] * 11
    assert all(shlex.split(line)[2] in VERBS for line in commands)
    more_line, _, report_line, studio_line, _ = output.out.splitlines()[-5:]
    assert more_line.startswith("2 edits brought ")
    assert ", 4 edits " in more_line
    assert report_line.endswith(str(out / "report.html"))
    assert studio_line.endswith(f"stabn studio {out / 'before'} --edits {out / 'edits'}")
    assert len(open_project(out / "edits").clips) - len(open_project(out / "edits").edits()) <= 10
    report = json.loads((tmp_path / "report.json").read_text())
    assert [method["name"] for method in report["methods"]] == ["control", "fine-tuned"]
    assert json.loads((out / "comparison.json").read_text())["methods"] == report["methods"]
    assert "<video" in (out / "report.html").read_text()
    assert json.loads((out / "evaluation-inverse-temporal.json").read_text())["attention"] == "inverse-temporal"
    assert len(list((out / "explanations").glob("*.mp4"))) == 3

    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    main(words)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == stamps
    capsys.readouterr()
    assert f"{out}: " in one_line(*words[:-1], "2")
