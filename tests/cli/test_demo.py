import json
from dataclasses import replace

import pytest

from stabn.cli import train as verbs
from stabn.cli.demo import demo_command
from stabn.errors import UserError
from stabn.training.recipes import SMALL_FINETUNING


@pytest.fixture
def quick(monkeypatch):
    finetune = verbs.finetune_command

    def briefly(*args, **kwargs):
        return finetune(*args, **kwargs, optimizer=replace(SMALL_FINETUNING, epochs=1))

    monkeypatch.setattr(verbs, "finetune_command", briefly)


def test_the_demo_runs_the_whole_loop_and_repeats_no_finished_stage(quick, tmp_path, capsys, monkeypatch):
    out, settings = tmp_path / "demo", {"train": 14, "validation": 14, "epochs": 1}
    train = verbs.train_command

    def unplugged(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "train_command", unplugged)
    with pytest.raises(KeyboardInterrupt):
        demo_command(out, **settings)
    monkeypatch.setattr(verbs, "train_command", train)
    capsys.readouterr()
    found = demo_command(out, **settings)
    told = capsys.readouterr()
    assert "stabn tabletop" in told.err.splitlines()[0]
    assert "done before" in told.err.splitlines()[0]
    report, studio = told.out.splitlines()[-2:]
    assert report.endswith(str(out / "report.html"))
    assert studio.endswith(f"stabn studio {out / 'before'}")
    assert [m["name"] for m in found["methods"]] == ["before", "control", "fine-tuned"]
    html = (out / "report.html").read_text()
    assert "<video" in html
    assert (out / "evaluation-inverse-spatial.json").exists()
    assert len(list((out / "explanations").glob("*.mp4"))) == 3
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    demo_command(out, **settings)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == stamps
    with pytest.raises(UserError, match="other settings"):
        demo_command(out, **settings | {"epochs": 2})
    assert json.loads((out / "comparison.json").read_text())["methods"] == found["methods"]
