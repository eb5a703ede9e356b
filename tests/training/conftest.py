"""An edit project of a small run, for whatever learns from edits."""

import pytest
from small_run import FRAMES

from stabn.edits.project import open_project
from stabn.evaluation.collect import collect_project


@pytest.fixture
def project(run, tmp_path):
    collect_project(run, tmp_path / "project", bound=1.0, max_clips=6)
    opened = open_project(tmp_path / "project")
    opened.add(
        clip.edit([1.0] * 2 + [0.0] * (FRAMES - 2), author="ann", time="2026-01-31T09:30:00+00:00")
        for clip in opened.clips
    )
    return opened
