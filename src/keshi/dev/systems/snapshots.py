"""Copies of all rows of the reference systems, read past every handler, with own connections."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from keshi.dev.systems.site import Settled

Row = dict[str, Any]
Rows = dict[str, Row]

_KEYS = {"customers": "customer_id"}


@dataclass(frozen=True)
class Snapshot:
    """All rows of all systems: system → reference (`table:id`) → row."""

    systems: dict[str, Rows] = field(repr=False)

    def bystanders_hash(self, system: str, excluding: AbstractSet[str]) -> str:
        """SHA-256 over the rows of a system in the order of their references, without those excluded.

        Args:
            system: as the inventory calls it.
            excluding: references of the records that something was to happen to.
        """
        digest = hashlib.sha256()
        rows = self.systems[system]
        for ref in sorted(rows.keys() - excluding):
            digest.update(_bytes({"ref": ref, "row": rows[ref]}) + b"\n")
        return digest.hexdigest()


def snapshot(systems: Iterable[Settled]) -> Snapshot:
    """Reads every record of every system, each in one consistent view; writes nothing.

    Tables that nobody planned are read too, so that a copy put aside does not go unseen.
    """
    return Snapshot({settled.system: settled.rows() for settled in systems})


def sql_rows(dsn: str) -> Rows:
    """Every row of every table of a PostgreSQL database, by its owner (a handler's role may not see every table)."""
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SET LOCAL TIME ZONE 'UTC'")
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
        ).fetchall()
        rows: Rows = {}
        for table in tables:
            own = "" if table["schemaname"] == "public" else f"{table['schemaname']}."
            name = sql.Identifier(table["schemaname"], table["tablename"])
            found = connection.execute(sql.SQL("SELECT * FROM {}").format(name))
            rows |= _referenced(own + table["tablename"], found)
    return rows


def file_rows(path: Path) -> Rows:
    """Every row of every table of a SQLite file, whether its process runs or not."""
    address = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as store:
        store.row_factory = sqlite3.Row
        store.execute("BEGIN")
        tables = store.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
        )
        rows: Rows = {}
        for (table,) in tables.fetchall():
            quoted = table.replace('"', '""')
            found = store.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608 - a name out of the store's own catalogue
            rows |= _referenced(table, (dict(row) for row in found))
    return rows


def _referenced(table: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Row]]:
    """Rows as plain JSON values, each under its reference; one without an id under a hash of its content."""
    alike: Counter[str] = Counter()
    for row in rows:
        plain = {name: _plain(value) for name, value in row.items()}
        key = plain.get(_KEYS.get(table, "id"))
        if key is None:
            content = hashlib.sha256(_bytes(plain)).hexdigest()
            alike[content] += 1
            key = f"{content}.{alike[content]}"
        yield f"{table}:{key}", plain


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value.isoformat() if isinstance(value, date) else repr(value)  # a datetime is a date, too


def _bytes(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
