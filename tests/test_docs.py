import json
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest
import yaml
from uvicorn import Server

from stabn.cli.main import main
from stabn.cli.verbs import VERBS, _verb_parser
from stabn.data.tabletop.acts import ACTS
from stabn.nn.backbones import ARCHITECTURES, TRANSFORMERS, VIDEO_ARCHITECTURES, backbone_class
from stabn.records import Edit
from stabn.training.recipes import SMALL_OPTIMIZER, NetworkRecipe

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TINY = ["--optimizer.epochs", "1", "--optimizer.batch_size", "4"]
SMALL = ["--network.backbone", "tiny", "--preprocessing.sampling.frames", "4"]
SMALL += ["--preprocessing.resize", "36", "--preprocessing.crop", "32"]
QUICKER = {"train": [*TINY, *SMALL], "finetune": TINY}
"""Verb -> options that are added to its commands, so that they take seconds."""
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(file: Path, *languages: str) -> list[tuple[str, str]]:
    """(language, content) of a document's blocks of code in these languages."""
    return re.findall(rf"```({'|'.join(languages)})\n(.*?)```", file.read_text(), re.DOTALL)


def commands(content: str) -> list[list[str]]:
    """The words of every `stabn` command in a block of shell."""
    lines = content.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("stabn ")]


@pytest.fixture
def user_folder(tabletop, tmp_path, monkeypatch):
    """Where the documents' commands are given: videos under names of their own, and the table that they describe."""
    (tmp_path / "takes").mkdir()
    rows = ["path,label,split"]
    for split in ("train", "validation"):
        for entry in json.loads((tabletop / f"something-something-v2-{split}.json").read_text()):
            name = f"takes/{int(entry['id']):04}.mp4"
            shutil.copy(tabletop / "videos" / f"{entry['id']}.mp4", tmp_path / name)
            rows.append(f"{name},{entry['template'].replace('[', '').replace(']', '')},{split}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_and_program_for_own_videos_works_as_printed(user_folder, monkeypatch):
    guide = ROOT / "docs" / "your-videos.md"
    edit = next(content for _, content in blocks(guide, "python"))
    # In place of the person who sits in front of the studio.
    monkeypatch.setattr(Server, "run", lambda *_, **__: exec(compile(edit, str(guide), "exec"), {}))
    done: list[list[str]] = []
    names: dict = {}
    for file in (README, guide, ROOT / "docs" / "python.md"):
        for language, content in blocks(file, "sh", "python"):
            if language == "python":
                if content != edit:
                    exec(compile(content, file.name, "exec"), names)
                continue
            for words in commands(content):
                if words not in done:
                    port = ["--port", "0"] if words[0] == "studio" else []
                    main([*words, *port, *QUICKER.get(words[0], [])])
                    done.append(words)
    assert [words[0] for words in done] == [
        *("train", "explain", "collect", "studio", "finetune", "compare"),
        *("evaluate", "check-edits", "finetune", "finetune", "report"),
    ]
    assert "<html" in Path("compare.html").read_text()
    assert "<video" in Path("report.html").read_text()
    assert Path("sheet.png").stat().st_size
    assert names["what_if"].shape == names["logits"].shape == (1, len(ACTS))


def test_the_page_of_base_networks_names_all_of_them_and_its_cheap_commands_work(user_folder):
    page = ROOT / "docs" / "backbones.md"
    cheap = ["--preprocessing.crop", "32", "--loader.views", "1", *TINY]
    for _, content in blocks(page, "sh"):
        for words in commands(content):
            main([*words, *(cheap if words[0] == "train" else [])])
    assert NetworkRecipe(**json.loads(Path("runs/lite0/run.json").read_text())["recipe"]["network"]).keeps_features
    text = page.read_text().replace("\\\n", " ")
    assert [n for n in (*ARCHITECTURES, *VIDEO_ARCHITECTURES, *TRANSFORMERS) if f"`{n}`" not in text] == []
    own = {"runs/lite0", "weights/videomae", "SLOW_8x8_R50.pyth"}
    given = re.findall(r"--network\.backbone (\S+) +--network\.weights (\S+)", text)
    assert len(given) == 8
    for name, weights in given:
        assert weights in own | {one.name for one in backbone_class(name).published(name)}, (name, weights)


def test_the_two_commands_of_the_readme_are_in_the_makefile():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [line.split()[1] for _, content in blocks(README, "sh") for line in content.splitlines() if "make " in line]
    assert named == ["demo", "test"]
    assert set(named) <= set(targets)


def test_commands_in_all_documents_name_verbs_and_options_that_exist():
    for file in DOCUMENTS:
        if file.name == "CHANGELOG.md":  # it names what is gone
            continue
        text = file.read_text()
        for verb in re.findall(r"(?:^    |`|^)stabn ([a-z][a-z-]*)", text, re.MULTILINE):
            assert verb in VERBS, (file.name, verb)
        for line in re.findall(r"^(?:    |)stabn ([a-z].*)$", text.replace("\\\n", " "), re.MULTILINE):
            verb, _, rest = line.partition(" ")
            known = options_of(verb)
            for option in re.findall(r"(?<!\S)(--[a-z][\w.-]*)", rest.partition(" #")[0]):
                assert {spelt(option), spelt(option.partition(".")[0])} & known, (file.name, verb, option)


@cache
def options_of(verb: str) -> set[str]:
    return {spelt(word) for action in _verb_parser(verb)._actions for word in action.option_strings}


def spelt(option: str) -> str:
    """An option with underscores, as the parser has it; a dash may stand for each."""
    return option[:2] + option[2:].replace("-", "_")


def test_the_small_recipe_is_the_commands_default_and_the_demos():
    value = yaml.safe_load((ROOT / "recipes" / "tabletop-small.yaml").read_text())
    assert {name: getattr(SMALL_OPTIMIZER, name) for name in value["optimizer"]} == value["optimizer"]


def test_the_edit_in_the_documentation_is_valid():
    text = (ROOT / "docs" / "formats.md").read_text()
    example = next(b for b in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if "stabn-edit" in b)
    assert Edit.from_json(json.loads(example)).scores == (0.0, 0.5, 1.0)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_files_and_sections_that_a_document_links_to_exist(file):
    for target, section in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", file.read_text()):
        linked = file.parent / target if target else file
        assert linked.exists(), target
        if section:
            assert section in {anchor(title) for title in re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)}


def anchor(title: str) -> str:
    """The name that a heading has in links, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")):
        assert page.name == "README.md" or f"]({page.name}" in index, page.name
