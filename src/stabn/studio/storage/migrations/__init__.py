"""Migrations of the studio's database: one file in versions/ each, never changed once released.

Create a new one with `alembic.command.revision(configuration(connection), autogenerate=True, rev_id="0002")`.
"""

import threading

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from stabn.errors import UserError
from stabn.studio.storage.schema import VERSION_TABLE

_LOCK = threading.Lock()  # Alembic keeps its context in module globals


def configuration(connection: Connection) -> Config:
    """The configuration of Alembic's commands, without a file."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "stabn.studio.storage:migrations")
    return config


def migrate(connection: Connection, name: str) -> None:
    """Migrate a database to the schema of this version, inside the connection's transaction.

    Args:
        connection: in a transaction that keeps other servers from migrating at the same time.
        name: the database's name in messages.

    Raises:
        UserError: the database was written by a newer version.
    """
    config = configuration(connection)
    revisions = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    revision = context.get_current_revision()
    if revision is not None and revision not in revisions:
        raise UserError(f"{name}: was written by a newer stabn (revision {revision}); upgrade stabn to open it")
    with _LOCK:
        command.upgrade(config, "head")
