"""A PostgreSQL role that may do what a handler has to do, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def create(dsn: str, role: str, password: str, updatable: Mapping[str, Sequence[str]]) -> str:
    """Makes a role that reads, deletes, and updates some columns; may be repeated.

    Args:
        dsn: connection of the database's owner, who may create roles.
        role: belongs to the whole server: tests that share one give each database its own.
        password: for the role; sent to the server only as a SCRAM verifier.
        updatable: its tables, each with the columns that it may change.

    Returns:
        The connection string of the role.
    """
    # Two databases of one server made at once touch the same row of pg_authid: one of them has to try again.
    for attempt in Retrying(
        stop=stop_after_attempt(8),
        wait=wait_random_exponential(multiplier=0.05, max=1),
        retry=retry_if_exception_type((psycopg.errors.UniqueViolation, psycopg.errors.InternalError_)),
        reraise=True,
    ):
        with attempt, psycopg.connect(dsn) as connection:
            _grant(connection, role, password, updatable)
    return _as_role(dsn, role, password)


def _as_role(dsn: str, role: str, password: str) -> str:
    """The same database for another user; a URL stays one, as SQLAlchemy wants it."""
    parts = urlsplit(dsn)
    if parts.scheme not in {"postgresql", "postgres"}:
        return make_conninfo(dsn, user=role, password=password)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(role, safe='')}:{quote(password, safe='')}@{host}"))


def _grant(connection: psycopg.Connection, role: str, password: str, updatable: Mapping[str, Sequence[str]]) -> None:
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    statement = "ALTER ROLE {} LOGIN PASSWORD {}" if known else "CREATE ROLE {} LOGIN PASSWORD {}"
    connection.execute(sql.SQL(statement).format(sql.Identifier(role), sql.Literal(verifier)))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(sql.Identifier(role)))
    for table, columns in updatable.items():
        connection.execute(
            sql.SQL("GRANT SELECT, DELETE, UPDATE ({}) ON {} TO {}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table), sql.Identifier(role)
            )
        )
