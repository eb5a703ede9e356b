"""Run by every Alembic command; the connection comes from `stabn.studio.storage.migrations.configuration`."""

from alembic import context

from stabn.studio.storage.schema import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
