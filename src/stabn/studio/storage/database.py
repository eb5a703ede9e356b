"""Opening a database: SQLite in a file, or PostgreSQL for a team. What goes wrong there is told in one line."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from stabn.errors import UserError
from stabn.studio.storage.migrations import migrate
from stabn.studio.storage.schema import VERSION_TABLE

WAIT = 30.0
"""Seconds that a change waits for those of other programs."""

_EXPECTED = "sqlite:////folder/file.db or postgresql://user:password@host/database"
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
_SQLITE_REMEDIES = {
    sqlite3.SQLITE_BUSY: "close the other program that uses it",
    sqlite3.SQLITE_CANTOPEN: "make sure that its folder exists and can be written to",
    sqlite3.SQLITE_CORRUPT: "take it from a backup or move it away; edits.jsonl still holds every current edit",
    sqlite3.SQLITE_FULL: "free some disk space",
    sqlite3.SQLITE_NOTADB: "move that file away, or give another one",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
}


class Database:
    """A database in the form of this program; threads may share it.

    Args:
        url: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; a `sqlalchemy.URL` can name any file.

    Attributes:
        kind: "sqlite" or "postgresql".

    Raises:
        UserError: the address is wrong, or there is no database that can be used. No message shows the password.
    """

    def __init__(self, url: str | URL) -> None:
        parsed = _parsed(url)
        self.kind = parsed.get_backend_name()
        self._place = _shown(parsed)
        self._engine = _engine(parsed)
        try:
            with self.writing("migrations") as session:
                migrate(session.connection(), self._place)
                # Writes nothing new: one that may only be read is refused now and not at the first edit.
                session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = version_num"))
        except UserError:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one state of the database.

        Raises:
            UserError: the database cannot be used.
        """
        with self._telling(), Session(self._engine) as session:
            yield session

    @contextmanager
    def writing(self, what: str) -> Iterator[Session]:
        """A session that is committed at the end of the block; one at a time for each `what`, over all servers.

        When the block has ended without an error, what was written survives the loss of power.

        Raises:
            UserError: the database cannot be used.
        """
        engine = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        with self._telling(), Session(engine) as session, session.begin():
            if self.kind == "postgresql":
                _wait_for_turn(session.connection(), what)
            yield session

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            reason = next(iter(str(error.orig).splitlines()), type(error.orig).__name__)
            if isinstance(error.orig, sqlite3.Error):
                code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the rest says more than a remedy needs
                remedy = _SQLITE_REMEDIES.get(code, "check the file and its disk")
            else:
                remedy = "check the address, and what the server allows this user"
            raise UserError(f"{self._place}: {reason}; {remedy}") from None
        except PoolTimeout:
            raise UserError(f"{self._place}: is too busy; try again in a moment") from None


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise UserError(f"database: got an address that cannot be read, expected {_EXPECTED}") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise UserError(f"database: got an address of {parsed.drivername!r}, expected {_EXPECTED}")
    if parsed.drivername == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UserError("database: got SQLite without a file, expected sqlite:////folder/file.db")
    if "@" in (parsed.host or ""):
        raise UserError("database: got an address with two @; write %40 for an @ inside the password")
    return parsed


def _shown(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        # isolation_level None: the driver begins no transaction by itself, `_begin` does.
        engine = create_engine(url, connect_args={"timeout": WAIT, "isolation_level": None})
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        return engine
    try:
        return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ImportError:
        raise UserError("database: PostgreSQL needs the package psycopg; pip install 'stabn[teams]'") from None


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    cursor = connection.cursor()
    deadline = time.monotonic() + WAIT
    for pragma in _PRAGMAS:
        while True:
            try:
                cursor.execute(f"PRAGMA {pragma}")
                break
            except sqlite3.OperationalError as error:
                # When two programs make a new file at once, SQLite lets the change to WAL fail instead of wait.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _wait_for_turn(connection: Connection, what: str) -> None:
    """Wait until no other transaction is in its turn; also makes the order of numbers that of commits."""
    connection.execute(text(f"SET LOCAL lock_timeout = {int(WAIT * 1000)}"))
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"stabn {what}", 0))))
