"""A PostgreSQL server for the tests: the one at STABN_TEST_POSTGRES, or one of their own in a temporary folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

VARIABLE = "STABN_TEST_POSTGRES"


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a server on which databases may be created; skips the test where there is none."""
    if VARIABLE in os.environ:
        yield os.environ[VARIABLE]
        return
    programs = _programs()
    if programs is None:
        pytest.skip(f"no PostgreSQL: {VARIABLE} is not set, and initdb and pg_ctl are not installed")
    as_user = _other_user()
    folder = Path(tempfile.mkdtemp(prefix="stabn-pg-"))  # short, because the name of a socket must be
    if as_user:
        shutil.chown(folder, user="postgres")

    def call(program: str, *arguments: str) -> None:
        # To a file: the server inherits it, so that a pipe would never end.
        with (folder / "log").open("w") as log:
            command = [*as_user, str(programs / program), "--pgdata", str(folder / "data"), *arguments]
            done = subprocess.run(command, cwd=folder, stdout=log, stderr=log, timeout=120)
        assert done.returncode == 0, (folder / "log").read_text()

    try:
        call("initdb", "--username=stabn", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        call("pg_ctl", "start", "--wait", f"--options=-c listen_addresses='' -c fsync=off -k {folder}")
        try:
            yield f"postgresql://stabn@/postgres?host={quote(str(folder), safe='')}"
        finally:
            call("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """The URL of a new, empty database."""
    name = f"stabn_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            before, question, options = server.partition("?")
            yield f"{before.rpartition('/')[0]}/{name}{question}{options}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _programs() -> Path | None:
    """The folder that holds initdb and pg_ctl; the newest, where a distribution keeps several."""
    found = shutil.which("initdb")
    if found and shutil.which("pg_ctl"):
        return Path(found).parent
    folders = [file.parent for file in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


def _other_user() -> list[str]:
    """What comes before a command of PostgreSQL, which refuses to be run by root."""
    if os.getuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip(f"no PostgreSQL: root cannot run it, and there is no user postgres; set {VARIABLE}")
    if shutil.which("runuser") is None:
        pytest.skip(f"no PostgreSQL: root cannot run it, and there is no runuser; set {VARIABLE}")
    return ["runuser", "--user", "postgres", "--"]
