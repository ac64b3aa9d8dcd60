"""Alembic's entry: runs the steps on the connection that `keshi ledger migrate` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=None, version_table="keshi_schema")
with context.begin_transaction():
    context.run_migrations()
