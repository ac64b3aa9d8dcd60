"""Alembic's entry: runs the steps on the connection that `keshi ledger migrate` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
# SQLite's DDL, too, is part of the one transaction that the connection has open.
context.configure(connection=connection, target_metadata=None, version_table="keshi_schema", transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
