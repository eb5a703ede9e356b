"""A connection to the database: SQLite in a file, or PostgreSQL for a team; its errors become one line."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from stabn.errors import UserError
from stabn.files import has_locks
from stabn.studio.storage.migrations import migrate
from stabn.studio.storage.schema import VERSION_TABLE

LOCK_TIMEOUT = 30.0
"""Seconds that a change waits for those of other programs."""

_EXPECTED_URL = "sqlite:////folder/file.db or postgresql://user:password@host/database"
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
_SQLITE_REMEDIES = {
    sqlite3.SQLITE_BUSY: "close the other program that uses it; on a network disk, give --database on a local one",
    sqlite3.SQLITE_CANTOPEN: "make sure that its folder exists and can be written to",
    sqlite3.SQLITE_CORRUPT: "take it from a backup or move it away; edits.jsonl still holds every current edit",
    sqlite3.SQLITE_FULL: "free some disk space",
    sqlite3.SQLITE_IOERR: "check its disk; on a network disk, give --database with a file on a local one",
    sqlite3.SQLITE_PROTOCOL: "on a network disk, give --database with a file on a local one",
    sqlite3.SQLITE_NOTADB: "move that file away, or give another one",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
}


class Database:
    """A database migrated to the schema of this version; threads may share it.

    Args:
        url: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; a `sqlalchemy.URL` can name any file.

    Attributes:
        kind: "sqlite" or "postgresql".

    Raises:
        UserError: the URL is wrong, or the database cannot be used. No message contains the password.
    """

    def __init__(self, url: str | URL) -> None:
        parsed = _parse_url(url)
        self.kind = parsed.get_backend_name()
        shown = parsed.set(drivername="postgresql", query={}).render_as_string(hide_password=True)
        self._name = str(parsed.database) if self.kind == "sqlite" else shown
        self._engine = _create_engine(parsed)
        self._lock = threading.Lock()  # threads queue here instead of polling SQLite's lock
        try:
            with self.write_session("migrations") as session:
                migrate(session.connection(), self._name)
                # Changes nothing, but fails now, not at the first edit, if the database is read-only.
                session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = version_num"))
        except UserError:
            self.close()
            raise

    @contextmanager
    def read_session(self) -> Iterator[Session]:
        """Open a session that sees one state of the database.

        Raises:
            UserError: the database cannot be used.
        """
        with self._one_line_errors(), Session(self._engine) as session:
            yield session

    @contextmanager
    def write_session(self, lock: str) -> Iterator[Session]:
        """Open a session that is committed, durably, at the end of the block.

        Args:
            lock: only one session with this name is open at a time, across all servers.

        Raises:
            UserError: the database cannot be used.
        """
        engine = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        with self._lock, self._one_line_errors(), Session(engine) as session, session.begin():
            if self.kind == "postgresql":  # until the commit, so that event numbers ascend in the order of commits
                session.execute(text(f"SET LOCAL lock_timeout = {int(LOCK_TIMEOUT * 1000)}"))
                session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"stabn {lock}", 0))))
            yield session

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            reason = next(iter(str(error.orig).splitlines()), type(error.orig).__name__)
            if isinstance(error.orig, sqlite3.Error):
                code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the extended code is not needed for a remedy
                remedy = _SQLITE_REMEDIES.get(code, "check the file and its disk")
            else:
                remedy = "check the address and this user's privileges"
            raise UserError(f"{self._name}: {reason}; {remedy}") from None
        except PoolTimeout:
            raise UserError(f"{self._name}: has no free connection; try again in a moment") from None


def _parse_url(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise UserError(f"database: got an invalid URL, expected {_EXPECTED_URL}") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise UserError(f"database: got a URL of {parsed.drivername!r}, expected {_EXPECTED_URL}")
    if parsed.drivername == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UserError("database: got SQLite without a file, expected sqlite:////folder/file.db")
    if "@" in (parsed.host or ""):
        raise UserError("database: got a URL with two @; write %40 for an @ inside the password")
    return parsed


def _create_engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        assert url.database is not None
        file = Path(url.database).absolute()
        if not has_locks(file.parent):
            return _create_engine_without_locks(url, file)
        # With isolation_level None the driver does not begin transactions by itself; `_begin` does.
        engine = create_engine(url, connect_args={"timeout": LOCK_TIMEOUT, "isolation_level": None})
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin)
        return engine
    try:
        return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ImportError:
        raise UserError("database: PostgreSQL needs the package psycopg; pip install 'stabn[teams]'") from None


def _create_engine_without_locks(url: URL, file: Path) -> Engine:
    """SQLite where the file system has no locks: the threads take turns with one connection, which has no WAL."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{file.as_uri()}?nolock=1", uri=True, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        # exclusive first: a file that was in WAL mode elsewhere could not be opened otherwise
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = DELETE", *_PRAGMAS[1:]):
            connection.execute(f"PRAGMA {pragma}").close()
        return connection

    one: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": LOCK_TIMEOUT}
    engine = create_engine(url, creator=connect, **one)
    event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection: sqlite3.Connection, _: object) -> None:
    cursor = connection.cursor()
    deadline = time.monotonic() + LOCK_TIMEOUT
    for pragma in _PRAGMAS:
        while True:
            try:
                cursor.execute(f"PRAGMA {pragma}")
                break
            except sqlite3.OperationalError as error:
                # If two programs create the file at once, the change to WAL fails instead of waiting.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))
