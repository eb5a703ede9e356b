import json
import shlex
from dataclasses import replace
from functools import wraps

import pytest

from stabn.cli import train as train_verbs
from stabn.cli.main import main
from stabn.cli.verbs import VERBS
from stabn.training.recipes import SMALL_FINETUNING


def test_the_demo_runs_the_commands_that_it_prints_and_repeats_none_that_is_done(
    tmp_path, capsys, monkeypatch, one_line
):
    out = tmp_path / "demo"
    words = ["demo", "--out", str(out), "--train", "14", "--validation", "14", "--epochs", "1"]
    train, finetune = train_verbs.train_command, train_verbs.finetune_command

    @wraps(train)
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    @wraps(finetune)
    def finetune_briefly(*args, **kwargs):
        return finetune(*args, **kwargs | {"optimizer": replace(SMALL_FINETUNING, epochs=1)})

    monkeypatch.setattr(train_verbs, "finetune_command", finetune_briefly)
    monkeypatch.setattr(train_verbs, "train_command", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 130
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "interrupted" in line)
    assert line.startswith("stabn demo: interrupted by SIGINT; ")
    assert "give the same command again to go on" in line
    monkeypatch.setattr(train_verbs, "train_command", train)

    main([*words, "--json", str(tmp_path / "report.json")])
    output = capsys.readouterr()
    commands = [line for line in output.err.splitlines() if line.startswith("[")]
    assert [line.partition("]")[0] for line in commands] == [f"[{n}/10" for n in range(1, 11)]
    assert ["done before" in line for line in commands] == [True] + [False] * 9
    assert all(shlex.split(line)[2] in VERBS for line in commands)
    report_line, studio_line = output.out.splitlines()[-2:]
    assert report_line.endswith(str(out / "report.html"))
    assert studio_line.endswith(f"stabn studio {out / 'before'}")
    report = json.loads((tmp_path / "report.json").read_text())
    assert [method["name"] for method in report["methods"]] == ["before", "control", "fine-tuned"]
    assert json.loads((out / "comparison.json").read_text())["methods"] == report["methods"]
    assert "<video" in (out / "report.html").read_text()
    assert json.loads((out / "evaluation-inverse-spatial.json").read_text())["attention"] == "inverse-spatial"
    assert len(list((out / "explanations").glob("*.mp4"))) == 3

    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    main(words)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == stamps
    capsys.readouterr()
    assert f"{out}: " in one_line(*words[:-1], "2")
