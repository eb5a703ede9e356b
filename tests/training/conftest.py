"""An edit project of a small run, for whatever learns from edits."""

import pytest
from copies import copy
from small_run import FRAMES

from stabn.edits.project import open_project
from stabn.evaluation.collect import collect_project
from stabn.runs import open_run


@pytest.fixture(scope="session")
def edited_project(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited") / "project"
    collect_project(open_run(trained), folder, bound=1.0, max_clips=6)
    opened = open_project(folder)
    opened.add(
        clip.edit([1.0] * 2 + [0.0] * (FRAMES - 2), author="ann", time="2026-01-31T09:30:00+00:00")
        for clip in opened.clips
    )
    return folder


@pytest.fixture
def project(edited_project, trained, run, tmp_path):
    return open_project(copy(edited_project, tmp_path, {trained: run.folder}))
