from pathlib import Path

import numpy as np
import pytest
from small_run import FRAMES, TINY

from stabn.cli.main import main
from stabn.data.video.clip import write_video
from stabn.edits.project import Project, open_project
from stabn.runs import Run


@pytest.fixture
def project(run: Run, tmp_path) -> Project:
    """Three misrecognised clips of a run."""
    main(["collect", str(run.folder), "--out", str(tmp_path / "project"), "--bound", "1.0", "--max_clips", "3"])
    return open_project(tmp_path / "project")


@pytest.fixture
def own(tmp_path) -> Path:
    """Two classes, eight training and four validation videos, in a folder with a space in its name."""
    folder = tmp_path / "my clips"
    rng = np.random.default_rng(0)
    rows = ["path, label, split"]
    for i in range(12):
        write_video(folder / f"{i}.mp4", rng.integers(0, 255, (12, 32, 40, 3), dtype=np.uint8), 12)
        rows.append(f"{i}.mp4, {'ab'[i % 2]}, {'train' if i < 8 else 'validation'}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def own_run(own, tmp_path) -> Path:
    main(["train", "--out", str(tmp_path / "own-run"), "--data.annotations", str(own / "clips.csv"), *TINY])
    return tmp_path / "own-run"


@pytest.fixture
def own_project(own_run, tmp_path) -> Project:
    """All training clips of `own`, each with an edit."""
    main(["collect", str(own_run), "--out", str(tmp_path / "own-project"), "--bound", "1.0"])
    project = open_project(tmp_path / "own-project")
    project.add(
        clip.edit([1.0] + [0.0] * (FRAMES - 1), author="ann", time="2026-01-31T09:30:00+00:00", comment="x\u2028y\x85z")
        for clip in project.clips
    )
    return project
