"""Runs and projects are made once; every test has a copy of its own, with the copy's paths in its files."""

from pathlib import Path

import numpy as np
import pytest
from copies import copy
from small_run import FRAMES, TINY

from stabn.cli.main import main
from stabn.data.video.clip import write_video
from stabn.edits.project import Project, open_project
from stabn.runs import Run


@pytest.fixture(scope="session")
def projects(trained, tmp_path_factory) -> Path:
    """Folder/<n>: n misrecognised clips of the small run."""
    folder = tmp_path_factory.mktemp("projects")
    for count in ("3", "6"):
        main(["collect", str(trained), "--out", str(folder / count), "--bound", "1.0", "--max_clips", count])
    return folder


@pytest.fixture
def project(projects, trained, run: Run, tmp_path) -> Project:
    """Three misrecognised clips of a run."""
    return open_project(copy(projects / "3", tmp_path, {trained: run.folder}))


@pytest.fixture
def to_correct(projects, trained, run: Run, tmp_path) -> Project:
    """Six misrecognised clips of a run."""
    return open_project(copy(projects / "6", tmp_path, {trained: run.folder}))


@pytest.fixture(scope="session")
def own_folder(tmp_path_factory) -> Path:
    """Holds "my clips", a run on them, and a project of all training clips with an edit each."""
    folder = tmp_path_factory.mktemp("own")
    clips, run, project = (str(folder / name) for name in ("my clips", "own-run", "own-project"))
    rng = np.random.default_rng(0)
    rows = ["path, label, split"]
    for i in range(12):
        write_video(Path(clips, f"{i}.mp4"), rng.integers(0, 255, (12, 32, 40, 3), dtype=np.uint8), 12)
        rows.append(f"{i}.mp4, {'ab'[i % 2]}, {'train' if i < 8 else 'validation'}")
    Path(clips, "clips.csv").write_text("\n".join(rows) + "\n")
    main(["train", "--out", run, "--data.annotations", str(Path(clips, "clips.csv")), *TINY])
    main(["collect", run, "--out", project, "--bound", "1.0"])
    opened = open_project(Path(project))
    opened.add(
        clip.edit([1.0] + [0.0] * (FRAMES - 1), author="ann", time="2026-01-31T09:30:00+00:00", comment="x\u2028y\x85z")
        for clip in opened.clips
    )
    return folder


@pytest.fixture
def own(own_folder, tmp_path) -> Path:
    """Two classes, eight training and four validation videos, in a folder with a space in its name."""
    return copy(own_folder / "my clips", tmp_path, {})


@pytest.fixture
def own_run(own, own_folder, tmp_path) -> Path:
    return copy(own_folder / "own-run", tmp_path, {own_folder: tmp_path})


@pytest.fixture
def own_project(own_run, own_folder, tmp_path) -> Project:
    """All training clips of `own`, each with an edit."""
    return open_project(copy(own_folder / "own-project", tmp_path, {own_folder: tmp_path}))
