"""One schema, two spellings: steps are written for PostgreSQL, and spelled here for SQLite where it differs."""

import re
from collections.abc import Iterable

from alembic import op

_TYPES = (
    (re.compile(r"\bbigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY\b"), "integer PRIMARY KEY AUTOINCREMENT"),
    (re.compile(r"\bbigint\b"), "integer"),
    # Moments are text of one width in UTC, and sort as such.
    (re.compile(r"\btimestamptz\b"), "text"),
    (re.compile(r"\s*WITH \([^)]*\)\Z"), ""),
)
_TABLE = re.compile(r"\A\s*CREATE TABLE\b")


def is_sqlite() -> bool:
    """Whether this step runs on SQLite."""
    return op.get_bind().dialect.name == "sqlite"


def run(*statements: str) -> None:
    """Execute statements written for PostgreSQL, in the words of the database at hand."""
    for statement in statements:
        op.execute(sqlite_spelling(statement) if is_sqlite() else statement)


def sqlite_spelling(statement: str) -> str:
    """DDL as SQLite has it; its tables are strict, so that a column holds what it says."""
    for found, ours in _TYPES:
        statement = found.sub(ours, statement)
    return f"{statement} STRICT" if _TABLE.match(statement) else statement


def guard(tables: Iterable[str]) -> None:
    """Let nobody change these tables but by inserting."""
    if not is_sqlite():
        op.execute(_GUARD)
    for table in tables:
        for statement in _sqlite_triggers(table) if is_sqlite() else (_postgres_trigger(table),):
            op.execute(statement)


_GUARD = """CREATE OR REPLACE FUNCTION keshi_insert_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'append-only: % of % refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$"""


def _postgres_trigger(table: str) -> str:
    return (
        f"CREATE TRIGGER {table}_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION keshi_insert_only()"
    )


def _sqlite_triggers(table: str) -> Iterable[str]:
    return (
        f"CREATE TRIGGER {table}_no_{word.lower()} BEFORE {word} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'append-only: {word} of {table} refused'); END"
        for word in ("UPDATE", "DELETE")
    )
