import sqlite3
import sys
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from postgres_cluster import postgres_database
from sqlalchemy import URL, text
from store_changes import at_once, change

from stabn.errors import UserError
from stabn.studio.storage import database as database_module
from stabn.studio.storage.events import Store
from stabn.studio.storage.schema import VERSION_TABLE, Base

# Databases that cannot be used


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("studio.db", "database: "),
        ("", "database: "),
        ("postgresql://ann:secret@host:port/db", "database: "),
        ("postgresql://ann:se@cret@host/db", "%40"),
        ("mysql://ann:secret@host/db", "'mysql'"),
        ("sqlite://", "sqlite:////"),
        ("sqlite:///:memory:", "sqlite:////"),
        ("postgresql://ann:secret@127.0.0.1:1/db", "postgresql://ann:***@127.0.0.1:1/db: connection failed"),
        ("postgres://ann:secret@127.0.0.1:1/db", "refused"),
        ("postgresql://ann@127.0.0.1:1/db?password=secret", "refused"),
        ("postgresql://ann@127.0.0.1:1/db?passwort=secret", '"passwort"'),
    ],
)
def test_a_wrong_url_is_reported_in_one_line_without_the_password(url: str, words: str):
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        Store(url, "project")
    assert words in str(caught.value)
    assert "cret" not in str(caught.value)


def test_postgresql_without_its_driver_names_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"stabn\[teams\]"):
        Store("postgresql://ann:secret@127.0.0.1:1/db", "project")


def test_a_postgresql_that_cannot_be_used_is_reported(postgres: str):
    with postgres_database(postgres) as url:
        Store(url, "project").close()
        mark = "&" if "?" in url else "?"
        with pytest.raises(UserError, match="read-only transaction"):
            Store(f"{url}{mark}options=-c%20default_transaction_read_only%3Don", "project")
    with pytest.raises(UserError, match=r'"stabn_\w+" does not exist'):
        Store(url, "project")


def test_connections_that_the_server_dropped_are_made_anew(postgres: str):
    with postgres_database(postgres) as url:
        store = Store(url, "project")
        store.append(change("request-1"))
        with psycopg.connect(url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        store.append(change("request-2"))
        assert len(store.events("17")) == 2
        store.close()


def test_files_that_are_no_writable_database_are_reported(tmp_path: Path):
    (tmp_path / "text.db").write_text("This is a letter to my aunt. " * 100)
    Store(f"sqlite:///{tmp_path}/studio.db", "project").close()
    for path, words in (
        (f"{tmp_path}/none/studio.db", r"none/studio\.db: unable to open"),
        (f"{tmp_path}", "unable to open"),
        (f"{tmp_path}/text.db", r"text\.db: file is not a database"),
        (f"file:{tmp_path}/studio.db?mode=ro&uri=true", r"studio\.db.*readonly"),
    ):
        with pytest.raises(UserError, match=words):
            Store(f"sqlite:///{path}", "project")


def test_a_locked_database_is_reported_and_works_once_it_is_free(database: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database_module, "LOCK_TIMEOUT", 0.1)
    store, other = Store(database, "project"), Store(database, "project")
    with other._database.read_session() as session:
        session.connection(execution_options={"begin": "BEGIN IMMEDIATE"})  # locks SQLite
        if other.kind == "postgresql":
            session.execute(text("SELECT pg_advisory_lock(hashtextextended('stabn project', 0))"))
        with pytest.raises(UserError, match=r"^[^\n]*lock[^\n]*; [^\n]*$"):
            store.append(change())
    other.close()
    store.append(change())
    store.close()


# Migrations


def test_the_migrations_make_what_the_models_say(store: Store):
    with store._database.read_session() as session:
        options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(session.connection(), opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_of_a_newer_program_is_left_alone(database: str):
    store = Store(database, "project")
    store.append(change())
    with store._database.write_session("test") as session:
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    store.close()
    with pytest.raises(UserError, match="9999"):
        Store(database, "project")


def test_servers_that_start_at_once_make_one_database(database: str, capfd: pytest.CaptureFixture[str]):
    def work(number: int) -> None:
        store = Store(database, "project")
        store.append(change(f"request-{number}"))
        store.close()

    at_once(6, work)
    store = Store(database, "project")
    assert len(store.events("17")) == 6
    store.close()
    assert capfd.readouterr() == ("", "")  # alembic works in silence


def test_sqlite_is_set_up_to_survive_the_loss_of_power_in_a_file_of_any_name(tmp_path: Path):
    file = tmp_path / "what? 100% #1 @home.db"
    store = Store(URL.create("sqlite", database=str(file)), "project")
    with store._database.read_session() as session:
        for name, value in {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 30_000}.items():
            assert session.scalar(text(f"PRAGMA {name}")) == value
    store.close()
    assert sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone() == ("ok",)
