import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from uvicorn import Server

from stabn.cli import train as verbs
from stabn.cli.main import main
from stabn.data.tabletop.acts import ACTS
from stabn.nn import ARCHITECTURES
from stabn.records import Edit
from stabn.training.config import SMALL_FINETUNING, SMALL_OPTIMIZER

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
QUICKER = {
    "train": ["--network.architecture", "tiny", "--optimizer.epochs", "1", "--optimizer.batch_size", "4"],
    "finetune": ["--optimizer.epochs", "1", "--optimizer.batch_size", "4"],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_worked_example_of_the_readme_works_as_printed(tabletop, tmp_path, monkeypatch):
    # A user's folder: videos under names of their own, and the table that the README describes.
    (tmp_path / "takes").mkdir()
    rows = ["path,label,split"]
    for split in ("train", "validation"):
        for entry in json.loads((tabletop / f"something-something-v2-{split}.json").read_text()):
            name = f"takes/{int(entry['id']):04}.mp4"
            shutil.copy(tabletop / "videos" / f"{entry['id']}.mp4", tmp_path / name)
            rows.append(f"{name},{entry['template'].replace('[', '').replace(']', '')},{split}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    commands = next(block for block in blocks("sh") if "stabn train" in block)
    edit, program = blocks("python")
    verbs_run = []
    for line in commands.splitlines():
        if not line.startswith("stabn "):
            continue
        _, verb, *words = shlex.split(line, comments=True)
        if verb == "studio":  # in place of the person who sits in front of it
            monkeypatch.setattr(Server, "run", lambda *_, **__: exec(compile(edit, "README.md", "exec"), {}))
            words += ["--port", "0"]
        main([verb, *words, *QUICKER.get(verb, [])])
        verbs_run.append(verb)
    assert verbs_run == [
        "train",
        "evaluate",
        "explain",
        "collect",
        "studio",
        "check-edits",
        *["finetune"] * 2,
        "report",
        "compare",
    ]
    assert "<video" in Path("report.html").read_text()
    assert "<svg" in Path("compare.html").read_text()
    names: dict = {}
    exec(compile(program, "README.md", "exec"), names)
    assert names["what_if"].shape == names["logits"].shape == (1, len(ACTS))


@pytest.mark.parametrize("recipe", [p.name for p in sorted((ROOT / "recipes").glob("*.yaml")) if "-test" not in p.name])
def test_every_recipe_for_training_is_understood_by_its_verb(recipe, tmp_path, monkeypatch):
    seen: dict = {}
    verb = "finetune" if "finetune" in recipe else "train"

    def noted(*args, **kwargs):
        seen.update(kwargs)
        return {"epoch": 1, "validation_top1": 0.0, "edits": 0, "skipped": 0}

    for name in ("train_run", "finetune_run", "open_run", "open_project"):
        monkeypatch.setattr(verbs, name, noted)
    monkeypatch.setattr(verbs, "unlike", lambda *_, **__: [])
    words = ["--out", str(tmp_path), "--config", str(ROOT / "recipes" / recipe)]
    main([verb, *(["run", "--edits", "e"] if verb == "finetune" else ["--data.annotations", "a"]), *words])
    value = yaml.safe_load((ROOT / "recipes" / recipe).read_text())
    assert seen["optimizer"].learning_rate == value["optimizer"]["learning_rate"]
    assert seen["optimizer"].epochs == value["optimizer"]["epochs"]
    if verb == "train":
        assert seen["network"].architecture in ARCHITECTURES
        assert seen["preprocessing"].sampling.frames == value["preprocessing"]["sampling"]["frames"]


def test_the_small_recipe_is_the_commands_default_and_the_demos():
    value = yaml.safe_load((ROOT / "recipes" / "tabletop-small.yaml").read_text())
    assert {name: getattr(SMALL_OPTIMIZER, name) for name in value["optimizer"]} == value["optimizer"]
    value = yaml.safe_load((ROOT / "recipes" / "finetune-small.yaml").read_text())
    assert {name: getattr(SMALL_FINETUNING, name) for name in value["optimizer"]} == value["optimizer"]


def test_the_edit_in_the_documentation_is_valid():
    text = (ROOT / "docs" / "formats.md").read_text()
    example = next(b for b in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if "stabn-edit" in b)
    assert Edit.from_json(json.loads(example)).scores == (0.0, 0.5, 1.0)


def test_files_that_the_readme_names_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
