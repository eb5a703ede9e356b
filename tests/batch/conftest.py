import shutil
from pathlib import Path

import pytest
from archive_folder import explained, make_archive


@pytest.fixture(scope="session")
def archive(tabletop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of clips of which some are broken."""
    return make_archive(tmp_path_factory.mktemp("archive") / "videos", tabletop / "videos")


@pytest.fixture(scope="session")
def answered(archive: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its answers, by a command that nobody disturbed."""
    out = tmp_path_factory.mktemp("answers") / "out"
    explained(trained, archive, out)
    return out


@pytest.fixture
def out(answered: Path, tmp_path: Path) -> Path:
    """A copy of the answers, to be changed."""
    return shutil.copytree(answered, tmp_path / "out")
