"""The index of calls: one table in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from keshi.dev.systems import roles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keshi.dev.systems.call_recordings.sample import Call

ROLE = "keshi_call_recordings"
"""The handler's role: it reads, deletes, and updates the suspension. Nothing else."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id             text PRIMARY KEY,
    phone          text NOT NULL CHECK (phone ~ '^\\+[1-9][0-9]{6,14}$'),
    started_at     timestamptz NOT NULL,
    agent          text NOT NULL,
    recording_key  text,
    transcript_key text,
    suspended_by   text,
    suspended_at   timestamptz,
    CHECK ((suspended_by IS NULL) = (suspended_at IS NULL))
);
CREATE INDEX IF NOT EXISTS calls_phone ON calls (phone);
"""
_UPDATABLE = {"calls": ("suspended_by", "suspended_at")}


def create(dsn: str, *, password: str, role: str = ROLE) -> str:
    """Makes the table and the handler's role in an existing database; may be repeated.

    Returns:
        The connection string of the handler's role.
    """
    with psycopg.connect(dsn) as connection:
        connection.execute(_SCHEMA)
    return roles.create(dsn, role, password, _UPDATABLE)


def seed(dsn: str, calls: Iterable[Call]) -> None:
    """Writes the rows of these calls in one transaction; the table must not hold them yet."""
    with (
        psycopg.connect(dsn) as connection,
        connection.cursor() as cursor,
        cursor.copy("COPY calls FROM STDIN") as copy,
    ):
        for call in calls:
            copy.write_row(_row(call))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ANALYZE")  # a fresh table has no statistics, and is scanned whole


def _row(call: Call) -> tuple[object, ...]:
    return (
        call.id,
        call.phone,
        call.started_at,
        call.agent,
        call.recording and call.recording.key,
        call.transcript and call.transcript.key,
        call.suspended_by,
        call.started_at if call.suspended_by else None,
    )
