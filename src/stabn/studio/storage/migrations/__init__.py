"""How the studio's database came to its present form: one file in versions/ per step, never changed once released.

A new step starts as `alembic.command.revision(configuration(connection), autogenerate=True, rev_id="0002")`.
"""

import threading

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from stabn.errors import UserError
from stabn.studio.storage.schema import VERSION_TABLE

_ONE_AT_A_TIME = threading.Lock()  # alembic keeps its context in module globals


def configuration(connection: Connection) -> Config:
    """What alembic's commands ask for, without a file."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "stabn.studio.storage:migrations")
    return config


def migrate(connection: Connection, place: str) -> None:
    """Bring a database to the form of this program, inside the connection's transaction.

    Args:
        connection: in a transaction that keeps other servers from doing the same.
        place: what messages call the database.

    Raises:
        UserError: a newer program has written it.
    """
    config = configuration(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    present = context.get_current_revision()
    if present is not None and present not in known:
        raise UserError(f"{place}: was written by a newer stabn (form {present}); upgrade stabn to open it")
    with _ONE_AT_A_TIME:
        command.upgrade(config, "head")
