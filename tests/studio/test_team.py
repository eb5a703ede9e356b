"""Two people with a studio each on one database, as a team works; on SQLite and on a real PostgreSQL."""

import shutil
from pathlib import Path

import pytest
from small_run import FRAMES
from studio_client import change, queue, serving, uncollected

from stabn.edits.project import open_project
from stabn.errors import UserError
from stabn.runs import open_run
from stabn.studio.serve import open_studio

ONES, HALF = [1.0] * FRAMES, [0.5] * FRAMES


def test_colleagues_see_each_others_edits_also_of_clips_that_one_of_them_added(trained, collected, tmp_path, database):
    mine, yours, late = (shutil.copytree(collected, tmp_path / name) for name in ("mine", "yours", "late"))
    with serving(trained, mine, database=database) as ann, serving(trained, yours, database=database) as bo:
        collected_clip, added_clip = queue(ann)[0]["id"], uncollected(ann, "train")
        before = bo.get("/api/changes").json()["version"]
        change(ann, collected_clip, ONES, "request-1")
        change(ann, added_clip, ONES, "request-2")
        changes = bo.get("/api/changes", params={"since": before}).json()
        assert sorted(changes["clips"]) == sorted([collected_clip, added_clip])
        assert added_clip in [clip["id"] for clip in queue(bo)]
        change(bo, added_clip, HALF, "request-3", author="Bo")
        clip = ann.get("/api/clip", params={"id": added_clip, "author": "Ann"}).json()
        assert [edit["author"] for edit in clip["edits"]] == ["Ann", "Bo"]
        assert clip["history"]["scores"] == ONES
        ann.put("/api/use", json={"use": "mean", "author": "Ann"})
        assert bo.get("/api/session").json()["use"] == "mean"
    with serving(trained, late, database=database):
        pass  # who starts later gets everything
    for folder in (yours, late):
        assert open_project(folder).edits("mean")[added_clip].scores == (0.75,) * FRAMES


def test_a_missing_database_is_reported_without_its_password(trained: Path, project: Path) -> None:
    database = "postgresql://ann:secret@127.0.0.1:1/stabn"
    with pytest.raises(UserError) as caught, open_studio(open_run(trained), project, database=database):
        pass
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
