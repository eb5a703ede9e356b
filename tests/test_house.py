"""The laws of CONTRIBUTING.md that a program can check."""

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stabn"
MODULES = sorted(SOURCE.rglob("*.py"))
FILES = {"__init__.py", "errors.py", "export.py", "files.py", "memory.py", "records.py", "runs.py", "py.typed"}
PACKAGES = {
    *("batch", "cli", "data", "edits", "engine", "evaluation", "explain", "nn", "report", "studio", "training"),
}
NAMED_AFTER_ROOMS = ("cli", "studio/routes")
"""Folders whose files carry the name of the room that they lead to."""
MIGRATIONS = "studio/storage/migrations/versions"
PRINTING = {"studio/serve.py", "studio/jobs/process.py"}
"""Modules outside cli/ that print: the server's address, and what a job's process tells its log."""
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
PLACES_OF_PACKAGES = r"(index[-_]url|find[-_]links|trusted[-_]host|registry)\W{1,5}(https?:|\w+\.\w)"
"""How an installer, or a file with its settings, is told where to take packages from."""


def within(module: Path, *folders: str) -> bool:
    return any(module.relative_to(SOURCE).is_relative_to(folder) for folder in folders)


def shown(module: Path) -> str:
    return module.relative_to(SOURCE).as_posix()


def parsed() -> Iterator[tuple[Path, ast.Module]]:
    for module in MODULES:
        yield module, ast.parse(module.read_text(encoding="utf-8"))


def test_the_root_of_the_package_holds_seven_modules_and_eleven_packages():
    files = {path.name for path in SOURCE.iterdir() if path.is_file()}
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert files == FILES
    assert packages == PACKAGES


def test_no_two_modules_share_a_name():
    places = defaultdict(list)
    for module in MODULES:
        if not module.stem.startswith("__") and not within(module, *NAMED_AFTER_ROOMS, MIGRATIONS):
            places[module.stem].append(shown(module))
    assert [found for found in places.values() if len(found) > 1] == []
    assert not VAGUE & set(places)


def test_no_two_public_classes_or_functions_share_a_name():
    places = defaultdict(list)
    for module, tree in parsed():
        if within(module, MIGRATIONS):
            continue
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                "_"
            ):
                places[node.name].append(shown(module))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_only_the_command_line_prints():
    prints = {
        shown(module)
        for module, tree in parsed()
        if not within(module, "cli")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert prints <= PRINTING


def test_the_readme_has_at_most_90_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90


def test_the_readme_names_every_package():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text[text.index("## The map") :]))
    assert named >= PACKAGES


def test_documents_results_and_pictures_can_be_opened_in_a_review():
    for file in (*(ROOT / "docs").iterdir(), *(ROOT / "benchmarks").glob("*/*.json")):
        if file.suffix == ".png":
            assert file.stat().st_size < 200_000, file.name
        elif file.is_file():
            assert len(file.read_text(encoding="utf-8").splitlines()) < 1000, file


def test_no_file_says_where_packages_are_taken_from():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git checkout, to know which files belong to the project")
    assert re.search(PLACES_OF_PACKAGES, "--index-url " + "https://a.b/c")
    for name in listed.stdout.splitlines():
        file = ROOT / name
        if not file.is_file() or file.suffix in (".png", ".npz", ".pt", ".mp4"):
            continue
        text = file.read_bytes().decode("utf-8", errors="ignore")
        assert not re.search(PLACES_OF_PACKAGES, text), name
        if file.name.startswith("requirements") or name == ".ci/run":
            assert "://" not in text, name
